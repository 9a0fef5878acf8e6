"""Sizes of a Video-JEPA: what is saved beside the weights, and what a checkpoint of another shape is refused by."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmjepa.errors import UserError
from mmjepa.models.grid import TokenGrid

RECOMPUTE = ("nothing", "hidden", "blocks")


@dataclass
class PredictorConfig:
    """The narrow transformer that fills in target tokens."""

    width: int = 256
    depth: int = 8
    heads: int = 8


@dataclass
class ModelConfig:
    """An encoder, its clip geometry, and its predictor.

    ``recompute`` says which activations of the trained blocks the backward pass computes again instead of keeping:
    ``nothing`` but what is as good as free, the ``hidden`` layers of MLPs (a third to two fifths of what is kept, for
    some 5 % more arithmetic), or whole ``blocks`` (all but one stream each, for some 14 %; ``dry_run`` tells).
    """

    name: str = "base"
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    levels: int = 4
    frames: int = 16
    resolution: int = 224
    tubelet: int = 2
    patch: int = 16
    recompute: str = "nothing"
    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    def __post_init__(self) -> None:
        for where, config in (("model", self), ("model.predictor", self.predictor)):
            for name in ("width", "depth", "heads", "levels", "frames", "resolution", "tubelet", "patch"):
                if getattr(config, name, 1) < 1:
                    raise UserError(f"{where}.{name} must be at least 1, not {getattr(config, name)}")
        if self.recompute not in RECOMPUTE:
            raise UserError(f"model.recompute must be one of {', '.join(RECOMPUTE)}, not {self.recompute!r}")
        if self.mlp_ratio <= 0:
            raise UserError(f"model.mlp_ratio must be above 0, not {self.mlp_ratio}")
        for part, width, heads in (
            ("encoder", self.width, self.heads),
            ("predictor", self.predictor.width, self.predictor.heads),
        ):
            if width % heads or (width // heads) % 2:
                raise UserError(f"model: {part} width {width} does not divide into {heads} heads of even width")
            if width // heads < 6:
                raise UserError(
                    f"model: {part} heads of width {width // heads} leave no channels for 3-D rotary positions"
                )
        if self.depth % self.levels:
            raise UserError(f"model: depth {self.depth} is not a multiple of the {self.levels} output levels")
        self.grid()

    def grid(self, frames: int | None = None) -> TokenGrid:
        """Token grid of a clip of ``frames`` (default: the training clip); 1 frame is a still image."""
        return TokenGrid.of_clip(frames or self.frames, self.resolution, self.resolution, self.tubelet, self.patch)

    @property
    def taps(self) -> tuple[int, ...]:
        """0-based indices of the blocks whose output is a level: evenly spread, the last block always among them."""
        stride = self.depth // self.levels
        return tuple(range(stride - 1, self.depth, stride))
