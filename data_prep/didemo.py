"""DiDeMo to shards: ``python data_prep/didemo.py raw=DIR out=DATA [first_seconds=30]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.didemo import DidemoConfig, write_didemo

if __name__ == "__main__":
    run_program("didemo_data", DidemoConfig, write_didemo)
