"""VATEX to shards: ``python data_prep/vatex.py raw=DIR out=DATA [test_list=FILE]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.vatex import VatexConfig, write_vatex

if __name__ == "__main__":
    run_program("vatex_data", VatexConfig, write_vatex)
