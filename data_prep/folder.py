"""Loose files to shards: ``python data_prep/folder.py raw=DIR_OR_CSV out=DATA/my-train [name=my]``."""

from mmjepa.config import run_program
from mmjepa.data.listing import ListingConfig, write_listing


def main(config: ListingConfig) -> None:
    """Write a folder of class folders, or the files of a CSV (path, label, caption), as WebDataset shards."""
    write_listing(config)


if __name__ == "__main__":
    run_program("folder_data", ListingConfig, main)
