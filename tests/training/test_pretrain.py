"""``train.py`` on a nano Video-JEPA and a handful of real shards: what a user of the program sees."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clips import nano_settings, write_splits
from programs import RENDEZVOUS, ROOT, read_curve, start
from safetensors.torch import load_file
from torch import Tensor

from mmjepa.config import load_config, run_program
from mmjepa.errors import UserError
from mmjepa.frozen.checkpoint import load_exported
from mmjepa.masking import MaskSet
from mmjepa.models import TokenGrid, build_video_jepa
from mmjepa.training.cost import Parameters
from mmjepa.training.engine import run_training
from mmjepa.training.plan import checkpoint_bytes
from mmjepa.training.pretrain import PretrainParts, PretrainTask
from mmjepa.training.program import TrainConfig, train

TRAIN = ROOT / "train.py"

Pretrain = Callable[..., PretrainTask]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return nano_settings(write_splits(tmp_path_factory.mktemp("discs")))


@pytest.fixture
def pretrain(one_rank: None, settings: list[str]) -> Pretrain:
    """Pretrain in this process; returns the task as it ended."""

    def run(folder: Path, *overrides: str) -> PretrainTask:
        config = load_config("train", TrainConfig, [f"run={folder}", *settings, *overrides])
        tasks: list[PretrainTask] = []

        def build(device: torch.device) -> PretrainTask:
            tasks.append(PretrainTask(config, PretrainParts(**config.parts()), device))
            return tasks[0]

        run_training(config, build)
        return tasks[0]

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> Path:
    """A finished run of ``python train.py``."""
    run = tmp_path_factory.mktemp("pretrain") / "run"
    result = start(TRAIN, f"run={run}", *settings)
    assert result.returncode == 0, result.stderr
    return run


def test_every_term_and_measure_is_logged(finished: Path) -> None:
    curve = read_curve(finished)
    assert [row["step"] for row in curve] == list(range(1, 15))
    terms = {"predict", "context", "hard_region", "static", "orthogonal", "latent_dynamics"}
    assert terms | {"loss", "lr", "grad_norm", "ema_momentum", "decode_failures"} <= set().union(*curve)
    assert {"health/rankme", "health/channel_std", "health/between_clip_share"} <= curve[6].keys()
    timed = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < timed["flops_share"] < 1
    assert 0 <= timed["data_wait"] < 1


def test_checkpoints_are_as_large_as_the_plan_says(finished: Path, settings: list[str]) -> None:
    parts = load_config("train", TrainConfig, [f"run={finished}", *settings]).parts()
    planned = checkpoint_bytes(Parameters.of(parts["model"], parts["objective"]), teacher=True)
    size = sum(file.stat().st_size for file in finished.glob("checkpoints/step-00000014/*.safetensors"))
    assert size == pytest.approx(planned, rel=0.15)  # the rest: names and buffers, of a very small model


def test_exported_encoder_is_the_teacher(tmp_path: Path, pretrain: Pretrain) -> None:
    task = pretrain(tmp_path / "run")
    exported = load_exported(tmp_path / "run" / "encoder").model
    assert task.teacher is not None
    for name, tensor in task.teacher.module.state_dict().items():
        assert torch.equal(exported.encoder.state_dict()[name], tensor)
    assert not torch.equal(exported.encoder.norms[0].weight, task.student.encoder.norms[0].weight)
    assert load_file(tmp_path / "run" / "encoder" / "heads.safetensors")


def test_without_a_teacher_the_student_is_exported(tmp_path: Path, pretrain: Pretrain) -> None:
    task = pretrain(tmp_path / "run", "ema=null")
    exported = load_exported(tmp_path / "run" / "encoder").model
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor)


def test_micro_batches_share_the_curve(finished: Path, tmp_path: Path, pretrain: Pretrain) -> None:
    pretrain(tmp_path / "run", "accumulation=2", "objective=baseline")
    pretrain(tmp_path / "whole", "objective=baseline")
    for ours, whole in zip(read_curve(tmp_path / "run"), read_curve(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(whole, rel=2e-3, abs=1e-5)


def test_stills_among_the_batches(tmp_path: Path, pretrain: Pretrain) -> None:
    root = write_splits(tmp_path / "discs")
    task = pretrain(tmp_path / "run", "data=sprites_mixed", f"data.root={root}", "objective=baseline")
    assert all(math.isfinite(row["loss"]) for row in read_curve(tmp_path / "run"))
    fresh = build_video_jepa(task.parts.model).encoder
    assert task.teacher is not None
    for name in ("image_modality", "video_modality"):  # 1e-6 at the start: visibly larger only if that path was trained
        assert getattr(task.teacher.module, name).abs().max() > 10 * getattr(fresh, name).abs().max()


def test_cut_off_run_continues_exactly(
    finished: Path, tmp_path: Path, pretrain: Pretrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = PretrainTask._masks

    def cut_off(
        task: PretrainTask, step: int, grid: TokenGrid, pixels: Tensor, rows: list[slice]
    ) -> list[list[MaskSet]]:
        if step == 10:
            raise KeyboardInterrupt
        return draw(task, step, grid, pixels, rows)

    monkeypatch.setattr(PretrainTask, "_masks", cut_off)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "run")
    monkeypatch.undo()
    pretrain(tmp_path / "run", "model.recompute=blocks")  # as after running out of memory
    assert read_curve(tmp_path / "run") == read_curve(finished)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_with_workers_share_the_curve_of_one(
    finished: Path, tmp_path: Path, settings: list[str], stage: int
) -> None:
    # What is made again under stage 3 needs its parameters gathered again.
    zero = (f"deepspeed=zero{stage}", *(("model.recompute=hidden",) if stage == 3 else ()))
    result = start(TRAIN, f"run={tmp_path / 'run'}", *settings, "data.workers=1", *zero, ranks=2)
    assert result.returncode == 0, result.stderr
    for ours, reference in zip(read_curve(tmp_path / "run"), read_curve(finished), strict=True):
        assert ours == pytest.approx(reference, rel=2e-3, abs=1e-4)


@pytest.mark.slow
def test_deepspeed_launcher_runs_it_as_documented(tmp_path: Path, settings: list[str]) -> None:
    launcher = Path(shutil.which("deepspeed") or ROOT / ".venv" / "bin" / "deepspeed")
    run = tmp_path / "run"
    result = start(launcher, "train.py", f"run={run}", *settings, "steps=3")
    assert result.returncode == 0, result.stderr
    assert len(read_curve(run)) == 3


@pytest.mark.slow
def test_a_request_to_launcher_trainer_and_workers_leaves_time_to_save(tmp_path: Path, settings: list[str]) -> None:
    """A signal to the whole group: the launcher ends, and signals the others once more."""
    launcher = Path(shutil.which("deepspeed") or ROOT / ".venv" / "bin" / "deepspeed")
    run = tmp_path / "run"
    command = [str(launcher), "train.py", f"run={run}", *settings, "data.workers=1", "steps=4000"]
    environment = {name: value for name, value in os.environ.items() if name not in RENDEZVOUS}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    while not ((run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) > 2):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    deadline = time.monotonic() + 60
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (run / "checkpoints" / f"step-{read_curve(run)[-1]['step']:08d}" / "COMPLETE").exists()
    assert not (run / "encoder").exists()


def test_a_run_continues_where_its_data_was_moved_to_but_not_on_other_data(tmp_path: Path, pretrain: Pretrain) -> None:
    pretrain(tmp_path / "run", "steps=4")
    pretrain(tmp_path / "run", "steps=4", f"data.root={write_splits(tmp_path / 'moved')}")
    with pytest.raises(UserError, match="other data: motion, relations differ"):
        pretrain(tmp_path / "run", "steps=4", f"data.root={write_splits(tmp_path / 'other', videos=9)}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+objective.objectives.nonsense={weights: {}}", "unknown objective 'nonsense'"),
        ("objective=nonsense", "nonsense"),
        ("model.widht=3", "widht"),
        ("data.root=nowhere", "nowhere"),
        ("data.frames=8", "data.frames=8 does not fit model.frames=4"),
        ("accumulation=3", "batch_size=8 does not divide into 1 ranks x 3 micro-batches"),
        ("task=align", "task align needs the group align"),
        ("task=sing", "task 'sing' is not known"),
        ("seed=-1", "seed must not be negative"),
        ("run=''", "run must name a folder"),
        ("precision=fp8", "precision 'fp8' is not known"),
        ("model.heads=0", "model.heads must be at least 1"),
        ("model.tubelet=0", "model.tubelet must be at least 1"),
        ("optimizer.beta1=1.5", "beta1"),
        ("objective.objectives.jepa.exponent=abc", "exponent must be float"),
        ("objective.objectives.jepa.weights=5", "weights must be a mapping"),
        ("masking.masks.short.spatial_scale=[0.1]", "spatial_scale must be two numbers"),
        ("objective.stop_gradient=false", "needs ema=null"),
    ],
)
def test_bad_settings_end_in_one_line_and_code_2(
    tmp_path: Path,
    settings: list[str],
    one_rank: None,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_program("train", TrainConfig, train, [f"run={tmp_path / 'run'}", *settings, override])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()
