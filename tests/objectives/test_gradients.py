"""Which parameters each term trains: the test that would have caught the published defect.

Every term is taken alone, as it stands in every shipped objective configuration, so that a term cannot hide behind
another one's gradient.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmjepa.config import CONFIG_DIR, load_config
from mmjepa.masking import BlockMask, MaskingConfig, draw_masks
from mmjepa.models import ModelConfig, PredictorConfig, VideoJEPA, build_video_jepa, normalise_levels
from mmjepa.objectives import ClipTargets, Composite, FactorConfig, Latents, ObjectiveConfig, registry
from mmjepa.training.program import TrainConfig

MODEL = ModelConfig("t", 24, 4, 2, frames=8, resolution=64, patch=16, predictor=PredictorConfig(24, 2, 2))
MASKS = MaskingConfig(
    "m",
    "random",
    {
        "short": BlockMask(2, (0.15, 0.15), temporal_scale=(0.5, 0.5)),
        "long": BlockMask(1, (0.5, 0.5), aspect=(1.0, 1.0)),
    },
)
THROUGH_PREDICTOR = {"predict", "context", "hard_region"}
HEADED = {"latent_dynamics", "action", "hamiltonian"}
PUBLISHED_DEFECT = ("fwm_hw_ld_reference", "latent_dynamics")


def load_objective(name: str) -> ObjectiveConfig:
    config = load_config("train", TrainConfig, [f"objective={name}", "ema=null", "run=unused"]).objective
    assert config is not None
    return config


def step(config: ObjectiveConfig, pixels: Tensor) -> tuple[VideoJEPA, torch.nn.Module, Composite, dict[str, Tensor]]:
    torch.manual_seed(0)
    student = build_video_jepa(MODEL)
    teacher = build_video_jepa(MODEL).encoder
    composite = Composite(config, MODEL)
    grid = student.encoder.grid_of(pixels)
    masks = draw_masks(MASKS, grid, len(pixels), torch.Generator().manual_seed(0))
    target = normalise_levels((teacher if config.stop_gradient else student.encoder)(pixels))
    shared = ClipTargets(target.detach() if config.stop_gradient else target, pixels, grid)
    views = [
        Latents(p.context, m.context, m.target, p.at_target, p.at_context, shared)
        for p, m in zip(student(pixels, masks), masks, strict=True)
    ]
    return student, teacher, composite, composite(views, progress=1.0)[1]


def touched(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def untrained(module: torch.nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()}


SHIPPED = sorted(path.stem for path in (CONFIG_DIR / "objective").glob("*.yaml"))
TERMS = [(name, term) for name in SHIPPED for o in load_objective(name).objectives for term in registry()[o].terms]


@pytest.mark.parametrize(("name", "term"), TERMS, ids=[f"{name}-{term}" for name, term in TERMS])
def test_a_term_alone_trains_what_it_claims_to(name: str, term: str) -> None:
    config = load_objective(name)
    torch.manual_seed(1)
    student, teacher, composite, terms = step(config, torch.randn(3, 3, 8, 64, 64))
    assert terms[term].isfinite()
    owner = next(o for o in config.objectives if term in registry()[o].terms)
    if (name, term) == PUBLISHED_DEFECT:
        assert not terms[term].requires_grad
        return
    terms[term].backward()
    assert touched(student.encoder)
    assert touched(student.predictor) == (term in THROUGH_PREDICTOR)
    head = composite.parts[owner]
    assert touched(head) == (term in HEADED)
    if term in HEADED:  # all of it; an energy's offset has no slope
        assert untrained(head) == ({"energy.4.bias"} if term == "hamiltonian" else set())
    assert not any(touched(part) for other, part in composite.parts.items() if other != owner)
    assert not touched(teacher)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_whole_of_every_configuration_trains_all_of_it_and_never_the_teacher(name: str) -> None:
    """Encoder, predictor and every head at once, as training adds the terms up."""
    config = load_objective(name)
    torch.manual_seed(1)
    student, teacher, composite, terms = step(config, torch.randn(3, 3, 8, 64, 64))
    total = sum((weight.at(1.0) * terms[term] for term, weight in composite.weights.items()), torch.zeros(()))
    total.backward()
    assert untrained(student) == {
        "encoder.embed_image.weight",
        "encoder.embed_image.bias",
        "encoder.image_modality",
    } | {"predictor.image_modality"}
    heads = {owner for owner, part in composite.parts.items() if any(True for _ in part.parameters())}
    trained = {owner for owner, part in composite.parts.items() if touched(part)}
    assert trained == heads - ({"latent_dynamics"} if name == PUBLISHED_DEFECT[0] else set())
    assert not touched(teacher)


@pytest.mark.parametrize("name", sorted(registry()))
@pytest.mark.parametrize("clip", ["static", "reversed", "image", "bfloat16"])
def test_every_objective_is_defined_on_odd_input(name: str, clip: str) -> None:
    """Static clips, time-reversed clips, one-frame images, bfloat16: finite values, and no valid pair is said so."""
    terms = registry()[name].terms
    objectives = {name: {"weights": dict.fromkeys(terms, 1.0)}}
    torch.manual_seed(2)
    pixels = torch.randn(2, 3, 8, 64, 64)
    if clip == "static":
        pixels = pixels[:, :, :1].expand_as(pixels)
    elif clip == "reversed":
        pixels = pixels.flip(2)
    elif clip == "image":
        pixels = pixels[:, :, :1]
    with torch.autocast("cpu", torch.bfloat16, enabled=clip == "bfloat16"):
        student, _, composite, values = step(ObjectiveConfig("one", FactorConfig(), objectives), pixels)
    for term in terms:
        assert values[term].isfinite(), term
        pairs_needed = f"{term}_valid" in values
        if clip == "image" and pairs_needed:
            assert values[f"{term}_valid"] == 0
        elif not (clip == "static" and term == "kinematic"):
            assert values[term] != 0, f"{term} is silently zero"
    torch.stack([values[term] for term in terms]).sum().backward()
    for parameter in [*student.parameters(), *composite.parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_take_still_images(name: str) -> None:
    """A mixture with stills reaches every objective: temporal terms say that they had no valid pair."""
    _, _, _, values = step(load_objective(name), torch.randn(2, 3, 1, 64, 64))
    assert all(value.isfinite() for value in values.values())
    assert values["predict"] > 0


def test_terms_of_a_batch_do_not_depend_on_the_order_of_its_clips() -> None:
    config = load_objective("fwm_hw_ld")
    torch.manual_seed(3)
    pixels = torch.randn(4, 3, 8, 64, 64)
    student, teacher, composite, _ = step(config, pixels)
    grid = student.encoder.grid_of(pixels)
    masks = draw_masks(MASKS, grid, 4, torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 3, 1])

    def total(rows: Tensor) -> Tensor:
        chosen = [type(m)(m.context[rows], m.target[rows]) for m in masks]
        shared = ClipTargets(normalise_levels(teacher(pixels[rows])).detach(), pixels[rows], grid)
        views = [
            Latents(p.context, m.context, m.target, p.at_target, p.at_context, shared)
            for p, m in zip(student(pixels[rows], chosen), chosen, strict=True)
        ]
        return composite(views, progress=1.0)[0]

    torch.testing.assert_close(total(torch.arange(4)), total(order), rtol=1e-5, atol=1e-6)


def test_shipped_configurations_are_named_after_their_files() -> None:
    for name in SHIPPED:
        assert load_objective(name).name == Path(name).stem
