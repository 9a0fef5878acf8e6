"""Every shipped experiment composes into a valid configuration, so that no cluster job dies on a typo."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from mmjepa.config import CONFIG_DIR, load_config, run_program, to_dict
from mmjepa.errors import UserError
from mmjepa.models import ModelConfig
from mmjepa.objectives import Composite, registry
from mmjepa.training.pretrain import PretrainParts
from mmjepa.training.program import TrainConfig

EXPERIMENTS = sorted(
    str(path.relative_to(CONFIG_DIR / "experiment").with_suffix(""))
    for path in (CONFIG_DIR / "experiment").glob("*/*.yaml")
    if path.stem != "common"
)


PUBLISHED = {
    "mixed": "baseline baseline_seed42 baseline_seed1337 motion_guided amg hw delta fwm ld fwm_ld hw_ld fwm_hw_ld "
    "combo spectral ltc ac ac_hw fac",
    "ucf101": "baseline motion_guided future_predictive motion_future kinematic kinematic_0_1 kinematic_huber "
    "kinematic_accel kinematic_split kinematic_anneal sigreg sigreg_no_ema hamiltonian velgate",
}
"""Rows of the reference specification's table of variants (section 0)."""
MASK_VARIANTS = {"motion_guided", "amg", "future_predictive", "motion_future"}
PREDICTED = {"predict_half": 0.5, "predict_quarter": 0.25}
WITHOUT_TEACHER = {name for name in PUBLISHED["ucf101"].split() if name.startswith("kinematic")} | {
    "sigreg_no_ema",
    "baseline_no_ema",
    "kinematic_reference",
}


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "objective").glob("*.yaml")), ids=lambda path: path.stem)
def test_objectives_show_all_their_options_so_that_each_can_be_overridden(path: Path) -> None:
    config = load_config("train", TrainConfig, ["run=unused", "ema=null", f"objective={path.stem}"]).objective
    assert config is not None
    for name, given in config.objectives.items():
        options = set(inspect.signature(registry()[name]).parameters) - {"shape"}
        assert set(given) == {"weights"} | options, name


def test_the_hard_regions_of_both_losses_have_one_temperature() -> None:
    for experiment in ("mixed/hw_ld", "sprites/fwm_hw_ld"):
        settings = [f"experiment={experiment}", "run=unused", "objective.objectives.hard_region.temperature=0.7"]
        config = load_config("train", TrainConfig, settings).objective
        assert config is not None
        assert config.objectives["latent_dynamics"]["hard_region_temperature"] == 0.7


def test_the_regimes_draw_and_mask_as_published() -> None:
    """Sampling weights and mask geometry of the reference specification (sections 0 and 2.4)."""
    weights = {"ucf101": 0.2, "ssv2": 0.6, "imagenet100": 0.2}
    for regime, sources in (("mixed", weights), ("ucf101", {"ucf101": 1.0})):
        config = load_config("train", TrainConfig, [f"experiment={regime}/baseline", "run=unused"])
        assert config.data is not None
        assert config.masking is not None
        assert {name: source.weight for name, source in config.data.sources.items()} == sources
        geometry = [(m.blocks, *m.spatial_scale, *m.aspect, *m.temporal_scale) for m in config.masking.masks.values()]
        assert geometry == [(8, 0.15, 0.15, 0.75, 1.5, 1.0, 1.0), (2, 0.7, 0.7, 0.75, 1.5, 1.0, 1.0)]
    config = load_config("train", TrainConfig, ["experiment=ucf101/future_predictive", "run=unused"])
    assert config.masking is not None
    future = [
        (m.blocks, m.spatial_scale[0], m.max_temporal_keep, m.full_complement) for m in config.masking.masks.values()
    ]
    assert future == [(4, 0.15, 0.5, True), (1, 0.7, 0.5, True)]


@pytest.mark.parametrize("regime", PUBLISHED)
def test_every_published_row_has_an_experiment_of_its_name_and_one_on_sprites(regime: str) -> None:
    rows = set(PUBLISHED[regime].split())
    assert rows <= {name.removeprefix(f"{regime}/") for name in EXPERIMENTS}
    assert {row for row in rows if "seed" not in row} <= {name.removeprefix("sprites/") for name in EXPERIMENTS}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_are_valid_and_are_what_their_name_says(experiment: str) -> None:
    config = load_config("train", TrainConfig, [f"experiment={experiment}", "run=unused"])
    regime, name = experiment.split("/")
    variant = name.split("_seed")[0].removesuffix("_no_ema")
    assert config.objective is not None
    assert config.masking is not None
    if variant == "published_recipe":
        assert config.objective.name == "baseline"
        assert config.masking.equalize == "tail"
    elif variant in PREDICTED:
        assert (config.masking.name, config.masking.predicted) == ("sprites", PREDICTED[variant])
        assert config.objective.name == "baseline"
    elif variant in MASK_VARIANTS:
        assert config.masking.name.removeprefix("sprites_") == variant
        assert config.objective.name == "baseline"
    else:
        assert config.objective.name == variant
        assert (config.masking.motion is not None) == (variant == "combo")
    assert (config.ema is None) == (name in WITHOUT_TEACHER)
    assert f"_seed{config.seed}" in name or "_seed" not in name
    Composite(config.objective, ModelConfig("t", 24, 4, 2, frames=8, resolution=64))
    assert set(config.data.sources) >= ({"motion"} if regime == "sprites" else {"ucf101"})


FWM = {"factorised.static": 0.05, "factorised.orthogonal": 0.01}
COEFFICIENTS = {
    "baseline": {},
    "hw": {"hard_region.hard_region": 0.3},
    "delta": {"delta.delta": 0.5},
    "fwm": FWM,
    "ld": {"latent_dynamics.latent_dynamics": 1.0},
    "fwm_ld": {**FWM, "latent_dynamics.latent_dynamics": 1.0},
    "hw_ld": {"latent_dynamics.latent_dynamics": 1.0, "hard_region.hard_region": 1.0},
    "fwm_hw": {**FWM, "hard_region.hard_region": 1.0},
    "fwm_hw_ld": {**FWM, "latent_dynamics.latent_dynamics": 1.0, "hard_region.hard_region": 1.0},
    "combo": {"delta.delta": 0.5, "hard_region.hard_region": 0.3},
    "spectral": {"spectral.spectral": 1.0},
    "ltc": {"temporal_contrast.temporal_contrast": 0.5},
    "ac": {"action.action": 1.0},
    "ac_hw": {"action.action": 1.0, "hard_region.hard_region": 0.3},
    "fac": {**FWM, "action.action": 1.0},
    "kinematic": {"kinematic.kinematic": 1.0},
    "kinematic_0_1": {"kinematic.kinematic": 0.1},
    "kinematic_huber": {"kinematic.kinematic": 0.1},
    "kinematic_accel": {"kinematic.kinematic": 0.1},
    "kinematic_split": {"kinematic.kinematic": 0.1},
    "kinematic_anneal": {"kinematic.kinematic": {"value": 0.1, "anneal": True}},
    "sigreg": {"sigreg.sigreg": 1.0},
    "hamiltonian": {"hamiltonian.hamiltonian": 1.0},
    "velgate": {"velocity_gate.velocity_gate": 1.0},
}
"""Weights of every objective beside the JEPA loss (reference specification, section 0), by objective and term."""
OPTIONS = {
    "hw": ("hard_region", {"temperature": 1.0}),
    "fwm_hw_ld": ("latent_dynamics", {"hidden": 256, "inputs": "dynamics", "hard_region_temperature": 1.0}),
    "hw_ld": ("latent_dynamics", {"hidden": 256, "inputs": "all", "hard_region_temperature": 1.0}),
    "ld": ("latent_dynamics", {"hidden": 256, "inputs": "all"}),
    "fwm_ld": ("latent_dynamics", {"hidden": 256, "inputs": "dynamics"}),
    "ltc": ("temporal_contrast", {"margin": 0.5}),
    "ac": ("action", {"hidden": 256, "inputs": "all"}),
    "fac": ("action", {"hidden": 256, "inputs": "dynamics"}),
    "kinematic": ("kinematic", {"penalty": "l1", "order": 1, "inputs": "all"}),
    "kinematic_huber": ("kinematic", {"penalty": "huber", "delta": 0.1, "order": 1, "inputs": "all"}),
    "kinematic_accel": ("kinematic", {"penalty": "l1", "order": 2, "inputs": "all"}),
    "kinematic_split": ("kinematic", {"penalty": "l1", "order": 2, "inputs": "appearance"}),
    "kinematic_anneal": ("kinematic", {"penalty": "l1", "order": 2, "inputs": "all"}),
    "hamiltonian": ("hamiltonian", {"dt": 0.1}),
    "velgate": ("velocity_gate", {"percentile": 0.5}),
}
"""Options of one objective of a variant, from the same table."""
GUIDANCE = {"motion_guided": (2.0, 0.1), "motion_future": (2.0, 0.1), "amg": (5.0, 0.0), "combo": (5.0, 0.0)}
"""Strength of motion guidance and rate of blocks without it."""


@pytest.mark.parametrize(
    "experiment", [f"{regime}/{name}" for regime in PUBLISHED for name in PUBLISHED[regime].split()]
)
def test_published_rows_have_the_published_coefficients(experiment: str) -> None:
    config = load_config("train", TrainConfig, [f"experiment={experiment}", "run=unused"])
    name = experiment.split("/")[1].split("_seed")[0].removesuffix("_no_ema")
    assert config.objective is not None
    assert config.masking is not None
    objectives: dict[str, dict[str, Any]] = to_dict(config.objective)["objectives"]
    jepa = objectives.pop("jepa")
    assert jepa["weights"]["predict"] == 1.0
    assert jepa["weights"]["context"] == {"value": 0.5, "ramp": [0.5, 1.0]}
    assert (jepa["exponent"], jepa["distance_weighted"]) == (1.0, True)
    weights = {f"{key}.{term}": weight for key, one in objectives.items() for term, weight in one["weights"].items()}
    assert weights == COEFFICIENTS.get(name, {})
    if name in OPTIONS:
        objective, options = OPTIONS[name]
        assert objectives[objective].items() >= options.items()
    motion = config.masking.motion
    assert (motion and (motion.strength, motion.random_rate)) == GUIDANCE.get(name)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.start_lr, optimizer.final_lr) == (6e-4, 1e-4, 6e-4)
    assert (optimizer.warmup_steps, optimizer.weight_decay, optimizer.max_grad_norm) == (300, 0.04, None)
    assert config.ema is None or (config.ema.momentum, config.ema.final_momentum) == (0.99925, 0.99925)
    assert (config.steps, config.batch_size, config.masking.group) == (30_000, 32, 8)


@pytest.mark.parametrize("size", sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")))
def test_every_model_size_is_valid(size: str) -> None:
    overrides = [f"model={size}", "run=unused", "data.resolution=224" if size != "sprites" else "data.resolution=64"]
    config = load_config("train", TrainConfig, overrides)
    assert config.model.name == size
    assert len(config.model.taps) == config.model.levels


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=null", "Config group override"),
        ("deepspeed=null", "name an option of the group"),
        ("optimizer.lrr=1", "there is no setting optimizer.lrr; --help lists all"),
        ("data.sources.mine.weight=2", "no data.sources.mine.weight yet: +data.sources.mine.weight=... adds it"),
        ("steps=null", "steps: "),
        ("ema.momentum=null", "ema.momentum: "),
        ("optimizer.lr=nan", "finite"),
        ("optimizer.lr=inf", "finite"),
        ("optimizer.max_grad_norm=nan", "max_grad_norm=nan is not a finite number"),
        ("masking.group=0", "group must be at least 1"),
        ("dry_run=2.5", "dry_run: "),
        ("experiment=sprites/nope", "no experiment=sprites/nope; there are sprites/ac, sprites/ac_hw, "),
        ("objective=nope", "no objective=nope; there are ac, ac_hw, "),
        ("experiment=nope", "no experiment=nope; there are align"),
        ("experiment=no/such", "no experiment=no/such; there are align, mixed/ac, "),
        ("experiment=../x", "no experiment=../x; there are align, mixed/ac, "),
        ("experiment=/tmp/x/y", "; there are align, mixed/ac, "),
        ("objective=", "; there are ac, ac_hw, "),
        (
            "experiment=align encoder.checkpoint=x encoder.name=x data.decoder=decord",
            "data.decoder=decord is for task=pretrain",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config("train", TrainConfig, ["run=unused", *override.split()])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_forecasts_need_masks_that_hide_the_next_step() -> None:
    fits = ["run=unused", "experiment=sprites/ld_hidden"]
    PretrainParts(**load_config("train", TrainConfig, fits).parts())
    with pytest.raises(UserError, match="masking=multiblock hide a place throughout"):
        PretrainParts(**load_config("train", TrainConfig, [*fits, "masking=multiblock"]).parts())


def test_options_are_refused_with_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program("train", TrainConfig, print, ["--steps=5"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --steps=5 is not an option: settings are written key=value\n"


JEPA = "objective.objectives.jepa.weights"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{JEPA}.predict=nan", "predict=nan is not a finite number"),
        ("data.mean=[0,0,nan]", "data.mean.2=nan is not a finite number"),
        ("optimizer.weight_decay=-1", "weight_decay must not be negative"),
        ("model.mlp_ratio=0", "mlp_ratio must be above 0"),
        (f"{JEPA}.context={{value: abc}}", "context.value must be a number"),
        (f"{JEPA}.context={{value: true}}", "context.value must be a number"),
        (f"{JEPA}.context={{value: 1, ramp: 3}}", "two rising numbers"),
        (f"{JEPA}.context={{value: 1, ramp: [a, b]}}", "two rising numbers"),
        ("objective=hw objective.objectives.hard_region.temperature=0", "temperature must be above 0"),
        ("objective=ld objective.objectives.latent_dynamics.hidden=0", "hidden must be at least 1"),
        ("objective=sigreg objective.objectives.sigreg.slices=0", "slices must be at least 1"),
        ("objective=kinematic objective.objectives.kinematic.delta=-1", "delta must be above 0"),
        ("objective=hamiltonian objective.factors.appearance_share=0.25", "appearance_share=0.5"),
        ("objective=ld_hidden objective.objectives.latent_dynamics.pairs=next", "pairs must be one of visible, hidden"),
        ("objective=fwm_hw_ld objective.objectives.latent_dynamics.hard_region_temperature=0", "must be above 0"),
        (
            "objective=fwm_hw_ld_revised objective.objectives.latent_dynamics.hard_region_temperature=null",
            "needs a hard_region_temp",
        ),
    ],
)
def test_numbers_that_cannot_work_are_refused(override: str, message: str) -> None:
    def build() -> None:
        overrides = override.split(" objective.") if " objective." in override else [override]
        overrides = [overrides[0], *(f"objective.{one}" for one in overrides[1:])]
        config = load_config("train", TrainConfig, ["run=unused", *overrides])
        Composite(config.objective, config.model)  # type: ignore[arg-type]

    with pytest.raises(UserError, match=message):
        build()
