"""Video-JEPA pretraining: student, EMA teacher, masks and objectives as one task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mmjepa.data.config import DataConfig
from mmjepa.data.manifest import Manifest
from mmjepa.data.quarantine import Quarantine
from mmjepa.data.samples import ClipBatch
from mmjepa.data.stream import TrainStream
from mmjepa.errors import UserError
from mmjepa.masking import MaskingConfig, MaskSet, draw_masks, motion_map
from mmjepa.models import ModelConfig, TokenGrid, build_video_jepa, normalise_levels, standardise_clip
from mmjepa.models.transformer import Block
from mmjepa.objectives import ClipTargets, Composite, Latents, ObjectiveConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.cost import MaskLengths, clip_flops, head_weights
from mmjepa.training.ema import EmaTeacher
from mmjepa.training.export import export_encoder
from mmjepa.training.health import alarms, representation_health
from mmjepa.training.schedules import ema_momentum
from mmjepa.training.task import Layout, Task

logger = logging.getLogger(__name__)

HEALTH_SEED = 20_211
"""Of the clips that health is measured on: equal for runs of every seed, so that their measures compare."""
HEALTH_CHUNK = 16
HEALTH_TRIES = 20
MASK_STREAM = 1
"""Keeps the masks' generator apart from others that are keyed by (seed, step)."""


@dataclass
class PretrainParts:
    """What a Video-JEPA is made of and fed with."""

    model: ModelConfig
    masking: MaskingConfig
    objective: ObjectiveConfig
    data: DataConfig

    def __post_init__(self) -> None:
        for name in ("frames", "resolution"):
            model, data = getattr(self.model, name), getattr(self.data, name)
            if model != data:
                raise UserError(f"data.{name}={data} does not fit model.{name}={model}")
        with torch.device("meta"):  # finds every unknown or unfit key of the objectives, and takes no memory
            parts = Composite(self.objective, self.model).parts
        for name, part in parts.items():
            if part.needs_hidden_next and not self.masking.hides_next_steps:
                raise UserError(
                    f"objective {name} predicts places that are hidden from the next step on, and the masks of "
                    f"masking={self.masking.name} hide a place throughout: give one temporal_scale or "
                    "max_temporal_keep below 1"
                )


@dataclass(frozen=True)
class PretrainBatch:
    """Rows of a step's global batch, with the masks that were drawn for them."""

    step: int
    clips: ClipBatch
    masks: list[MaskSet]


class PretrainTask(Task):
    """Predict the teacher's tokens of hidden regions from the student's tokens of visible ones.

    The teacher is the EMA of the student's encoder. With ``ema: null`` the student's own encoder gives the targets,
    without gradient unless ``objective.stop_gradient`` is false, and is what is exported.
    """

    def __init__(self, config: TrainingConfig, parts: PretrainParts, device: torch.device) -> None:
        super().__init__(config.precision)
        self.config, self.parts, self.device = config, parts, device
        self.student = build_video_jepa(parts.model).to(device)
        self.objective = Composite(parts.objective, parts.model).to(device)
        self.teacher = EmaTeacher(self.student.encoder) if config.ema else None
        self.quarantine = Quarantine(Path(config.run) / f"quarantine-{dist.get_rank()}.jsonl")
        micro_batch = config.batch_size // (dist.get_world_size() * config.accumulation)
        self._group = parts.masking.group_size(config.batch_size, micro_batch)
        self._check_motion(config.batch_size // dist.get_world_size())
        self._health_clips: Tensor | None = None
        self._head_weights = head_weights(self.objective)

    def _check_motion(self, clips: int) -> None:
        """Raises UserError if a rank's ``clips`` of a step cannot be scaled as the reference scales motion."""
        guidance, steps = self.parts.masking.motion, self.parts.model.grid().steps
        if guidance is None or guidance.semantics == "corrected":
            return
        if self._group != steps or clips % self._group:
            raise UserError(
                f"masking.motion.semantics=reference scales step t by clip t: it needs masking.group={steps}, whole "
                f"groups on every rank (not {self._group}, of {clips} clips)"
            )

    def losses(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """See :meth:`Task.losses`; terms are named by the objectives, unweighted."""
        clips = batch.clips.to(self.device)
        masks = [MaskSet(mask.context.to(self.device), mask.target.to(self.device)) for mask in batch.masks]
        grid = self.student.encoder.grid_of(clips.pixels)
        # Targets without a teacher may carry gradient, as published (never with one: TrainConfig refuses that).
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.parts.objective.stop_gradient):
            target = normalise_levels(self.target_encoder(clips.pixels))
            if self.parts.objective.targets == "clip_standardised":
                target = standardise_clip(target)
        predictions = self.student(clips.pixels, masks)
        shared = ClipTargets(target, clips.pixels, grid)
        views = [
            Latents(
                context=prediction.context,
                context_index=mask.context,
                target_index=mask.target,
                predicted_target=prediction.at_target,
                predicted_context=prediction.at_context,
                clip=shared,
            )
            for mask, prediction in zip(masks, predictions, strict=True)
        ]
        total, terms = self.objective(views, batch.step / self.config.steps)
        return {"loss": total, **terms}

    @property
    def target_encoder(self) -> torch.nn.Module:
        """What gives the targets, is watched, and is exported."""
        return self.teacher.module if self.teacher else self.student.encoder

    def batches(self, start_step: int, layout: Layout) -> Iterator[Sequence[PretrainBatch]]:
        """See :meth:`Task.batches`. Masks are drawn for whole groups of clips, of which a micro-batch keeps its rows.

        So any number of ranks and micro-batches sees the same masks.
        """
        config = self.config
        rows = layout.micro_rows(config.batch_size)
        stream = TrainStream(
            self.parts.data,
            seed=config.seed,
            global_batch=config.batch_size,
            rank=layout.rank,
            world=layout.world,
            start_step=start_step,
            quarantine=self.quarantine,
        )
        for step, clips in enumerate(stream, start=start_step):
            masks = self._masks(step, self.parts.model.grid(clips.frames), clips, rows)
            yield [
                PretrainBatch(step, _rows(clips, part, rows[0].start), part_masks)
                for part, part_masks in zip(rows, masks, strict=True)
            ]

    def _masks(self, step: int, grid: TokenGrid, clips: ClipBatch, rows: Sequence[slice]) -> list[list[MaskSet]]:
        """Masks of this rank's micro-batches, ``rows`` of the global batch; ``clips``: all of this rank."""
        motion = self._motion(clips, grid)
        groups: dict[int, list[MaskSet]] = {}
        masks = []
        for part in rows:
            number, start = divmod(part.start, self._group)
            if number not in groups:
                entropy = (self.config.seed, step, MASK_STREAM, number)
                key = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
                generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
                here = None if motion is None else motion[number * self._group : (number + 1) * self._group]
                groups[number] = draw_masks(self.parts.masking, grid, self._group, generator, here)
            inside = slice(start, start + part.stop - part.start)
            masks.append([MaskSet(mask.context[inside], mask.target[inside]) for mask in groups[number]])
        return masks

    def _motion(self, clips: ClipBatch, grid: TokenGrid) -> Tensor | None:
        """Motion maps of the global batch (small, so every rank gets all); None if masks do not look at motion."""
        guidance = self.parts.masking.motion
        if guidance is None:
            return None
        groups = clips.pixels.split(self._group)
        mine = torch.cat([motion_map(group, grid, guidance.semantics) for group in groups]).to(self.device)
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
        return torch.cat(parts).cpu()

    def batch_keys(self, batch: PretrainBatch) -> list[str]:
        """See :meth:`Task.batch_keys`."""
        return batch.clips.keys

    def after_step(self, step: int) -> dict[str, float]:
        """Move the teacher."""
        if not self.teacher or not self.config.ema:
            return {}
        momentum = ema_momentum(self.config.ema, step, self.config.steps)
        self.teacher.update(self.student.encoder, momentum)
        return {"ema_momentum": momentum}

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Collapse measures of the target encoder's last level on fixed clips (see ``health.py``)."""
        if self._health_clips is None:
            self._health_clips = self._draw_health_clips()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            chunks = self._health_clips.to(self.device).split(HEALTH_CHUNK)
            tokens = torch.cat([self.target_encoder(chunk)[:, :, -1].float() for chunk in chunks])
        measures = representation_health(tokens)
        if dist.get_rank() == 0:
            for alarm in alarms(measures, self.parts.model.width, self.config.health):
                logger.warning("warning: %s", alarm)
        return {f"health/{name}": value for name, value in measures.items()}

    def _draw_health_clips(self) -> Tensor:
        """Pixels (clips, 3, T, H, W) from a stream of their own; videos if the data has any."""
        data = replace(self.parts.data, workers=0, clips_per_decode=1)
        stream = TrainStream(data, seed=HEALTH_SEED, global_batch=self.config.health.clips)
        for clips in islice(stream, HEALTH_TRIES):
            if clips.frames > 1:
                break
        return clips.pixels

    def counters(self) -> dict[str, float]:
        """See :meth:`Task.counters`; counted since this process started."""
        return {"decode_failures": float(self.quarantine.count)}

    def flops(self, batch: PretrainBatch) -> float:
        """See :meth:`Task.flops` and :func:`clip_flops`."""
        grid = self.parts.model.grid(batch.clips.frames)
        lengths = [MaskLengths(mask.context.shape[1], mask.target.shape[1]) for mask in batch.masks]
        stop = self.parts.objective.stop_gradient
        return clip_flops(self.parts.model, self._head_weights, grid, lengths, stop) * len(batch.clips)

    def data_fingerprints(self) -> dict[str, str]:
        """See :meth:`Task.data_fingerprints`: the manifests' fingerprints, by source."""
        data = self.parts.data
        return {name: Manifest.read(data.source_path(name)).fingerprint for name in data.sources}

    def frozen_modules(self) -> list[torch.nn.Module]:
        """See :meth:`Task.frozen_modules`: the teacher."""
        return [self.teacher.module] if self.teacher else []

    def compiled_modules(self) -> list[torch.nn.Module]:
        """See :meth:`Task.compiled_modules`: the transformer blocks of student and teacher."""
        networks = [self.student, *self.frozen_modules()]
        return [module for network in networks for module in network.modules() if isinstance(module, Block)]

    def extra_state(self) -> dict[str, Tensor]:
        """The teacher."""
        return self.teacher.state_dict() if self.teacher else {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the teacher."""
        if self.teacher:
            self.teacher.load_state_dict(state)

    def export(self, folder: Path, step: int) -> None:
        """Write the target encoder, the predictor and the objectives' heads (see ``export.py``)."""
        export_encoder(
            folder,
            encoder=self.target_encoder,
            predictor=self.student.predictor,
            heads=self.objective,
            facts={
                "model": self.parts.model,
                "masking": self.parts.masking,
                "objective": self.parts.objective,
                "mean": list(self.parts.data.mean),
                "std": list(self.parts.data.std),
                "seed": self.config.seed,
                "step": step,
                "weights": "ema" if self.teacher else "student",
            },
        )


def _rows(clips: ClipBatch, part: slice, first: int) -> ClipBatch:
    """Rows ``part`` (counted in the global batch) of this rank's clips, which begin at row ``first``."""
    local = slice(part.start - first, part.stop - first)
    return replace(
        clips,
        stored=clips.stored[local],
        timestamps=clips.timestamps[local],
        frame_mask=clips.frame_mask[local],
        metas=clips.metas[local],
        keys=clips.keys[local],
    )
