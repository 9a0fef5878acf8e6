"""What the programs write is what training and retrieval read: every published layout, from miniature to metrics."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import layouts
import pytest
import torch
from test_sources import PROGRAMS
from torch import Tensor

from mmjepa.alignment.heads import AlignmentHead, HeadConfig
from mmjepa.alignment.retrieval import Queries, embed_videos, measure
from mmjepa.config import load_config
from mmjepa.data.sources.listing import ListingConfig, write_listing
from mmjepa.evaluation.dropout import DropoutCondition
from mmjepa.frozen import EncoderConfig, build_encoder
from mmjepa.frozen.clips import open_clips
from mmjepa.text import TextTower
from mmjepa.training.program import TrainConfig, train

NANO = [
    *("model=nano", "model.width=24", "model.depth=4", "model.heads=2", "model.frames=4", "model.patch=8"),
    *("model.resolution=32", "model.predictor.width=24", "model.predictor.heads=2", "data.resolution=32"),
    *("data.frames=4", "data.workers=0", "batch_size=8", "steps=20", "optimizer.warmup_steps=2", "log.every=1"),
    *("health.every=20", "health.clips=4", "checkpoint.every=20", "precision=fp32"),
]
VIDEO_SPLITS = ("diving48", "msrvtt", "msvd", "didemo", "vatex", "folder")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts as shards, under one root."""
    raw, root = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")
    for name, (schema, program) in PROGRAMS.items():
        asked = getattr(layouts, name)(raw / name)
        settings = [f"raw={raw / name}", f"out={root}", "counts=any", "samples_per_shard=4", *asked]
        program(load_config(f"{name}_data", schema, settings))
    layouts.folder(raw / "folder")
    write_listing(ListingConfig(str(raw / "folder"), str(root / "folder-train")))
    layouts.listed(raw / "listed")
    write_listing(ListingConfig(str(raw / "listed" / "list.csv"), str(root / "listed-train")))
    return root


def pretrain(run: Path, *settings: str) -> Path:
    train(load_config("train", TrainConfig, [f"run={run}", *NANO, *settings]))
    return run


def read_curve(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def mixed(one_rank: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the mixed regime as it ships, but for the size of the model."""
    return pretrain(tmp_path_factory.mktemp("mixed") / "run", "experiment=mixed/baseline", f"data.root={data}")


def test_the_mixed_regime_trains_from_the_three_sets_it_names(mixed: Path) -> None:
    curve = read_curve(mixed)
    assert [row["step"] for row in curve] == list(range(1, 21))
    assert all(torch.isfinite(torch.tensor(row["loss"])) and row["decode_failures"] == 0 for row in curve)


def test_every_other_set_trains_too(one_rank: None, data: Path, tmp_path: Path) -> None:
    sources = {name: f"{{path: {name}-train, weight: 1}}" for name in (*VIDEO_SPLITS, "listed")}
    chosen = "data.sources={" + ", ".join(f"{name}: {source}" for name, source in sources.items()) + "}"
    curve = read_curve(pretrain(tmp_path / "run", "data=mixed", "~data.sources", f"+{chosen}", f"data.root={data}"))
    assert len(curve) == 20
    assert all(row["decode_failures"] == 0 for row in curve)


class Letters(TextTower):
    """A text tower that counts letters."""

    def __init__(self) -> None:
        super().__init__("letters", 26, 16)

    def _embed(self, texts: list[str]) -> Tensor:
        return torch.tensor([[1.0 + Counter(text)[chr(97 + letter)] for letter in range(26)] for text in texts])


@pytest.mark.parametrize(
    ("split", "videos", "captions"),
    [("msrvtt-test", 2, 2), ("msvd-test", 2, 4), ("didemo-test", 2, 2), ("vatex-test", 2, 20)],
)
def test_retrieval_sets_are_searched(data: Path, mixed: Path, split: str, videos: int, captions: int) -> None:
    encoder = build_encoder(EncoderConfig("own", "nano", str(mixed / "encoder"), device="cpu"))
    clips = open_clips([data / split], encoder.spec, batch=4, workers=0)
    clips.require("captions")
    shape = (encoder.spec.steps, encoder.spec.spatial, encoder.spec.width)
    head = AlignmentHead(HeadConfig(embedding=16, queries=2, heads=2, channels=16, hidden=32), shape, 26).eval()
    embedded = embed_videos(encoder, head, clips, [DropoutCondition(0.5, "random", "hold", 0)])
    queries = Queries(embedded.keys, embedded.metas, Letters(), head)
    assert (len(embedded.keys), len(queries.captions)) == (videos, captions)
    for found in embedded.by_condition.values():
        assert {one.metric for one in measure(found, queries)} >= {"R@1", "MnR"}


def test_probes_test_on_the_part_that_has_labels(
    data: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("eval_probe", Path(__file__).parents[3] / "eval" / "probe.py")
    assert spec is not None
    assert spec.loader is not None
    probe = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, probe)
    spec.loader.exec_module(probe)
    settings = ["encoder.name=nano", f"encoder.checkpoint={mixed / 'encoder'}", "encoder.device=cpu", "probes=[knn]"]
    settings += [f"data.root={data}", f"out={tmp_path / 'probe.json'}", "resamples=10"]
    tasks = "tasks=[ucf101,ssv2/validation,imagenet100/validation,diving48]"
    probe.main(load_config("probe", probe.ProbeConfig, [*settings, tasks]))
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    tested = {row["task"]: (row["train"], row["test"]) for row in rows if row["encoder"] == "nano"}
    assert tested == {"ucf101": (18, 6), "ssv2": (6, 3), "imagenet100": (10, 4), "diving48": (6, 3)}
