"""What a pretraining step costs, from the configuration alone: parameters, arithmetic, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mmjepa.models import ModelConfig, TokenGrid, build_video_jepa
from mmjepa.objectives import Composite, ObjectiveConfig
from mmjepa.training.config import GATHERED_AT_MOST
from mmjepa.training.flops import BACKWARD, trunk_flops

FP32, BF16 = 4, 2
"""Bytes of a number."""


@dataclass(frozen=True)
class MaskLengths:
    """Tokens per clip that one mask leaves visible and hides."""

    context: float
    target: float


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Of those, ``matrices``: in weight matrices (bf16 compute keeps a second copy of them); ``heads``: in the weight
    matrices of the objectives' heads.
    """

    encoder: int
    predictor: int
    objectives: int
    matrices: int
    heads: int

    @property
    def trained(self) -> int:
        """All that the optimiser holds."""
        return self.encoder + self.predictor + self.objectives

    @classmethod
    def of(cls, model: ModelConfig, objective: ObjectiveConfig) -> Parameters:
        """Counted on networks that take no memory."""
        with torch.device("meta"):
            student, losses = build_video_jepa(model), Composite(objective, model)
        trained = [p for part in (student, losses) for p in part.parameters() if p.requires_grad]
        return cls(
            encoder=_count(student.encoder),
            predictor=_count(student.predictor),
            objectives=_count(losses),
            matrices=sum(p.numel() for p in trained if p.dim() == 2),
            heads=head_weights(losses),
        )


def head_weights(objective: nn.Module) -> int:
    """Weights of all linear layers of the objectives' heads."""
    return sum(module.weight.numel() for module in objective.modules() if isinstance(module, nn.Linear))


def clip_flops(
    model: ModelConfig, heads: int, grid: TokenGrid, masks: Sequence[MaskLengths], stop_gradient: bool
) -> float:
    """FLOPs of a step per clip: student, predictor and heads forward and backward, target encoder forward.

    Without ``stop_gradient`` the target encoder's backward pass comes on top.

    Objectives' heads (``heads`` weights) are taken to run on every token that has a next one. Normalisation,
    activation functions and losses are left out: they are bytes, not arithmetic. What ``recompute`` repeats is
    :func:`repeated_flops`.
    """
    flat, narrow = model.levels * model.width, model.predictor

    def encoder(tokens: float) -> float:
        embedding = 2.0 * tokens * 3 * grid.tubelet * grid.patch**2 * model.width
        return embedding + trunk_flops(tokens, model.width, model.depth, model.mlp_ratio)

    total = encoder(grid.size) * (1.0 if stop_gradient else 1.0 + BACKWARD)
    for mask in masks:
        entry = 2.0 * mask.context * model.width * (flat + narrow.width)
        exit_ = 2.0 * (mask.context + mask.target) * narrow.width * flat
        predictor = entry + trunk_flops(mask.context + mask.target, narrow.width, narrow.depth) + exit_
        ahead = 2.0 * (grid.size - grid.spatial) * heads
        total += (1.0 + BACKWARD) * (encoder(mask.context) + predictor + ahead)
    return total


def repeated_flops(model: ModelConfig, grid: TokenGrid, masks: Sequence[MaskLengths], stop_gradient: bool) -> float:
    """FLOPs per clip that ``model.recompute`` adds to the backward pass.

    For ``hidden`` the first product of every MLP; for ``blocks`` all but the last one, whose result nobody keeps.
    """

    def trunk(tokens: float, width: int, depth: int, mlp_ratio: float) -> float:
        product = 2.0 * depth * tokens * width * width * mlp_ratio
        whole = trunk_flops(tokens, width, depth, mlp_ratio)
        return {"nothing": 0.0, "hidden": product, "blocks": whole - product}[model.recompute]

    encoded = [mask.context for mask in masks] + ([] if stop_gradient else [grid.size])
    total = sum(trunk(tokens, model.width, model.depth, model.mlp_ratio) for tokens in encoded)
    narrow = model.predictor
    return total + sum(trunk(mask.context + mask.target, narrow.width, narrow.depth, 4.0) for mask in masks)


def clip_activation_bytes(
    model: ModelConfig, grid: TokenGrid, masks: Sequence[MaskLengths], precision: str, stop_gradient: bool
) -> float:
    """Bytes per clip that the backward pass of a step with the JEPA loss needs, at its peak.

    Counted over the tensors that autograd saves, per token and channel. A block keeps two residual streams, values,
    rotated queries and keys, the attention's output, and the MLP's hidden layer before its activation. The target
    encoder keeps its output alone, but without ``stop_gradient`` all of this. Terms beside the JEPA loss add some
    copies of the tokens they look at. ``recompute`` leaves out the hidden layers, or all but one stream per block;
    :func:`block_again_bytes` are back while a block is made again.
    """
    flat, narrow = model.levels * model.width, model.predictor
    low = BF16 if precision == "bf16" else FP32

    def trunk(tokens: float, width: int, depth: int, mlp_ratio: float) -> float:
        streams, hidden = 2 * FP32, mlp_ratio * low
        block = streams + (1 + 2 + 1) * low + hidden
        kept = {"nothing": block, "hidden": block - hidden, "blocks": FP32}[model.recompute]
        return depth * tokens * width * kept

    total: float = grid.size * flat * FP32 + block_again_bytes(model, masks, precision)
    if not stop_gradient:
        total += trunk(grid.size, model.width, model.depth, model.mlp_ratio) + grid.size * flat * FP32
    for mask in masks:
        every = mask.context + mask.target
        patches = mask.context * 3 * grid.tubelet * grid.patch**2 * low
        levels = mask.context * model.width * FP32  # input of the last level's norm; the others enter a block
        embedded = mask.context * (flat * low + 2 * model.width * low)
        out = every * narrow.width * (FP32 + low)
        errors = every * flat * FP32
        total += patches + trunk(mask.context, model.width, model.depth, model.mlp_ratio) + levels + embedded
        total += trunk(every, narrow.width, narrow.depth, 4.0) + out + errors
    return total


def block_again_bytes(model: ModelConfig, masks: Sequence[MaskLengths], precision: str) -> float:
    """Bytes per clip of the largest block that is made again: what it had not kept, its norms and activation too."""
    low = BF16 if precision == "bf16" else FP32

    def block(tokens: float, width: int, mlp_ratio: float) -> float:
        mlp = (1 + 2 * mlp_ratio) * low
        return tokens * width * {"nothing": 0.0, "hidden": mlp, "blocks": FP32 + (1 + 4) * low + mlp}[model.recompute]

    encoder = max(block(mask.context, model.width, model.mlp_ratio) for mask in masks)
    return max(encoder, *(block(mask.context + mask.target, model.predictor.width, 4.0) for mask in masks))


def state_bytes(parameters: Parameters, teacher: bool, precision: str, stage: int, ranks: int) -> float:
    """Bytes per rank through a step: fp32 parameters, gradients, two AdamW moments, the fp32 teacher.

    ZeRO shares out the moments from stage 1 on, of which the optimiser then updates a copy of the rank's parameters,
    gradients from stage 2 on, and parameters and teacher at stage 3, which gathers them (up to
    ``GATHERED_AT_MOST``) for the length of a step. bf16 compute keeps a second copy of the weight matrices as long.
    """
    moments = 3 / ranks if stage else 2.0
    gradients = 1 / ranks if stage >= 2 else 1.0
    copies = parameters.matrices * BF16 if precision == "bf16" else 0
    optimised = parameters.trained * FP32 * (gradients + moments)
    networks = parameters.trained + (parameters.encoder if teacher else 0)
    if stage == 3:
        return optimised + copies + FP32 * (networks / ranks + min(networks, GATHERED_AT_MOST))
    return optimised + copies + FP32 * networks


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
