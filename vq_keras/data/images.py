"""Images by the name of their source."""

from vq_keras.data import cifar10, episodes, folder, npz, photos, tfds_images
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

# A source is a function (data_dir, image_size) -> ImageData in a file of its own.
_SOURCES = {
    "cifar10": cifar10.load,
    "photos": photos.load,
    "folder": folder.load,
    "episodes": episodes.load,
    "npz": npz.load,
}
_TFDS = "tfds:"


def load(name: str, data_dir: str | None = None, image_size: int | None = None) -> ImageData:
    """Loads a set of images.

    Args:
        name: "cifar10" (TensorFlow Datasets), "photos" (crops of the photographs that come with scikit-image: no
            download), "folder" (a folder of image files), "episodes" (the frames of videos in Parquet files), "npz"
            (arrays that `python -m vq_keras.data` wrote) or "tfds:NAME[/CONFIG]" (another image set of TensorFlow
            Datasets, as in "tfds:imagenette/320px-v2").
        data_dir: where the source lies: the TFDS data directory (default: the one TFDS itself uses), the image
            folder, the folder of episodes, or the `.npz` file. "photos" has no such place.
        image_size: height and width in pixels. "photos" and "folder" make images of this size (default 32), and so do
            "episodes" and "tfds:..." (default: the size they have); "cifar10" and "npz" have the size they have, and
            any other asked for is an error.

    Returns:
        The images, as `ImageData`; with classes from "cifar10", from "folder" where its subfolders are classes, and
        from "tfds:..." and "npz" where they have them.

    Raises:
        InputError: the name is unknown, or the source is missing, damaged or not as asked for.

    Example:
        >>> load("photos", image_size=16).image_shape
        (16, 16, 3)
    """
    if name not in _SOURCES and not name.startswith(_TFDS):
        known = ", ".join([*sorted(_SOURCES), f"{_TFDS}NAME[/CONFIG]"])
        raise InputError(f"There is no data set '{name}'; choose one of {known}.")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size must be a positive number of pixels, but it is {image_size}.")
    if name.startswith(_TFDS):
        return tfds_images.load(name.removeprefix(_TFDS), data_dir, image_size)
    return _SOURCES[name](data_dir, image_size)
