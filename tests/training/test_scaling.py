"""The simulated cluster at its limits, where the answer is known without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from programs import ROOT, start

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.training.config import DeepSpeedConfig
from mmjepa.training.scaling import ClusterConfig, ScalingConfig, Work, simulate, volume

WORK = Work(flops=4e12, trained=1_000_000_000, teacher=0, clips=8)
CLUSTER = ClusterConfig(
    gpu_peak_tflops=10,
    achieved_share=0.4,  # a step computes for 1 s
    gpus_per_node=8,
    inside_node_gbytes=100,
    between_nodes_gbytes=10,
    hop_microseconds=0,
    hidden_share=0,
    decoded_clips_per_core=100,
    cores_per_gpu=10,
    clip_megabytes=1,
    storage_gbytes=1000,
)


def test_infinite_links_and_storage_scale_linearly() -> None:
    ideal = replace(CLUSTER, inside_node_gbytes=1e15, between_nodes_gbytes=1e15, storage_gbytes=1e15)
    for gpus in (1, 8, 512):
        row = simulate(WORK, DeepSpeedConfig(), ideal, gpus)
        assert row["clips_per_s"] == pytest.approx(8 * gpus)
        assert row["efficiency"] == pytest.approx(1)


def test_a_ring_takes_what_its_slowest_link_takes() -> None:
    inside, across = (simulate(WORK, DeepSpeedConfig(), CLUSTER, gpus) for gpus in (8, 16))
    assert inside["communication_s"] == pytest.approx(2 * 4 * 7 / 8 / 100)  # 4 GB of gradients there and back
    assert across["communication_s"] == pytest.approx(2 * 4 * 15 / 16 / 10)
    assert across["step_s"] == pytest.approx(1 + 0.75)
    overlapping = replace(CLUSTER, hidden_share=0.9)
    assert simulate(WORK, DeepSpeedConfig(overlap_comm=False), overlapping, 16)["exposed_s"] == pytest.approx(0.75)
    hidden = simulate(WORK, DeepSpeedConfig(overlap_comm=True), overlapping, 16)
    assert hidden["exposed_s"] == pytest.approx(0.75 - 0.9 * 2 / 3)
    slow = simulate(WORK, DeepSpeedConfig(), replace(CLUSTER, hop_microseconds=1000), 16)
    assert slow["communication_s"] == pytest.approx(0.75 + 2 * 15 * 1e-3)


def test_zero_3_moves_the_teacher_too_and_what_is_too_much_to_keep_twice() -> None:
    by_stage = [volume(WORK, DeepSpeedConfig(stage=stage)) for stage in range(4)]
    assert by_stage == [8e9, 8e9, 8e9, 8e9]
    small = replace(WORK, trained=10**8, teacher=10**8)
    assert volume(small, DeepSpeedConfig(stage=3)) == 8e8 + 4e8
    with_teacher = volume(replace(WORK, teacher=500_000_000), DeepSpeedConfig(stage=3))
    assert with_teacher == 12e9 + 2e9


def test_data_bounds_the_step_from_where_decoding_or_storage_is_slower() -> None:
    for cores, bound, seconds in ((9, "step", 1), (7, "data", 8 / 7)):  # one clip a second and core
        cluster = replace(CLUSTER, decoded_clips_per_core=1, cores_per_gpu=cores)
        row = simulate(WORK, DeepSpeedConfig(), cluster, 1)
        assert (row["bound"], row["step_s"]) == (bound, pytest.approx(seconds))
    links = {"between_nodes_gbytes": 1e9, "inside_node_gbytes": 1e9}
    shared = replace(CLUSTER, storage_gbytes=0.1, **links)  # 100 clips a second
    assert simulate(WORK, DeepSpeedConfig(), shared, 8)["bound"] == "step"
    assert simulate(WORK, DeepSpeedConfig(), shared, 64)["clips_per_s"] == pytest.approx(100)


def test_assumptions_are_checked() -> None:
    with pytest.raises(UserError, match=r"cluster\.gpus_per_node must be above 0"):
        load_config("scaling", ScalingConfig, ["cluster.gpus_per_node=0"])
    with pytest.raises(UserError, match="shares lie in"):
        load_config("scaling", ScalingConfig, ["cluster.hidden_share=2"])


@pytest.mark.slow
def test_program_prints_assumptions_and_a_row_per_number_of_gpus(tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    result = start(ROOT / "eval" / "scaling.py", "model=tiny", "data.resolution=224", "gpus=[8,512]", f"out={out}")
    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert [row["gpus"] for row in document["rows"]] == [8, 512]
    for name, value in document["meta"]["config"]["cluster"].items():
        assert f"{name:24s} {value:g}" in result.stdout
