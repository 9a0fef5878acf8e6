"""The dry run: what a pretraining run would be, told before any device is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmjepa.data.manifest import Manifest
from mmjepa.masking import MaskingConfig, draw_masks, motion_map
from mmjepa.models import ModelConfig
from mmjepa.training.config import TrainingConfig
from mmjepa.training.cost import (
    FP32,
    MaskLengths,
    Parameters,
    clip_activation_bytes,
    clip_flops,
    repeated_flops,
    state_bytes,
)
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.task import Layout

DRAWS = 64
"""Batches of masks drawn to learn how long index lists are."""
GIB = 2**30


def expected_masks(
    model: ModelConfig, masking: MaskingConfig, group: int, seed: int, frames: int | None = None
) -> list[MaskLengths]:
    """Mean lengths of the index lists of each mask, for groups of ``group`` clips of ``frames`` (1: stills).

    Lists are made as short as the group's shortest, so their length depends on its size. Motion-guided masks are
    drawn on noise: where they lie depends on the clips, how much they hide hardly does.
    """
    frames = frames or model.frames
    grid, generator = model.grid(frames), torch.Generator().manual_seed(seed)
    motion = None
    if masking.motion is not None:
        pixels = torch.rand(group, 3, frames, model.resolution, model.resolution, generator=generator)
        motion = motion_map(pixels, grid, masking.motion.semantics)
    draws = [draw_masks(masking, grid, group, generator, motion) for _ in range(DRAWS)]
    return [
        MaskLengths(_mean([m.context.shape[1] for m in masks]), _mean([m.target.shape[1] for m in masks]))
        for masks in zip(*draws, strict=True)
    ]


def plan(config: TrainingConfig, parts: PretrainParts, ranks: int) -> Iterator[tuple[str, str]]:
    """(name, words) of everything worth knowing before ``config`` is started on ``ranks`` ranks.

    Raises UserError where training would refuse the number of ranks.
    """
    rows = Layout(0, ranks, config.accumulation).micro_rows(config.batch_size)[0]
    micro = rows.stop - rows.start
    parts.data.check_batch(config.batch_size, ranks)
    group = parts.masking.group_size(config.batch_size, micro)
    model, grid = parts.model, parts.model.grid()
    parameters = Parameters.of(model, parts.objective)
    manifests = {name: Manifest.read(parts.data.source_path(name)) for name in parts.data.sources}
    weights = {name: source.weight for name, source in parts.data.sources.items()}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    stills = sum(share for name, share in shares.items() if manifests[name].kind == "image")

    guess = "" if torch.cuda.is_available() or config.precision == "bf16" else " (GPUs may choose bf16: set precision)"
    yield "run", f"{config.run}: {config.steps:,} steps of {config.batch_size} clips, {config.precision}{guess}"
    stage = config.deepspeed.stage_on(ranks)
    yield "ranks", f"{ranks}, ZeRO-{stage}, {config.accumulation} micro-batch(es) of {micro} a rank"
    yield (
        "parameters",
        (
            f"{parameters.trained:,} trained: encoder {parameters.encoder:,}, predictor {parameters.predictor:,}, "
            f"objectives {parameters.objectives:,}"
            + ("; a teacher of the encoder's size" if config.ema else "; no teacher")
        ),
    )
    masks = expected_masks(model, parts.masking, group, config.seed)
    stop_gradient = parts.objective.stop_gradient
    flops = clip_flops(model, parameters.heads, grid, masks, stop_gradient)
    extra = repeated_flops(model, grid, masks, stop_gradient) / flops
    yield "a video", f"{grid.size:,} tokens ({grid.steps} x {grid.height} x {grid.width}), {flops / 1e9:,.1f} GFLOP"
    yield from _mask_rows(parts.masking, masks)
    if stills:
        still = model.grid(1)
        still_masks = expected_masks(model, parts.masking, group, config.seed, frames=1)
        still_flops = clip_flops(model, parameters.heads, still, still_masks, stop_gradient)
        yield "a still", f"{still.size:,} tokens ({still.height} x {still.width}), {still_flops / 1e9:,.1f} GFLOP"
        yield from _mask_rows(parts.masking, still_masks)
        flops = stills * still_flops + (1 - stills) * flops
    more = f", and {extra:.0%} more to recompute activations" if extra else ""
    yield (
        "arithmetic",
        (
            f"{flops * config.batch_size / 1e12:,.3f} TFLOP a step, "
            f"{flops * config.batch_size * config.steps / 1e15:,.1f} PFLOP in all{more}"
        ),
    )
    kept = state_bytes(parameters, config.ema is not None, config.precision, stage, ranks)
    activations = micro * clip_activation_bytes(model, grid, masks, config.precision, stop_gradient)
    yield (
        "memory per rank",
        (
            f"{(kept + activations) / GIB:,.2f} GiB: {kept / GIB:,.2f} of state, {activations / GIB:,.2f} activations "
            "(JEPA loss; buffers and fragmentation come on top)"
        ),
    )
    yield "disk", _disk(config, parameters)
    for name, manifest in manifests.items():
        passes = config.steps * config.batch_size * shares[name] / parts.data.clips_per_decode / manifest.samples
        yield (
            f"data {name}",
            (
                f"{manifest.samples:,} {manifest.kind}s in {len(manifest.shards):,} shards "
                f"({len(manifest.shards) / ranks:,.1f} a rank), {shares[name]:.0%} of the clips, decoded {passes:,.1f}x"
            ),
        )


def checkpoint_bytes(parameters: Parameters, teacher: bool) -> int:
    """What a checkpoint takes on disk: fp32 parameters, both moments of AdamW, the teacher."""
    return FP32 * (3 * parameters.trained + (parameters.encoder if teacher else 0))


def _disk(config: TrainingConfig, parameters: Parameters) -> str:
    keep, one = config.checkpoint, checkpoint_bytes(parameters, config.ema is not None) / GIB
    for_good = config.steps // keep.keep_every if keep.keep_every else 0
    most = min(keep.keep_last + 1 + for_good, -(-config.steps // keep.every))  # one more while the newest is written
    return f"{one:,.2f} GiB a checkpoint, every {keep.every:,} steps; at most {most:,} of them, {most * one:,.2f} GiB"


def _mask_rows(masking: MaskingConfig, lengths: Sequence[MaskLengths]) -> Iterator[tuple[str, str]]:
    for name, mask in zip(masking.masks, lengths, strict=True):
        yield f"  mask {name}", f"{mask.context:.0f} tokens visible, {mask.target:.0f} to predict"


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
