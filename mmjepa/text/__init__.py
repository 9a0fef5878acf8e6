"""Text towers behind one protocol: frozen, normalised sentence embeddings."""

from mmjepa.text.protocol import TextTower
from mmjepa.text.registry import TextConfig, build_text_tower

__all__ = ["TextConfig", "TextTower", "build_text_tower"]
