"""Layers that several models share."""

from vq_keras.layers.attention import LocalSelfAttention
from vq_keras.layers.multi_head_attention import CausalSelfAttention, CrossAttention, SelfAttention
from vq_keras.layers.positions import SinusoidalPositions
from vq_keras.layers.stacks import TransformerDecoder, TransformerEncoder
from vq_keras.layers.tied_embedding import TiedEmbedding
from vq_keras.layers.transformer import DecoderBlock, EncoderBlock, TransformerBlock

__all__ = [
    "CausalSelfAttention",
    "CrossAttention",
    "DecoderBlock",
    "EncoderBlock",
    "LocalSelfAttention",
    "SelfAttention",
    "SinusoidalPositions",
    "TiedEmbedding",
    "TransformerBlock",
    "TransformerDecoder",
    "TransformerEncoder",
]
