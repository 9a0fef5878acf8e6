"""torch.compile of the blocks: few graphs for any number of lengths, the results of eager mode, names that stay."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from clips import SIDE, write_splits
from programs import Train
from torch import Tensor

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.models import ModelConfig, PredictorConfig, VideoJEPA, build_video_jepa
from mmjepa.models.transformer import Block
from mmjepa.training.engine import compile_blocks, run_training
from mmjepa.training.pretrain import PretrainParts, PretrainTask
from mmjepa.training.program import TrainConfig

SIZES = ModelConfig("t", 48, 4, 2, frames=8, resolution=64, patch=16, predictor=PredictorConfig(24, 2, 2))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def outcome(model: VideoJEPA, precision: str, lengths: list[tuple[int, int]]) -> list[Tensor]:
    """Predictions and gradients for masks of several lengths."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 8, 64, 64, generator=generator)
    found = []
    for context, target in lengths:
        order = torch.stack([torch.randperm(64, generator=generator) for _ in range(2)])
        masks = [(order[:, :context], order[:, context : context + target])]
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            (prediction,) = model(pixels, masks)
        prediction.at_target.float().square().mean().backward()
        found += [prediction.at_target.detach().float()]
        found += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_lengths_share_graphs_and_give_what_eager_gives(precision: str, tolerance: float) -> None:
    torch.manual_seed(0)
    model = build_video_jepa(SIZES)
    names = list(model.state_dict())
    lengths = [(20, 30), (17, 25), (33, 21), (26, 38), (9, 41)]
    eager = outcome(model, precision, lengths)
    compile_blocks([module for module in model.modules() if isinstance(module, Block)])
    compiled = outcome(model, precision, lengths[:1])
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 2  # encoder and predictor differ in width
    compiled += outcome(model, precision, lengths)[len(compiled) :]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert list(model.state_dict()) == names
    for found, expected in zip(compiled, eager, strict=True):
        assert (found - expected).norm() <= tolerance * expected.norm() + 1e-6


def settings(tmp_path: Path, run: str, *more: str) -> TrainConfig:
    data = ["data=sprites", f"data.root={tmp_path}", "data.frames=8", f"data.resolution={SIDE}", "data.workers=0"]
    model = ["model=nano", "model.frames=8", f"model.resolution={SIDE}", "model.width=48", "model.heads=2"]
    sizes = ["steps=3", "batch_size=4", "masking.group=4", "optimizer.warmup_steps=1", "log.every=1", "precision=fp32"]
    health = ["health.every=3", "health.clips=4"]
    return load_config("train", TrainConfig, [f"run={tmp_path / run}", *data, *model, *sizes, *health, *more])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_training_compiled_is_training(one_rank: None, tmp_path: Path, stage: int) -> None:
    root = write_splits(tmp_path)
    states = []
    for compile_, run in (("false", "eager"), ("true", "compiled")):
        config = settings(root, run, f"deepspeed.stage={stage}", f"compile={compile_}")
        tasks: list[PretrainTask] = []

        def build(device: torch.device, config: TrainConfig, made: list[PretrainTask]) -> PretrainTask:
            made.append(PretrainTask(config, PretrainParts(**config.parts()), device))
            return made[0]

        run_training(config, partial(build, config=config, made=tasks))
        assert tasks[0].teacher is not None
        states.append({**tasks[0].student.state_dict(), **{f"ema.{n}": p for n, p in tasks[0].extra_state().items()}})
    eager, compiled = states
    assert list(eager) == list(compiled)
    for name, expected in eager.items():
        torch.testing.assert_close(compiled[name], expected, atol=2e-3, rtol=2e-2, msg=name)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_what_cannot_be_compiled_is_refused_in_one_line(tmp_path: Path, train_toy: Train) -> None:
    with pytest.raises(UserError, match=r"compile=true does not go with deepspeed\.stage=3"):
        load_config("train", TrainConfig, ["run=unused", "compile=true", "deepspeed=zero3"])
    with pytest.raises(UserError, match="nothing to compile"):
        train_toy(tmp_path / "toy", "+compile=true")
