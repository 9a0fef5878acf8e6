"""What every objective does on clips that are permuted, reversed, static, wholly visible, or without a valid pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_latents import PLACES, STEPS, half_visible, make, objective, random_grids
from torch.utils._python_dispatch import TorchDispatchMode

from mmjepa.objectives import registry
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term

OPTIONS = {
    "factorised-scale_free": ("factorised", {"scale_free": True}),
    "hard_region-relative": ("hard_region", {"relative": True}),
    "latent_dynamics-hidden": ("latent_dynamics", {"pairs": "hidden"}),
    "latent_dynamics-hard": ("latent_dynamics", {"hard_region_temperature": 0.5, "hard_region_relative": True}),
    "kinematic-acceleration": ("kinematic", {"order": 2}),
    "kinematic-huber": ("kinematic", {"penalty": "huber"}),
    "kinematic-scale_free": ("kinematic", {"scale_free": True}),
    "velocity_gate-scale_free": ("velocity_gate", {"scale_free": True}),
    "velocity_gate-reference": ("velocity_gate", {"semantics": "reference"}),
}
OBJECTIVES = {**{name: (name, {}) for name in sorted(registry())}, **OPTIONS}
WITHOUT_PAIRS = {"predict", "context", "hard_region", "sigreg", "orthogonal"}
BLIND_TO_DIRECTION = {"static", "orthogonal", "delta", "spectral", "kinematic", "velocity_gate", "hard_region"} | {
    "predict",
    "context",
    "sigreg",
}
"""Terms that are the same of a clip played backwards; what a head reads, and what compares t with t+1, is not."""
STILL = {"static", "delta", "kinematic", "velocity_gate"}
"""Terms that a clip in which nothing changes fulfils. LTC's is its margin, LD's and AC's heads have to say 0."""

everywhere = pytest.mark.parametrize("which", OBJECTIVES)


def terms_of(which: str, *views: Latents) -> dict[str, Term]:
    name, parameters = OBJECTIVES[which]
    return objective(name, **parameters)(views)


def assert_equal_terms(ours: dict[str, Term], theirs: dict[str, Term], names: Sequence[str] | None = None) -> None:
    for name in ours if names is None else names:
        torch.testing.assert_close(ours[name].value, theirs[name].value, rtol=1e-5, atol=1e-6, msg=name)


@everywhere
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_clips_does_not_matter(which: str, seed: int) -> None:
    grids, visible = random_grids(4, seed), half_visible(4, seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    assert_equal_terms(
        terms_of(which, make(*grids, visible)), terms_of(which, make(*(one[order] for one in grids), visible[order]))
    )


def both_ways(which: str, seed: int) -> tuple[dict[str, Term], dict[str, Term]]:
    """Terms of random clips, and of the same played backwards."""
    (student, target, pixels), visible = random_grids(2, seed), half_visible(2, seed)
    forwards = make(student, target, pixels, visible)
    backwards = make(student.flip(1), target.flip(1), pixels.flip(2), visible.flip(1))
    return terms_of(which, forwards), terms_of(which, backwards)


@everywhere
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_clip_played_backwards(which: str, seed: int) -> None:
    forwards, backwards = both_ways(which, seed)
    assert_equal_terms(forwards, backwards, [name for name in forwards if name in BLIND_TO_DIRECTION])


@everywhere
def test_the_direction_of_time_matters_to_heads_and_contrasts(which: str) -> None:
    forwards, backwards = both_ways(which, seed=0)
    for name in forwards.keys() - BLIND_TO_DIRECTION:
        assert (forwards[name].value - backwards[name].value).abs() > 1e-4, name


@everywhere
def test_a_clip_in_which_nothing_changes(which: str) -> None:
    grids = [one[:, :1].expand_as(one) for one in random_grids(2)[:2]]
    pixels = random_grids(2)[2][:, :, :1].expand(-1, -1, 2 * STEPS, -1, -1)
    for name, term in terms_of(which, make(*grids, pixels, half_visible(2))).items():
        assert term.value.isfinite()
        assert (term.value < 1e-6) == (name in STILL), name


@everywhere
def test_all_tokens_visible(which: str) -> None:
    visible = torch.ones(2, STEPS, PLACES, dtype=torch.bool)
    view = make(*random_grids(2), visible)
    if which.partition("-")[0] in ("jepa", "hard_region"):
        with pytest.raises(ValueError, match="hides no token"):
            terms_of(which, view)
        return
    for name, term in terms_of(which, view).items():
        forecast = which == "latent_dynamics-hidden"  # there is nothing left to forecast
        assert (term.value == 0) == forecast, name
        assert term.valid is None or term.valid == (0 if forecast else 1)


@everywhere
def test_no_valid_pair(which: str) -> None:
    """Every second step visible, nothing seen twice in a row: ``valid`` says so, and the gradient is zero, not NaN."""
    student, target, pixels = random_grids(2)
    student.requires_grad_()
    visible = torch.zeros(2, STEPS, PLACES, dtype=torch.bool)
    visible[:, ::2] = True
    terms = terms_of(which, make(student, target, pixels, visible))
    forecast = which == "latent_dynamics-hidden"  # every pair is one there
    for name, term in terms.items():
        if name in WITHOUT_PAIRS:
            assert term.valid is None
            assert term.value > 0
        else:
            assert (term.value > 0) == forecast
            assert term.valid == (1 if forecast else 0)
    (gradient,) = torch.autograd.grad(sum(term.value for term in terms.values()), student)
    assert gradient.isfinite().all()
    assert bool(gradient.any()) == (forecast or any(name in WITHOUT_PAIRS for name in terms))


@everywhere
def test_a_mask_without_pairs_does_not_count(which: str) -> None:
    """Beside a mask with valid pairs: the mean is over that one alone."""
    grids = random_grids(2)
    bare = torch.zeros(2, STEPS, PLACES, dtype=torch.bool)
    bare[:, ::2] = True
    if which == "latent_dynamics-hidden":
        bare[:] = True  # nothing to forecast
    view = make(*grids, half_visible(2))
    alone, both = terms_of(which, view), terms_of(which, view, make(*grids, bare))
    for name in alone:
        if name not in WITHOUT_PAIRS:
            torch.testing.assert_close(both[name].value, alone[name].value)
            assert both[name].valid == 0.5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scale_free_terms_ignore_the_size_of_channels_where_the_plain_ones_can_be_lowered(seed: int) -> None:
    (student, target, pixels), visible = random_grids(3, seed), half_visible(3, seed)
    gains = torch.rand(student.shape[-2:], generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    for objective_name in ("factorised", "kinematic", "velocity_gate"):
        plain, free = (
            [terms_of(which, make(tokens, target, pixels, visible)) for tokens in (student, student * gains)]
            for which in (objective_name, f"{objective_name}-scale_free")
        )
        for name in plain[0]:
            assert plain[1][name].value < plain[0][name].value
            torch.testing.assert_close(free[1][name].value, free[0][name].value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("which", ["factorised-scale_free", "kinematic-scale_free", "velocity_gate-scale_free"])
def test_scale_free_changes_cannot_be_lowered_by_telling_clips_apart(which: str) -> None:
    """What is constant within a clip makes the deviation over a batch larger, and must not count as its unit."""
    (student, target, pixels), visible = random_grids(3), half_visible(3)
    offsets = 10 * torch.randn(3, 1, 1, *student.shape[-2:], generator=torch.Generator().manual_seed(1))
    terms, shifted = (terms_of(which, make(tokens, target, pixels, visible)) for tokens in (student, student + offsets))
    for name in terms.keys() - {"orthogonal"}:
        torch.testing.assert_close(shifted[name].value, terms[name].value, rtol=1e-4, atol=1e-6)


def test_scale_free_terms_against_loops() -> None:
    (student, target, pixels), visible = random_grids(3), half_visible(3)
    tokens = student.double()
    half = tokens.shape[-1] // 2
    appearance = tokens[..., :half].flatten(3)
    dynamics = tokens[..., half:].flatten(3)
    seen = [(b, t, s) for b in range(3) for t in range(STEPS) for s in range(PLACES) if visible[b, t, s]]
    changes, products = [], []
    for a in range(appearance.shape[-1]):
        column = torch.stack([appearance[place][a] for place in seen])
        by_clip = [torch.stack([appearance[place][a] for place in seen if place[0] == b]) for b in range(3)]
        spread = torch.cat([values - values.mean() for values in by_clip]).square().mean().sqrt()
        changes += [
            (appearance[b, t + 1, s, a] - appearance[b, t, s, a]).abs() / spread
            for b, t, s in seen
            if t + 1 < STEPS and visible[b, t + 1, s]
        ]
        for d in range(dynamics.shape[-1]):
            other = torch.stack([dynamics[place][d] for place in seen])
            correlation = torch.corrcoef(torch.stack([column, other]))[0, 1]
            products.append((correlation * len(seen) / (len(seen) - 1)) ** 2)  # unbiased covariance, plain deviations
    terms = terms_of("factorised-scale_free", make(student, target, pixels, visible))
    assert float(terms["static"].value) == pytest.approx(float(torch.stack(changes).mean()), rel=1e-4)
    assert float(terms["orthogonal"].value) == pytest.approx(float(torch.stack(products).mean()), rel=1e-4)


def test_a_channel_that_does_not_vary_has_a_finite_gradient() -> None:
    student, target, pixels = random_grids(2)
    student[..., 0] = 1.0
    student.requires_grad_()
    terms = terms_of("factorised-scale_free", make(student, target, pixels, half_visible(2)))
    (gradient,) = torch.autograd.grad(terms["static"].value + terms["orthogonal"].value, student)
    assert gradient.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), shrink=st.floats(0.05, 0.9))
def test_relative_temperature_keeps_the_weights_when_all_errors_shrink(seed: int, shrink: float) -> None:
    """Errors scale with the student here: the relative term scales with them, the plain one loses its unevenness."""
    (student, target, pixels), visible = random_grids(2, seed), half_visible(2, seed)
    plain, relative = (
        [
            float(terms_of(which, make(size * student, target, pixels, visible))["hard_region"].value) / size
            for size in (1.0, shrink)
        ]
        for which in ("hard_region", "hard_region-relative")
    )
    assert relative[1] == pytest.approx(relative[0], rel=1e-3)
    assert plain[1] < plain[0]


def test_relative_temperature_against_loops() -> None:
    (student, target, pixels), visible = random_grids(2), half_visible(2)
    expected = []
    for b in range(2):
        hidden = [(t, s) for t in range(STEPS) for s in range(PLACES) if not visible[b, t, s]]
        errors = [float((student[b, t, s].double() / 2).abs().mean()) for t, s in hidden]
        mean = sum(errors) / len(errors)
        spread = (sum((error - mean) ** 2 for error in errors) / len(errors)) ** 0.5
        weights = [math.exp(error / spread) for error in errors]
        expected.append(sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights))
    value = terms_of("hard_region-relative", make(student, target, pixels, visible))["hard_region"].value
    assert float(value) == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_forecasts_are_asked_where_the_next_step_is_hidden_and_only_there() -> None:
    (student, target, pixels), visible = random_grids(3), half_visible(3)
    head = objective("latent_dynamics", pairs="hidden").head
    errors = []
    for b, t, s in ((b, t, s) for b in range(3) for t in range(STEPS - 1) for s in range(PLACES)):
        if visible[b, t, s] and not visible[b, t + 1, s]:
            change = (target[b, t + 1, s] - target[b, t, s]).flatten()
            errors.append((head(student[b, t, s].flatten()) - change).abs().mean())
    value = terms_of("latent_dynamics-hidden", make(student, target, pixels, visible))["latent_dynamics"].value
    torch.testing.assert_close(value, torch.stack(errors).mean(), rtol=1e-4, atol=1e-6)


class Scatters(TorchDispatchMode):
    """Counts the scatter operations under it."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "aten.scatter" in str(function)
        return function(*args, **(kwargs or {}))


def test_grids_and_pairs_are_made_once_however_many_objectives_look() -> None:
    def scatters(names: list[str]) -> int:
        view = make(*random_grids(2), half_visible(2))
        with Scatters() as made:
            for name in names:
                objective(name)([view])
        return made.count

    looking = ["delta", "factorised", "latent_dynamics", "temporal_contrast", "velocity_gate", "action", "spectral"]
    assert scatters([*looking, "kinematic", "hamiltonian"]) == scatters(["delta"]) > 0
    view = make(*random_grids(2), half_visible(2))
    for shared, names in (
        (view, ("visible", "targeted", "valid_pairs", "hidden_next", "context_grid", "context_change")),
        (view.clip, ("target_grid", "target_change", "target_speed", "target_spectrum", "colour_change")),
    ):
        assert all(getattr(shared, name) is getattr(shared, name) for name in names)


def test_corrected_kinematic_against_loops() -> None:
    (student, target, pixels), visible = random_grids(2), half_visible(2)
    view = make(student, target, pixels, visible)
    for order, penalty in ((1, "l1"), (2, "l1"), (2, "huber")):
        found = []
        for b, t, s in ((b, t, s) for b in range(2) for t in range(STEPS - order) for s in range(PLACES)):
            if visible[b, t : t + order + 1, s].all():
                step = student[b, t : t + order + 1, s].double()
                difference = step[1] - step[0] if order == 1 else step[2] - 2 * step[1] + step[0]
                size = difference.abs().flatten()
                small = torch.minimum(size, torch.full_like(size, 0.1))
                found.append((size if penalty == "l1" else small**2 / 2 + 0.1 * (size - small)).mean())
        value = objective("kinematic", order=order, penalty=penalty)([view])["kinematic"].value
        assert float(value) == pytest.approx(float(torch.stack(found).mean()), rel=1e-4)


def test_the_velocity_gate_against_loops() -> None:
    (student, target, pixels), visible = random_grids(3), half_visible(3)
    slow, gated = [], []
    for b, t in ((b, t) for b in range(3) for t in range(STEPS - 1)):
        speeds = [float((target[b, t + 1, s] - target[b, t, s]).double().norm()) for s in range(PLACES)]
        pairs = [s for s in range(PLACES) if visible[b, t : t + 2, s].all()]
        for s in pairs:
            change = float((student[b, t + 1, s] - student[b, t, s]).double().abs().mean())
            if speeds[s] <= np.quantile([speeds[place] for place in pairs], 0.5):
                slow.append(change)
            gated.append(change * (speeds[s] <= np.quantile(speeds, 0.5)))
    view = make(student, target, pixels, visible)
    for semantics, found in (("corrected", slow), ("reference", gated)):
        value = objective("velocity_gate", semantics=semantics)([view])["velocity_gate"].value
        assert float(value) == pytest.approx(sum(found) / len(found), rel=1e-5)


def test_sigreg_leaves_out_the_number_of_samples_and_its_reference_does_not() -> None:
    view = make(*random_grids(3), half_visible(3))
    corrected, reference = (
        float(objective("sigreg", slices=64, semantics=semantics)([view, view])["sigreg"].value)
        for semantics in ("corrected", "reference")
    )
    assert reference == pytest.approx(corrected * 2 * 3 * (STEPS * PLACES // 2), rel=1e-4)


def test_relative_weights_of_latent_dynamics_against_loops() -> None:
    (student, target, pixels), visible = random_grids(3), half_visible(3)
    head = objective("latent_dynamics").head.requires_grad_(False)
    errors = [
        float((head(student[b, t, s].flatten()) - (target[b, t + 1, s] - target[b, t, s]).flatten()).abs().mean())
        for b in range(3)
        for t in range(STEPS - 1)
        for s in range(PLACES)
        if visible[b, t, s] and visible[b, t + 1, s]
    ]
    mean = sum(errors) / len(errors)
    spread = (sum((error - mean) ** 2 for error in errors) / len(errors)) ** 0.5
    weights = [math.exp(error / (0.5 * spread)) for error in errors]
    expected = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
    value = terms_of("latent_dynamics-hard", make(student, target, pixels, visible))["latent_dynamics"].value
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
