"""What an objective is, how it is found by name, and how several are summed.

An objective lives in one file of this package, registers itself by name, owns its heads, and maps the latents of a
step to named scalar terms. Weights, their schedules and the semantics switches live in YAML. Adding one touches
nothing else: modules of the package are imported when the registry is first asked.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, get_args, get_type_hints

import torch
from torch import Tensor, nn

from mmjepa.errors import UserError
from mmjepa.models import ModelConfig
from mmjepa.objectives.factors import FactorConfig
from mmjepa.objectives.latents import Latents
from mmjepa.objectives.reductions import Term

SEMANTICS = ("corrected", "reference")
TARGETS = ("level", "clip_standardised")


class Shape(NamedTuple):
    """What heads are sized by: levels L, channels per level D, and the factor split."""

    levels: int
    width: int
    factors: FactorConfig


class Objective(nn.Module):
    """Maps the latents of a step, one per mask, to named unweighted terms. ``terms`` names all it can return.

    ``needs_hidden_next``: it asks about places that are visible at a step and hidden at the next, so that masks that
    hide a place throughout leave it nothing.
    """

    terms: ClassVar[tuple[str, ...]]
    needs_hidden_next: bool = False

    def forward(self, views: Sequence[Latents]) -> dict[str, Term]:
        """Terms by name; each value is a scalar whose mean over ranks is the value of the global batch."""
        raise NotImplementedError


_REGISTRY: dict[str, type[Objective]] = {}


def register(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: make an objective available to configurations as ``name``."""

    def add(objective: type[Objective]) -> type[Objective]:
        if name in _REGISTRY:
            raise ValueError(f"two objectives are called {name!r}")
        _REGISTRY[name] = objective
        return objective

    return add


def registry() -> Mapping[str, type[Objective]]:
    """All objectives by name."""
    package = importlib.import_module("mmjepa.objectives")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"mmjepa.objectives.{module.name}")
    return _REGISTRY


@dataclass(frozen=True)
class Weight:
    """A term's coefficient over training: constant, ramped up linearly, or annealed to zero by half a cosine.

    ``ramp`` = (start, end) in training progress [0, 1]; before start the weight is 0, after end ``value``.
    """

    value: float = 1.0
    ramp: tuple[float, float] | None = None
    anneal: bool = False

    def at(self, progress: float) -> float:
        """Coefficient at training progress in [0, 1]."""
        value = self.value
        if self.ramp is not None:
            start, end = self.ramp
            value *= min(1.0, max(0.0, (progress - start) / (end - start)))
        if self.anneal:
            value *= 0.5 * (1 + math.cos(math.pi * progress))
        return value

    @classmethod
    def parse(cls, where: str, raw: Any) -> Weight:
        """From YAML: a number, or a mapping with the fields of this class."""
        if isinstance(raw, (int, float)) and not isinstance(raw, bool):
            return cls(float(raw))
        if not isinstance(raw, Mapping) or not set(raw) <= {"value", "ramp", "anneal"} or "value" not in raw:
            raise UserError(f"objective: {where} must be a number or a mapping of value, ramp, anneal; not {raw!r}")
        if not isinstance(raw["value"], (int, float)) or isinstance(raw["value"], bool):
            raise UserError(f"objective: {where}.value must be a number, not {raw['value']!r}")
        anneal = raw.get("anneal", False)
        if not isinstance(anneal, bool):
            raise UserError(f"objective: {where}.anneal must be true or false, not {anneal!r}")
        ramp = raw.get("ramp")
        if ramp is not None:
            numbers = isinstance(ramp, Sequence) and all(isinstance(one, (int, float)) for one in ramp)
            if not (numbers and len(ramp) == 2 and 0 <= ramp[0] < ramp[1] <= 1):
                raise UserError(f"objective: {where}.ramp must be two rising numbers in [0, 1], not {ramp!r}")
            ramp = (float(ramp[0]), float(ramp[1]))
        return cls(float(raw["value"]), ramp, anneal)


@dataclass
class ObjectiveConfig:
    """A named sum of objectives: ``objectives.<name>`` = {weights: {<term>: number or schedule}, **parameters}.

    ``targets`` says what the teacher's tokens go through after the LayerNorm of each level: nothing (``level``, the
    paper's form), or the clip's mean token is taken off and the rest scaled to unit size (``clip_standardised``). The
    mean token holds what all tokens of a clip share, its ground above all; with it most of the loss is about that.
    ``stop_gradient`` false lets the gradient into the targets, as the published runs without a teacher did (D4): their
    easiest solution is one and the same token everywhere. A teacher's tokens never have a gradient.
    """

    name: str = "baseline"
    factors: FactorConfig = field(default_factory=FactorConfig)
    objectives: dict[str, Any] = field(default_factory=dict)
    targets: str = "level"
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        check_choice("objective: targets", self.targets, TARGETS)


class Composite(nn.Module):
    """The total loss: every objective's terms, weighted by schedule."""

    def __init__(self, config: ObjectiveConfig, model: ModelConfig) -> None:
        super().__init__()
        if not config.objectives:
            raise UserError("objective: at least one objective is needed")
        shape = Shape(model.levels, model.width, config.factors)
        self.parts = nn.ModuleDict()
        self.weights: dict[str, Weight] = {}
        for name, raw in config.objectives.items():
            if not isinstance(raw, Mapping):
                raise UserError(f"objective {name}: give a mapping with weights and parameters, not {raw!r}")
            parameters = dict(raw)
            weights = parameters.pop("weights", {})
            self.parts[name] = build_objective(name, parameters, shape)
            self._add_weights(name, weights)

    def _add_weights(self, name: str, weights: Mapping[str, Any]) -> None:
        if not isinstance(weights, Mapping):
            raise UserError(f"objective {name}: weights must be a mapping of terms, not {weights!r}")
        known = self.parts[name].terms
        if unknown := set(weights) - set(known):  # type: ignore[arg-type]
            raise UserError(f"objective {name}: no term {sorted(unknown)[0]!r}; its terms are {', '.join(known)}")  # type: ignore[arg-type]
        if absent := [term for term in known if term not in weights]:  # type: ignore[union-attr]
            raise UserError(f"objective {name}: give weights.{absent[0]}")
        for term, raw in weights.items():
            if term in self.weights:
                raise UserError(f"objective {name}: another objective already has a term {term!r}")
            self.weights[term] = Weight.parse(f"{name}.weights.{term}", raw)

    def forward(self, views: Sequence[Latents], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and all terms by name (unweighted), plus ``<term>_valid`` where a term can lack valid pairs."""
        total = torch.zeros((), device=views[0].context.device)
        named: dict[str, Tensor] = {}
        for part in self.parts.values():
            for term, (value, valid) in part(views).items():
                named[term] = value
                if valid is not None:
                    named[f"{term}_valid"] = valid
                coefficient = self.weights[term].at(progress)
                # A zero weight still keeps the term in the graph: every rank must see the same set of gradients.
                total = total + coefficient * value
        return total, named


def build_objective(name: str, parameters: Mapping[str, Any], shape: Shape) -> Objective:
    """One objective by registered name; parameters are checked against its constructor. Raises UserError."""
    known = registry()
    if name not in known:
        raise UserError(f"unknown objective {name!r}; known are {', '.join(sorted(known))}")
    accepted = list(inspect.signature(known[name]).parameters)[1:]
    if unknown := sorted(set(parameters) - set(accepted)):
        raise UserError(f"objective {name}: unknown key {unknown[0]!r}; it takes {', '.join(accepted) or 'no keys'}")
    types = get_type_hints(known[name].__init__)
    for key, value in parameters.items():
        if not _fits(value, types[key]):
            raise UserError(f"objective {name}: {key} must be {_type_name(types[key])}, not {value!r}")
    return known[name](shape, **parameters)


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a YAML value is of an annotated type; whole numbers pass as float, booleans only as bool."""
    options = get_args(wanted) or (wanted,)
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)


def _type_name(wanted: Any) -> str:
    return " or ".join("null" if option is type(None) else option.__name__ for option in get_args(wanted) or (wanted,))


def check_choice(where: str, value: str, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``, else a UserError that lists them."""
    if value not in choices:
        raise UserError(f"{where} must be one of {', '.join(choices)}, not {value!r}")
    return value
