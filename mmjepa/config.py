"""Configuration of every program: a Hydra tree of YAML files, checked against a dataclass before any heavy work.

A program calls :func:`run_program` with its root file (``configs/<root>.yaml``), its schema (a dataclass) and its main
function. Unknown keys, wrong types, unknown groups and impossible combinations (raised as :class:`UserError` by a
schema's ``__post_init__``) end in one line on stderr and exit code 2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmjepa.errors import UserError

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
LONGEST_SILENCE = 30.0
"""Seconds that a rank which leaves an error for another to tell waits to be ended by the launcher."""

T = TypeVar("T")


def load_config(root: str, schema: type[T], overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> T:
    """Compose ``<config_dir>/<root>.yaml`` with Hydra ``overrides`` and check it against the dataclass ``schema``.

    Returns an instance of ``schema`` (nested dataclasses included). Raises :class:`UserError` for anything the user can
    mend: an unknown group option or key, a missing mandatory value, a value of the wrong type.
    """
    merged = _merged(root, schema, overrides, config_dir)
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise UserError(f"missing value: give {', '.join(f'{key}=...' for key in missing)}")
    try:
        if strange := [key for key, value in _numbers(OmegaConf.to_container(merged)) if not math.isfinite(value)]:
            raise UserError(f"{strange[0]}={OmegaConf.select(merged, strange[0])} is not a finite number")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from error


def _merged(root: str, schema: type, overrides: Sequence[str], config_dir: Path = CONFIG_DIR) -> DictConfig:
    """The composed configuration, of the schema's types; mandatory values may still be missing."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir.resolve())):
            composed = compose(config_name=root, overrides=list(overrides))
        return OmegaConf.merge(OmegaConf.structured(schema), composed)  # type: ignore[return-value]
    except MissingConfigException as error:
        raise UserError(_no_option(error, config_dir)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_no_setting(error, schema) or _one_line(error)) from error
    except ValueError as error:  # Hydra's own check of defaults lists: a group that is set to null
        raise UserError(f"{_one_line(error)}: name an option of the group, or take it away with ~group") from error


def _numbers(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a plain configuration, with its key."""
    if isinstance(node, (dict, list)):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in items:
            yield from _numbers(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, float):
        yield path, node


def to_dict(config: Any) -> dict[str, Any]:
    """A plain, JSON-ready dictionary of a configuration dataclass."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: Any) -> str:
    """A short fingerprint of a configuration (dataclass or plain dictionary): equal values, equal hash."""
    plain = config if isinstance(config, dict) else to_dict(config)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def save_yaml(config: Any, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))


def program_arguments(argv: Sequence[str]) -> list[str]:
    """Command-line overrides without the ``--local_rank=N`` that the DeepSpeed launcher adds (ranks come from RANK)."""
    return [argument for argument in argv if not argument.startswith("--local_rank")]


def run_program(
    root: str,
    schema: type[T],
    main: Callable[[T], None],
    argv: Sequence[str] | None = None,
    config_dir: Path = CONFIG_DIR,
) -> None:
    """Parse the command line, run ``main(config)``; a :class:`UserError` becomes one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = program_arguments(sys.argv[1:] if argv is None else argv)
    try:
        options = [one for one in arguments if one.startswith("-") and one not in ("-h", "--help")]
        if options:
            raise UserError(f"{options[0]} is not an option: settings are written key=value")
        if any(argument in ("-h", "--help") for argument in arguments):
            merged = _merged(root, schema, [a for a in arguments if not a.startswith("-")], config_dir)
            print(f"{(main.__doc__ or '').strip()}\n\nOverride any value as key=value. Resolved configuration:\n")
            print(OmegaConf.to_yaml(merged))
            return
        main(load_config(root, schema, arguments, config_dir))
    except UserError as error:
        if error.first if error.first is not None else os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        else:  # launchers end all ranks as soon as one has left, which must be the one that says why, however slow
            time.sleep(LONGEST_SILENCE)
        sys.exit(2)


def _no_option(error: MissingConfigException, config_dir: Path) -> str:
    """Which option is missing, and all there are beside it; Hydra itself does not look into subfolders."""
    group, _, option = str(error.missing_cfg_file).partition("/")
    base = config_dir.resolve() / group
    options = [path.relative_to(base) for path in base.rglob("*.yaml")]
    shown = [one for one in options if one.stem != "common" and one.parts[0] != "shared"]
    beside = [one for one in shown if one.parent == Path(option).parent]  # in the subfolder that was asked for
    there = sorted(one.with_suffix("").as_posix() for one in beside or shown)
    return f"no {group}={option}; there are {', '.join(there)}"


def _no_setting(error: BaseException, schema: type) -> str | None:
    """What to say of a key that Hydra cannot override because it is not there; None if that is not what happened.

    Hydra's own advice, to append it with +, only holds below a mapping: everywhere else the schema refuses it.
    """
    matched = re.match(r"Could not override '([^']+)'\.\s+To append to your config", str(error))
    if matched is None:
        return None
    parent: Any = schema
    for name in matched[1].split(".")[:-1]:
        parent = get_type_hints(parent).get(name) if dataclasses.is_dataclass(parent) else parent
        if type(None) in get_args(parent):  # the part may be left out
            parent = get_args(parent)[0]
    if get_origin(parent) is dict:
        return f"there is no {matched[1]} yet: +{matched[1]}=... adds it"
    return f"there is no setting {matched[1]}; --help lists all"


def _one_line(error: BaseException) -> str:
    """A Hydra or OmegaConf message on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    dropped = ("Set the environment", "full_key", "object_type", "reference_type", "Config search path", "provider=")
    kept = [line for line in lines if line and not line.startswith(dropped)]
    message = "; ".join(kept) or type(error).__name__
    keys = [line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")]
    where = "".join(f"{key}: " for key in keys if key and key not in message)
    return f"{where}{message}"
