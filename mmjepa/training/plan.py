"""The dry run: what a pretraining run would be, told before any device is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmjepa.data.config import DataConfig
from mmjepa.data.manifest import Manifest
from mmjepa.masking import MaskingConfig, draw_masks, motion_map
from mmjepa.models import ModelConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.cost import MaskLengths, Parameters, clip_activation_bytes, clip_flops, state_bytes
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.task import Layout

DRAWS = 64
"""Batches of masks drawn to learn how long index lists are."""
GIB = 2**30


def expected_masks(model: ModelConfig, masking: MaskingConfig, group: int, seed: int) -> list[MaskLengths]:
    """Mean lengths of the index lists of each mask, for groups of ``group`` clips.

    Lists are made as short as the group's shortest, so their length depends on its size. Motion-guided masks are
    drawn on noise: where they lie depends on the clips, how much they hide hardly does.
    """
    grid, generator = model.grid(), torch.Generator().manual_seed(seed)
    motion = None
    if masking.motion is not None:
        pixels = torch.rand(group, 3, model.frames, model.resolution, model.resolution, generator=generator)
        motion = motion_map(pixels, grid, masking.motion.semantics)
    draws = [draw_masks(masking, grid, group, generator, motion) for _ in range(DRAWS)]
    return [
        MaskLengths(_mean([m.context.shape[1] for m in masks]), _mean([m.target.shape[1] for m in masks]))
        for masks in zip(*draws, strict=True)
    ]


def plan(config: TrainingConfig, parts: PretrainParts, ranks: int) -> Iterator[tuple[str, str]]:
    """(name, words) of everything worth knowing before ``config`` is started on ``ranks`` ranks.

    Raises UserError if the batch does not divide over them.
    """
    layout = Layout(0, ranks, config.accumulation)
    rows = layout.micro_rows(config.batch_size)[0]
    micro = rows.stop - rows.start
    model, grid = parts.model, parts.model.grid()
    parameters = Parameters.of(model, parts.objective)
    group = parts.masking.group_size(config.batch_size, micro)
    masks = expected_masks(model, parts.masking, group, config.seed)
    yield "run", f"{config.run}: {config.steps:,} steps of {config.batch_size} clips, {config.precision}"
    yield "ranks", f"{ranks}, ZeRO-{config.deepspeed.stage}, {config.accumulation} micro-batch(es) of {micro} a rank"
    yield (
        "parameters",
        (
            f"{parameters.trained:,} trained: encoder {parameters.encoder:,}, predictor {parameters.predictor:,}, "
            f"objectives {parameters.objectives:,}"
            + ("; a teacher of the encoder's size" if config.ema else "; no teacher")
        ),
    )
    yield "tokens per clip", f"{grid.size:,} ({grid.steps} x {grid.height} x {grid.width})"
    for name, mask in zip(parts.masking.masks, masks, strict=True):
        yield f"mask {name}", f"{mask.context:.0f} tokens visible, {mask.target:.0f} to predict"
    flops = clip_flops(model, parameters.heads, grid, masks)
    yield (
        "arithmetic",
        (
            f"{flops / 1e9:,.1f} GFLOP a clip, {flops * config.batch_size / 1e12:,.2f} TFLOP a step, "
            f"{flops * config.batch_size * config.steps / 1e15:,.1f} PFLOP in all"
        ),
    )
    kept = state_bytes(parameters, config.ema is not None, config.precision, config.deepspeed.stage, ranks)
    activations = micro * clip_activation_bytes(model, grid, masks, config.precision)
    yield (
        "memory per rank",
        (
            f"{(kept + activations) / GIB:,.2f} GiB: {kept / GIB:,.2f} of state, {activations / GIB:,.2f} activations"
            " (JEPA loss; buffers and fragmentation come on top)"
        ),
    )
    yield from _data(config, parts.data, ranks)


def _data(config: TrainingConfig, data: DataConfig, ranks: int) -> Iterator[tuple[str, str]]:
    total = sum(source.weight for source in data.sources.values())
    for name, source in data.sources.items():
        manifest = Manifest.read(data.source_path(name))
        share = source.weight / total
        passes = config.steps * config.batch_size * share / data.clips_per_decode / manifest.samples
        yield (
            f"data {name}",
            (
                f"{manifest.samples:,} {manifest.kind}s in {len(manifest.shards):,} shards "
                f"({len(manifest.shards) / ranks:,.1f} a rank), {share:.0%} of the clips, decoded {passes:,.1f} times"
            ),
        )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
