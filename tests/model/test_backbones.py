import os
import re

import h5py
import keras
import numpy as np
import pytest

from wsol_tf import config as config_lib
from wsol_tf.config import choices
from wsol_tf.data import pretraining
from wsol_tf.model import backbones, heads
from wsol_tf.model.build import build_model, load_model

SIZE = 64


def mobilenet(**keywords):
    return backbones.build_extractor(
        "mobilenet_v1", **{"width": 0.25, "input_size": SIZE, "weights": "none", **keywords}
    )


def conv_layers(*models):
    """name -> layer, of all layers with a spatial kernel."""
    return {
        layer.name: layer
        for model in models
        for layer in model.layers
        if max(getattr(layer, "kernel_size", (1,))) > 1
    }


@pytest.fixture(scope="module")
def application():
    """A keras.applications network whose moving averages are no longer trivial."""
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNet(
        weights=None, alpha=0.25, include_top=False, input_shape=(SIZE, SIZE, 3)
    )
    return randomized(model)


def randomized(model):
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.beta.shape
            layer.beta.assign(rng.normal(size=size) * 0.1)
            layer.moving_mean.assign(rng.normal(size=size) * 0.1)
            layer.moving_variance.assign(1 + 0.1 * rng.uniform(size=size))
    return model


@pytest.fixture(scope="module")
def weights_file(application, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    application.save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)


# The network


def test_without_changes_it_is_the_application(application, weights_file, pictures):
    features, rest, _ = mobilenet(output_stride=16, weights=weights_file)
    expected = application.predict(pictures / np.float32(127.5) - 1, verbose=0)
    got = rest.predict(features.predict(pictures, verbose=0), verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "step"), [(8, 2), (4, 4)])
def test_dilated_features_hold_the_original_ones(weights_file, pictures, stride, step):
    """Each kernel reads the same positions as before: every step-th feature is unchanged."""
    original, _, _ = mobilenet(output_stride=16, weights=weights_file)
    finer, _, _ = mobilenet(output_stride=stride, weights=weights_file)
    expected = original.predict(pictures, verbose=0)
    got = finer.predict(pictures, verbose=0)
    np.testing.assert_allclose(
        got[:, step - 1 :: step, step - 1 :: step], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dilation", [True, False])
@pytest.mark.parametrize("stride", choices("output_stride"))
def test_shapes_and_strides_of_mobilenet(stride, dilation):
    features, rest, loaded = mobilenet(output_stride=stride, dilation=dilation)
    side = SIZE // stride
    assert features.input.shape == (None, SIZE, SIZE, 3)
    channels, behind = (256, side) if stride == 32 else (128, side // 2)
    assert features.output.shape == (None, side, side, channels)
    assert rest.input.shape == (None, side, side, channels)
    assert rest.output.shape == (None, behind, behind, 256)
    assert loaded == "mobilenet_v1: random weights"
    strided = {name for name, layer in conv_layers(features, rest).items() if layer.strides[0] > 1}
    removed = {8: {"conv_dw_6"}, 4: {"conv_dw_4", "conv_dw_6"}}.get(stride, set())
    assert strided == {"conv1", "conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12"} - removed


def test_dilation_follows_each_removed_stride():
    features, rest, _ = mobilenet(output_stride=8)
    rates = {name: layer.dilation_rate[0] for name, layer in conv_layers(features, rest).items()}
    doubled = {name for name, rate in rates.items() if rate == 2}
    # Block 12 strides: dilated, it would read every second position only.
    assert doubled == {f"conv_dw_{i}" for i in (7, 8, 9, 10, 11, 13)}
    assert set(rates.values()) == {1, 2}

    features, rest, _ = mobilenet(output_stride=4)
    rates = {name: layer.dilation_rate[0] for name, layer in conv_layers(features, rest).items()}
    assert {name for name, rate in rates.items() if rate == 2} == {"conv_dw_5", "conv_dw_6"}
    assert {name for name, rate in rates.items() if rate == 4} == {
        f"conv_dw_{i}" for i in (7, 8, 9, 10, 11, 13)
    }


@pytest.mark.parametrize("stride", [4, 8])
def test_nothing_is_dilated_without_dilation(stride):
    features, rest, _ = mobilenet(output_stride=stride, dilation=False)
    assert {layer.dilation_rate for layer in conv_layers(features, rest).values()} == {(1, 1)}


def test_published_shapes_and_parameter_counts():
    features, rest, _ = backbones.build_extractor("mobilenet_v1", weights="none", dilation=False)
    assert features.output.shape == (None, 28, 28, 512)
    classifier = heads.classifier(rest, 200)
    localizer = heads.localizer(features.output.shape[1:], 200)
    assert classifier.output.shape == (None, 14, 14, 200)
    assert localizer.output.shape == (None, 28, 28, 200)

    def trainable(model):
        return sum(int(np.prod(v.shape)) for v in model.trainable_variables)

    assert trainable(classifier) == 20_675_272
    assert trainable(localizer) == 921_800
    assert trainable(heads.localizer(features.output.shape[1:], 20)) == 92_180


def test_shapes_and_names_of_inception():
    features, rest, _ = backbones.build_extractor("inception_v3", weights="none")
    assert features.output.shape == (None, 28, 28, 768)
    assert rest.output.shape == (None, 14, 14, 2048)
    sides = {layer.name: layer.output.shape[1] for layer in features.layers}
    assert (sides["conv2d"], sides["max_pooling2d"], sides["max_pooling2d_1"]) == (112, 56, 28)
    layers = conv_layers(features, rest)
    strided = {name for name, layer in layers.items() if layer.strides[0] > 1}
    assert strided == {"conv2d", "conv2d_71", "conv2d_75"}
    dilated = {name for name, layer in layers.items() if layer.dilation_rate[0] > 1}
    # Mixed_6b to 6e, then all of Mixed_7 but its strided layers; Mixed_6a reads as before.
    assert {"conv2d_32", "conv2d_68", "conv2d_73", "conv2d_74", "conv2d_92"} <= dilated
    assert all(int(name.removeprefix("conv2d_")) > 29 for name in dilated)
    # Built a second time in this process, the names are the same.
    smaller, smaller_rest, _ = backbones.build_extractor(
        "inception_v3", input_size=96, weights="none"
    )
    for first, second in ((features, smaller), (rest, smaller_rest)):
        assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
        assert [v.path for v in first.variables] == [v.path for v in second.variables]


def test_names_do_not_depend_on_what_was_built_before():
    keras.Sequential([keras.layers.Conv2D(1, 3), keras.layers.BatchNormalization()])
    first = mobilenet()
    keras.Sequential([keras.layers.ReLU(), keras.layers.DepthwiseConv2D(3)])
    second = mobilenet(output_stride=4)
    for one, other in zip(first[:2], second[:2], strict=True):
        assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    assert first[1].layers[0].name == "features"
    assert first[0].layers[0].name == "image"


def test_batch_norm_of_the_global_batch_with_the_asked_momentum():
    for model in mobilenet(bn_momentum=0.7)[:2]:
        layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        assert layers
        assert all(layer.momentum == 0.7 and layer.synchronized for layer in layers)


def test_raw_bytes_and_floats_give_the_same(pictures):
    features, _, _ = mobilenet()
    np.testing.assert_array_equal(
        features.predict(pictures, verbose=0),
        features.predict(pictures.astype("float32"), verbose=0),
    )


# Weights


def by_layer(*models):
    return {
        layer.name: layer.get_weights() for model in models for layer in model.layers
        if layer.weights
    }  # fmt: skip


def assert_loaded(loaded, application):
    features, rest, _ = loaded
    got, expected = by_layer(features, rest), by_layer(application)
    assert got.keys() == expected.keys()
    for name, arrays in expected.items():
        for a, b in zip(got[name], arrays, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_weights_file_is_loaded_whole(application, weights_file):
    loaded = mobilenet(weights=weights_file)
    assert_loaded(loaded, application)
    assert loaded[2] == f"mobilenet_v1: {weights_file}, 54 of 54 layers matched"


def test_a_weights_file_with_the_top_is_loaded(tmp_path):
    whole = keras.applications.MobileNet(weights=None, alpha=0.25, classes=7)
    whole.save_weights(tmp_path / "top.weights.h5")
    loaded = mobilenet(weights=str(tmp_path / "top.weights.h5"))
    expected = {n: w for n, w in by_layer(whole).items() if n != "conv_preds"}
    got = by_layer(*loaded[:2])
    assert got.keys() == expected.keys()
    for name, arrays in expected.items():
        np.testing.assert_array_equal(got[name][0], arrays[0], err_msg=name)


def test_a_file_of_older_keras_is_loaded(application, tmp_path):
    whole, path = tmp_path / "whole.h5", tmp_path / "old.h5"
    application.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:  # as save_weights wrote
        weights = source["model_weights"]
        for name in weights:
            source.copy(weights[name], target)
        for name, attribute in weights.attrs.items():
            target.attrs[name] = attribute
    assert_loaded(mobilenet(weights=str(path)), application)


def test_inception_weights_are_loaded_whole(tmp_path):
    application = randomized(
        keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(96, 96, 3))
    )
    path = str(tmp_path / "inception.weights.h5")
    application.save_weights(path)
    features, rest, loaded = backbones.build_extractor("inception_v3", input_size=96, weights=path)
    assert loaded.endswith("188 of 188 layers matched")
    # Keras numbers layers without a name in the order in which they are made.
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        got, expected = numbered(kind, features, rest), numbered(kind, application)
        assert len(got) == len(expected) == 94
        for one, other in zip(got, expected, strict=True):
            for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=one.name)


def numbered(kind, *models):
    layers = [x for model in models for x in model.layers if isinstance(x, kind)]
    return sorted(layers, key=lambda x: int((re.search(r"_(\d+)$", x.name) or [0, 0])[1]))


def test_a_file_of_another_width_is_refused_by_layer(weights_file):
    with pytest.raises(ValueError) as error:
        mobilenet(width=0.5, weights=weights_file)
    text = str(error.value)
    assert f"The weights in {weights_file} do not fit this feature extractor: 0 of 54" in text
    assert "conv1 ((3, 3, 3, 8) in the file, (3, 3, 3, 16) here)" in text
    assert "and 46 more" in text and "`width`" in text


def test_a_file_of_another_network_is_refused_by_layer(tmp_path):
    x = keras.Input((8, 8, 3))
    other = keras.Model(x, keras.layers.Conv2D(8, 3, name="mine")(x))
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="0 of 54 layers match.*Not in the file: .*conv_dw_1"):
        mobilenet(weights=str(tmp_path / "other.weights.h5"))


def test_files_that_hold_no_weights_are_refused(tmp_path):
    text = tmp_path / "page.weights.h5"
    text.write_text("<html>404</html>")
    with pytest.raises(ValueError, match="page.weights.h5 is not a readable HDF5 weights file"):
        mobilenet(weights=str(text))
    empty = tmp_path / "empty.h5"
    h5py.File(empty, "w").close()
    with pytest.raises(ValueError, match="empty.h5 holds no layer weights that Keras wrote"):
        mobilenet(weights=str(empty))
    with pytest.raises(ValueError, match="Received: '.*missing.h5', which is no file."):
        mobilenet(weights=str(tmp_path / "missing.h5"))


def test_imagenet_weights_come_from_keras(monkeypatch):
    original, asked = keras.applications.MobileNet, []

    def download(**keywords):
        asked.append(keywords)
        return randomized(original(**{**keywords, "weights": None}))

    monkeypatch.setattr(keras.applications, "MobileNet", download)
    features, _, loaded = mobilenet(weights="imagenet")
    assert (asked[0]["weights"], asked[0]["alpha"]) == ("imagenet", 0.25)
    assert asked[0]["include_top"] is False
    assert "ImageNet" in loaded
    # What Keras loaded is in our copy: a new network would have an offset of 0.
    assert features.get_layer("conv_pw_11_bn").get_weights()[1].any()
    mobilenet(weights="none")
    assert asked[1]["weights"] is None


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        (
            "lenet",
            {},
            "Unknown `extractor` 'lenet'. Legal: mobilenet_v1, .*_v3_small; efficientnet",
        ),
        ("mobilenet_v1", {"output_stride": 2}, "`output_stride` must be one of"),
        ("mobilenet_v1", {"levels": "8,x"}, "smallest is `output_stride`, as 8,16. Received: '8,x"),
        ("mobilenet_v1", {"levels": "4,16"}, "Received: '4,16' with output_stride 8"),
        ("mobilenet_v1", {"levels": "8,64"}, "`levels` 8,64. It has them at strides 2, 4, 8, 16,"),
        ("mobilenet_v1", {"input_size": 100}, "at least 64 for mobilenet_v1. Received: 100."),
        ("mobilenet_v1", {"input_size": 32}, "Received: 32."),
        ("inception_v3", {"input_size": 64}, "at least 96 for inception_v3. Received: 64."),
        ("mobilenet_v1", {"width": 0.0}, "`width` must lie in"),
        ("inception_v3", {"width": 0.5}, "be 1.0 for inception_v3. Received: width=0.5"),
        ("vgg16", {"width": 0.5}, "be 1.0 for vgg16"),
        ("mobilenet_v1", {"width": 0.3, "weights": "imagenet"}, "Received: width=0.3; take one"),
    ],
)
def test_networks_that_cant_be_built_are_refused(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        backbones.build_extractor(name, **{"weights": "none", **wrong})


# A backbone of one's own


@pytest.fixture
def registered():
    """Registers a small backbone as "own"; returns what it was asked for."""
    asked = []

    def build(*, width, input_size, output_stride):
        asked.append((width, input_size, output_stride))
        image = keras.Input((input_size, input_size, 3))
        strides = {"strides": output_stride, "padding": "same"}
        x = keras.layers.Conv2D(int(8 * width), 3, **strides, name="mine")(image)
        features = keras.Input(x.shape[1:])
        rest = keras.layers.MaxPooling2D(2, name="pool")(features)
        return keras.Model(image, x), keras.Model(features, rest)

    backbones.register_backbone("own", build)
    yield asked
    backbones._REGISTERED.clear()
    config_lib._REGISTERED.clear()


def test_a_registered_backbone_is_built_as_the_config_says(registered):
    config = config_lib.Config.recipe(extractor="own", width=0.5, input_size=64, head_width=4)
    model = build_model(config, ("a", "b"))
    assert registered == [(0.5, 64, 8)]
    assert [part.name for part in (model.feature_extractor, model.classifier, model.localizer)] == [
        "feature_extractor", "classifier", "localizer",
    ]  # fmt: skip
    assert model.loaded_weights.startswith("own: ")
    outputs = model.predict_on_batch(np.zeros((1, 64, 64, 3), np.uint8))
    assert outputs["localization_map"].shape == (1, 8, 8, 2)
    assert outputs["score_map"].shape == (1, 4, 4, 2)
    images = np.zeros((2, 64, 64, 3), np.uint8)
    history = model.fit(images, np.array([0, 1]), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_registered_backbone_trains_is_saved_and_loaded(registered, tmp_path):
    config = config_lib.Config.recipe(extractor="own", input_size=32, head_width=4)
    model = build_model(config, ("a", "b"))
    model.save(tmp_path / "own.keras")
    image = np.full((1, 32, 32, 3), 9, np.uint8)
    np.testing.assert_array_equal(
        load_model(tmp_path / "own.keras").predict_on_batch(image)["logits"],
        model.predict_on_batch(image)["logits"],
    )


def test_levels_are_refused_where_they_would_be_left_out(registered):
    config = config_lib.Config.recipe(extractor="own", levels="8,16", input_size=64, head_width=4)
    with pytest.raises(ValueError, match="`levels` is not for 'own'"):
        build_model(config, ("a", "b"))
    image, features = keras.Input((64, 64, 3)), keras.Input((8, 8, 4))
    conv = keras.Model(image, keras.layers.Conv2D(4, 3, 8, padding="same")(image))
    rest = keras.Model(features, keras.layers.MaxPooling2D(2)(features))
    with pytest.raises(ValueError, match="`levels` joins features of a network that is cut here"):
        build_model(config, ("a", "b"), backbone=(conv, rest))


def test_a_backbone_that_does_not_fit_is_refused(registered):
    with pytest.raises(ValueError, match="There is a backbone 'mobilenet_v1' already"):
        backbones.register_backbone("mobilenet_v1", lambda **_: None)
    with pytest.raises(ValueError, match="Unknown `extractor` 'mine'.*inception_v3, .*; own."):
        backbones.build_extractor("mine")
    image, features = keras.Input((32, 32, 3)), keras.Input((8, 8, 4))
    conv = keras.Model(image, keras.layers.Conv2D(4, 3, 4, padding="same")(image))
    rest = keras.Model(features, keras.layers.MaxPooling2D(2)(features))
    backbones.checked(conv, rest, 32, 4)
    for wrong in ((conv, rest, 64, 8), (conv, rest, 32, 8), (conv, conv, 32, 4)):
        with pytest.raises(ValueError, match="A backbone has a feature extractor .*Received: "):
            backbones.checked(*wrong)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("width", "file"),
    [
        (0.25, "mobilenet_v1_0.25_224_keras_float"),
        (1.0, "mobilenet_v1_1.0_224_notop_from_coral_quant"),
    ],
)
def test_real_weights_match_whole(shared_dir, width, file):
    path = str(shared_dir / "weights" / f"{file}.weights.h5")
    _, _, loaded = backbones.build_extractor("mobilenet_v1", width=width, weights=path)
    assert loaded.endswith("54 of 54 layers matched")
    other = 1.25 - width
    with pytest.raises(ValueError, match="do not fit this feature extractor: 0 of 54"):
        backbones.build_extractor("mobilenet_v1", width=other, weights=path)


# The features of drawn pictures that come with the package


def test_drawn_weights_come_with_the_package():
    assert os.path.getsize(backbones.DRAWN_WEIGHTS) < 600_000
    features, rest, loaded = mobilenet(weights="drawn")
    assert loaded == "mobilenet_v1: drawn, 54 of 54 layers matched"
    random, _, _ = mobilenet()
    weights = [model.get_layer("conv_dw_5").get_weights()[0] for model in (features, random)]
    assert not np.allclose(*weights)
    assert np.isfinite(rest(features(np.full((1, SIZE, SIZE, 3), 90))).numpy()).all()


def test_drawn_features_tell_a_texture_from_its_surroundings():
    """Linear separation of a textured body from the background, as the localizer has to do it."""
    features, _, _ = mobilenet(weights="drawn", input_size=128)
    random, _, _ = mobilenet(weights="none", input_size=128)
    swatches = pretraining.by_kind(pretraining.draw_swatch(index, seed=9) for index in range(60))
    drawn = [pretraining.make_collage(swatches, index, seed=9) for index in range(24)]
    images = np.stack([x.image[16:144, 16:144] for x in drawn])
    truth = np.stack([x.body[16:144, 16:144][4::8, 4::8] > 0 for x in drawn]).ravel()
    errors = []
    for model in (features, random):
        values = model(images).numpy().reshape(len(truth), -1)
        values = np.column_stack([values, np.ones(len(truth))])
        half = len(truth) // 2
        solved, *_ = np.linalg.lstsq(values[:half], truth[:half], rcond=1e-3)
        errors.append(np.mean((values[half:] @ solved > 0.5) != truth[half:]))
    assert errors[0] < 0.12 and errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("other", [{"width": 0.5}, {"name": "inception_v3", "width": 1.0}])
def test_drawn_weights_fit_one_network_alone(other):
    other = {"name": "mobilenet_v1", "input_size": 96, "weights": "drawn", **other}
    with pytest.raises(ValueError, match=r"mobilenet_v1 with `width=0.25`. Received: \w+ with"):
        backbones.build_extractor(**other)
