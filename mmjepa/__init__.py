"""mmjepa: factorised Video-JEPA, text alignment of frozen video encoders, retrieval under frame dropout."""

__version__ = "0.1.0"
