"""The folder of a run that has ended, around an untrained model."""

from vq_keras.data.vocabulary import FILE
from vq_keras.training import runs

TINY = {"num_encoder_layers": 1, "num_decoder_layers": 1, "hidden_dim": 16, "num_heads": 2, "feed_forward_dim": 16}


def finished_run(run_dir, model, vocabulary):
    runs.claim(run_dir, {"vocabulary": vocabulary.fingerprint, "max_length": 64})
    vocabulary.save(run_dir / FILE)
    runs.save_model(model, run_dir)
    return run_dir
