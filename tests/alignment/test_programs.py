"""eval/retrieval.py and eval/probe.py on a small world: their rows, and one line and exit code 2 for bad input."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from small_world import BagOfWords, write_videos

from mmjepa.alignment.heads import AlignmentHead, HeadConfig, HeadInfo, save_head
from mmjepa.config import run_program
from mmjepa.evaluation.report.rows import load_results
from mmjepa.frozen import EncoderConfig, build_encoder
from mmjepa.text import TextConfig

EVAL = Path(__file__).resolve().parents[2] / "eval"


def load_program(name: str) -> ModuleType:
    """A program of eval/ as a module, so that its tests need no new process."""
    spec = importlib.util.spec_from_file_location(f"eval_{name}", EVAL / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def retrieval() -> ModuleType:
    module = load_program("retrieval")
    module.build_text_tower = lambda config, device: BagOfWords()  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def head(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with random weights, fitted on nothing, for the nano encoder."""
    folder = tmp_path_factory.mktemp("align") / "head"
    spec = build_encoder(EncoderConfig("own", "nano", str(checkpoint), device="cpu")).spec
    torch.manual_seed(0)
    sizes = HeadConfig(embedding=16, queries=2, heads=2, channels=16, hidden=32)
    untrained = AlignmentHead(sizes, (spec.steps, spec.spatial, spec.width), BagOfWords().width)
    info = HeadInfo("nano", spec.fingerprint, TextConfig("none", "none"), "bag_of_words", 5, 0, "info_nce", {})
    save_head(untrained, info, folder)
    return folder


def arguments(data: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    return [
        "encoder.name=nano",
        f"encoder.checkpoint={checkpoint}",
        "encoder.device=cpu",
        f"data.root={data}",
        f"out={out}",
        "resamples=50",
        *more,
    ]


def run_retrieval(
    module: ModuleType, data: Path, checkpoint: Path, head: Path, out: Path, *more: str
) -> list[dict[str, Any]]:
    base = arguments(data, checkpoint, out, f"head={head}", "splits=[squares-test]", "patterns=[random]", *more)
    run_program("retrieval", module.RetrievalConfig, module.main, base)
    return json.loads(out.read_text())["rows"]


def test_retrieval_rows(retrieval: ModuleType, data: Path, checkpoint: Path, head: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "retrieval.json"
    rows = run_retrieval(
        retrieval, data, checkpoint, head, out, "rates=[0.0,0.75]", "fills=[hold,mask,predict]", "drop_seeds=[0,1]"
    )
    results = load_results(out.parent)  # the report can read them
    assert len(results.retrieval) == len(rows) == 2 * 3 * 2 * 12  # 2 directions x 5 metrics, 2 hard negatives
    clean = [row for row in rows if row["rate"] == 0.0]
    for metric in ("R@1", "MnR", "motion_swapped"):
        assert len({(row["value"], row["low"]) for row in clean if row["metric"] == metric}) <= 2  # one per direction
    lossy = {
        (row["fill"], row["drop_seed"]): row["value"]
        for row in rows
        if row["rate"] == 0.75 and row["metric"] == "MnR" and row["direction"] == "text_to_video"
    }
    assert len(set(lossy.values())) >= 4  # fills and seeds make a difference
    assert {(row["pretrain_seed"], row["head_seed"], row["encoder"]) for row in rows} == {(7, 5, "nano")}
    assert {row["queries"] for row in rows if row["direction"] == "text_to_video"} == {32}
    example = results.examples[0]
    assert example["truth"][0].startswith("squares-test-")
    assert len(example["retrieved"]) == 5


def test_saved_queries_are_what_the_rows_say(
    retrieval: ModuleType, data: Path, checkpoint: Path, head: Path, tmp_path: Path
) -> None:
    out = tmp_path / "retrieval.json"
    rows = run_retrieval(retrieval, data, checkpoint, head, out, "rates=[0.5]", "fills=[blank]", "drop_seeds=[2]")
    queries = np.load(out.with_suffix(".npz"))
    for direction in ("text_to_video", "video_to_text"):
        values = {row["metric"]: row["value"] for row in rows if row["direction"] == direction}
        assert queries[f"random-blank-0.5-2/{direction}/R@1"].mean() == pytest.approx(values["R@1"], rel=1e-5)
        saved = queries[f"random-blank-0.5-2/{direction}/MnR"]
        assert saved.mean() == pytest.approx(values["MnR"], rel=1e-5)
        assert np.median(saved) == pytest.approx(values["MedR"])
    assert len(queries["keys"]) == 16
    assert queries["caption_video"].tolist() == [video for video in range(16) for _ in range(2)]


def refusal(capsys: pytest.CaptureFixture[str], program: str, module: ModuleType, schema: str, argv: list[str]) -> str:
    """The one line that the program leaves on stderr with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        run_program(program, getattr(module, schema), module.main, argv)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rates=[0.0,1.5]", "dropout rate 1.5"),
        ("fills=[magic]", "unknown fill 'magic'"),
        ("splits=[silent-test]", "have no captions, e.g. silent-test-000"),
        ("splits=[absent-test]", "absent-test"),
        ("head=nowhere", "no alignment head at nowhere"),
        ("encoder.levels=all", "the head was fitted on encoder nano"),
        ("encoder=raw_patches", "cannot do the fill 'predict'"),
        ("out=rows.csv", "name a .json file"),
        ("fills=[]", "fills needs at least one entry"),
    ],
)
def test_bad_input_of_retrieval_is_one_line(
    retrieval: ModuleType,
    data: Path,
    checkpoint: Path,
    head: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    base = arguments(data, checkpoint, tmp_path / "out.json", f"head={head}", "splits=[squares-test]", change)
    assert message in refusal(capsys, "retrieval", retrieval, "RetrievalConfig", base)


def test_probe_rows_and_refusals(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_program("probe")
    out = tmp_path / "probe.json"
    base = arguments(data, checkpoint, out, "tasks=[squares]", "probes=[knn]")
    run_program("probe", module.ProbeConfig, module.main, [*base, "controls=[none,single_frame]"])
    rows = load_results(tmp_path).probes
    by_control = {(row.encoder, row.control): row for row in rows}
    assert by_control["majority", "none"].value == 0.25
    assert set(by_control) == {("majority", "none"), ("nano", "none"), ("nano", "single_frame")}
    colour = by_control["nano", "none"]
    assert colour.value > 0.5  # even random weights tell colours apart
    assert (colour.train, colour.test, colour.classes, colour.pretrain_seed) == (40, 16, 4, 7)
    assert "unknown" not in capsys.readouterr().err
    for change, message in (("probes=[svm]", "probes=['svm']"), ("tasks=[absent]", "absent-train")):
        assert message in refusal(capsys, "probe", module, "ProbeConfig", [*base, change])


@pytest.mark.parametrize(
    ("tested", "message"),
    [
        ("acde", "label 1 is b in .*train, but label 1 is c in .*test: both must number one list"),
        ("abce", None),
    ],
)
def test_a_label_means_one_class_in_train_and_test(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tested: str, message: str | None
) -> None:
    """Splits that numbered their own classes would be scored as if they had numbered one list."""
    write_videos(tmp_path / "own-train", range(12), class_names="abcd")
    write_videos(tmp_path / "own-test", range(3), class_names=tested)
    module = load_program("probe")
    base = arguments(tmp_path, checkpoint, tmp_path / "probe.json", "tasks=[own]", "probes=[knn]", "controls=[none]")
    if message is None:
        run_program("probe", module.ProbeConfig, module.main, base)
    else:
        assert re.search(message, refusal(capsys, "probe", module, "ProbeConfig", base))
