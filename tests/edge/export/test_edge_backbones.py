"""What other backbones bring into a file: gates, smooth activations, dilated pools, BGR."""

import types

import keras
import numpy as np
import pytest

from edge import runtime
from edge.export import convert, graphs, metadata, parity, steps, twin
from edge.export.exported_map import ExportedMap
from edge.runners import keras_runner, tflite_runner
from wsol_tf.config import Config
from wsol_tf.data import shapes
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.transforms import View
from wsol_tf.model.build import build_model
from wsol_tf.model.preprocessing import ReversedRescaling

LAYERS = keras.layers
MEAN = ExportedMap("mean")


def network():
    """The kinds of layers that MobileNetV3, EfficientNet, ConvNeXt, VGG and NASNet have."""
    image = keras.Input((64, 64, 3))
    x = LAYERS.Conv2D(8, 4, 4, padding="same", use_bias=False)(image)
    x = LAYERS.Activation("hard_silu")(LAYERS.BatchNormalization()(x))
    x = LAYERS.MaxPooling2D(2)(x)
    gate = LAYERS.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * LAYERS.Conv2D(8, 1, activation="hard_sigmoid")(gate)
    y = LAYERS.SeparableConv2D(12, 3, padding="same", activation="silu")(x)
    x = LAYERS.Conv2D(12, 1)(x) + y
    x = LAYERS.MaxPooling2D(2)(x)
    x = LAYERS.AveragePooling2D(3, 1, padding="same")(x)
    y = LAYERS.Conv2D(12, 3, padding="same", groups=12)(x)
    y = LAYERS.Dense(24, activation="gelu")(LAYERS.LayerNormalization()(y))
    x = x + LAYERS.Dense(12)(y)
    return keras.Model(image, LAYERS.Conv2D(16, 2, 2)(x))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    config = Config.recipe(
        input_size=64, resize_size=64, head_width=4, localizer="agnostic", output_stride=4
    )
    built = build_model(config, shapes.CLASSES, backbone=network(), preprocessing="caffe")
    pictures = np.stack([shapes.draw(i, size=64).image for i in range(8)])
    for layer in built.feature_extractor.layers:
        if isinstance(layer, LAYERS.BatchNormalization):
            layer.momentum = 0.0
    built.feature_extractor(pictures, training=True)
    kernel, bias = built.localizer.get_layer("localizer_conv").get_weights()
    features = np.asarray(built.feature_extractor(pictures))
    built.localizer.get_layer("localizer_conv").set_weights([kernel * 4 / features.std(), bias])
    built.thresholds = {"mean": 0.5}
    return built


def test_files_give_the_masks_of_keras(model, tmp_path):
    kinds = {type(layer).__name__ for layer in model.feature_extractor.layers}
    assert kinds >= {
        "ReversedRescaling",
        "DilatedPooling",
        "MaxPooling2D",
        "GlobalAveragePooling2D",
    }
    graph = graphs.export_graph(model, MEAN)
    pictures = np.stack([shapes.draw(i, size=64).image for i in range(8)])
    pictures[0, 0, 0], pictures[0, 0, 1] = 0, 255
    made = steps.make_files(model, MEAN, graph, pictures, ("float32", "int8"), log=lambda _: None)
    runners = {parity.REFERENCE: keras_runner(graph)}
    runners |= {name: tflite_runner(data) for name, data in made.items()}
    source = open_dataset("shapes", "", "train", image_size=64)
    figures = parity.compare(
        runners, source, range(8), view=View(64, 64), threshold=0.5, kind="mean"
    )
    assert figures["float32"]["max_difference"] < 1e-4
    assert figures["int8"]["mask_iou"] > 0.95
    assert convert.gpu_fallbacks(made["int8"]) == []
    for name, data in made.items():
        (tmp_path / f"{name}.tflite").write_bytes(data)
        localizer = runtime.LocalizerRuntime(tmp_path / f"{name}.tflite")
        assert localizer.metadata["normalization"] == {
            "scale": 1.0, "offset": [-103.939, -116.779, -123.68], "channels": "BGR",
            "in_graph": True,
        }  # fmt: skip
        assert localizer.localize(pictures[1]).mask.shape == (64, 64)


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.LayerNormalization(name="mine"),
        LAYERS.Conv2D(2, 3, activation="relu", name="mine"),
        LAYERS.Conv2D(2, 3, groups=2, name="mine"),
        LAYERS.UpSampling2D(name="mine"),  # of `levels`
        ReversedRescaling(1.0, name="mine"),  # "caffe"
    ],
)
def test_layers_without_a_counterpart_are_refused_by_further_training(layer):
    image = keras.Input((8, 8, 4 if isinstance(layer, LAYERS.Conv2D) else 3))
    model = types.SimpleNamespace(
        feature_extractor=keras.Model(image, layer(LAYERS.Rescaling(0.5)(image)))
    )
    with pytest.raises(ValueError, match="no counterpart in Keras 2 for the layer 'mine'"):
        twin.check_layers(model)


def test_what_a_gpu_leaves_to_the_cpu_is_named():
    x = keras.Input((8, 8, 3), 1, name="image")
    plain = keras.Model(x, {"foreground_mask": LAYERS.Conv2D(2, 3)(x)})
    assert convert.gpu_fallbacks(convert.convert(plain, "float32")) == ["CAST"]
    flipped = keras.Model(x, {"foreground_mask": keras.ops.flip(x, axis=1)})
    assert convert.gpu_fallbacks(convert.convert(flipped, "float32")) == ["CAST", "REVERSE_V2"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([LAYERS.Rescaling(np.full((1, 1, 3), 0.5), 1)], ([0.5, 0.5, 0.5], 1.0)),
        ([LAYERS.Rescaling(np.full(1, 0.5))], (0.5, 0.0)),
        # What comes later says nothing about raw RGB.
        ([LAYERS.Conv2D(3, 1), LAYERS.Rescaling(0.5)], (1.0, 0.0)),
    ],
)
def test_the_scaling_of_a_network_of_ones_own_is_told(layers, expected):
    network = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    network = keras.Model(network.inputs[0], network.outputs[0])
    told = metadata._normalization(types.SimpleNamespace(feature_extractor=network))
    assert told == {"scale": expected[0], "offset": expected[1], "in_graph": True}
