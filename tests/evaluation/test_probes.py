"""The probes themselves are probed: planted signals they must read, noise they must not, and independent oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from mmjepa.errors import UserError
from mmjepa.evaluation.probes import control_pixels, fit_probe, majority_row, make_probe
from mmjepa.evaluation.probes.attentive import GRID, HEADS, WIDTH, AttentiveBlock, AttentiveProbe
from mmjepa.evaluation.probes.features import held_out_split, pool_over_space
from mmjepa.evaluation.probes.linear import LinearProbe
from mmjepa.evaluation.statistics import bootstrap_interval

STEPS, PLACES, CHANNELS = 4, 8, 32
Planted = tuple[Tensor, Tensor, int]
ATTENTIVE_SLOWLY = pytest.param("attentive", marks=pytest.mark.slow)


def _directions(generator: torch.Generator, count: int) -> Tensor:
    return nn.functional.normalize(torch.randn(count, CHANNELS, generator=generator), dim=1)


def token_at_random_position(clips: int, generator: torch.Generator) -> Planted:
    tokens = torch.randn(clips, STEPS, PLACES, CHANNELS, generator=generator)
    labels = torch.randint(0, 4, (clips,), generator=generator)
    where = torch.randint(0, STEPS * PLACES, (clips,), generator=generator)
    tokens.flatten(1, 2)[torch.arange(clips), where] += 8 * _directions(generator, 4)[labels]
    return tokens, labels, 4


def order_of_two_tokens(clips: int, generator: torch.Generator) -> Planted:
    """Both tokens occur in every clip, at random times and places; only which comes first tells the classes apart."""
    tokens = torch.randn(clips, STEPS, PLACES, CHANNELS, generator=generator)
    labels = torch.randint(0, 2, (clips,), generator=generator)
    rows, directions = torch.arange(clips), 8 * _directions(generator, 2)
    times = torch.rand(clips, STEPS, generator=generator).argsort(dim=1)[:, :2].sort(dim=1).values
    for event in range(2):
        time = times[rows, (labels + event) % 2]
        tokens[rows, time, torch.randint(0, PLACES, (clips,), generator=generator)] += directions[event]
    return tokens, labels, 2


def signal_beneath_positional_variance(clips: int, generator: torch.Generator) -> Planted:
    """99 % of the variance is a positional pattern common to all clips; the class lies within the other 1 %.

    So weak that ridge reads it (0.95), but not the attentive probe without its standardisation (0.46), nor with a mean
    per channel instead of per position (0.74).
    """
    positional = torch.randn(1, STEPS, PLACES, CHANNELS, generator=generator)
    labels = torch.randint(0, 4, (clips,), generator=generator)
    clip_noise = torch.randn(clips, STEPS, PLACES, CHANNELS, generator=generator)
    between = clip_noise + 0.5 * _directions(generator, 4)[labels][:, None, None]
    return positional + 0.1 * between, labels, 4


def signal_beneath_large_directions(clips: int, generator: torch.Generator) -> Planted:
    """One token of each clip holds the class; six directions with 40 times its size say nothing about it.

    Scaling channels leaves them as large as they are, for they are not along channels: 0.23 without whitening.
    """
    labels = torch.randint(0, 4, (clips,), generator=generator)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator)).Q
    tokens = torch.randn(clips, STEPS, PLACES, CHANNELS, generator=generator)
    where = torch.randint(0, STEPS * PLACES, (clips,), generator=generator)
    tokens[..., :6] *= 40
    tokens.flatten(1, 2)[torch.arange(clips), where, 6 + labels] += 8
    return tokens @ rotation, labels, 4


def noise(clips: int, generator: torch.Generator) -> Planted:
    labels = torch.randint(0, 4, (clips,), generator=generator)
    return torch.randn(clips, STEPS, PLACES, CHANNELS, generator=generator), labels, 4


def _correct(name: str, planted: Planted) -> np.ndarray:
    """Per-clip correctness on the last third. The attentive probe skips the choice of hyper-parameters, for speed."""
    tokens, labels, classes = planted
    train = len(tokens) * 2 // 3
    probe = AttentiveProbe(classes, seed=0, grid=GRID[:1]) if name == "attentive" else make_probe(name, classes, seed=0)
    predicted = probe.fit(tokens[:train], labels[:train]).predict(tokens[train:])
    return (predicted == labels[train:]).double().numpy()


@pytest.mark.parametrize(
    ("plant", "least"),
    [
        (token_at_random_position, 0.85),
        (order_of_two_tokens, 0.75),
        (signal_beneath_positional_variance, 0.83),
        (signal_beneath_large_directions, 0.9),
    ],
)
def test_attentive_probe_reads_planted_signals(plant, least):
    assert _correct("attentive", plant(1050, torch.Generator().manual_seed(0))).mean() > least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attentive", "linear"])
def test_fit_probe_with_its_choice_of_settings_reads_the_order_of_events(name):
    tokens, labels, classes = order_of_two_tokens(1500, torch.Generator().manual_seed(1))
    result = fit_probe(name, tokens[:1000], labels[:1000], tokens[1000:], labels[1000:], classes, seed=0)
    assert np.array_equal(result.correct, result.predicted == labels[1000:].numpy())
    assert result.top1 == result.correct.mean()
    assert result.top1 > 0.7
    assert result.top1 == pytest.approx(result.chosen["held_out_accuracy"], abs=0.12)
    assert result.train_accuracy > result.top1


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_pooled_probes_read_a_signal_beneath_positional_variance(probe):
    assert _correct(probe, signal_beneath_positional_variance(900, torch.Generator().manual_seed(1))).mean() > 0.8


@pytest.mark.parametrize("probe", ["attentive", "linear", "knn"])
def test_noise_stays_at_chance(probe):
    interval = bootstrap_interval(_correct(probe, noise(750, torch.Generator().manual_seed(2))), level=0.998)
    assert interval.low <= 0.25 <= interval.high


@pytest.mark.parametrize("probe", [ATTENTIVE_SLOWLY, "linear", "knn"])
def test_half_precision_and_the_scale_of_features_do_not_matter(probe):
    tokens, labels, classes = signal_beneath_positional_variance(450, torch.Generator().manual_seed(3))
    plain = _correct(probe, (tokens, labels, classes)).mean()
    shifted = _correct(probe, ((tokens * 50 + 20).half(), labels, classes)).mean()
    assert shifted == pytest.approx(plain, abs=0.05)


@pytest.mark.parametrize("probe", [ATTENTIVE_SLOWLY, "linear", "knn"])
def test_probes_are_reproducible_and_leave_the_global_generator_alone(probe):
    planted = token_at_random_position(150, torch.Generator().manual_seed(4))
    torch.manual_seed(1)
    first, after = _correct(probe, planted), torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after, "the probe drew from the global generator"
    assert np.array_equal(first, _correct(probe, planted))


def test_attentive_block_equals_a_plain_cross_attention_with_positions():
    torch.manual_seed(0)
    block, tokens = AttentiveBlock(3, 4, 16, classes=5), torch.randn(6, 3, 4, 16)
    position = block.time + block.place
    read = []
    for clip in tokens:
        inputs = (clip + position).reshape(12, 16)
        heads = []
        for head in range(HEADS):
            weights = torch.softmax(inputs @ block.key[:, head], dim=0)
            heads.append(
                sum(weight * (token @ block.value[head]) for weight, token in zip(weights, inputs, strict=True))
            )
        read.append(block.out(torch.cat(heads)))
    expected = torch.stack(read)
    assert expected.shape == (6, WIDTH)
    torch.testing.assert_close(block(tokens), block.classify(expected + block.mlp(expected)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clips", [60, 400], ids=["dual", "primal"])
def test_linear_probe_agrees_with_scikit_learn(clips):
    tokens, labels, classes = signal_beneath_positional_variance(clips + 100, torch.Generator().manual_seed(5))
    train, test = pool_over_space(tokens[:clips]), pool_over_space(tokens[clips:])
    probe = LinearProbe(classes, seed=0).fit(tokens[:clips], labels[:clips])
    scaler = StandardScaler().fit(train.double())
    ridge = RidgeClassifier(alpha=probe.chosen["penalty"] * train.shape[1])
    ridge.fit(scaler.transform(train.double()), labels[:clips])
    theirs = ridge.predict(scaler.transform(test.double()))
    assert (probe.predict(tokens[clips:]).numpy() == theirs).mean() >= 0.99


def test_knn_probe_agrees_with_scikit_learn():
    tokens, labels, classes = token_at_random_position(300, torch.Generator().manual_seed(6))
    probe = make_probe("knn", classes, seed=0).fit(tokens[:200], labels[:200])
    scaler = StandardScaler().fit(pool_over_space(tokens[:200]))
    theirs = KNeighborsClassifier(int(probe.chosen["k"]), metric="cosine", weights=lambda d: np.exp(-d / 0.07))
    theirs.fit(scaler.transform(pool_over_space(tokens[:200])), labels[:200])
    expected = theirs.predict(scaler.transform(pool_over_space(tokens[200:])))
    assert (probe.predict(tokens[200:]).numpy() == expected).mean() >= 0.99


@given(st.lists(st.integers(0, 4), min_size=5, max_size=80), st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_held_out_part_is_a_fifth_of_every_class_and_disjoint(labels, seed):
    fit, held_out = held_out_split(torch.tensor(labels), seed)
    assert sorted([*fit.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    for label in set(labels):
        of_class = sum(labels[index] == label for index in held_out.tolist())
        assert abs(of_class - labels.count(label) / 5) < 1


def test_majority_row_answers_the_most_frequent_train_class():
    row = majority_row(torch.tensor([2, 0, 2, 1]), torch.tensor([2, 2, 0, 1, 1]), classes=3)
    assert (row.top1, row.train_accuracy, row.correct.tolist()) == (0.4, 0.5, [1, 1, 0, 0, 0])


def test_controls_take_away_motion_or_order_and_nothing_else():
    pixels = torch.randn(3, 3, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    keys = ["a", "b", "a"]
    assert torch.equal(control_pixels(pixels, "none", keys), pixels)
    single = control_pixels(pixels, "single_frame", keys)
    assert torch.equal(single, pixels[:, :, 4:5].expand_as(pixels))
    times = torch.arange(8.0).view(1, 1, 8, 1, 1).expand_as(pixels)
    orders = control_pixels(times, "shuffled_frames", keys)[:, 0, :, 0, 0].long()
    assert torch.equal(orders.sort(dim=1).values, torch.arange(8).expand(3, 8))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    shuffled = control_pixels(pixels, "shuffled_frames", keys)
    assert torch.equal(shuffled[1], pixels[1][:, orders[1]])
    with pytest.raises(UserError, match="single_frame, shuffled_frames"):
        control_pixels(pixels, "reversed", keys)


def test_bad_features_are_refused():
    tokens, labels = torch.randn(10, 2, 2, 4), torch.arange(10) % 2
    with pytest.raises(UserError, match="attentive, linear, knn"):
        fit_probe("magic", tokens, labels, tokens, labels, 2, 0)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\)"):
        fit_probe("linear", tokens, labels, tokens, labels, 1, 0)
    with pytest.raises(ValueError, match="test tokens are not finite"):
        fit_probe("linear", tokens, labels, tokens / 0, labels, 2, 0)
    with pytest.raises(UserError, match="too few to hold out"):
        fit_probe("linear", tokens[:4], labels[:4], tokens, labels, 2, 0)
