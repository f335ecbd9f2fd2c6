"""`saved_model_cli` for models of text: TensorFlow's own command, with the operations of TensorFlow Text."""

import os

from vq_keras.errors import InputError, run_command


def main() -> int:
    """The command `vq-keras-saved-model-cli`; its arguments are those of `saved_model_cli`.

    Returns:
        2 where TensorFlow Text is not installed; else TensorFlow's command ends the process itself.

    Example:
        vq-keras-saved-model-cli run --dir exports/text/1 --tag_set serve --signature_def serving_default \\
            --input_exprs 'source=["Two dogs are playing."]'
    """
    return run_command(_main)


def _main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow_text  # noqa: F401  Its operations are known from here on.
    except ImportError as error:
        raise InputError(f"Text needs TensorFlow Text ({error}): pip install 'vq_keras[translation]'.") from error
    from tensorflow.python.tools import saved_model_cli

    saved_model_cli.main()
