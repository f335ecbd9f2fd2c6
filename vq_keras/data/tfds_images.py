"""Any set of images of TensorFlow Datasets: ImageNet in its sizes, Imagenette, MNIST, one's own."""

import concurrent.futures
import hashlib
import io
import os

import numpy as np
from rich.console import Console
from rich.progress import Progress

from vq_keras.data import decoding, large_arrays, tfds
from vq_keras.data.image_data import ImageData
from vq_keras.errors import InputError

_INSTEAD = "--dataset photos"
_MODES = {1: "L", 3: "RGB"}
# To hand a thread each 32x32 image on its own takes longer than to decode it.
_IMAGES_A_TASK = 50


def load(
    name: str, data_dir: str | os.PathLike | None, image_size: int | None = None, title: str | None = None
) -> ImageData:
    """The sources "tfds:NAME[/CONFIG]" of `vq_keras.data.load`.

    The train images are the split "train", the test images "test", or "validation" where there is no "test" or its
    images have no classes while the others have (as ImageNet's). Each image is cut to its central square and resized,
    with antialiasing, as those of a folder are. Where all of them would take more than a quarter of the memory they are
    decoded into files of the user's cache, once, and mapped from there: see `large_arrays`.

    Args:
        name: in TFDS: "mnist", "imagenette/320px-v2", "imagenet_resized/64x64".
        data_dir: a TFDS data directory; None takes TFDS's own choice (TFDS_DATA_DIR, or ~/tensorflow_datasets).
            The set is downloaded into it if it is not there.
        image_size: height and width of the images in pixels; None takes the set's own, where it has one square size.
        title: what messages call the set; `name` when None.

    Returns:
        The images, uint8 (num_images, image_size, image_size, channels), grey or RGB as the set has them, in the order
        of TFDS; with classes where the set has a feature `label` of them.

    Raises:
        InputError: TensorFlow Datasets is not installed or has no such set, the set is neither there nor downloadable,
            has no images of 8 bits, no one size while none was asked for, or lacks a split; a file is damaged, or the
            disk of the cache too small.
    """
    title = title or name
    builder = tfds.find(name, data_dir, title, _INSTEAD)
    height, width, channels = _image_shape(builder.info.features, title, image_size)
    tfds.prepare(builder, title, _INSTEAD)
    label = _class_label(builder.info.features)  # Of some sets its names come with the data.
    splits = _splits(builder, title, label)

    shapes = {}
    for part, split in splits.items():
        number = builder.info.splits[split].num_examples
        shapes[part] = ((number, height, width, channels), np.uint8)
        if label is not None:
            shapes[f"{part}_classes"] = ((number,), np.int32)

    def fill(arrays):
        for part, split in splits.items():
            _fill(builder, split, title, arrays[part], arrays.get(f"{part}_classes"))

    arrays = large_arrays.filled(_cache_name(builder, height), shapes, fill)
    return ImageData(name, **arrays, class_names=None if label is None else tuple(label.names))


def _image_shape(features, title: str, size: int | None) -> tuple[int, int, int]:
    import tensorflow_datasets

    if "image" not in features or not isinstance(features["image"], tensorflow_datasets.features.Image):
        raise InputError(f"{title} has {', '.join(sorted(features))}, but no feature 'image' with images.")
    image = features["image"]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in _MODES:
        raise InputError(
            f"The images of {title} are {np.dtype(image.np_dtype)} of shape {image.shape}: choose a set of uint8 "
            "images with one channel (grey) or three (RGB)."
        )
    height, width, channels = image.shape
    if size is not None:
        return size, size, channels
    if height is None or height != width:
        raise InputError(
            f"The images of {title} have no one square size (their shape is {image.shape}): give one (--image-size)."
        )
    return image.shape


def _class_label(features):
    import tensorflow_datasets

    if "label" in features and isinstance(features["label"], tensorflow_datasets.features.ClassLabel):
        return features["label"]
    return None


def _splits(builder, title: str, label) -> dict[str, str]:
    there = list(builder.info.splits)
    tests = [split for split in ("test", "validation") if split in there]
    if "train" not in there or not tests:
        raise InputError(
            f"{title} has the splits {', '.join(map(repr, sorted(there)))}, where 'train' is needed, and 'test' or "
            "'validation'."
        )
    if label is not None and len(tests) > 1 and _without_classes(builder, tests[0], title):
        return {"train": "train", "test": tests[1]}
    return {"train": "train", "test": tests[0]}


def _without_classes(builder, split: str, title: str) -> bool:
    """Whether a split's images have the class -1, TFDS's "unknown"."""
    from tensorflow_datasets import decode

    (first,) = tfds.batches(builder, f"{split}[:1]", title, decode.PartialDecoding({"label": True}))
    return first["label"][0] < 0


def _fill(builder, split: str, title: str, images: np.ndarray, classes: np.ndarray | None) -> None:
    from tensorflow_datasets import decode

    mode = _MODES[images.shape[-1]]
    features = {"image": True} if classes is None else {"image": True, "label": True}
    encoded = decode.PartialDecoding(features, decoders={"image": decode.SkipDecoding()})

    def put(start, files):
        for row, file in enumerate(files, start):
            try:
                image = decoding.upright(io.BytesIO(file))
            except decoding.DAMAGE as error:
                raise InputError(
                    f"{title} in {builder.data_dir} is damaged (image {row} of '{split}': {error}): prepare it again."
                ) from error
            images[row] = decoding.square(image.convert(mode), images.shape[1])

    start = 0
    progress = Progress(console=Console(stderr=True), transient=True)
    # Pillow decodes and resizes outside Python's lock, so threads use every core.
    with progress, concurrent.futures.ThreadPoolExecutor() as pool:
        task = progress.add_task(f"{title}, {split}", total=len(images))
        for batch in tfds.batches(builder, split, title, encoded):
            stop = start + len(batch["image"])
            parts = range(0, stop - start, _IMAGES_A_TASK)
            files = [batch["image"][part : part + _IMAGES_A_TASK] for part in parts]
            list(pool.map(put, [start + part for part in parts], files))  # A list, to raise here what a thread raised.
            if classes is not None:
                classes[start:stop] = batch["label"]
            start = stop
            progress.update(task, completed=start)


def _cache_name(builder, size: int) -> str:
    """Of this very set, prepared in this place: its information has the bytes of every file."""
    information = (builder.data_path / "dataset_info.json").read_text()
    digest = hashlib.sha256(f"{builder.data_dir}\n{information}".encode()).hexdigest()[:16]
    return f"{builder.info.full_name.replace('/', '-')}-{size}-{digest}"
