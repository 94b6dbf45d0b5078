"""Backbones of one's own: any functional model, cut as those of the project are."""

import keras
import numpy as np
import pytest

from helpers import AT_ONCE
from wsol_tf.config import Config
from wsol_tf.model import backbones
from wsol_tf.model.build import build_model, load_model
from wsol_tf.model.optimizer import GroupSGD
from wsol_tf.model.preprocessing import KINDS, preprocessing

LAYERS = keras.layers


def block(x, filters, name, strides=2):
    """A convolution beside a shortcut, joined: the reduction of both is one group."""
    y = LAYERS.Conv2D(filters, 3, strides, padding="same", name=f"{name}_conv")(x)
    y = LAYERS.BatchNormalization(name=f"{name}_bn")(y)
    if strides > 1 or x.shape[-1] != filters:
        x = LAYERS.Conv2D(filters, 1, strides, name=f"{name}_shortcut")(x)
    return LAYERS.ReLU(name=f"{name}_relu")(y + x)


def network(side=64, depth=5, top=None):
    """A residual network whose parts at strides 4 and 8 are a model and a Sequential in it."""
    keras.utils.set_random_seed(1)
    image = keras.Input((side, side, 3), name="picture")
    x = LAYERS.Conv2D(4, 3, 2, padding="same", name="stem")(image)
    inner = keras.Input(x.shape[1:])
    x = keras.Model(inner, block(inner, 6, "inner"), name="nested")(x)
    x = keras.Sequential(
        [LAYERS.LayerNormalization(), LAYERS.Conv2D(8, 2, 2, name="patches")], name="row"
    )(x)
    for i in range(3, depth):
        x = block(x, 8 + 2 * i, f"block{i}")
        x = block(x, 8 + 2 * i, f"block{i}b", strides=1)
    return keras.Model(image, top(x) if top else x, name="mine")


def pictures(side=64):
    return np.random.default_rng(2).integers(0, 256, (2, side, side, 3)).astype(np.uint8)


def test_without_a_removed_stride_it_is_the_model():
    model = network()
    features, rest = backbones.cut_model(model, input_size=64, output_stride=16)
    assert features.output.shape == (None, 4, 4, 14)
    assert rest.output.shape == (None, 2, 2, 16)
    assert [layer.name for layer in features.layers if "nested" in layer.name] == []
    np.testing.assert_allclose(
        rest.predict_on_batch(features.predict_on_batch(pictures())),
        model.predict_on_batch(pictures().astype("float32")), rtol=1e-4, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("stride", [8, 4])
def test_finer_features_hold_the_model_s(stride):
    """The shortcut read other positions than the convolution; both still meet as they did."""
    model = network()
    coarse, _ = backbones.cut_model(model, input_size=64, output_stride=16)
    fine, rest = backbones.cut_model(model, input_size=64, output_stride=stride)
    step = 16 // stride
    assert fine.output.shape == (None, 4 * step, 4 * step, 14)
    assert rest.output.shape == (None, 2 * step, 2 * step, 16)
    expected, got = coarse.predict_on_batch(pictures()), fine.predict_on_batch(pictures())
    errors = [np.abs(got[:, i::step, i::step] - expected).max() for i in range(step)]
    assert min(errors) < 1e-4 * np.abs(expected).max(), errors


def grouped(groups, filters):
    """A network with one convolution of so many groups on six channels."""
    keras.utils.set_random_seed(1)
    image = x = keras.Input((64, 64, 3))
    for stride in (2, 4, 8):
        x = LAYERS.Conv2D(6, 3, 2, padding="same", activation="elu", name=f"conv{stride}")(x)
    x = LAYERS.Conv2D(
        filters, 3, 2, padding="same", groups=groups, activation="elu", name="grouped",
        kernel_regularizer=keras.regularizers.L2(0.1), bias_initializer="random_normal",
    )(x)  # fmt: skip
    return keras.Model(image, LAYERS.Conv2D(6, 3, 2, padding="same", name="last")(x))


@pytest.mark.parametrize("groups, filters, kind", [
    (6, 6, LAYERS.DepthwiseConv2D), (6, 12, LAYERS.DepthwiseConv2D), (3, 6, LAYERS.Conv2D),
])  # fmt: skip
def test_a_group_for_each_channel_becomes_a_depthwise_convolution(groups, filters, kind, tmp_path):
    model = grouped(groups, filters)
    features, rest = backbones.cut_model(model, input_size=64, output_stride=16)
    layer = features.get_layer("grouped")
    assert type(layer) is kind
    assert layer.count_params() == model.get_layer("grouped").count_params()
    np.testing.assert_allclose(sum(features.losses), sum(model.losses), rtol=1e-5)
    expected = model.predict_on_batch(pictures().astype("float32"))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(
        rest.predict_on_batch(features.predict_on_batch(pictures())), expected,
        rtol=1e-4, atol=1e-4 * np.abs(expected).max(),
    )  # fmt: skip
    features.save(tmp_path / "features.keras")
    loaded = keras.saving.load_model(tmp_path / "features.keras")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(pictures()), features.predict_on_batch(pictures())
    )
    fine, _ = backbones.cut_model(model, input_size=64, output_stride=8)
    assert fine.get_layer("grouped").strides == (1, 1)
    np.testing.assert_allclose(
        fine.predict_on_batch(pictures())[:, 1::2, 1::2], features.predict_on_batch(pictures()),
        rtol=1e-4, atol=1e-4 * np.abs(expected).max(),
    )  # fmt: skip


def shared(at, *layers):
    """A network in which these layers are called one after the other at each of some strides."""
    keras.utils.set_random_seed(1)
    image = x = keras.Input((64, 64, 3))
    pool = LAYERS.MaxPooling2D(2, name="pool")
    for stride in (1, 2, 4, 8, 16):
        x = LAYERS.Conv2D(6, 3, padding="same", activation="elu", name=f"conv{stride}")(x)
        for layer in layers if stride in at else ():
            x = layer(x)
        x = pool(x)
    return keras.Model(image, x, name="mine")


@pytest.mark.parametrize("stride", [8, 4])
def test_a_layer_that_is_called_again_changes_as_each_call_has_to(stride):
    """One pool makes every stride: some of its calls keep theirs, the others are dilated."""
    model = shared(())
    coarse, _ = backbones.cut_model(model, input_size=64, output_stride=16)
    fine, rest = backbones.cut_model(model, input_size=64, output_stride=stride)
    step = 16 // stride
    assert (fine.output.shape[1], rest.output.shape[1]) == (4 * step, 2 * step)
    expected, got = coarse.predict_on_batch(pictures()), fine.predict_on_batch(pictures())
    errors = [np.abs(got[:, i::step, i::step] - expected).max() for i in range(step)]
    assert min(errors) < 1e-4 * np.abs(expected).max(), errors


def test_weights_are_shared_by_calls_that_change_alike(tmp_path):
    """Its windows have no centre: each call gets zeros of its own before it."""
    layer = LAYERS.Conv2D(6, 2, padding="same", name="twice")
    model = shared((16,), layer, layer)
    coarse, _ = backbones.cut_model(model, input_size=64, output_stride=16)
    fine, _ = backbones.cut_model(model, input_size=64, output_stride=8)
    assert fine.count_params() == coarse.count_params()
    expected, got = coarse.predict_on_batch(pictures()), fine.predict_on_batch(pictures())
    errors = [np.abs(got[:, i::2, i::2] - expected).max() for i in range(2)]
    assert min(errors) < 1e-4 * np.abs(expected).max(), errors
    fine.save(tmp_path / "fine.keras")
    loaded = keras.saving.load_model(tmp_path / "fine.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(pictures()), got)


def test_weights_whose_calls_would_differ_are_refused_by_name():
    layer = LAYERS.Conv2D(6, 3, padding="same", name="twice")
    model = shared((4, 8, 16), layer)
    message = "'twice' is called more than once, .* would need different strides or dilation"
    with pytest.raises(ValueError, match=message):
        backbones.cut_model(model, input_size=64, output_stride=4)
    features, _ = backbones.cut_model(model, input_size=64, output_stride=16)
    assert features.count_params() == model.count_params()


def test_weights_of_both_parts_are_refused_by_name():
    layer = LAYERS.Conv2D(6, 3, padding="same", name="twice")
    model = shared((8, 16), layer)
    model = keras.Model(model.input, layer(model.output))
    with pytest.raises(ValueError, match="'twice' is called before and behind the features"):
        backbones.cut_model(model, input_size=64, output_stride=16)


@pytest.mark.parametrize("other", [3, 1])
def test_zeros_that_two_layers_need_different_ones_of_are_refused_by_name(other):
    """Without its stride, the wider window wants more zeros than the narrower one."""
    image = keras.Input((64, 64, 3))
    x = LAYERS.Conv2D(4, 4, 4, name="stem")(image)
    x = LAYERS.Conv2D(4, 2, 2, name="patches")(x)
    x = LAYERS.ZeroPadding2D(((0, 1), (0, 1)), name="zeros")(x)
    one = LAYERS.Conv2D(4, 3, 2, name="three")(x)
    two = LAYERS.Conv2D(4, other, 2, name="other")(x)
    x = one + (two if other == 3 else LAYERS.Cropping2D(((0, 1), (0, 1)))(two))
    model = keras.Model(image, LAYERS.Conv2D(4, 2, 2, name="last")(x))
    if other == 3:  # both the same: then one ZeroPadding2D serves both
        backbones.cut_model(model, input_size=64, output_stride=8)
        return
    with pytest.raises(ValueError, match="The layers that read 'zeros' need different zeros"):
        backbones.cut_model(model, input_size=64, output_stride=8)


@pytest.mark.parametrize("side", [None, 96])
def test_a_model_for_other_sizes_is_built_anew_for_this_one(side):
    features, _ = backbones.cut_model(network(side), input_size=64, output_stride=8)
    assert features.input.shape == (None, 64, 64, 3)
    assert features.output.shape == (None, 8, 8, 14)


def test_it_trains_is_saved_and_loaded(tmp_path):
    config = Config.recipe(input_size=64, head_width=4, output_stride=8)
    model = build_model(config, ("a", "b"), backbone=network(), preprocessing="caffe")
    assert model.loaded_weights == "given: weights as they were"
    history = model.fit(pictures(), np.array([0, 1]), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "own.keras")
    np.testing.assert_array_equal(
        load_model(tmp_path / "own.keras").predict_on_batch(pictures())["score_map"],
        model.predict_on_batch(pictures())["score_map"],
    )


@pytest.mark.parametrize(
    ("settings", "maps"),
    [({"output_stride": 32}, (2, 2)), ({"output_stride": 8, "levels": "8,16"}, (8, 2))],
)
def test_other_resolutions_train_with_every_loss(settings, maps):
    config = Config.recipe(input_size=64, head_width=4, **settings, **AT_ONCE)
    model = build_model(config, ("a", "b"), backbone=network())
    outputs = model(pictures())
    sides = tuple(outputs[name].shape[1] for name in ("localization_map", "score_map"))
    assert sides == maps
    model.objective.span.begin(0, 1, 1, 0)
    gradients, values = model.gradients((pictures(), np.array([0, 1])))
    assert np.isfinite(np.mean(values["loss"]))
    assert [
        v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None
    ] == []


# Layers that are whole blocks, as those of keras-hub's MobileNet


@keras.saving.register_keras_serializable(package="test")
class Block(LAYERS.Layer):
    """A convolution and its activation as one layer, with a convolution's attributes."""

    def __init__(self, filters, strides, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.strides, self.kernel_size = filters, (strides, strides), (3, 3)
        self.conv = LAYERS.Conv2D(filters, 3, strides, padding="same", activation="relu")

    def build(self, shape):
        self.conv.build(shape)
        super().build(shape)

    def call(self, x):
        return self.conv(x)

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides[0]}


@pytest.mark.parametrize("side", [64, None])
def test_blocks_are_called_as_they_are_and_keep_their_strides(side):
    keras.utils.set_random_seed(1)
    image = x = keras.Input((side, side, 3))
    for i in range(5):
        x = Block(4, 2, name=f"block{i}")(x)
    model = keras.Model(image, x)
    features, rest = backbones.cut_model(model, input_size=64, output_stride=16)
    assert (features.output.shape[1], rest.output.shape[1]) == (4, 2)
    np.testing.assert_allclose(
        rest.predict_on_batch(features.predict_on_batch(pictures())),
        model.predict_on_batch(pictures().astype("float32")), rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    with pytest.raises(ValueError, match="'block3' reduces the resolution without being a layer"):
        backbones.cut_model(model, input_size=64, output_stride=8)


@pytest.mark.parametrize("side", [64, None])
def test_backbones_of_keras_hub_are_functional_models(side):
    models = pytest.importorskip("keras_hub").models
    model = models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16, 16, 16], stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block", image_shape=(side, side, 3),
    )  # fmt: skip
    coarse, rest = backbones.cut_model(model, input_size=64, output_stride=16)
    expected = coarse.predict_on_batch(pictures())
    np.testing.assert_allclose(
        rest.predict_on_batch(expected), model.predict_on_batch(pictures().astype("float32")),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    fine, _ = backbones.cut_model(model, input_size=64, output_stride=8)
    got = fine.predict_on_batch(pictures())
    errors = [np.abs(got[:, i::2, i::2] - expected).max() for i in range(2)]
    assert min(errors) < 1e-4 * np.abs(expected).max(), errors


# What can't be cut


@keras.saving.register_keras_serializable(package="test")
class Forgetful(keras.layers.Layer):
    """Has no get_config for what it needs."""

    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def get_config(self):
        raise NotImplementedError("no config")

    def call(self, x):
        return x * self.number


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def two_inputs():
    inputs = [keras.Input((64, 64, 3), name=f"input{i}") for i in range(2)]
    return keras.Model(inputs, LAYERS.Conv2D(4, 3, 16)(inputs[0] + inputs[1]), name="two")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "must have one input, the picture, .* inputs input0, input1"),
        (lambda: network(top=LAYERS.GlobalAveragePooling2D()), "take the top off"),
        (lambda: network(top=LAYERS.Lambda(lambda x: x, name="mine")), "'mine' .Lambda. can't be"),
        (lambda: network(top=Forgetful(3, name="lost")), "'lost' .Forgetful. .*no config"),
        (lambda: network(top=Unregistered(name="odd")), "'odd' .Unregistered. can't be saved"),
        (lambda: network(depth=3), "no features at `output_stride` 16, .* strides 2, 4, 8"),
        (lambda: network(top=LAYERS.Conv2D(4, 1, (2, 1), name="tall")), "'tall' has other strides"),
        (lambda: keras.Sequential([LAYERS.Conv2D(4, 3)], name="blind"), "must be a functional mod"),
    ],
)
def test_what_can_t_be_cut_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        backbones.cut_model(make(), input_size=64, output_stride=16)


def test_preprocessing_is_refused_where_it_has_no_place():
    with pytest.raises(ValueError, match="Unknown `preprocessing` 'vgg'. Legal: none, tf, torch"):
        backbones.cut_model(network(), preprocessing="vgg", input_size=64)
    config = Config.recipe(input_size=64, width=0.25, extractor_weights="none")
    with pytest.raises(ValueError, match="is for a functional model given as `backbone`"):
        build_model(config, ("a", "b"), preprocessing="tf")


@pytest.mark.parametrize("kind", KINDS)
def test_preprocessing_is_that_of_keras_applications(kind):
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, preprocessing(kind)(image))
    raw = pictures().astype("float32")
    if kind in ("none", "unit"):
        expected = raw / (255 if kind == "unit" else 1)
    else:
        expected = keras.applications.imagenet_utils.preprocess_input(raw.copy(), mode=kind)
    np.testing.assert_allclose(model.predict_on_batch(pictures()), expected, atol=2e-4)
    assert len(model.layers) == (1 if kind == "none" else 2)


# Frozen layers


def test_a_frozen_share_keeps_its_weights_and_its_statistics():
    config = Config.recipe(
        extractor_weights="none", width=0.25, input_size=64, head_width=4, freeze=0.5
    )
    model = build_model(config, ("a", "b"))
    assert model.loaded_weights == "mobilenet_v1: random weights; 28 layers are frozen"
    layers = [x for part in (model.feature_extractor, model.classifier) for x in part.layers]
    frozen = [x for x in layers if x.weights and not x.trainable]
    assert len(frozen) == 28 and isinstance(frozen[-1], LAYERS.BatchNormalization)
    before = {x.name: x.get_weights() for x in layers if x.weights}
    model.fit(pictures(), np.array([0, 1]), epochs=2, verbose=0)
    after = {x.name: x.get_weights() for x in layers if x.weights}
    moved = {
        name
        for name, values in before.items()
        if any((a != b).any() for a, b in zip(values, after[name], strict=True))
    }
    assert moved == before.keys() - {x.name for x in frozen}
    assert isinstance(model.optimizer, GroupSGD)
    assert len(model.optimizer.momentums) == len(model.trainable_variables)


def test_frozen_normalization_uses_its_moving_averages(tmp_path):
    features, rest = backbones.cut_model(network(), input_size=64, output_stride=16)
    assert backbones.freeze((features, rest), 1.0) > 10
    assert not features.trainable_variables and not rest.trainable_variables
    expected = features.predict_on_batch(pictures())
    np.testing.assert_array_equal(features(pictures(), training=True), expected)
    features.save(tmp_path / "frozen.keras")
    assert not keras.saving.load_model(tmp_path / "frozen.keras").trainable_variables
