"""ImageNet-100 to shards: ``python data_prep/imagenet100.py raw=DIR out=DATA [classes=FILE]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.imagenet100 import Imagenet100Config, write_imagenet100

if __name__ == "__main__":
    run_program("imagenet100_data", Imagenet100Config, write_imagenet100)
