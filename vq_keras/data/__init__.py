"""Images as uint8 arrays, and their batches in a seeded order."""

from vq_keras.data.batches import test_batches, training_batches, training_order
from vq_keras.data.image_data import ImageData
from vq_keras.data.images import load

__all__ = ["ImageData", "load", "test_batches", "training_batches", "training_order"]
