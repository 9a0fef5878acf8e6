"""Training objectives: one file per family, on the shared :class:`Latents` view, composed by configuration."""

from mmjepa.objectives.base import Composite, Objective, ObjectiveConfig, Weight, build_objective, register, registry
from mmjepa.objectives.factors import FactorConfig
from mmjepa.objectives.latents import ClipTargets, Latents
from mmjepa.objectives.reductions import Term

__all__ = [
    "ClipTargets",
    "Composite",
    "FactorConfig",
    "Latents",
    "Objective",
    "ObjectiveConfig",
    "Term",
    "Weight",
    "build_objective",
    "register",
    "registry",
]
