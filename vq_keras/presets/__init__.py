"""Trained models that come with the library: a folder each, which stands wherever the folder of a run can."""

from pathlib import Path

from vq_keras.errors import InputError

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of all presets.

    Example:
        >>> "multi30k-en-de-teacher" in names()
        True
    """
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def folder(name: str) -> Path:
    """The folder of a preset: its model, its vocabulary, how it was trained, and its model card, README.md.

    Raises:
        InputError: there is none of this name; the message lists the known ones.
    """
    if name not in names():
        raise InputError(f"there is no preset {name!r}; the known ones are {', '.join(names())}.")
    return _FOLDER / name


class FromPreset:
    """What makes a class of models load presets of its kind."""

    @classmethod
    def from_preset(cls, name: str):
        """A trained model that comes with the library.

        Args:
            name: one of `vq_keras.presets.names()`. `vq_keras.training.runs.load_translator(name)` gives the
                vocabulary, too.

        Raises:
            InputError: there is no preset of this name, or it is of another class.

        Example:
            >>> model = Transformer.from_preset("multi30k-en-de-teacher")
        """
        from vq_keras.training import runs  # It loads this module.

        model = runs.load_model(folder(name))
        if not isinstance(model, cls):
            raise InputError(f"preset {name!r} is a {type(model).__name__}, not a {cls.__name__}.")
        return model
