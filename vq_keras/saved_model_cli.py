"""`saved_model_cli` for models of text: TensorFlow's own command, with the operations of TensorFlow Text."""

import os


def main() -> None:
    """The command `vq-keras-saved-model-cli`; its arguments are those of `saved_model_cli`.

    Example:
        vq-keras-saved-model-cli run --dir exports/text/1 --tag_set serve --signature_def serving_default \\
            --input_exprs 'source=["Two dogs are playing."]'
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_text  # noqa: F401  Its operations are known from here on.
    from tensorflow.python.tools import saved_model_cli

    saved_model_cli.main()
