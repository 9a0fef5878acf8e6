"""Something-Something V2 to shards: ``python data_prep/ssv2.py raw=DIR out=DATA [splits=[train]]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.ssv2 import Ssv2Config, write_ssv2

if __name__ == "__main__":
    run_program("ssv2_data", Ssv2Config, write_ssv2)
