"""What every row of BACKBONES promises, against the network of keras.applications itself."""

import keras
import numpy as np
import pytest
from keras.applications import imagenet_utils

from wsol_tf.config import EXTRACTORS
from wsol_tf.model import backbones

ROWS = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "inception_v3",
    "resnet50", "resnet50_v2", "vgg16", "efficientnet_b0", "efficientnet_v2_b0", "densenet121",
    "convnext_tiny", "xception", "nasnet_mobile",
)  # fmt: skip
# Layers that read only what lies inside the picture: here they are given zeros around it.
UNPADDED = {"inception_v3": None, "xception": {"block1_conv1", "block1_conv2"},
            "nasnet_mobile": {"stem_conv1"}}  # fmt: skip
# Networks that scale raw pictures themselves, also without weights.
SCALE_THEMSELVES = ("mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_v2_b0",
                    "convnext_tiny")  # fmt: skip


def side_of(name):
    return backbones.BACKBONES[name].least


def pictures_for(name):
    side = side_of(name)
    return np.random.default_rng(5).integers(0, 256, (1, side, side, 3)).astype(np.uint8)


def scaled(name, pictures):
    """What keras.applications would be fed."""
    raw = pictures.astype("float32")
    if name in SCALE_THEMSELVES:
        return raw
    values = imagenet_utils.preprocess_input(raw, mode=backbones.BACKBONES[name].scaling)
    # EfficientNet divides by 255, and without weights does no more.
    return values * 255 if name == "efficientnet_b0" else values


def randomized(network):
    """Random statistics and scales; gates that depend on a mean over positions become constant."""
    rng = np.random.default_rng(3)
    for layer in network.layers:
        inner = layer.layers if isinstance(layer, keras.Sequential) else [layer]
        for part in inner:
            if isinstance(part, keras.layers.BatchNormalization):
                size = part.moving_mean.shape
                part.moving_mean.assign(rng.normal(size=size) * 0.1)
                part.moving_variance.assign(1 + 0.1 * rng.uniform(size=size))
                part.beta.assign(rng.normal(size=size) * 0.1)
            elif type(part).__name__ == "LayerScale":
                part.gamma.assign(rng.uniform(0.2, 0.5, part.gamma.shape))
        if layer.weights and layer.output.shape[1:3] == (1, 1):
            layer.set_weights([w * (w.ndim == 1) for w in layer.get_weights()])
    return network


def application(name):
    side = side_of(name)
    keras.utils.set_random_seed(3)
    network = getattr(keras.applications, backbones.BACKBONES[name].application)(
        include_top=False, weights=None, input_shape=(side, side, 3)
    )
    return randomized(network)


def padded(name, network):
    """The network with zeros around what its unpadded layers read."""
    chosen = UNPADDED[name]

    def clone(layer):
        config = layer.get_config()
        if config.get("padding") == "valid" and (chosen is None or layer.name in chosen):
            config["padding"] = "same"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


@pytest.fixture(scope="module", params=ROWS)
def row(request, tmp_path_factory):
    """(name, network of keras.applications, its weights file)."""
    network = application(request.param)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.weights.h5"
    network.save_weights(path)
    return request.param, network, str(path)


@pytest.fixture(scope="module")
def built(row):
    """stride -> (feature extractor, rest), with the weights of the application."""
    name, network, _ = row
    made = {}

    def build(stride, **settings):
        if stride not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(backbones, "_application", lambda *_: network)
                made[stride] = backbones.build_extractor(
                    name, input_size=side_of(name), output_stride=stride, weights="none"
                )[:2]
        return made[stride]

    return build


def close(got, expected):
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(got, expected, atol=1e-4 * scale, rtol=1e-3)


def test_with_no_stride_removed_outputs_are_those_of_the_application(row, built):
    name, network, _ = row
    whole = padded(name, network) if name in UNPADDED else network
    if backbones.BACKBONES[name].trim:
        whole = keras.Model(whole.input, whole.layers[-1].input)
    pictures = pictures_for(name)
    features, rest = built(16)
    got = rest.predict_on_batch(features.predict_on_batch(pictures))
    close(got, whole.predict_on_batch(scaled(name, pictures)))


@pytest.mark.parametrize("stride", [8, 4])
def test_finer_features_hold_the_original_ones(row, built, stride):
    """At the old positions, wherever they are now, every value is what it was."""
    name, *_ = row
    if name == "inception_v3":
        pytest.skip("its pools are not dilated")
    pictures, step = pictures_for(name), 16 // stride
    expected = built(16)[0].predict_on_batch(pictures)
    got = built(stride)[0].predict_on_batch(pictures)
    assert got.shape[1] == expected.shape[1] * step
    errors = [
        np.abs(got[:, i::step, i::step] - expected).max() / np.abs(expected).max()
        for i in range(step)
    ]
    assert min(errors) < 1e-4, errors
    assert max(errors) > 1e-2  # the new positions hold something else
