"""Further training of the localizer for int8, zeros or few values."""

import os

import keras
import numpy as np
import pytest

from edge.export import graphs, qat, rounding, twin
from edge.export.exported_map import ExportedMap
from edge.runners import keras_runner
from helpers import tiny_model, varied
from wsol_tf.config import Config
from wsol_tf.model.build import build_model

CLASSES = ("ant", "bee", "cat")
MEAN, BEE = ExportedMap("mean"), ExportedMap("class", "bee")


@pytest.fixture(scope="module")
def model():
    return varied(tiny_model(CLASSES))


@pytest.fixture(scope="module")
def pictures():
    cells = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    return cells.repeat(8, axis=1).repeat(8, axis=2)


def keras_run(model, map_="mean"):
    return keras_runner(graphs.export_graph(model, ExportedMap.parse(map_)))


@pytest.mark.parametrize("map_", ["mean", "class:bee", "all"])
def test_the_twin_gives_what_the_model_gives(model, pictures, map_):
    expected = qat.masks(keras_run(model, map_), pictures[:2])[:, 0]
    with qat.optimization() as (tf_keras, _):
        found = twin.twin_of(model, ExportedMap.parse(map_), tf_keras).predict_on_batch(
            pictures[:2].astype(np.float32)
        )
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_weights_come_back_as_they_went(model):
    with qat.optimization() as (tf_keras, _):
        weights = twin.weights_of(twin.twin_of(model, MEAN, tf_keras))
    copy = twin.with_weights(model, MEAN, weights)
    for before, after in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_only_the_map_that_was_asked_for_changes(model):
    with qat.optimization() as (tf_keras, _):
        weights = twin.weights_of(twin.twin_of(model, BEE, tf_keras))
    weights["localizer_conv/kernel"] = np.ones_like(weights["localizer_conv/kernel"])
    kernel = graphs.kernel_of(twin.with_weights(model, BEE, weights), ExportedMap("all"))[0]
    before = graphs.kernel_of(model, ExportedMap("all"))[0]
    assert (kernel[..., 1] == 1).all()
    np.testing.assert_array_equal(kernel[..., [0, 2]], before[..., [0, 2]])


def test_rounding_is_small_and_in_256_steps(model, pictures):
    run = keras_run(model)
    with qat.optimization() as (tf_keras, tfmot):
        student = rounding.rounded(twin.twin_of(model, MEAN, tf_keras), pictures, tf_keras, tfmot)
        found = student.predict_on_batch(pictures.astype(np.float32))
        probe = tf_keras.Model(student.input, student.get_layer("quant_conv1_relu").output)
        activations = probe.predict_on_batch(pictures.astype(np.float32))
    # What does not come back is not trained: neither the scaling nor the mean over the maps.
    trained = {variable.name.partition("/")[0] for variable in student.trainable_variables}
    assert {"conv1", "localizer_conv"} <= trained and not trained & {"rescaling", "mean"}
    difference = np.abs(found - qat.masks(run, pictures)[:, 0])
    assert 0 < difference.max() < 0.1
    assert len(np.unique(activations)) <= 256


def test_a_network_without_scaling_is_rounded_and_its_biases_come_back(pictures):
    image, features = keras.Input((64, 64, 3)), keras.Input((8, 8, 4))
    conv = keras.layers.Conv2D(4, 3, 8, padding="same", name="own")
    rest = keras.layers.MaxPooling2D(2)(features)
    config = Config.recipe(input_size=64, head_width=4, mirror=False)
    own = build_model(
        config, CLASSES, backbone=(keras.Model(image, conv(image)), keras.Model(features, rest))
    )
    with qat.optimization() as (tf_keras, tfmot):
        made = twin.twin_of(own, MEAN, tf_keras)
        student = rounding.rounded(made, pictures[:1], tf_keras, tfmot)
        weights = twin.weights_of(student)
    weights["own/bias"] = np.arange(4, dtype=np.float32)
    kernel, bias = twin.with_weights(own, MEAN, weights).feature_extractor.layers[1].get_weights()
    np.testing.assert_array_equal(kernel, conv.get_weights()[0])
    np.testing.assert_array_equal(bias, [0, 1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qat", "pruned", "clustered"])
def test_training_changes_a_copy_and_does_what_it_is_for(model, pictures, kind):
    before = [np.array(w) for w in model.weights]
    trained = qat.train(
        model, MEAN, keras_run(model), pictures, kind, steps=4, sparsity=0.5, clusters=4
    )
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    kernels = [
        layer.get_weights()[0]
        for layer in trained.feature_extractor.layers
        if type(layer).__name__ == "Conv2D"
    ]
    first = model.feature_extractor.get_layer("conv1").get_weights()[0]
    assert (kernels[0] != first).any()
    if kind == "pruned":
        assert all(np.mean(kernel == 0) == pytest.approx(0.5, abs=0.02) for kernel in kernels)
    if kind == "clustered":
        assert all(len(np.unique(kernel)) <= 4 for kernel in kernels)
    if kind == "qat":  # a gentle change
        found, wanted = (qat.masks(keras_run(m), pictures) for m in (trained, model))
        assert np.abs(found - wanted).max() < 0.05
    assert "TF_USE_LEGACY_KERAS" not in os.environ


@pytest.mark.parametrize("map_", ["predicted", "topk"])
def test_maps_that_need_the_classifier_are_refused(model, map_):
    with pytest.raises(ValueError, match="needs the classifier"):
        qat.check(model, ExportedMap(map_))


def test_a_missing_package_is_named(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_model_optimization", None)
    with pytest.raises(ValueError, match=r"wsol_tf\[qat\]"), qat.optimization():
        pass
