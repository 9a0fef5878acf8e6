"""UCF-101 to shards: ``python data_prep/ucf101.py raw=DIR out=DATA [fold=2]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.ucf101 import Ucf101Config, write_ucf101

if __name__ == "__main__":
    run_program("ucf101_data", Ucf101Config, write_ucf101)
