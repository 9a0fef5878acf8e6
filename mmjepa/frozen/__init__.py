"""Any frozen video encoder behind one protocol: own checkpoints, controls, and a store of their features."""

from mmjepa.frozen.protocol import FrozenEncoder, FrozenSpec, LatentFill, Tokens
from mmjepa.frozen.registry import EncoderConfig, build_encoder
from mmjepa.frozen.store import FeatureSet, FeatureStore

__all__ = [
    "EncoderConfig",
    "FeatureSet",
    "FeatureStore",
    "FrozenEncoder",
    "FrozenSpec",
    "LatentFill",
    "Tokens",
    "build_encoder",
]
