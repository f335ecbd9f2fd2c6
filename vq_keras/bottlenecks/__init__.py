"""Bottlenecks: layers from continuous latents to discrete codes, and the continuous ones they are compared with."""

from vq_keras.bottlenecks.base import Bottleneck
from vq_keras.bottlenecks.by_name import CONTINUOUS, NAMES, get
from vq_keras.bottlenecks.categorical_samples import CategoricalSamples
from vq_keras.bottlenecks.finite_scalar import FiniteScalarQuantizer
from vq_keras.bottlenecks.gaussian import Gaussian
from vq_keras.bottlenecks.gaussian_samples import GaussianSamples
from vq_keras.bottlenecks.grouped import GroupedQuantizer
from vq_keras.bottlenecks.gumbel_softmax import GumbelSoftmax
from vq_keras.bottlenecks.lookup_free import LookupFreeQuantizer
from vq_keras.bottlenecks.product import ProductQuantizer
from vq_keras.bottlenecks.projected import Projected
from vq_keras.bottlenecks.random_projection import RandomProjectionQuantizer
from vq_keras.bottlenecks.residual import ResidualQuantizer
from vq_keras.bottlenecks.residual_finite_scalar import ResidualFiniteScalarQuantizer
from vq_keras.bottlenecks.semantic_hashing import SemanticHashing
from vq_keras.bottlenecks.soft_em import SoftEM
from vq_keras.bottlenecks.vector_quantizer import VectorQuantizer

__all__ = [
    "CONTINUOUS",
    "NAMES",
    "Bottleneck",
    "CategoricalSamples",
    "FiniteScalarQuantizer",
    "Gaussian",
    "GaussianSamples",
    "GroupedQuantizer",
    "GumbelSoftmax",
    "LookupFreeQuantizer",
    "ProductQuantizer",
    "Projected",
    "RandomProjectionQuantizer",
    "ResidualFiniteScalarQuantizer",
    "ResidualQuantizer",
    "SemanticHashing",
    "SoftEM",
    "VectorQuantizer",
    "get",
]
