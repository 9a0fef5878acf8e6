"""How fast a training step is: the engine's own step, fed with random clips that are there already."""

from __future__ import annotations

import platform
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmjepa.data.samples import ClipBatch
from mmjepa.errors import UserError
from mmjepa.models import ModelConfig, build_video_jepa
from mmjepa.training.cost import Parameters, clip_activation_bytes, clip_flops, state_bytes
from mmjepa.training.engine import Trainer
from mmjepa.training.flops import BACKWARD, flop_counter, measured_peak, trunk_flops
from mmjepa.training.launch import device, processes
from mmjepa.training.plan import expected_masks
from mmjepa.training.pretrain import PretrainBatch, PretrainParts, PretrainTask
from mmjepa.training.program import PretrainConfig
from mmjepa.training.run_folder import RunFolder
from mmjepa.training.task import Layout
from mmjepa.training.timing import take_turns

PROFILE_ROWS = 20


@dataclass
class BenchmarkConfig(PretrainConfig):
    """A training configuration, of which ``repeats`` steps are timed after ``warmup`` (nothing is read or saved).

    against: ``transformers`` also times our encoder and HF transformers' V-JEPA 2 encoder of the same sizes, forward
    and backward on the same clips, taking turns. count: one more step, untimed, of which torch counts the FLOPs, and
    the cost model's predictions beside what was measured. profile: one more, of which the operations' shares of the
    processors' own time are told. out: .json file (null: print only).
    """

    warmup: int = 2
    repeats: int = 7
    against: str | None = None
    count: bool = False
    profile: bool = False
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 1 or self.repeats < 1:
            raise UserError("warmup and repeats must be at least 1")
        if self.against not in (None, "transformers"):
            raise UserError(f"against={self.against}: only transformers, or null")


class SyntheticTask(PretrainTask):
    """Pretraining on one batch of random clips; masks are drawn anew for every step, as in training."""

    def batches(self, start_step: int, layout: Layout) -> Iterator[Sequence[PretrainBatch]]:
        """See :meth:`Task.batches`."""
        model, rows = self.parts.model, layout.micro_rows(self.config.batch_size)
        size = rows[0].stop - rows[0].start
        generator = torch.Generator().manual_seed(layout.rank)
        pixels = torch.randn(size, 3, model.frames, model.resolution, model.resolution, generator=generator)
        clips, whole = _clips(pixels), _clips(pixels.repeat(layout.accumulation, 1, 1, 1, 1))
        for step in range(start_step, self.config.steps):
            masks = self._masks(step, model.grid(model.frames), whole, rows)
            yield [PretrainBatch(step, clips, part) for part in masks]


def measure_step(config: BenchmarkConfig) -> dict[str, Any]:
    """Step time, clips/s, memory, and arithmetic against the device's matrix peak, measured in the same run."""
    with tempfile.TemporaryDirectory() as folder, processes(config.accumulation) as layout:
        steps = config.warmup + config.repeats
        here = replace(config, run=folder, steps=max(steps + 2, config.optimizer.warmup_steps + 1))
        run = RunFolder(Path(folder))
        run.open(here, layout.world)
        before = _memory()
        task = SyntheticTask(here, PretrainParts(**here.parts()), device())
        trainer = Trainer(here, task, layout, run)
        batches = task.batches(0, layout)
        step = {"step": lambda: trainer.optimiser_step(next(batches))}
        times = take_turns(step, config.warmup, config.repeats, device())["step"]
        flops, memory = trainer.flops / steps, _memory() - before
        counted = _counted(trainer, next(batches)) if config.count else {}
        shares = {"profile": _profiled(lambda: trainer.optimiser_step(next(batches)))} if config.profile else {}
        peak = measured_peak(torch.bfloat16 if config.precision == "bf16" else torch.float32, device())
        seconds = statistics.median(times)
        return {
            "model": config.model.name if config.model else None,
            "objective": config.objective.name if config.objective else None,
            "precision": config.precision,
            "batch_size": config.batch_size,
            "ranks": layout.world,
            "threads": torch.get_num_threads(),
            "parameters": Parameters.of(task.parts.model, task.parts.objective).trained,
            "tokens_per_clip": task.parts.model.grid(task.parts.model.frames).size,
            "seconds_per_step": seconds,
            "fastest": min(times),
            "slowest": max(times),
            "clips_per_s": config.batch_size / seconds,
            "memory_gib": memory / 2**30,
            "gflop_per_step": flops / 1e9,
            "gflop_per_s": flops / seconds / 1e9,
            "peak_gflop_per_s": peak / 1e9,
            "share_of_peak": flops / seconds / layout.world / peak,
            **counted,
            **shares,
        }


def _profiled(step: Callable[[], None]) -> dict[str, float]:
    """Share of the time that each operation of one step takes on the CPU by itself, the largest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    largest = sorted(times.items(), key=lambda item: -item[1])[:PROFILE_ROWS]
    return {name: value / sum(times.values()) for name, value in largest}


def _counted(trainer: Trainer, micro_batches: Sequence[PretrainBatch]) -> dict[str, float]:
    """FLOPs that torch counts in one step, what the cost model says of the same masks, and of the configuration."""
    task, config, layout = trainer.task, trainer.config, trainer.layout
    assert isinstance(task, SyntheticTask)
    known = trainer.flops
    with flop_counter() as counter:
        trainer.optimiser_step(micro_batches)
    micro, parts = len(micro_batches[0].clips), task.parts
    masks = expected_masks(parts.model, parts.masking, parts.masking.group_size(config.batch_size, micro), config.seed)
    parameters, grid = Parameters.of(parts.model, parts.objective), parts.model.grid()
    stage = config.deepspeed.stage_on(layout.world)
    state = state_bytes(parameters, config.ema is not None, config.precision, stage, layout.world)
    stop_gradient = parts.objective.stop_gradient
    kept = micro * clip_activation_bytes(parts.model, grid, masks, config.precision, stop_gradient)
    flops = clip_flops(parts.model, parameters.heads, grid, masks, stop_gradient)
    return {
        "counted_gflop": counter.get_total_flops() / 1e9,
        "predicted_gflop": (trainer.flops - known) / layout.world / 1e9,
        "planned_gflop": config.batch_size * flops / layout.world / 1e9,
        "predicted_memory_gib": (state + kept) / 2**30,
    }


def machine() -> dict[str, Any]:
    """What a time depends on beside the code: device, threads, date."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if place == "cuda" else _processor()
    date = datetime.now(timezone.utc).date().isoformat()
    return {"device": name, "threads": torch.get_num_threads(), "date": date}


def compare_with_transformers(config: BenchmarkConfig) -> dict[str, Any]:
    """Forward and backward of our encoder and of transformers' V-JEPA 2 on the same clips: medians and their ratio."""
    assert config.model is not None
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = build_video_jepa(config.model).encoder.to(place)
    theirs = _transformers_encoder(config.model).to(place)
    generator = torch.Generator().manual_seed(0)
    side, frames = config.model.resolution, config.model.frames
    pixels = torch.randn(config.batch_size, 3, frames, side, side, generator=generator).to(place)
    by_frame = pixels.transpose(1, 2).contiguous()

    def run_ours() -> None:
        _forward_backward(ours, lambda: ours(pixels)[..., -1, :], place, config.precision)

    def run_theirs() -> None:
        _forward_backward(theirs, lambda: theirs(by_frame).last_hidden_state, place, config.precision)

    times = take_turns({"ours": run_ours, "transformers": run_theirs}, config.warmup, config.repeats, place)
    ours_s, theirs_s = (statistics.median(times[name]) for name in ("ours", "transformers"))
    tokens, model = config.model.grid(frames).size, config.model
    work = (1 + BACKWARD) * config.batch_size * trunk_flops(tokens, model.width, model.depth, model.mlp_ratio)
    return {
        "encoder_seconds": ours_s,
        "transformers_seconds": theirs_s,
        "ratio": ours_s / theirs_s,
        "gflop": work / 1e9,
        "times": times,
    }


def _transformers_encoder(model: ModelConfig) -> nn.Module:
    from transformers import VJEPA2Config  # only here: training does without transformers
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

    config = VJEPA2Config(
        patch_size=model.patch,
        crop_size=model.resolution,
        frames_per_clip=model.frames,
        tubelet_size=model.tubelet,
        hidden_size=model.width,
        num_attention_heads=model.heads,
        num_hidden_layers=model.depth,
        mlp_ratio=model.mlp_ratio,
    )
    config._attn_implementation = "sdpa"  # what from_pretrained would choose
    return VJEPA2Encoder(config)


def _forward_backward(network: nn.Module, forward: Any, place: torch.device, precision: str) -> None:
    with torch.autocast(place.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        out: Tensor = forward()
    out.float().square().mean().backward()
    network.zero_grad(set_to_none=True)


def _memory() -> float:
    """Peak bytes so far: of the device's allocator on a GPU, of the process on a CPU."""
    if device().type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _processor() -> str:
    """The CPU's name where Linux tells it, else its architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def _clips(pixels: Tensor) -> ClipBatch:
    count, frames = len(pixels), pixels.shape[2]
    keys = [f"random-{number}" for number in range(count)]
    return ClipBatch(
        stored=pixels,
        timestamps=torch.arange(frames).float().expand(count, frames),
        frame_mask=torch.ones(count, frames, dtype=torch.bool),
        metas=[{} for _ in keys],
        keys=keys,
    )
