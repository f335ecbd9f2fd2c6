"""Latent predictors: autoregressive models of codes."""

from vq_keras.priors.code_embedding import CodeEmbedding, CodeTable
from vq_keras.priors.image_transformer import ImageTransformer
from vq_keras.priors.pixel_cnn import PixelCNN

__all__ = ["CodeEmbedding", "CodeTable", "ImageTransformer", "PixelCNN"]
