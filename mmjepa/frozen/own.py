"""Encoders trained here: Video-JEPA exports behind the frozen protocol, with masking and latent prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.frozen.checkpoint import ExportedEncoder, fingerprint_of
from mmjepa.frozen.protocol import (
    FrozenSpec,
    LatentFill,
    Tokens,
    equal_count_groups,
    present_tubelets,
    require_fill,
    step_tokens,
)
from mmjepa.models import ClipStatistics, VideoJEPA, normalise_levels

LEVELS = ("last", "all")
FACTORS = ("all", "appearance", "dynamics")
PRECISIONS = ("fp32", "bf16")


class FrozenVideoJEPA:
    """An exported Video-JEPA (encoder and predictor) behind the frozen protocol.

    ``levels``: ``last`` is the representation (D channels), ``all`` concatenates the output levels. ``factor`` keeps
    the appearance or the dynamics channels, split as training split them; a split across levels needs all of them.
    ``precision`` bf16 runs matrix products in bfloat16; tokens come back in float32 either way.
    """

    def __init__(
        self,
        exported: ExportedEncoder,
        name: str,
        levels: str = "last",
        factor: str = "all",
        precision: str = "fp32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.model: VideoJEPA = exported.model.to(device).eval().requires_grad_(False)
        self.clip_standardised = exported.targets == "clip_standardised"
        self.levels, self.factor, self.precision, self.device = levels, factor, precision, torch.device(device)
        self.factors = exported.factors
        if factor != "all" and levels == "last" and exported.factors.split == "across_levels":
            raise UserError(
                f"encoder.factor={factor}: this encoder's factors are split across levels; give encoder.levels=all"
            )
        config = self.model.config
        count = config.levels if levels == "all" else 1
        dynamics = exported.factors.dynamics_channels(count, config.width)
        width = {"all": count * config.width, "appearance": count * config.width - dynamics, "dynamics": dynamics}
        self._spec = FrozenSpec(
            name=name,
            fingerprint=fingerprint_of(exported.fingerprint, levels, factor, precision),
            frames=config.frames,
            resolution=config.resolution,
            tubelet=config.tubelet,
            patch=config.patch,
            mean=exported.mean,
            std=exported.std,
            width=width[factor],
            supports=frozenset(("mask", "predict")),
            pretrain_seed=exported.seed,
        )

    @property
    def spec(self) -> FrozenSpec:
        """Declared facts of this encoder."""
        return self._spec

    @torch.no_grad()  # not inference_mode: position tables are cached across calls, and must stay usable in training
    def encode(self, pixels: Tensor, frame_mask: Tensor | None = None, fill: LatentFill | None = None) -> Tokens:
        """See :meth:`FrozenEncoder.encode`."""
        require_fill(self.spec, fill, frame_mask)
        pixels = pixels.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            if fill is None or frame_mask is None:
                levels = self.model.encoder(pixels).float()
                steps = self.model.encoder.grid_of(pixels).steps
                present = torch.ones(len(pixels), steps, dtype=torch.bool, device=self.device)
            else:
                grid = self.model.encoder.grid_of(pixels)
                present = present_tubelets(frame_mask.to(self.device), grid.tubelet)
                levels = self._encode_received(pixels, present, predict=fill == "predict")
        if fill == "predict":
            present = torch.ones_like(present)
        return Tokens(self._select(levels).unflatten(1, (present.shape[1], -1)), present)

    def _encode_received(self, pixels: Tensor, present: Tensor, predict: bool) -> Tensor:
        """Levels (B, N, L, D) of the ``present`` (B, T') tubelets; the rest is predicted, or zero."""
        config, grid = self.model.config, self.model.encoder.grid_of(pixels)
        levels = torch.zeros(len(pixels), grid.size, config.levels, config.width, device=self.device)
        for group in equal_count_groups(present):
            here = step_tokens(present[group], grid.spatial)
            context = self.model.encoder(pixels[group], here)
            levels[group[:, None], here] = context.float()
            missing = step_tokens(~present[group], grid.spatial)
            if predict and missing.shape[1]:
                targets, _ = self.model.predictor(context, here, missing, grid)
                if self.clip_standardised:  # undone with the statistics of the tokens that were received
                    statistics = ClipStatistics.of(normalise_levels(context))
                    targets = targets * statistics.scale + statistics.mean
                levels[group[:, None], missing] = to_encoder_scale(targets.float(), context.float())
        return levels

    def _select(self, levels: Tensor) -> Tensor:
        """Levels (B, N, L, D) -> the chosen levels and factor (B, N, width)."""
        if self.levels == "last":
            levels = levels[:, :, -1:]
        return (
            levels.flatten(2) if self.factor == "all" else self.factors.divide(levels)[FACTORS.index(self.factor) - 1]
        )


def to_encoder_scale(predicted: Tensor, context: Tensor) -> Tensor:
    """Bring predicted targets (B, P, L, D) to the scale of the encoder's own tokens ``context`` (B, K, L, D).

    The predictor is trained towards t = (y - m) / s, where y is the encoder's output token and m, s are the mean and
    standard deviation of that token's own channels. y ends in a LayerNorm with weight w and bias b, so t already
    carries w and b: applying them once more would count them twice. What t lacks are the two numbers m and s of the
    missing token. They hardly differ between the tokens of a level (they come from one w and b and a normalised
    vector, and are constant when w is), so the mean over the clip's received tokens stands in for them.
    """
    shift = context.mean(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    scale = context.std(dim=-1, keepdim=True, unbiased=False).mean(dim=1, keepdim=True)
    return predicted * scale + shift
