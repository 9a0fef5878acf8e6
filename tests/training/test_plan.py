"""The dry run and the cost model behind it, against what is counted while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from clips import SIDE, write_splits
from torch import Tensor

from mmjepa.config import load_config
from mmjepa.data.samples import ClipBatch
from mmjepa.errors import UserError
from mmjepa.models import transformer
from mmjepa.objectives import Latents
from mmjepa.training.benchmark import BenchmarkConfig, SyntheticTask
from mmjepa.training.cost import (
    MaskLengths,
    Parameters,
    block_again_bytes,
    clip_activation_bytes,
    repeated_flops,
    state_bytes,
)
from mmjepa.training.flops import flop_counter
from mmjepa.training.launch import device
from mmjepa.training.plan import expected_masks, plan
from mmjepa.training.pretrain import PretrainBatch, PretrainParts
from mmjepa.training.program import TrainConfig, train
from mmjepa.training.task import Layout

GEOMETRY = ["model.frames=8", "model.resolution=96", "data.frames=8", "data.resolution=96", "batch_size=4"]


def bytes_kept(compute: Callable[[], object], apart_from: Iterable[Tensor]) -> int:
    """Bytes of all distinct storages that autograd keeps for the backward pass of ``compute``."""
    known = {tensor.untyped_storage().data_ptr() for tensor in apart_from}
    kept: dict[int, Tensor] = {}
    hooks = torch.autograd.graph.saved_tensors_hooks

    def seen(saved: Any) -> Any:
        if isinstance(saved, Tensor):
            kept[saved.untyped_storage().data_ptr()] = saved  # held, so that no address is used twice
        return saved

    def inner_hooks(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> Any:
        return hooks(lambda tensor: seen(pack(tensor)), unpack)  # within hooks the outer ones see nothing

    with (
        hooks(seen, lambda tensor: tensor),
        mock.patch.object(torch.autograd.graph, "saved_tensors_hooks", inner_hooks),
    ):
        alive = compute()
    assert alive is not None
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known)


def synthetic(folder: Path, *overrides: str) -> tuple[SyntheticTask, PretrainBatch]:
    config = load_config("benchmark_step", BenchmarkConfig, [f"run={folder}", *GEOMETRY, *overrides])
    task = SyntheticTask(config, PretrainParts(**config.parts()), device())
    (batch,) = next(task.batches(0, Layout()))
    return task, batch


def lengths(batch: PretrainBatch) -> list[MaskLengths]:
    return [MaskLengths(mask.context.shape[1], mask.target.shape[1]) for mask in batch.masks]


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ("nano", ()),
        ("tiny", ()),
        ("tiny", ("ema=null", "objective.stop_gradient=false")),
        ("tiny", ("model.recompute=hidden",)),
        ("tiny", ("model.recompute=blocks",)),
    ],
)
def test_predicted_activations_are_what_autograd_keeps(
    one_rank: None, tmp_path: Path, size: str, settings: tuple[str, ...]
) -> None:
    task, batch = synthetic(tmp_path, f"model={size}", "precision=fp32", *settings)
    counted = bytes_kept(lambda: task(batch)["loss"], task.parameters())
    model = task.parts.model
    predicted = len(batch.clips) * clip_activation_bytes(
        model, model.grid(), lengths(batch), "fp32", task.parts.objective.stop_gradient
    )
    # Targets outlive the pass that made them because the losses look at them, not because autograd does.
    targets = len(batch.clips) * model.grid().size * model.levels * model.width * 4
    again = len(batch.clips) * block_again_bytes(model, lengths(batch), "fp32")
    assert predicted - targets - again == pytest.approx(counted, rel=0.1)


def test_predicted_activations_in_bf16(one_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "attend", torch.nn.functional.scaled_dot_product_attention)  # as on a GPU
    task, batch = synthetic(tmp_path, "model=tiny", "precision=bf16")
    counted = bytes_kept(lambda: task(batch)["loss"], task.parameters())
    parts = task.parts
    per_clip = clip_activation_bytes(parts.model, parts.model.grid(), lengths(batch), "bf16", stop_gradient=True)
    copies = 2 * Parameters.of(parts.model, parts.objective).matrices
    assert len(batch.clips) * per_clip + copies == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("objective", ["baseline", "fwm_hw_ld", "hamiltonian"])
def test_parameters_are_those_of_the_task(one_rank: None, tmp_path: Path, objective: str) -> None:
    task, _ = synthetic(tmp_path, "model=tiny", f"objective={objective}", "precision=fp32")
    counted = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    parameters = Parameters.of(task.parts.model, task.parts.objective)
    assert parameters.trained == counted
    assert parameters.encoder == sum(parameter.numel() for parameter in task.student.encoder.parameters())


def test_state_is_shared_out_by_zero() -> None:
    parameters = Parameters(encoder=600, predictor=300, objectives=100, matrices=900, heads=80)
    teacher = 600 * 4
    by_stage = [state_bytes(parameters, True, "fp32", stage, 4) - teacher for stage in range(3)]
    assert by_stage == [16_000, 8_000 + 3_000, 4_000 + 4_000]
    pieces, gathered = (4_000 + teacher) / 4, 4_000 + teacher
    assert state_bytes(parameters, True, "fp32", 3, 4) == 4_000 + pieces + gathered
    large = Parameters(encoder=2 * 10**9, predictor=0, objectives=0, matrices=0, heads=0)
    assert state_bytes(large, True, "fp32", 3, 4) == 4 * (2e9 + 1e9 + 1e9)
    assert state_bytes(parameters, False, "bf16", 0, 4) == 16_000 + 900 * 2


@pytest.mark.parametrize("masking", ["multiblock", "motion_guided"])
def test_groups_share_masks_however_they_are_cut(one_rank: None, tmp_path: Path, masking: str) -> None:
    settings = ["model=nano", f"masking={masking}", "precision=fp32", "batch_size=8", "masking.group=4"]
    config = load_config("benchmark_step", BenchmarkConfig, [f"run={tmp_path}", *GEOMETRY, *settings, "accumulation=2"])
    task = SyntheticTask(config, PretrainParts(**config.parts()), device())
    pixels = torch.rand(8, 3, 8, 96, 96, generator=torch.Generator().manual_seed(0))
    times = torch.arange(8).expand(8, 8)
    clips = ClipBatch(pixels, times / 8, times >= 0, metas=[{}] * 8, keys=list("abcdefgh"))
    grid = task.parts.model.grid()
    halves = task._masks(3, grid, clips, [slice(0, 4), slice(4, 8)])
    quarters = task._masks(3, grid, clips, [slice(first, first + 2) for first in range(0, 8, 2)])
    for mask in (0, 1):
        for half in (0, 1):
            cut = [quarters[2 * half + part][mask] for part in (0, 1)]
            assert torch.equal(halves[half][mask].context, torch.cat([one.context for one in cut]))
            assert torch.equal(halves[half][mask].target, torch.cat([one.target for one in cut]))
        assert not torch.equal(halves[0][mask].context, halves[1][mask].context)
    with pytest.raises(UserError, match=r"masking\.group=3 must divide batch_size=8"):
        task.parts.masking.__class__(group=3, masks=task.parts.masking.masks).group_size(8, 4)


@pytest.mark.parametrize("recompute", ["hidden", "blocks"])
@pytest.mark.parametrize("targets", [(), ("ema=null", "objective.stop_gradient=false")])
def test_arithmetic_that_is_repeated_is_what_torch_counts(
    one_rank: None, tmp_path: Path, recompute: str, targets: tuple[str, ...]
) -> None:
    counted = []
    for again in ("nothing", recompute):
        task, batch = synthetic(tmp_path, "model=tiny", f"model.recompute={again}", "precision=fp32", *targets)
        with flop_counter() as counter:
            task(batch)["loss"].backward()
        counted.append(counter.get_total_flops() / len(batch.clips))
    parts = task.parts
    predicted = repeated_flops(parts.model, parts.model.grid(), lengths(batch), parts.objective.stop_gradient)
    assert predicted == pytest.approx(counted[1] - counted[0], rel=0.1)


@pytest.mark.parametrize("masking", ["multiblock", "motion_guided"])
def test_expected_masks_are_those_of_training(one_rank: None, tmp_path: Path, masking: str) -> None:
    task, _ = synthetic(tmp_path, "model=nano", f"masking={masking}", "precision=fp32")
    drawn = [lengths(batch) for (batch,), _ in zip(task.batches(0, Layout()), range(64), strict=False)]
    expected = expected_masks(task.parts.model, task.parts.masking, 4, seed=5)
    for name, mask, seen in zip(task.parts.masking.masks, expected, zip(*drawn, strict=True), strict=True):
        for part in ("context", "target"):
            mean = sum(getattr(one, part) for one in seen) / len(seen)
            assert getattr(mask, part) == pytest.approx(mean, abs=5), (name, part)


def test_dry_run_tells_the_plan_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_splits(tmp_path)
    data = ["data=sprites", f"data.root={root}", "data.frames=8", f"data.resolution={SIDE}"]
    model = ["model=nano", "model.frames=8", f"model.resolution={SIDE}"]
    run = tmp_path / "run"
    keep = ["checkpoint.every=50", "checkpoint.keep_every=100"]
    settings = [f"run={run}", *model, *data, *keep, "batch_size=12", "steps=500", "precision=fp32", "deepspeed.stage=1"]
    config = load_config("train", TrainConfig, [*settings, "dry_run=3"])
    train(config)
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["run"].startswith(f"{run}: 500 steps of 12 clips, fp32")
    assert told["ranks"] == "3, ZeRO-1, 1 micro-batch(es) of 4 a rank"
    for ranks, stage in ((1, 0), (3, 1)):  # nothing is shared out over one rank
        alone = load_config("train", TrainConfig, [*settings, "deepspeed.stage=null"])
        assert dict(plan(alone, PretrainParts(**alone.parts()), ranks))["ranks"].startswith(f"{ranks}, ZeRO-{stage}, ")
    assert not run.exists()
    assert "every 50 steps; at most 8 of them" in told["disk"]
    assert {"parameters", "a", "arithmetic", "memory", "data"} <= told.keys()
    with pytest.raises(UserError, match="batch_size=12"):
        list(plan(config, PretrainParts(**config.parts()), 5))
    config = load_config("train", TrainConfig, [*settings, "data.clips_per_decode=4"])
    with pytest.raises(UserError, match="does not divide into 4 ranks"):
        list(plan(config, PretrainParts(**config.parts()), 4))
    with pytest.raises(UserError, match="dry_run=0"):
        load_config("train", TrainConfig, [*settings, "dry_run=0"])


@pytest.mark.parametrize(
    ("settings", "gradient"),
    [
        ([], False),
        (["ema=null"], False),
        (["ema=null", "objective.stop_gradient=false"], True),  # as published
    ],
    ids=["teacher", "no teacher", "no teacher and no stop-gradient"],
)
def test_targets_carry_gradient_only_where_the_published_form_is_asked_for(
    one_rank: None, tmp_path: Path, settings: list[str], gradient: bool
) -> None:
    task, batch = synthetic(tmp_path, "model=nano", "precision=fp32", *settings)
    seen: list[Latents] = []
    whole = task.objective.forward

    def look(views: Sequence[Latents], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen.extend(views)
        return whole(views, progress)

    task.objective.forward = look  # type: ignore[method-assign]
    task.losses(batch)["loss"].backward()
    assert seen
    assert all(view.context.requires_grad and view.clip.target.requires_grad == gradient for view in seen)
    assert all(parameter.grad is None for module in task.frozen_modules() for parameter in module.parameters())


def test_published_motion_maps_need_groups_of_as_many_clips_as_steps(one_rank: None, tmp_path: Path) -> None:
    guided = ["model=nano", "masking=motion_guided", "masking.motion.semantics=reference", "precision=fp32"]
    synthetic(tmp_path, *guided, "masking.group=4")
    with pytest.raises(UserError, match=r"needs masking\.group=4"):
        synthetic(tmp_path, *guided, "batch_size=8", "masking.group=8")
