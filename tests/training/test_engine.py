"""The engine on the toy task: learning, accumulation, precision, resuming, and refusing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import HERE, Train, read_curve, start
from safetensors.torch import load_file

from mmjepa.errors import UserError
from mmjepa.training.launch import _free_port
from mmjepa.training.stopping import STOPPED_EXIT_CODE

TOY = HERE / "toy.py"
DEEPSPEED = Path(sys.executable).with_name("deepspeed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the default toy settings, in a process of its own."""
    run = tmp_path_factory.mktemp("toy") / "run"
    result = start(TOY, f"run={run}")
    assert result.returncode == 0, result.stderr
    return run


def test_learns_and_leaves_everything_behind(finished: Path) -> None:
    curve = read_curve(finished)
    assert [row["step"] for row in curve] == list(range(1, 41))
    assert sum(row["loss"] for row in curve[-10:]) < 0.7 * sum(row["loss"] for row in curve[:10])
    assert {"error", "size", "lr", "grad_norm", "ema_momentum"} <= curve[0].keys()
    assert (finished / "config.yaml").exists()
    assert (finished / "meta.json").exists()
    assert list((finished / "tensorboard").iterdir())
    assert (finished / "encoder" / "step.txt").read_text() == "40"
    kept = [path.name for path in sorted(finished.glob("checkpoints/step-*"))]
    assert kept == ["step-00000030", "step-00000040"]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_stages_share_one_curve(finished: Path, tmp_path: Path, train_toy: Train, stage: int) -> None:
    train_toy(tmp_path / "run", f"deepspeed.stage={stage}")
    for ours, reference in zip(read_curve(tmp_path / "run"), read_curve(finished), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4, abs=1e-6)


def test_clipping_can_be_left_out(tmp_path: Path, train_toy: Train) -> None:
    for name, setting in (("zero0", "null"), ("zero2", "null"), ("never", "1e9"), ("always", "1e-3")):
        stage = f"deepspeed.stage={2 if name == 'zero2' else 0}"
        train_toy(tmp_path / name, "steps=8", stage, f"+optimizer.max_grad_norm={setting}", "+optimizer.eps=0.1")
    curves = {path.name: read_curve(path) for path in tmp_path.iterdir()}
    assert curves["zero0"] == curves["never"] != curves["always"]
    for zero2, zero0 in zip(curves["zero2"], curves["zero0"], strict=True):
        assert zero2 == pytest.approx(zero0, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_accumulation_is_the_larger_batch(finished: Path, tmp_path: Path, train_toy: Train, stage: int) -> None:
    train_toy(tmp_path / "run", "accumulation=2", f"deepspeed.stage={stage}")
    for ours, reference in zip(read_curve(tmp_path / "run"), read_curve(finished), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4, abs=1e-6)


def test_bf16_computes_in_bf16_and_keeps_fp32_parameters(tmp_path: Path, train_toy: Train) -> None:
    task = train_toy(tmp_path / "run", "precision=bf16", "steps=6")
    assert task.seen_dtype == torch.bfloat16
    assert {parameter.dtype for parameter in task.parameters()} == {torch.float32}
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000006" / "task.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_killed_run_continues_exactly(tmp_path: Path, train_toy: Train, stage: int) -> None:
    setting = (f"deepspeed.stage={stage}", "dropout=0.2")
    cut = tmp_path / "cut"
    assert start(TOY, f"run={cut}", *setting, TOY_SIGNAL="SIGKILL", TOY_SIGNAL_AT="27 0").returncode == -9
    assert len(read_curve(cut)) > 20  # there are rows beyond the checkpoint: they must not be doubled
    train_toy(cut, *setting)
    train_toy(tmp_path / "whole", *setting)
    assert read_curve(cut) == read_curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_request_to_stop_saves_after_the_next_row_and_the_run_continues_exactly(
    tmp_path: Path, train_toy: Train, name: str
) -> None:
    setting = ("log.every=5", "dropout=0.2")
    cut = tmp_path / "cut"
    stopped = start(TOY, f"run={cut}", *setting, TOY_SIGNAL=name, TOY_SIGNAL_AT="23 0")
    assert stopped.returncode == STOPPED_EXIT_CODE, stopped.stderr
    assert (cut / "checkpoints" / "step-00000025" / "COMPLETE").exists()
    assert not (cut / "encoder").exists()
    train_toy(cut, *setting)
    train_toy(tmp_path / "whole", *setting)
    assert read_curve(cut) == read_curve(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "code"), [("torchrun", 1), ("deepspeed", STOPPED_EXIT_CODE)])
def test_all_ranks_stop_when_one_is_asked_to(tmp_path: Path, launcher: str, code: int) -> None:
    run = tmp_path / "run"
    arguments, signals = [f"run={run}", "log.every=5"], {"TOY_SIGNAL": "SIGUSR1", "TOY_SIGNAL_AT": "23 1"}
    if launcher == "torchrun":
        stopped = start(TOY, *arguments, ranks=2, **signals)
    else:
        port = f"--master_port={_free_port()}"
        stopped = start(DEEPSPEED, "--num_accelerators=2", port, str(TOY), *arguments, **signals)
    assert stopped.returncode == code, stopped.stderr
    assert (run / "checkpoints" / "step-00000025" / "COMPLETE").exists()
    assert [row["step"] for row in read_curve(run)] == [5, 10, 15, 20, 25]


@pytest.mark.slow
def test_an_error_of_all_ranks_is_told_once(finished: Path, tmp_path: Path) -> None:
    before = (finished / "meta.json").read_text()
    (tmp_path / "file").touch()
    another_width = [f"run={finished}", "width=32"]
    indivisible = [f"run={tmp_path / 'run'}", "batch_size=3"]
    seen_by_the_first_alone = [f"run={tmp_path / 'file' / 'run'}"]
    before_they_join = [f"run={tmp_path / 'run'}", "nonsense=1"]  # here 5 s later on the rank that tells it
    for arguments in (another_width, indivisible, seen_by_the_first_alone, before_they_join):
        late = {"TOY_LATE_RANK": "0"} if arguments is before_they_join else {}
        result = start(TOY, *arguments, ranks=2, **late)
        assert result.returncode != 0
        assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1, result.stderr
    assert (finished / "meta.json").read_text() == before
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks_share_the_curve_of_one_and_skip_together(tmp_path: Path, train_toy: Train) -> None:
    settings = ("bad_at=[8]", "log.every=4")
    train_toy(tmp_path / "one", *settings)
    result = start(HERE / "toy_stages.py", str(tmp_path), *settings, ranks=2)
    assert result.returncode == 0, result.stderr
    for stage in (0, 1, 2, 3):
        run = tmp_path / f"zero{stage}"
        (skipped,) = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
        assert skipped["keys"] == [f"row-{row}" for row in range(8, 16)]  # of the rank that met it
        for ours, reference in zip(read_curve(run), read_curve(tmp_path / "one"), strict=True):
            assert ours == pytest.approx(reference, rel=1e-4, abs=1e-6)


def test_what_a_kill_left_half_written_is_ignored_and_removed(finished: Path, tmp_path: Path, train_toy: Train) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "checkpoints" / "step-00000040" / "COMPLETE").unlink()
    (run / "checkpoints" / "step-00000035.tmp").mkdir()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    train_toy(run)
    assert read_curve(run) == read_curve(finished)
    assert [path.name for path in sorted(run.glob("checkpoints/step-*"))] == ["step-00000030", "step-00000040"]


def test_a_finished_run_is_left_as_it_is(finished: Path, tmp_path: Path, train_toy: Train) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    train_toy(run, "checkpoint.keep_last=1", "log.every=7", "+health.every=3")  # settings that may change
    assert read_curve(run) == read_curve(finished)
    meta = json.loads((run / "meta.json").read_text())
    assert meta["world"] == 1
    assert len(meta["continued"]) == 1


def test_another_configuration_is_refused_by_name(finished: Path) -> None:
    result = start(TOY, f"run={finished}", "width=32", "optimizer.lr=0.5")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "optimizer.lr=0.01 there, 0.5 here" in result.stderr
    assert "width=16 there, 32 here" in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["parameters"].update({"network.0.weight": [32, 12]}),
            "network.0.weight is .32, 12. there",
        ),
        (lambda state: state.pop("format"), "written by another version"),
        (lambda state: state["data"].update(videos="0123"), "other data: videos differ"),
    ],
    ids=["shape", "format", "data"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    finished: Path, tmp_path: Path, train_toy: Train, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "checkpoints" / "step-00000040" / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match=message):
        train_toy(run)


class _Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("file", ["rank-00000.safetensors", "task.safetensors", "state.json"])
def test_pickled_code_in_a_checkpoint_is_not_run(finished: Path, tmp_path: Path, train_toy: Train, file: str) -> None:
    run, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(finished, run)
    torch.save({"module": _Payload(mark)}, run / "checkpoints" / "step-00000040" / file)
    with pytest.raises(UserError, match=r"step-00000040 is damaged .*; remove it to continue"):
        train_toy(run)
    assert not mark.exists()
