"""Diving-48 V2 to shards: ``python data_prep/diving48.py raw=DIR out=DATA`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.sources.diving48 import write_diving48

if __name__ == "__main__":
    run_program("diving48_data", VideoPreparationConfig, write_diving48)
