"""The loops that generate codes from any model that predicts them, one after the other or all at once."""

from vq_keras.generation.beams import beam_search, gnmt_penalty
from vq_keras.generation.best_path import best_path
from vq_keras.generation.logits import NEVER
from vq_keras.generation.parallel import parallel
from vq_keras.generation.path_search import path_search
from vq_keras.generation.sampling import greedy, sample

__all__ = ["NEVER", "beam_search", "best_path", "gnmt_penalty", "greedy", "parallel", "path_search", "sample"]
