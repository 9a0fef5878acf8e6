"""Make the embedded benchmark: ``python data_prep/sprites.py out=DIR [seed=0] [sizes.motion_train=1000] ...``."""

from __future__ import annotations

import logging
from pathlib import Path

from mmjepa.config import run_program
from mmjepa.data.manifest import Manifest
from mmjepa.data.sprites.benchmark import SpritesConfig, make_benchmark
from mmjepa.data.sprites.contact_sheet import write_contact_sheet

LOG = logging.getLogger(__name__)


def main(config: SpritesConfig) -> None:
    """Render the embedded benchmark "sprites" into WebDataset shards of .mp4, .jpg and JSON."""
    for folder in make_benchmark(config):
        manifest = Manifest.read(folder)
        LOG.info("%s: %d samples, fingerprint %s", folder, manifest.samples, manifest.fingerprint[:12])
        if config.contact_sheets:
            sheet = Path(config.out) / "contact-sheets" / f"{folder.name}.png"
            write_contact_sheet(folder, sheet)
            LOG.info("%s: contact sheet", sheet)


if __name__ == "__main__":
    run_program("sprites_data", SpritesConfig, main)
