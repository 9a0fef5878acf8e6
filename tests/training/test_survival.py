"""What a run survives: numbers that are not finite, a full disk, and another number of ranks."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from programs import HERE, Train, read_curve, start
from safetensors.torch import load_file
from toy import ToyConfig, ToyTask

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.training.launch import seed_everything
from mmjepa.training.schedules import learning_rate
from mmjepa.training.task import Layout

TOY = HERE / "toy.py"


def trained_by_hand(skipped: set[int]) -> torch.nn.Module:
    """The toy network after a plain loop of torch that makes no update at the steps in ``skipped``."""
    config = load_config("toy", ToyConfig, ["run=nowhere"], HERE)
    seed_everything(config.seed)
    task, rates = ToyTask(config), config.optimizer
    groups = task.parameter_groups(rates.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=rates.lr, betas=(rates.beta1, rates.beta2), eps=rates.eps)
    for step, (batch,) in enumerate(task.batches(0, Layout())):
        if step in skipped:
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(rates, step, config.steps)
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), rates.max_grad_norm or math.inf)
        optimizer.step()
    return task.network


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_step_that_is_not_finite_is_left_out_and_named(
    tmp_path: Path, train_toy: Train, caplog: pytest.LogCaptureFixture, stage: int
) -> None:
    run = tmp_path / "run"
    train_toy(run, "bad_at=[0,8]", f"deepspeed.stage={stage}", "log.every=5", "accumulation=2")
    trained = load_file(run / "checkpoints" / "step-00000040" / "rank-00000.safetensors")
    for name, reference in trained_by_hand({0, 8}).named_parameters():
        torch.testing.assert_close(trained[f"model/network.{name}"], reference.detach(), rtol=1e-4, atol=1e-6)
    curve = read_curve(run)
    assert [row["skipped_steps"] for row in curve] == [1, 2, 2, 2, 2, 2, 2, 2]
    assert all(math.isfinite(row[name]) for row in curve for name in ("loss", "error", "grad_norm", "teacher"))
    told = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert [one["step"] for one in told] == [0, 8]
    assert "row-15" in told[1]["keys"]
    assert "loss" in told[1]["not_finite"]
    assert "not finite at step 8" in caplog.text


@pytest.mark.parametrize("stage", [0, 1])
def test_too_many_skips_end_the_run_before_anything_is_saved(tmp_path: Path, train_toy: Train, stage: int) -> None:
    run = tmp_path / "run"
    settings = [f"deepspeed.stage={stage}", "bad_at=[3,11,12,13]", "log.every=7", "checkpoint.every=5"]
    with pytest.raises(UserError, match=r"loss not finite at step 13.*row-15.*4 step.* more than nonfinite.skips=3"):
        train_toy(run, *settings)
    assert [path.name for path in sorted(run.glob("checkpoints/step-*"))] == ["step-00000005", "step-00000010"]
    with pytest.raises(UserError, match="4 step"):  # counts over restarts, and skips the same steps again
        train_toy(run, *settings)
    train_toy(run, *settings, "+nonfinite.skips=4")
    train_toy(tmp_path / "whole", *settings, "+nonfinite.skips=4")
    assert read_curve(run) == read_curve(tmp_path / "whole")
    assert (run / "skipped.jsonl").read_text() == (tmp_path / "whole" / "skipped.jsonl").read_text()


@pytest.mark.slow
def test_ranks_and_stage_may_change_on_the_way(
    tmp_path: Path, train_toy: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 ranks under ZeRO-1, then 1 under ZeRO-0 with twice the micro-batches, then 2 under ZeRO-3."""
    run = tmp_path / "run"
    first = start(TOY, f"run={run}", ranks=2, TOY_SIGNAL="SIGTERM", TOY_SIGNAL_AT="13 1")
    assert first.returncode != 0
    monkeypatch.setenv("TOY_SIGNAL", "SIGTERM")
    monkeypatch.setenv("TOY_SIGNAL_AT", "26 0")
    with pytest.raises(SystemExit):
        train_toy(run, "deepspeed.stage=0", "accumulation=2")
    monkeypatch.delenv("TOY_SIGNAL_AT")
    last = start(TOY, f"run={run}", "deepspeed.stage=3", ranks=2)
    assert last.returncode == 0, last.stderr
    assert "written by 1 rank(s) under ZeRO-0, this is 2 under ZeRO-3" in last.stderr
    train_toy(tmp_path / "whole")
    for ours, reference in zip(read_curve(run), read_curve(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4, abs=1e-6)


def test_every_so_many_checkpoints_stay_for_good(tmp_path: Path, train_toy: Train) -> None:
    train_toy(tmp_path / "run", "checkpoint.every=4", "checkpoint.keep_last=2", "+checkpoint.keep_every=16")
    kept = [path.name for path in sorted((tmp_path / "run").glob("checkpoints/step-*"))]
    assert kept == ["step-00000016", "step-00000032", "step-00000036", "step-00000040"]
    with pytest.raises(UserError, match="keep_every=6 must be null or a multiple of every=4"):
        train_toy(tmp_path / "run", "checkpoint.every=4", "+checkpoint.keep_every=6")


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before(
    tmp_path: Path, train_toy: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmjepa.training import checkpoint

    run, settings = tmp_path / "run", ["width=600", "dropout=0.2"]  # a checkpoint of 100 kB
    write, limit = checkpoint.save_file, resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_on_a_full_disk(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "step-00000020" in str(path):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        try:
            write(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    monkeypatch.setattr(checkpoint, "save_file", write_on_a_full_disk)
    with pytest.raises(UserError, match=r"cannot write checkpoint .*20 \(rank 0: .*\); step-00000010 is kept"):
        train_toy(run, *settings)
    assert [path.name for path in run.glob("checkpoints/*")] == ["step-00000010"]
    monkeypatch.undo()
    train_toy(run, *settings)
    train_toy(tmp_path / "whole", *settings)
    assert read_curve(run) == read_curve(tmp_path / "whole")


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, train_toy: Train, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write into run=.*: (Not a directory|No such file or directory)"):
        train_toy(tmp_path / place)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB that is mounted for the test."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("file systems can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard, which tells too
def test_no_room_for_a_row_of_metrics_ends_in_one_line_too(small_disk: Path, train_toy: Train) -> None:
    run = small_disk / "run"
    (small_disk / "other").write_bytes(bytes(2**20 - 40_000))
    with pytest.raises(UserError, match=rf"cannot write into run={run}: No space left on device"):
        train_toy(run, "checkpoint.every=300", "steps=300")
    (small_disk / "other").unlink()
    train_toy(run, "checkpoint.every=300", "steps=300")
    assert [row["step"] for row in read_curve(run)] == list(range(1, 301))


@pytest.mark.slow
def test_a_full_disk_ends_two_ranks_in_one_line_and_room_continues_them(small_disk: Path, train_toy: Train) -> None:
    settings = ["width=3000", "checkpoint.keep_last=1"]  # checkpoints of 500 kB
    full = start(TOY, f"run={small_disk / 'run'}", *settings, ranks=2)
    assert full.returncode != 0
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in line
    assert "step-00000010 is kept" in line
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    train_toy(small_disk / "run", *settings)
    assert [row["step"] for row in read_curve(small_disk / "run")] == list(range(1, 41))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot write into run=.*: Read-only"):
        train_toy(small_disk / "run", *settings)
