"""Layers that several models share."""

from vq_keras.layers.attention import LocalSelfAttention
from vq_keras.layers.transformer import TransformerBlock

__all__ = ["LocalSelfAttention", "TransformerBlock"]
