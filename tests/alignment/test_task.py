"""Fitting a head: reproducible batches, one encoding per condition, held-out videos, and a planted signal found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_world import BagOfWords

from mmjepa.alignment import task as task_module
from mmjepa.alignment.config import AlignConfig, AlignParts, TrainingDropout
from mmjepa.alignment.heads import HeadConfig, load_head
from mmjepa.alignment.task import AlignTask, held_out_for_choices
from mmjepa.data.config import AugmentationConfig, DataConfig, SourceConfig
from mmjepa.errors import UserError
from mmjepa.frozen import EncoderConfig
from mmjepa.frozen.controls import RawPatches
from mmjepa.text import TextConfig
from mmjepa.training.config import OptimizerConfig, TrainingConfig
from mmjepa.training.task import Layout

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def bag_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "build_text_tower", lambda config, device: BagOfWords())


def make_task(data: Path, checkpoint: Path, features: Path, split: str = "squares-train", batch: int = 8) -> AlignTask:
    source = DataConfig(
        root=str(data),
        sources={"squares": SourceConfig(split, 1.0)},
        frames=8,
        stride=1,
        clips_per_decode=1,
        resolution=32,
        mean=[0.4, 0.4, 0.4],
        std=[0.2, 0.2, 0.2],
        augmentation=AugmentationConfig([1.0, 1.0], [1.0, 1.0], 0.0),
        workers=0,
        prefetch=1,
        max_failures_in_row=1,
    )
    align = AlignConfig(
        features=str(features),
        holdout=0.25,
        encode_batch=16,
        head=HeadConfig(embedding=16, queries=2, heads=2, channels=16, hidden=32, dropout=0.0),
        dropout=TrainingDropout(rates=[0.5], patterns=["random"], fills=["mask"]),
    )
    encoder = EncoderConfig("raw_patches", "raw_patches", str(checkpoint), device="cpu")
    config = TrainingConfig("unused", 3, 40, batch, precision="fp32", optimizer=OptimizerConfig(warmup_steps=0))
    torch.manual_seed(0)
    return AlignTask(config, AlignParts(encoder, TextConfig("none", "none"), source, align), CPU)


def test_batches_are_a_function_of_seed_and_step_and_divide_over_ranks(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    task = make_task(data, checkpoint, tmp_path)
    stream = task.batches(0, Layout())
    whole = [next(stream)[0] for _ in range(6)]
    later = next(task.batches(5, Layout()))[0]
    assert later.keys == whole[5].keys
    assert torch.equal(later.features.tokens, whole[5].features.tokens)
    assert torch.equal(later.caption, whole[5].caption)
    halves = [next(task.batches(5, Layout(rank=rank, world=2)))[0] for rank in range(2)]
    assert halves[0].keys + halves[1].keys == whole[5].keys
    assert torch.equal(torch.cat([half.text for half in halves]), whole[5].text)
    per_epoch = len(task.train_videos) // 8
    seen = [key for batch in whole[:per_epoch] for key in batch.keys]
    assert len(set(seen)) == len(seen)


def test_held_out_videos_are_never_trained_on(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    task = make_task(data, checkpoint, tmp_path)
    held_out = {key for key in task.features[0].keys if held_out_for_choices(key, 0.25)}
    assert 2 <= len(held_out) <= 20
    trained = {key for (batch,) in task.batches(0, Layout()) for key in batch.keys}
    assert not trained & held_out
    assert len(trained) == 40 - len(held_out)


def test_every_sample_carries_one_of_its_captions_and_conditions(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    task = make_task(data, checkpoint, tmp_path)
    lossy = 0
    wordings = set()
    for (batch,) in task.batches(0, Layout()):
        assert (batch.captions_of_video == batch.caption[:, None]).any(dim=1).all()
        wordings |= set(batch.caption.tolist())
        lossy += int((~batch.features.present).any(dim=1).sum())
    assert len(wordings) == 16  # 4 colours x 2 directions x 2 wordings
    assert 0 < lossy < 40 * 8


def test_features_are_encoded_once(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_task(data, checkpoint, tmp_path)

    def fail(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(RawPatches, "encode", fail)
    again = make_task(data, checkpoint, tmp_path)
    videos = list(range(40))
    assert torch.equal(again.features[1].rows(videos).tokens, first.features[1].rows(videos).tokens)


def test_fitting_finds_colours_in_held_out_videos(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)  # the head's start: other tests of the process must not decide it
    task = make_task(data, checkpoint, tmp_path / "features", batch=16)
    before = task.holdout_metrics()["text_to_video/R@1"]
    optimiser = torch.optim.AdamW(task.parameter_groups(0.01), lr=3e-3)
    for _ in range(3):  # one pass leaves some starts, and some machines, at 0.43; three bring all to 0.71
        for (batch,) in task.batches(0, Layout()):
            optimiser.zero_grad()
            task.losses(batch)["loss"].backward()
            optimiser.step()
    task.export(tmp_path / "run" / "head", step=120)
    _, info = load_head(tmp_path / "run" / "head")
    assert info.holdout["text_to_video/R@1"] > max(0.5, before)
    assert (info.encoder, info.seed, info.text_tower) == ("raw_patches", 3, "bag_of_words")


def test_videos_without_captions_and_batches_without_videos_are_refused_before_anything_is_encoded(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RawPatches, "encode", None)
    with pytest.raises(UserError, match="4 of 4 samples have no captions"):
        make_task(data, checkpoint, tmp_path, split="silent-test")
    with pytest.raises(UserError, match="batch_size=64 does not fit"):
        make_task(data, checkpoint, tmp_path, batch=64)


def test_impossible_training_dropout_is_refused() -> None:
    with pytest.raises(UserError, match=r"rate 1\.5"):
        TrainingDropout(rates=[1.5])
    with pytest.raises(UserError, match=r"unknown align\.loss"):
        AlignConfig(loss="hinge")
