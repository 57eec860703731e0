"""A model-scoring server with a sealed front."""

__version__ = "0.1.0"
