"""Exports: signatures equal the Keras model, a server would run them, and a refused one leaves nothing."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from export import export_image
from vq_keras import model_card, saved_model, warm_up
from vq_keras.bottlenecks import Gaussian, VectorQuantizer
from vq_keras.errors import InputError
from vq_keras.models.image import ImageAutoencoder
from vq_keras.priors import ImageTransformer
from vq_keras.training import runs

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes SavedModels")
pytest.importorskip("tensorflow_serving", reason="the format of warm-up requests")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype="uint8")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("export")
    predictor = ImageTransformer((2, 2, 10), 16, 1, 2, 16, 2, 16, 8, dropout=0.0)
    model = ImageAutoencoder(VectorQuantizer(16, seed=0), (8, 8, 3), latent_predictor=predictor)
    model.compile("adam")
    model.fit({"images": IMAGES}, epochs=2, verbose=0)
    runs.claim(folder / "run", {})
    runs.save_model(model, folder / "run")
    assert export_image.main([str(folder / "run"), str(folder / "out")]) == 0
    return model, folder / "out", tf.saved_model.load(str(folder / "out" / "1")).signatures


def test_signatures_equal_the_model(exported):
    model, _, signatures = exported
    codes = keras.ops.convert_to_numpy(model.encode(IMAGES))
    np.testing.assert_array_equal(signatures["encode"](images=IMAGES)["codes"], codes)
    images = keras.ops.convert_to_numpy(model.reconstruct(IMAGES))
    np.testing.assert_array_equal(signatures["reconstruct"](images=IMAGES)["images"], images)
    np.testing.assert_array_equal(signatures["serving_default"](images=IMAGES)["images"], images)
    np.testing.assert_array_equal(signatures["decode"](codes=codes)["images"], images)


def test_score_is_the_strict_bits_per_dim_of_each_image(exported):
    model, _, signatures = exported
    outputs = model.predict({"images": IMAGES}, verbose=0)
    expected = (outputs["nll_x"] * 192 + outputs["nll_z"] * 40) / 192 / np.log(2)
    score = signatures["score"](images=IMAGES)
    # float32 sums over 192 sub-pixels in another order.
    np.testing.assert_allclose(score["bits_per_dim"], expected, rtol=1e-5)
    parts = score["bits_per_dim_reconstruction"] + score["bits_per_dim_codes"]
    np.testing.assert_allclose(score["bits_per_dim"], parts, rtol=1e-5)


def test_a_sample_depends_on_its_own_seed_alone(exported):
    _, _, signatures = exported

    def codes(seeds, temperature=1.0):
        temperatures = np.full(len(seeds), temperature, "float32")
        return signatures["predict_latents"](seed=np.array(seeds, "int32"), temperature=temperatures)["codes"].numpy()

    together = codes([1, 2, 3])
    assert together.shape == (3, 2, 2, 10)
    np.testing.assert_array_equal(together[1:2], codes([2]))
    assert (together[0] != together[1]).any()
    # At temperature 0 the seed decides nothing.
    np.testing.assert_array_equal(codes([4], 0.0), codes([5], 0.0))


def test_a_batch_of_any_size_gives_what_each_image_gives_alone_and_none_gives_none(exported, monkeypatch):
    model = exported[0]
    monkeypatch.setattr(export_image, "PIXELS", 3 * 8 * 8)  # Three images at a time.
    offered = export_image.signatures(model)
    images = np.random.default_rng(1).integers(0, 256, (7, 8, 8, 3), dtype="uint8")
    codes = keras.ops.convert_to_numpy(model.encode(images))
    np.testing.assert_array_equal(offered["encode"].function(images)["codes"], codes)
    np.testing.assert_array_equal(offered["decode"].function(codes)["images"], model.decode(codes))
    seeds, temperatures = np.arange(7, dtype="int32"), np.ones(7, "float32")
    drawn = offered["predict_latents"].function
    together = drawn(seeds, temperatures)["codes"].numpy()
    for i in (0, 2, 3, 6):
        np.testing.assert_array_equal(together[i], drawn(seeds[i : i + 1], temperatures[i : i + 1])["codes"][0])
    assert offered["score"].function(images[:0])["bits_per_dim"].shape == (0,)
    assert drawn(seeds[:0], temperatures[:0])["codes"].shape == (0, 2, 2, 10)


def test_a_model_without_codes_encodes_to_means_and_decodes_vectors(tmp_path):
    import tensorflow as tf

    model = ImageAutoencoder(Gaussian(seed=0), (8, 8, 3), likelihood="mse")
    version = saved_model.write(tmp_path / "out", export_image.signatures(model))
    signatures = tf.saved_model.load(str(version)).signatures
    assert set(signatures) == {"reconstruct", "encode", "decode", "serving_default"}
    means = keras.ops.convert_to_numpy(model.encode(IMAGES))
    # One convolution of TensorFlow's rounds otherwise in a graph.
    np.testing.assert_allclose(signatures["encode"](images=IMAGES)["means"], means, rtol=1e-4, atol=1e-5)
    vectors = np.random.default_rng(0).normal(size=means.shape).astype("float32")
    decoded = keras.ops.convert_to_numpy(model.decode(vectors))
    np.testing.assert_array_equal(signatures["decode"](vectors=vectors)["images"], decoded)
    images = keras.ops.convert_to_numpy(model.reconstruct(IMAGES))
    np.testing.assert_array_equal(signatures["reconstruct"](images=IMAGES)["images"], images)


def test_versions_count_up_and_the_weights_are_there_once(exported):
    model, out, _ = exported
    second = saved_model.write(out, {"encode": export_image.signatures(model)["encode"]})
    assert second.name == "2"
    assert sorted(path.name for path in out.iterdir()) == ["1", "2"]
    size = sum(path.stat().st_size for path in (out / "1" / "variables").iterdir())
    # Names and checksums of the variables come on top of their 4 bytes a weight.
    assert size < 1.05 * 4 * model.count_params() + 20_000


@pytest.mark.slow
def test_the_check_runs_every_signature_with_xla_switched_off(exported):
    _, out, _ = exported
    command = [sys.executable, "-m", "vq_keras.serving_check", str(out / "1")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slice_update", "jit_compile", "py_function", "scalar", "ragged"])
def test_what_a_server_would_refuse_is_not_kept(tmp_path, kind):
    import tensorflow as tf

    variable = keras.Variable(np.ones((4,), "float32"))  # A SavedModel without any is not what is tested here.

    def function(x):
        x = x + variable
        if kind == "slice_update":
            return {"y": keras.ops.slice_update(x, (0, 0), x[:1, :2])}
        if kind == "jit_compile":
            return {"y": tf.function(lambda x: x * 2, jit_compile=True)(x)}
        if kind == "py_function":
            return {"y": tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), (None, 4))}
        if kind == "scalar":
            return {"y": tf.reduce_sum(x)}
        return {"y": tf.RaggedTensor.from_tensor(x)}

    signature = saved_model.Signature(function, {"x": ((None, 4), "float32")})
    with pytest.raises(InputError, match="TF Serving would not run this export"):
        saved_model.write(tmp_path / "out", {"f": signature})
    assert list((tmp_path / "out").iterdir()) == []


def test_the_model_card_and_a_request_of_one_image_for_each_signature(exported):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    model, out, signatures = exported
    card = json.loads((out / "1" / model_card.FILE).read_text())
    assert (card["model"], card["parameters"], card["metrics"]) == ("ImageAutoencoder", model.count_params(), None)
    assert card["signatures"]["score"]["inputs"] == {
        "images": {"dtype": "uint8", "shape": [None, 8, 8, 3], "about": "images, 0 to 255"}
    }
    names = set(signatures) - {"serving_default"}
    assert set(card["signatures"]) == names
    seen = []
    for record in tf.data.TFRecordDataset(str(out / "1" / warm_up.FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**inputs)
        assert {len(output) for output in outputs.values()} == {1}
        seen.append(request.model_spec.signature_name)
    assert sorted(seen) == sorted(names)


def test_errors_are_one_sentence(tmp_path, capsys):
    assert export_image.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"error: {tmp_path} is neither a run directory (it has no config.json) nor" in capsys.readouterr().err
    runs.claim(tmp_path / "run", {})
    assert export_image.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "let its training end first" in capsys.readouterr().err
    (tmp_path / "run" / "model.keras").write_bytes(b"no zip file")
    assert export_image.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
