"""Every term over two gloo ranks equals the term over the joined batch, in value and in gradient."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from mmjepa.masking import BlockMask, MaskingConfig, draw_masks
from mmjepa.models import ModelConfig, PredictorConfig, build_video_jepa, normalise_levels
from mmjepa.objectives import ClipTargets, Composite, FactorConfig, Latents, ObjectiveConfig, registry

MODEL = ModelConfig("t", 24, 4, 2, frames=8, resolution=64, patch=16, predictor=PredictorConfig(24, 2, 2))
MASKS = MaskingConfig("m", "random", {"short": BlockMask(2, (0.15, 0.15)), "other": BlockMask(1, (0.3, 0.3))})
CLIPS, RANKS = 6, 2


def every_objective() -> ObjectiveConfig:
    objectives = {name: {"weights": dict.fromkeys(kind.terms, 1.0)} for name, kind in registry().items()}
    objectives["latent_dynamics"] = {**objectives["latent_dynamics"], "hard_region_temperature": 0.1}
    return ObjectiveConfig("all", FactorConfig(), objectives)


def terms_and_gradients(rows: slice) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms, and the gradient of each term with respect to the student's patch embedding, on some of the clips."""
    torch.manual_seed(0)
    student, composite = build_video_jepa(MODEL), Composite(every_objective(), MODEL)
    teacher = build_video_jepa(MODEL).encoder
    pixels = torch.randn(CLIPS, 3, 8, 64, 64)
    pixels[: CLIPS // 2] *= 3  # the halves differ, so that a mean of means is not the mean
    grid = student.encoder.grid_of(pixels)
    masks = [
        type(m)(m.context[rows], m.target[rows])
        for m in draw_masks(MASKS, grid, CLIPS, torch.Generator().manual_seed(0))
    ]
    pixels = pixels[rows]
    shared = ClipTargets(normalise_levels(teacher(pixels)).detach(), pixels, grid)
    views = [
        Latents(p.context, m.context, m.target, p.at_target, p.at_context, shared)
        for p, m in zip(student(pixels, masks), masks, strict=True)
    ]
    _, terms = composite(views, progress=1.0)
    weight = student.encoder.embed_video.weight
    gradients = {
        name: torch.autograd.grad(value, weight, retain_graph=True)[0]
        for name, value in terms.items()
        if value.requires_grad
    }
    return {name: value.detach() for name, value in terms.items()}, gradients


def rank_main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    rows = slice(rank * CLIPS // RANKS, (rank + 1) * CLIPS // RANKS)
    results = terms_and_gradients(rows)
    for part in results:
        for value in part.values():
            dist.all_reduce(value)
            value /= RANKS
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one() -> None:
    expected_terms, expected_gradients = terms_and_gradients(slice(0, CLIPS))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, args=(folder,), nprocs=RANKS)
        terms, gradients = torch.load(Path(folder) / "results.pt", weights_only=True)
    assert set(terms) == set(expected_terms)
    assert len(gradients) > 10
    for name, value in expected_terms.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in expected_gradients.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()), msg=lambda m, n=name: f"{n}: {m}"
        )
