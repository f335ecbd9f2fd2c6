"""Latent predictors: autoregressive models of codes."""

from vq_keras.priors.code_embedding import CodeEmbedding
from vq_keras.priors.image_transformer import ImageTransformer

__all__ = ["CodeEmbedding", "ImageTransformer"]
