"""What a served model is, as JSON beside it: the run it comes from, its data and figures, and its signatures."""

import json
import subprocess
from pathlib import Path

import vq_keras
from vq_keras.training import runs
from vq_keras.training.files import replace_file

# Not in assets/, which holds what the graph reads: this folder is for what only goes with a model, and loaders pass
# over it.
FILE = "assets.extra/model_card.json"

_DATA = ("dataset", "languages", "pairs", "image_size", "flip")


def describe(run_dir, model) -> dict:
    """What the folder of a run tells of its model, in types of JSON.

    Args:
        run_dir: the folder of a finished run, or the name of a preset.
        model: its model.

    Returns:
        "model", its class; "parameters"; "run", the folder's name; "vq_keras" and "commit", the version that exported
        it, null where the commit is not known; "config", its config.json; "data", what that says of the data;
        "metrics", its metrics.json, null where it has none; and "description", its README.md, null where it has none.

    Raises:
        InputError: the folder is damaged.

    Example:
        >>> describe("multi30k-en-de-teacher", model)["data"]["languages"]
        ['en', 'de']
    """
    run_dir = runs.find(run_dir)
    config = runs.load_config(run_dir)
    ngrams = getattr(model, "ngrams", None)
    readme = run_dir / "README.md"
    return {
        "model": type(model).__name__,
        # Tables of n-grams are none.
        "parameters": model.count_params() - (ngrams.count_params() if ngrams else 0),
        "run": run_dir.resolve().name,
        "vq_keras": vq_keras.__version__,
        "commit": _commit(),
        "data": {name: config[name] for name in _DATA if name in config},
        "metrics": runs.load_metrics(run_dir),
        "config": config,
        "description": readme.read_text() if readme.exists() else None,
    }


def write(saved_model: Path, card: dict, signatures) -> None:
    """Writes the card of a SavedModel into it.

    Args:
        saved_model: the folder of the version.
        card: what `describe` gave.
        signatures: `vq_keras.saved_model.Signature` by name; their words say what each input and output is, and the
            SavedModel its dtype and shape, null where the size varies.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((saved_model / "saved_model.pb").read_bytes())
    written = proto.meta_graphs[0].signature_def
    default = next(iter(signatures))
    in_words = {
        name: {
            "about": signature.about,
            "serving_default": name == default,
            "inputs": _tensors(written[name].inputs, signature.words),
            "outputs": _tensors(written[name].outputs, signature.words),
        }
        for name, signature in signatures.items()
    }
    replace_file(saved_model / FILE, (json.dumps({**card, "signatures": in_words}, indent=2) + "\n").encode())


def _tensors(specs, words):
    import tensorflow as tf

    return {
        name: {
            "dtype": tf.as_dtype(spec.dtype).name,
            "shape": tf.TensorShape(spec.tensor_shape).as_list(),
            "about": words[name],
        }
        for name, spec in sorted(specs.items())
    }


def _commit():
    """Of the checkout that this library runs from, "-dirty" behind it where files differ; None for an installed one."""
    root = Path(vq_keras.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
