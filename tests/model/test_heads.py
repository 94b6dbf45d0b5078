import keras
import numpy as np
import pytest

from wsol_tf.model import heads


@pytest.fixture
def rest():
    features = keras.Input((8, 8, 6), name="features")
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="behind")(features)
    return keras.Model(features, x, name="rest")


def test_classifier_shape_and_layers(rest):
    model = heads.classifier(rest, 5, head_width=12)
    assert model.name == "classifier"
    assert model.output.shape == (None, 4, 4, 5)
    shapes = {layer.name: layer.kernel.shape for layer in model.layers[-3:]}
    assert shapes == {
        "classifier_conv1": (3, 3, 6, 12),
        "classifier_conv2": (3, 3, 12, 12),
        "classifier_scores": (1, 1, 12, 5),
    }


def test_final_relu_is_a_switch(rest, rng):
    features = rng.normal(size=(2, 8, 8, 6)).astype("float32")
    free = heads.classifier(rest, 5, head_width=12)
    cut = heads.classifier(rest, 5, head_width=12, final_relu=True)
    cut.set_weights(free.get_weights())
    scores = np.asarray(free(features))
    assert scores.min() < 0
    np.testing.assert_array_equal(np.asarray(cut(features)), np.maximum(scores, 0))


def test_localizer_is_one_convolution_and_a_sigmoid(rng):
    model = heads.localizer((8, 8, 6), 5)
    assert model.name == "localizer" and len(model.layers) == 2
    kernel = rng.normal(size=(3, 3, 6, 5)).astype("float32")
    bias = rng.normal(size=5).astype("float32")
    model.set_weights([kernel, bias])
    features = rng.normal(size=(1, 8, 8, 6)).astype("float32")
    got = np.asarray(model(features))
    assert got.shape == (1, 8, 8, 5)
    inside = np.tensordot(features[0, 2:5, 3:6], kernel, 3) + bias  # position 3, 4 by hand
    np.testing.assert_allclose(got[0, 3, 4], 1 / (1 + np.exp(-inside)), rtol=1e-5)
    corner = np.tensordot(features[0, :2, :2], kernel[1:, 1:], 3) + bias  # zeros outside
    np.testing.assert_allclose(got[0, 0, 0], 1 / (1 + np.exp(-corner)), rtol=1e-5)


def test_heads_start_xavier_uniform_with_zero_bias(rest):
    classifier = heads.classifier(rest, 5, head_width=64)
    localizer = heads.localizer((8, 8, 64), 100)
    for layer in (*classifier.layers[-3:], localizer.layers[-1]):
        kernel = np.asarray(layer.kernel)
        positions = kernel.shape[0] * kernel.shape[1]
        bound = np.sqrt(6 / (positions * (kernel.shape[2] + kernel.shape[3])))
        assert bound * 0.9 < np.abs(kernel).max() <= bound
        assert not np.asarray(layer.bias).any()


def test_one_channel_for_all_classes():
    assert heads.localizer((8, 8, 6), 1).output.shape == (None, 8, 8, 1)


def test_maps_are_float32_under_mixed_precision(rest):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        classifier = heads.classifier(rest, 5, head_width=12)
        localizer = heads.localizer((8, 8, 6), 5)
    finally:
        keras.config.set_dtype_policy(policy)
    assert classifier.output.dtype == localizer.output.dtype == "float32"
    assert classifier.get_layer("classifier_conv1").compute_dtype == "bfloat16"
