"""The step benchmark, and the arithmetic it reports against what torch counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import ROOT, start

from mmjepa.config import load_config
from mmjepa.training.benchmark import BenchmarkConfig, SyntheticTask
from mmjepa.training.flops import flop_counter
from mmjepa.training.launch import device
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.task import Layout

SMALL = ["model=nano", "model.frames=8", "model.resolution=64", "data.frames=8", "data.resolution=64", "batch_size=4"]


LONG = ["model=nano", "model.depth=4", "data.resolution=224", "batch_size=2"]  # 1,568 tokens: attention is most of it


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("objective", "size"),
    [
        ("baseline", SMALL),
        ("fwm_hw_ld", SMALL),
        ("baseline", LONG),
        ("kinematic_reference", [*SMALL, "ema=null"]),  # the target encoder has a backward pass too
    ],
    ids=["short", "heads", "long", "no stop-gradient"],
)
def test_predicted_arithmetic_is_what_torch_counts(
    one_rank: None, objective: str, size: list[str], precision: str, tmp_path: Path
) -> None:
    settings = [f"run={tmp_path}", f"objective={objective}", f"precision={precision}", *size]
    config = load_config("benchmark_step", BenchmarkConfig, settings)
    task = SyntheticTask(config, PretrainParts(**config.parts()), device())
    for micro_batches, _ in zip(task.batches(0, Layout()), range(2), strict=False):
        (batch,) = micro_batches
        with flop_counter() as counter:
            task(batch)["loss"].backward()
        assert task.flops(batch) == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.slow
def test_program_prints_and_saves_figures_beside_transformers(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    program = ROOT / "eval" / "benchmark_step.py"
    result = start(program, *SMALL, "repeats=3", "against=transformers", "profile=true", f"out={out}")
    assert result.returncode == 0, result.stderr
    (figures,) = json.loads(out.read_text())["rows"]
    assert figures["ratio"] == pytest.approx(figures["encoder_seconds"] / figures["transformers_seconds"])
    assert 0 < figures["share_of_peak"] < 1.5
    assert figures["fastest"] <= figures["seconds_per_step"] <= figures["slowest"]
    assert "clips_per_s" in result.stdout
    assert "aten::mm" in figures["profile"]
    assert 0.5 < sum(figures["profile"].values()) <= 1
    assert "aten::mm" in result.stdout


@pytest.mark.slow
def test_attention_is_timed_by_length_and_way(tmp_path: Path) -> None:
    out = tmp_path / "attention.json"
    result = start(ROOT / "eval" / "benchmark_attention.py", "tokens=[24,48]", "repeats=1", f"out={out}")
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [(row["tokens"], row["way"]) for row in rows] == [
        (tokens, way) for tokens in (24, 48) for way in ("written_out", "fused", "blocks")
    ]
    assert all(0 < row["forward_ms"] < 1e4 and 0 < row["forward_backward_ms"] < 1e4 for row in rows)
    assert "written_out" in result.stdout


@pytest.mark.slow
def test_cost_grows_as_predicted_over_tokens_batch_and_model(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    sizes = ["models=[nano,sprites]", "frames=[8,16]", "batches=[2,4]", "resolution=64", "repeats=1"]
    result = start(ROOT / "eval" / "benchmark_cost.py", *sizes, "precision=fp32", "warmup=1", f"out={out}")
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [(row["model"], row["tokens_per_clip"], row["batch_size"]) for row in rows] == [
        ("nano", 64, 2), ("nano", 128, 2), ("nano", 64, 4), ("sprites", 64, 2)
    ]  # fmt: skip
    for row in rows:
        assert row["predicted_gflop"] == pytest.approx(row["counted_gflop"], rel=0.1)
        assert row["planned_gflop"] == pytest.approx(row["counted_gflop"], rel=0.3)  # masks of one step, and of many
        assert row["seconds_per_step"] > 0
        assert row["memory_gib"] > 0
    base, tokens, batch, _ = (row["counted_gflop"] for row in rows)
    assert 1.8 < tokens / base < 2.6
    assert 1.8 < batch / base < 2.2
