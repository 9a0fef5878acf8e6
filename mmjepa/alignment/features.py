"""Frozen features of clips as they are, and of clips that lost frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmjepa.data.evaluation_set import EvaluationSet
from mmjepa.data.samples import ClipBatch
from mmjepa.evaluation.dropout import DropoutCondition, apply_fill, kept_batch
from mmjepa.frozen import FeatureSet, FeatureStore, FrozenEncoder, LatentFill, Tokens

logger = logging.getLogger(__name__)
CLEAN = "clean"


def condition_name(condition: DropoutCondition | None) -> str:
    """Name of a condition in the feature store; all conditions that lose nothing are the clean one."""
    if condition is None or condition.rate == 0:
        return CLEAN
    return f"{condition.pattern}-{condition.fill}-{condition.rate:g}-{condition.seed}"


def latent_fill(fill: str) -> LatentFill | None:
    """The part of a fill that the encoder itself carries out."""
    if fill == "mask":
        return "mask"
    return "predict" if fill == "predict" else None


def encode_under(encoder: FrozenEncoder, clips: ClipBatch, condition: DropoutCondition | None) -> Tokens:
    """Tokens of ``clips`` after they lose the frames that ``condition`` says (None: nothing is lost)."""
    if condition_name(condition) == CLEAN or condition is None:
        return encoder.encode(clips.pixels)
    received = kept_batch(clips.keys, clips.pixels.shape[2], condition)
    filled = apply_fill(clips.pixels, received, condition.fill)
    return encoder.encode(filled, received, latent_fill(condition.fill))


def stored_features(
    store: FeatureStore, encoder: FrozenEncoder, data: EvaluationSet, conditions: Sequence[DropoutCondition | None]
) -> list[FeatureSet]:
    """The features of ``data`` under each condition, from ``store``; what is missing is made in one pass and stored."""
    names = {condition_name(condition): condition for condition in conditions}
    absent = [name for name in names if not store.has(encoder.spec.fingerprint, data.fingerprint, name)]
    if absent:
        logger.info("encoding %d clips with %s (%s)", len(data), encoder.spec.name, ", ".join(absent))
        store.fill(
            encoder.spec.fingerprint,
            data.fingerprint,
            absent,
            data,
            lambda clips, name: encode_under(encoder, clips, names[name]),
        )
    return [store.read(encoder.spec.fingerprint, data.fingerprint, condition_name(one)) for one in conditions]
