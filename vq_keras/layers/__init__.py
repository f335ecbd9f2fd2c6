"""Layers that several models share."""

from vq_keras.layers.annealing import Annealing
from vq_keras.layers.attention import LocalSelfAttention
from vq_keras.layers.compression import Compressor, Decompressor
from vq_keras.layers.gated_convolution import HorizontalConvolution, VerticalConvolution
from vq_keras.layers.multi_head_attention import CausalSelfAttention, CrossAttention, SelfAttention
from vq_keras.layers.ngrams import NGrams
from vq_keras.layers.positions import SinusoidalPositions
from vq_keras.layers.stacks import ParallelDecoder, TransformerDecoder, TransformerEncoder
from vq_keras.layers.tied_embedding import TiedEmbedding
from vq_keras.layers.transformer import DecoderBlock, EncoderBlock, ParallelDecoderBlock, TransformerBlock

__all__ = [
    "Annealing",
    "CausalSelfAttention",
    "Compressor",
    "CrossAttention",
    "DecoderBlock",
    "Decompressor",
    "EncoderBlock",
    "HorizontalConvolution",
    "LocalSelfAttention",
    "NGrams",
    "ParallelDecoder",
    "ParallelDecoderBlock",
    "SelfAttention",
    "SinusoidalPositions",
    "TiedEmbedding",
    "TransformerBlock",
    "TransformerDecoder",
    "TransformerEncoder",
    "VerticalConvolution",
]
