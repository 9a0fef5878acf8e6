"""MSVD to shards: ``python data_prep/msvd.py raw=DIR out=DATA`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.preparation.options import VideoPreparationConfig
from mmjepa.data.sources.msvd import write_msvd

if __name__ == "__main__":
    run_program("msvd_data", VideoPreparationConfig, write_msvd)
