import numpy as np
import pytest
from PIL import Image

from vq_keras.data import load
from vq_keras.errors import InputError


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def plain(value, channels=3, size=(8, 8)):
    return np.full((*size, channels) if channels > 1 else size, value)


def test_every_tenth_file_is_a_test_image(tmp_path):
    for value in range(35):
        save(tmp_path / f"{value % 3}" / f"{value:02}.png", plain(value))
    data = load("folder", tmp_path, image_size=4)
    assert data.train.shape == (31, 4, 4, 3)
    assert data.test.shape == (4, 4, 4, 3)
    values = [images[:, 0, 0, 0].tolist() for images in (data.train, data.test)]
    assert sorted(values[0] + values[1]) == list(range(35))
    assert values[0] != sorted(values[0])
    again = load("folder", tmp_path, image_size=4)
    np.testing.assert_array_equal(again.train, data.train)
    np.testing.assert_array_equal(again.test, data.test)


def test_subfolders_train_and_test_are_the_two_sets(tmp_path):
    for value in range(3):
        save(tmp_path / "train" / "cats" / f"{value}.png", plain(value))
    save(tmp_path / "test" / "dogs" / "9.png", plain(9))
    save(tmp_path / "elsewhere" / "7.png", plain(7))
    data = load("folder", tmp_path, image_size=8)
    assert data.train[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert data.test[:, 0, 0, 0].tolist() == [9]


def test_subfolders_are_classes(tmp_path):
    for value, place in enumerate(["owl", "cat/young", "dog", "cat", "owl/old/very"]):
        save(tmp_path / "train" / place / f"{value}.png", plain(value))
    for value, place in enumerate(["owl", "cat"]):
        save(tmp_path / "test" / place / f"{value}.png", plain(value))
    data = load("folder", tmp_path)
    assert data.class_names == ("cat", "dog", "owl")
    # By path: cat/3, cat/young/1, dog/2, owl/0, owl/old/very/4.
    assert data.train[:, 0, 0, 0].tolist() == [3, 1, 2, 0, 4]
    assert data.train_classes.tolist() == [0, 0, 1, 2, 2]
    assert data.test[:, 0, 0, 0].tolist() == [1, 0]
    assert data.test_classes.tolist() == [0, 2]


def test_subfolders_are_classes_without_train_and_test_too(tmp_path):
    for value in range(40):
        save(tmp_path / f"class {value % 4}" / f"{value}.png", plain(value))
    data = load("folder", tmp_path)
    assert data.class_names == ("class 0", "class 1", "class 2", "class 3")
    np.testing.assert_array_equal(data.train_classes, data.train[:, 0, 0, 0] % 4)
    np.testing.assert_array_equal(data.test_classes, data.test[:, 0, 0, 0] % 4)


@pytest.mark.parametrize(
    "train, test",
    [
        (["cat", "."], ["cat"]),  # An image in no subfolder,
        (["cat", "dog"], ["."]),  # in the test set,
        (["cat", "cat"], ["cat"]),  # and one subfolder alone.
    ],
)
def test_other_subfolders_are_no_classes(train, test, tmp_path):
    for part, places in (("train", train), ("test", test)):
        for value, place in enumerate(places):
            save(tmp_path / part / place / f"{value}.png", plain(value))
    data = load("folder", tmp_path)
    assert (data.train_classes, data.test_classes, data.class_names) == (None, None, None)


def test_a_class_of_the_test_images_alone_is_named(tmp_path):
    for place in ("train/cat", "train/dog", "test/cat", "test/fox", "test/owl"):
        save(tmp_path / place / "a.png", plain(1))
    with pytest.raises(InputError, match=r"test has the subfolder 'fox' and 'owl', a class that .*train lacks: "):
        load("folder", tmp_path)


def test_images_are_cut_to_their_centre_and_resized(tmp_path):
    # Red and blue ends, and in the middle a green square with rows of 100 and 200 by turns.
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:, 96:, 2] = 255
    pixels[::2, 32:96, 1], pixels[1::2, 32:96, 1] = 100, 200
    save(tmp_path / "train" / "wide.png", pixels)
    save(tmp_path / "train" / "tall.png", pixels.transpose(1, 0, 2))
    save(tmp_path / "test" / "small.png", plain(7, size=(3, 5)))
    data = load("folder", tmp_path, image_size=16)
    assert data.train.shape == (2, 16, 16, 3)
    # Antialiasing makes 150 of the rows; without it 100 or 200 would be left. At the outer pixels the filter sees a
    # little of the ends, or half a pair of rows.
    np.testing.assert_allclose(data.train[:, 2:-2, 2:-2], np.broadcast_to([0, 150, 0], (2, 12, 12, 3)), atol=1)
    assert data.train[..., [0, 2]].max() < 30
    assert (data.test == 7).all()


def test_files_of_every_kind_and_those_passed_over(tmp_path):
    for number, suffix in enumerate([".png", ".jpg", ".JPEG", ".webp", ".bmp"]):
        save(tmp_path / "train" / f"{number}{suffix}", plain(50 * number))
    (tmp_path / "train" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "._0.png").write_text("no image")
    save(tmp_path / "test" / "palette.png", plain(60), "P")
    save(tmp_path / "test" / "rgba.png", np.concatenate([plain(60), plain(255)[..., :1]], axis=-1))
    data = load("folder", tmp_path)
    # JPEG and WebP keep an even colour within a level or two.
    np.testing.assert_allclose(data.train.mean(axis=(1, 2, 3)), [0, 50, 100, 150, 200], atol=2)
    # The web palette that Pillow converts to has steps of 51, and Pillow dithers.
    np.testing.assert_allclose(data.test.mean(axis=(1, 2, 3)), [60, 60], atol=10)


def test_grey_images_alone_have_one_channel(tmp_path):
    save(tmp_path / "train" / "a.png", plain(70, channels=1))
    save(tmp_path / "train" / "b.png", np.stack([plain(80, 1), plain(255, 1)], axis=-1), "LA")
    save(tmp_path / "test" / "c.png", plain(255, channels=1), "1")
    data = load("folder", tmp_path)
    assert data.image_shape == (32, 32, 1)
    assert data.train[:, 0, 0, 0].tolist() == [70, 80]
    assert (data.test == 255).all()


def test_exif_rotation_is_followed(tmp_path):
    pixels = plain(0, size=(16, 16))
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    for part in ("train", "test"):
        save(tmp_path / part / "a.png", pixels, exif=exif)
    image = load("folder", tmp_path, image_size=16).train[0]
    np.testing.assert_array_equal(image, pixels[::-1])


def test_one_grey_image_among_colours_is_named(tmp_path):
    for name in "abd":
        save(tmp_path / f"{name}.png", plain(1))
    save(tmp_path / "c.png", plain(1, channels=1))
    with pytest.raises(InputError, match=r"c\.png is grey \(1 channel\), while 3 of the 4 images are colour"):
        load("folder", tmp_path)


@pytest.mark.parametrize(
    "mode, pixels, message",
    [
        ("RGBA", plain(200, channels=4), r"odd\.png is transparent in places \(4 channels\)"),
        ("I;16", plain(1, channels=1), r"odd\.png has pixels of kind 'I;16'"),
    ],
)
def test_pixels_of_another_kind_are_named(mode, pixels, message, tmp_path):
    save(tmp_path / "a.png", plain(1))
    save(tmp_path / "odd.png", pixels, mode)
    with pytest.raises(InputError, match=message):
        load("folder", tmp_path)


def test_cmyk_is_named(tmp_path):
    save(tmp_path / "a.png", plain(1))
    save(tmp_path / "odd.jpg", plain(1), "CMYK")
    with pytest.raises(InputError, match=r"odd\.jpg has pixels of kind 'CMYK'"):
        load("folder", tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(suffix, keep, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    for name in "abc":
        save(tmp_path / f"{name}.png", noise)
    path = save(tmp_path / f"broken{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=rf"broken\{suffix} cannot be read"):
        load("folder", tmp_path)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(InputError, match="needs the image folder"):
        load("folder")
    with pytest.raises(InputError, match=r"no image folder .*nowhere"):
        load("folder", tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no image files"):
        load("folder", tmp_path)
    save(tmp_path / "a.png", plain(1))
    with pytest.raises(InputError, match="holds one image"):
        load("folder", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no subfolder 'test': make both or neither"):
        load("folder", tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match=r"train holds no image files \(\.bmp \.jpeg \.jpg \.png \.webp\)"):
        load("folder", tmp_path)
