"""Text-video retrieval of a frozen encoder and its text head, as frames are dropped.

    python eval/retrieval.py encoder=own encoder.name=baseline encoder.checkpoint=RUN/encoder head=ALIGN_RUN/head \
        data.root=data/sprites out=results/retrieval-baseline.json

Writes out (rows with intervals, example retrievals) and, beside it, R@1 and rank of every query as .npz.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from mmjepa.alignment.features import condition_name
from mmjepa.alignment.heads import load_head
from mmjepa.alignment.retrieval import Measured, Queries, embed_videos, example_retrievals, measure, per_query
from mmjepa.config import run_program, to_dict
from mmjepa.errors import UserError
from mmjepa.evaluation.dropout import LATENT_FILLS, DropoutCondition
from mmjepa.evaluation.results import result_path, write_results
from mmjepa.frozen import EncoderConfig, build_encoder
from mmjepa.frozen.clips import ClipsConfig
from mmjepa.frozen.registry import resolve_device
from mmjepa.text import build_text_tower


@dataclass
class RetrievalConfig:
    """Every rate x pattern x fill x drop seed is a condition. ``splits`` are searched together, as one gallery."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: ClipsConfig = field(default_factory=ClipsConfig)
    head: str = MISSING
    text_cache: str | None = None
    splits: list[str] = MISSING
    out: str = MISSING
    rates: list[float] = MISSING
    patterns: list[str] = MISSING
    fills: list[str] = MISSING
    drop_seeds: list[int] = MISSING
    resamples: int = 1000
    examples: int = 6
    top: int = 5

    def __post_init__(self) -> None:
        for name in ("splits", "rates", "patterns", "fills", "drop_seeds"):
            if getattr(self, name) == []:
                raise UserError(f"{name} needs at least one entry")
        if self.resamples < 1 or self.examples < 0 or self.top < 1:
            raise UserError("resamples and top must be at least 1, examples at least 0")

    def conditions(self) -> list[DropoutCondition]:
        """All conditions. Raises UserError on a rate or name that does not exist."""
        combinations = product(self.patterns, self.fills, self.rates, self.drop_seeds)
        return [DropoutCondition(rate, pattern, fill, seed) for pattern, fill, rate, seed in combinations]


def main(config: RetrievalConfig) -> None:
    """Measure text-video retrieval under frame dropout and write rows, example retrievals and ranks."""
    conditions, out = config.conditions(), result_path(config.out)
    encoder = build_encoder(config.encoder)
    for fill in config.fills:
        if fill in LATENT_FILLS and fill not in encoder.spec.supports:
            raise UserError(f"encoder {encoder.spec.name} cannot do the fill '{fill}': leave it out of fills")
    head, info = load_head(Path(config.head))
    info.require_encoder(encoder.spec)
    device = resolve_device(config.encoder.device)
    clips = config.data.open(config.splits, encoder.spec)
    clips.require("captions")
    videos = embed_videos(encoder, head.to(device), clips, conditions)
    tower = build_text_tower(replace(info.text, cache=config.text_cache), device)
    queries = Queries(videos.keys, videos.metas, tower, head)
    measured = {name: list(measure(embedded, queries)) for name, embedded in videos.by_condition.items()}
    seeds = {"pretrain_seed": encoder.spec.pretrain_seed, "head_seed": info.seed}
    rows = _rows(config, conditions, measured, {"encoder": encoder.spec.name, **seeds})
    clean = videos.by_condition.get("clean", next(iter(videos.by_condition.values())))
    examples = example_retrievals(encoder.spec.name, clean, videos.keys, queries, config.examples, config.top)
    _save_queries(out.with_suffix(".npz"), videos.keys, queries, measured)
    facts = {
        **seeds,
        "encoder_fingerprint": encoder.spec.fingerprint,
        "data_fingerprint": clips.fingerprint,
        "text_tower": info.text_tower,
        "unusable": clips.quarantine.names,
    }
    write_results(out, "eval/retrieval.py", to_dict(config), rows, facts, examples)
    for row in rows:
        if row["metric"] == "R@1":
            condition = f"{row['pattern']:9s} {row['fill']:8s} {row['rate']:4.2f}"
            print(f"{condition} {row['direction']} R@1 {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    print(f"{len(rows)} rows, {len(videos.keys)} videos, {len(queries.captions)} captions: {out}")


def _rows(
    config: RetrievalConfig,
    conditions: list[DropoutCondition],
    measured: dict[str, list[Measured]],
    identity: dict[str, Any],
) -> list[dict[str, Any]]:
    """One row per condition and metric. Conditions that lose nothing share their values exactly."""
    by_name = {name: [one.row(config.resamples) for one in metrics] for name, metrics in measured.items()}
    return [
        {
            **identity,
            "pattern": condition.pattern,
            "fill": condition.fill,
            "rate": condition.rate,
            "drop_seed": condition.seed,
            **row,
        }
        for condition in conditions
        for row in by_name[condition_name(condition)]
    ]


def _save_queries(path: Path, keys: list[str], queries: Queries, measured: dict[str, list[Measured]]) -> None:
    """Arrays ``<condition>/<direction>/<metric>``, ``keys`` of the videos, and ``caption_video`` (index into keys)."""
    arrays = {"keys": np.array(keys), "caption_video": queries.video}
    arrays |= {
        f"{name}/{metric}": values
        for name, metrics in measured.items()
        for metric, values in per_query(metrics).items()
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)


if __name__ == "__main__":
    run_program("retrieval", RetrievalConfig, main)
