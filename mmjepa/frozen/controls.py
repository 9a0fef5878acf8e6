"""Control encoders that every table carries: the untrained network, and plain pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from mmjepa.errors import UserError
from mmjepa.frozen.checkpoint import ExportedEncoder, fingerprint_of
from mmjepa.frozen.protocol import FrozenSpec, LatentFill, Tokens, present_tubelets, require_fill
from mmjepa.models import ModelConfig, TokenGrid, build_video_jepa, patchify

# Side of the squares of pixels that raw patches are averaged over. At full resolution a token has several times the
# width of any encoder's: readouts spend most of an evaluation's time on it, and more parameters than on any encoder.
POOL = 2


def untrained_like(exported: ExportedEncoder, seed: int) -> ExportedEncoder:
    """A network of the same architecture and pixel normalisation with freshly drawn weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_video_jepa(exported.model.config)
    architecture = [[name, list(value.shape)] for name, value in model.state_dict().items()]
    return ExportedEncoder(
        model=model,
        targets=exported.targets,
        factors=exported.factors,
        fingerprint=fingerprint_of(
            "random_init",
            torch.__version__,
            architecture,
            str(exported.model.config),
            seed,
            exported.mean,
            exported.std,
            exported.targets,
        ),
        mean=exported.mean,
        std=exported.std,
        seed=seed,
    )


class RawPatches:
    """Flattened pixel tubelets, averaged over 2 x 2 pixels, as tokens: what a readout finds without any encoder.

    Masks by leaving tubelets out. Raises UserError if the patches do not divide into such squares.
    """

    def __init__(
        self,
        config: ModelConfig,
        name: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device | str = "cpu",
    ) -> None:
        if config.patch % POOL:
            raise UserError(
                f"encoder kind raw_patches: patch={config.patch} does not divide into {POOL} x {POOL} pixels"
            )
        self.config, self.device = config, torch.device(device)
        self._spec = FrozenSpec(
            name=name,
            fingerprint=fingerprint_of(
                "raw_patches", POOL, config.frames, config.resolution, config.tubelet, config.patch, mean, std
            ),
            frames=config.frames,
            resolution=config.resolution,
            tubelet=config.tubelet,
            patch=config.patch,
            mean=mean,
            std=std,
            width=3 * config.tubelet * (config.patch // POOL) ** 2,
            supports=frozenset(("mask",)),
        )

    @property
    def spec(self) -> FrozenSpec:
        """Declared facts; a still image has tokens of 1 / tubelet of the declared width."""
        return self._spec

    def encode(self, pixels: Tensor, frame_mask: Tensor | None = None, fill: LatentFill | None = None) -> Tokens:
        """See :meth:`FrozenEncoder.encode`."""
        require_fill(self.spec, fill, frame_mask)
        pixels = avg_pool3d(pixels.to(self.device), (1, POOL, POOL))
        frames, height, width = pixels.shape[2:]
        grid = TokenGrid.of_clip(frames, height, width, self.config.tubelet, self.config.patch // POOL)
        tokens = patchify(pixels, grid).unflatten(1, (grid.steps, grid.spatial))
        present = torch.ones(len(pixels), grid.steps, dtype=torch.bool, device=self.device)
        if fill == "mask" and frame_mask is not None:
            present = present_tubelets(frame_mask.to(self.device), grid.tubelet)
            tokens = tokens * present[:, :, None, None]
        return Tokens(tokens, present)
