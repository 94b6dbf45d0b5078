"""What every row of BACKBONES promises, against the network of keras.applications itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.applications import imagenet_utils

from wsol_tf.config import EXTRACTORS
from wsol_tf.model import backbones

ROWS = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "inception_v3",
    "resnet50", "resnet50_v2", "vgg16", "efficientnet_b0", "efficientnet_v2_b0", "densenet121",
    "convnext_tiny", "xception", "nasnet_mobile",
)  # fmt: skip
AT_STRIDE_4 = ("mobilenet_v1", "vgg16", "densenet121", "convnext_tiny", "xception", "resnet50_v2")
# Where a position of stride 16 is found again: the first of the positions that it becomes, where
# the windows that lost a stride read 2j and what follows, else the last. Weights that describe its
# whole 16 pixels then describe a spot 4 pixels beside it at stride 8, 6 at 4: below and to the
# right of the first, above and to the left of the last.
FOUND_FIRST = ("resnet50", "resnet50_v2", "vgg16", "densenet121", "convnext_tiny")
# Layers that read only what lies inside the picture: here they are given zeros around it.
UNPADDED = {"inception_v3": None, "xception": {"block1_conv1", "block1_conv2"},
            "nasnet_mobile": {"stem_conv1"}}  # fmt: skip
# Networks that scale raw pictures themselves, also without weights.
SCALE_THEMSELVES = ("mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_v2_b0",
                    "convnext_tiny")  # fmt: skip


def side_of(name):
    return backbones.BACKBONES[name].least


def pictures_for(name, number=1):
    shape = (number, side_of(name), side_of(name), 3)
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)


def scaled(name, pictures):
    """What keras.applications would be fed."""
    raw = pictures.astype("float32")
    if name in SCALE_THEMSELVES:
        return raw
    values = imagenet_utils.preprocess_input(raw, mode=backbones.BACKBONES[name].scaling)
    # EfficientNet divides by 255, and without weights does no more.
    return values * 255 if name == "efficientnet_b0" else values


def randomized(name, network):
    """Random statistics and scales; gates that depend on a mean over positions become constant."""
    rng = np.random.default_rng(3)
    norms = []
    for layer in network.layers:
        inner = layer.layers if isinstance(layer, keras.Sequential) else [layer]
        for part in inner:
            if isinstance(part, keras.layers.BatchNormalization):
                norms.append(part)
                size = part.moving_mean.shape
                part.moving_mean.assign(rng.normal(size=size) * 0.1)
                part.moving_variance.assign(1 + 0.1 * rng.uniform(size=size))
                part.beta.assign(rng.normal(size=size) * 0.1)
            elif type(part).__name__ == "LayerScale":
                part.gamma.assign(rng.uniform(0.2, 0.5, part.gamma.shape))
        if layer.weights and layer.output.shape[1:3] == (1, 1):
            layer.set_weights([w * (w.ndim == 1) for w in layer.get_weights()])
    if "mobilenet" in name:  # narrow, and without weights: a signal fades unless it is normalized
        for part in norms:
            part.momentum = 0.0
        network(scaled(name, pictures_for(name, 8)), training=True)
    return network


def application(name):
    side = side_of(name)
    keras.utils.set_random_seed(3)
    network = getattr(keras.applications, backbones.BACKBONES[name].application)(
        include_top=False, weights=None, input_shape=(side, side, 3)
    )
    return randomized(name, network)


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
def row(request):
    """(name, network of keras.applications)."""
    return request.param, application(request.param)


@pytest.fixture(scope="module")
def built(row, tmp_path_factory):
    """stride -> (feature extractor, rest, sentence), with the weights of the application."""
    name, network = row
    path = str(tmp_path_factory.mktemp("weights") / f"{name}.weights.h5")
    network.save_weights(path)
    made = {}

    def build(stride):
        with pytest.MonkeyPatch.context() as patch:
            if stride != 16:  # there, a new network is given the weights of the file
                patch.setattr(backbones, "_application", lambda *_: network)
            if stride not in made:
                made[stride] = backbones.build_extractor(
                    name, input_size=side_of(name), output_stride=stride,
                    weights=path if stride == 16 else "none",
                )  # fmt: skip
        return made[stride]

    return build


def run(model, pictures):
    return np.asarray(model(pictures, training=False))


def close(got, expected):
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(got, expected, atol=1e-4 * scale, rtol=1e-3)


def test_with_no_stride_removed_outputs_are_those_of_the_application(row, built):
    name, network = row
    whole = padded(name, network) if name in UNPADDED else network
    if backbones.BACKBONES[name].trim:
        whole = keras.Model(whole.input, whole.layers[-1].input)
    features, rest, loaded = built(16)
    kept = backbones._kept(network, backbones.BACKBONES[name].trim)
    count = sum(bool(layer.weights) for layer in kept)
    assert loaded.endswith(f"{name}.weights.h5, {count} of {count} layers matched")
    got = run(rest, run(features, pictures_for(name)))
    close(got, run(whole, scaled(name, pictures_for(name))))


@pytest.mark.parametrize("stride", [8, 4])
def test_finer_features_hold_the_original_ones(row, built, stride):
    """At the old positions, wherever they are now, every value is what it was."""
    name, _ = row
    if name == "inception_v3":
        pytest.skip("its pools are not dilated")
    if stride == 4 and name not in AT_STRIDE_4:
        pytest.skip("another of its kind is tested")
    pictures, step = pictures_for(name), 16 // stride
    expected = run(built(16)[0], pictures)
    got = run(built(stride)[0], pictures)
    assert got.shape[1] == expected.shape[1] * step
    errors = [
        np.abs(got[:, i::step, i::step] - expected).max() / np.abs(expected).max()
        for i in range(step)
    ]
    assert errors.index(min(errors)) == (0 if name in FOUND_FIRST else step - 1)
    assert min(errors) < 1e-4, errors
    assert max(errors) > 1e-2  # the new positions hold something else


def test_behind_the_cut_a_stride_that_stays_reads_what_lies_closer(row, built):
    """Its window isn't dilated; a window of one position reads the same one as before."""
    name, _ = row
    if name not in ("mobilenet_v1", "resnet50"):
        pytest.skip("others of their kinds are tested")
    coarse, fine = (
        run(rest, run(features, pictures_for(name))) for features, rest, _ in map(built, (16, 8))
    )
    assert fine.shape[1] == 2 * coarse.shape[1]
    errors = [np.abs(fine[:, i::2, i::2] - coarse).max() / np.abs(coarse).max() for i in range(2)]
    assert (min(errors) < 1e-4) == (name == "resnet50"), errors


def test_every_trainable_weight_gets_a_gradient(row, built):
    features, rest, _ = built(8)
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(rest(features(pictures_for(row[0]), training=True)) ** 2)
    weights = [*features.trainable_variables, *rest.trainable_variables]
    gradients = tape.gradient(mean, [weight.value for weight in weights])
    assert [w.path for w, g in zip(weights, gradients, strict=True) if g is None] == []


def test_saved_and_loaded_it_is_the_same(row, built, tmp_path):
    name, _ = row
    features, rest, _ = built(8)
    expected = values = pictures_for(name)
    for part in (features, rest):
        expected = run(part, expected)
        part.save(tmp_path / f"{part.name}.keras")
        values = run(keras.saving.load_model(tmp_path / f"{part.name}.keras"), values)
    np.testing.assert_array_equal(values, expected)


# Rows and sizes


def test_rows_families_and_choices_are_the_same():
    names = [name for family in EXTRACTORS.values() for name in family]
    assert sorted(names) == sorted(backbones.BACKBONES)
    for row in backbones.BACKBONES.values():
        assert hasattr(keras.applications, row.application)


@pytest.mark.parametrize(
    ("name", "side"),
    [("vgg16", 64), ("vgg16", 96), ("vgg16", 224), ("vgg16", 320), ("mobilenet_v2", 320)],
)
def test_features_have_the_side_that_was_asked_for(name, side):
    for stride in (4, 32):
        features, _, _ = backbones.build_extractor(
            name, input_size=side, output_stride=stride, weights="none"
        )
        assert features.output.shape[1:3] == (side // stride, side // stride)


@pytest.mark.parametrize("name", ["xception", "vgg16", "convnext_tiny"])
@pytest.mark.parametrize("side", [0, 32, 65, 100, 321])
def test_other_sizes_are_refused(name, side):
    least = 96 if name == "xception" else 64
    with pytest.raises(ValueError, match=f"a multiple of 32 and at least {least} for {name}"):
        backbones.build_extractor(name, input_size=side, weights="none")


def test_other_rows_can_be_built():
    features, rest, _ = backbones.build_extractor("vgg19", input_size=64, weights="none")
    assert features.output.shape == (None, 8, 8, 512)
    assert rest.output.shape == (None, 4, 4, 512)


# Features of several strides


def test_levels_are_joined_and_the_rest_reads_its_own():
    keras.utils.set_random_seed(0)
    settings = {"input_size": 64, "weights": "none"}
    plain = backbones.build_extractor("vgg16", output_stride=16, **settings)
    joined = backbones.build_extractor("vgg16", levels="8,16", **settings)
    for one, other in zip(plain[:2], joined[:2], strict=True):
        other.set_weights(one.get_weights())
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    expected, features = run(plain[0], pictures), run(joined[0], pictures)
    channels = expected.shape[-1]
    assert features.shape[1:3] == (8, 8) and features.shape[-1] > channels
    np.testing.assert_array_equal(features[:, ::2, ::2, :channels], expected)
    np.testing.assert_array_equal(features[:, 1::2, 1::2, :channels], expected)
    close(run(joined[1], features), run(plain[1], expected))
