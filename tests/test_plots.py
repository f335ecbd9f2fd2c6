import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vq_keras import plots
from vq_keras.errors import InputError


def some_images(count, height=4, width=5, channels=3):
    # Never white, so that lines and empty places can be told from images.
    return np.random.default_rng(0).integers(0, 200, (count, height, width, channels)).astype("uint8")


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 9),
    columns=st.integers(1, 5),
    scale=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
)
def test_every_image_is_in_its_place(count, columns, scale, height, width, channels):
    images = some_images(count, height, width, channels)
    grid = plots.image_grid(images, columns, scale)
    rows = (count + columns - 1) // columns
    high, wide = scale * height + 2, scale * width + 2
    assert grid.shape == (rows * high + 2, columns * wide + 2, channels)
    assert grid.dtype == np.uint8
    expected = np.full(grid.shape, 255)
    for index, image in enumerate(images):
        y, x = index // columns * high + 2, index % columns * wide + 2
        expected[y : y + scale * height, x : x + scale * width] = np.kron(image, np.ones((scale, scale, 1)))
    np.testing.assert_array_equal(grid, expected)


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB")])
def test_the_file_holds_the_grid(tmp_path, channels, mode):
    images = some_images(5, channels=channels)
    plots.save_grid(tmp_path / "new/grid.png", images, columns=2, scale=2)
    with Image.open(tmp_path / "new/grid.png") as file:
        assert file.mode == mode
        pixels = np.asarray(file)
    np.testing.assert_array_equal(pixels.reshape(*pixels.shape[:2], channels), plots.image_grid(images, 2, 2))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_reconstruction_is_below_its_original(channels):
    originals = some_images(5, channels=channels)
    picture = plots.reconstruction_grid(originals, 255 - originals, columns=2, scale=3)
    assert picture.dtype == np.uint8
    assert picture.shape[-1] == channels
    # Three pairs of rows, 16 pixels each row, 6 between the pairs.
    assert picture.shape[0] == 3 * 2 * 16 + 2 * 6
    left = picture.shape[1] - (2 * (3 * 5 + 2) + 2)
    for index, original in enumerate(originals):
        top, x = index // 2 * (2 * 16 + 6), left + index % 2 * 17
        cell = (slice(top + 2, top + 14, 3), slice(x + 2, x + 17, 3))
        np.testing.assert_array_equal(picture[cell], original)
        np.testing.assert_array_equal(picture[top + 16 :][2:14:3, cell[1]], 255 - original)
    # Letters at the left of each row, in black on white.
    for top in (0, 16, 38, 54, 76, 92):
        strip = picture[top : top + 16, :left]
        assert (strip < 100).sum() > 20
        assert (strip == 255).mean() > 0.6


def test_versions_of_images_are_below_each_other():
    versions = np.random.default_rng(0).integers(0, 200, (3, 4, 4, 5, 3)).astype("uint8")
    picture = plots.comparison_grid(dict(zip("abc", versions, strict=True)), columns=2, scale=1)
    # Two bands of three rows, 8 pixels each row, 6 between the bands.
    assert picture.shape[0] == 2 * 3 * 8 + 6
    left = picture.shape[1] - (2 * 7 + 2)
    for row, index in np.ndindex(3, 4):
        top, x = index // 2 * (3 * 8 + 6) + row * 8, left + index % 2 * 7
        np.testing.assert_array_equal(picture[top + 2 : top + 6, x + 2 : x + 7], versions[row, index])


def test_fewer_images_than_columns_leave_no_empty_columns():
    few = some_images(2)
    assert plots.reconstruction_grid(few, few, columns=8).shape == plots.reconstruction_grid(few, few, columns=2).shape


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: plots.image_grid(some_images(2).astype("float32"), 2), "uint8 images"),
        (lambda: plots.image_grid(some_images(2)[0], 2), r"shape \(4, 5, 3\)"),
        (lambda: plots.image_grid(some_images(2, channels=2), 2), "1 or 3 channels"),
        (lambda: plots.image_grid(some_images(2)[:0], 2), "uint8 images"),
        (lambda: plots.image_grid(some_images(2), 0), "at least 1"),
        (lambda: plots.image_grid(some_images(2), 2, scale=0), "at least 1"),
        (lambda: plots.reconstruction_grid(some_images(2), some_images(3)), "one shape"),
    ],
)
def test_bad_images(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def panels(path):
    """How many panels a figure has across and down: runs of rows and columns that have an axis line in them."""
    with Image.open(path) as file:
        black = np.asarray(file.convert("L")) < 60
    # An axis line is longer than any word.
    high, wide = (black.sum(axis=0) > 120), (black.sum(axis=1) > 200)
    return tuple(int((np.diff(line.astype(int)) == 1).sum()) for line in (high, wide))


@pytest.mark.parametrize(
    "metrics, expected",
    [
        (["loss"], (1, 1)),
        (["loss", "bits_per_dim", "perplexity"], (3, 1)),
        (["loss", "bits_per_dim", "codes_in_use", "perplexity", "unknown"], (2, 2)),
    ],
)
def test_a_panel_for_each_metric_that_is_there(tmp_path, metrics, expected):
    history = [{"step": step, **dict.fromkeys(metrics, 200 / step)} for step in range(100, 1001, 100)]
    plots.learning_curves(tmp_path / "curves.png", {"a run": history})
    assert panels(tmp_path / "curves.png") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_curve_is_that_of_the_history(tmp_path, monkeypatch):
    drawn = {}
    plot = plots.Figure.add_subplot

    def remember(figure, *place):
        axes = plot(figure, *place)
        drawn[place[-1]] = axes
        return axes

    monkeypatch.setattr(plots.Figure, "add_subplot", remember)
    history = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0, "perplexity": 7.5}]
    plots.learning_curves(tmp_path / "curves.png", {"a run": history})
    loss, perplexity = drawn[1].lines[0], drawn[2].lines[0]
    np.testing.assert_array_equal(loss.get_xydata(), [(10, 3), (20, 2)])
    np.testing.assert_array_equal(perplexity.get_xydata(), [(20, 7.5)])
    assert drawn[2].get_title(loc="left") == "perplexity of the codes: 7.5 at the end"
    plots.learning_curves(tmp_path / "curves.png", {"one": history, "other": [{"step": 10, "loss": 4.0}]})
    curves = {line.get_label(): line.get_xydata().tolist() for line in drawn[1].lines}
    assert curves == {"one": [[10, 3], [20, 2]], "other": [[10, 4]]}
    assert drawn[2].get_title(loc="left") == "perplexity of the codes"


def test_translators_are_points_of_latency_and_quality(tmp_path, monkeypatch):
    drawn = []
    plot = plots.Figure.add_subplot

    def remember(figure, *place):
        drawn.append(plot(figure, *place))
        return drawn[-1]

    monkeypatch.setattr(plots.Figure, "add_subplot", remember)
    figures = {"teacher": {"median_ms": 200.0, "bleu": 37.5}, "latent": {"median_ms": 40.0, "bleu": 36.5}}
    plots.quality_against_latency(tmp_path / "figures.png", figures)
    points = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].lines}
    assert points == {"teacher": [[200, 37.5]], "latent": [[40, 36.5]]}
    assert drawn[0].get_xscale() == "log"
    with pytest.raises(InputError, match="no figures to draw"):
        plots.quality_against_latency(tmp_path / "none.png", {})


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="none of the metrics"):
        plots.learning_curves(tmp_path / "curves.png", {"a run": [{"step": 1, "accuracy": 0.5}]})


@pytest.mark.parametrize("height, scale", [(8, 12), (32, 3), (84, 1), (128, 1)])
def test_pictures_are_about_as_high_whatever_the_images(height, scale):
    assert plots.scale_of(np.zeros((1, height, height, 3), "uint8")) == scale
