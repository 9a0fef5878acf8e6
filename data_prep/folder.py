"""Loose files to shards: ``python data_prep/folder.py raw=DIR_OR_CSV out=DATA/my-train [name=my]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.listing import ListingConfig, write_listing

if __name__ == "__main__":
    run_program("folder_data", ListingConfig, write_listing)
