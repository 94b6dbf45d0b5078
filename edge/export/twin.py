"""A Localization as one flat Keras 2 model, which is what tensorflow_model_optimization takes."""

from typing import Any

import keras
import numpy as np

from edge.export.exported_map import ExportedMap
from edge.export.graphs import kernel_of
from wsol_tf.model.localization import Localization

# Settings that a layer of Keras 3 shares with its counterpart in Keras 2.
_SHARED = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "dilation_rate", "use_bias"),
    "BatchNormalization": ("epsilon", "center", "scale"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Activation": ("activation",),
    "ZeroPadding2D": ("padding",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "Concatenate": (),
}


def twin_of(model: Localization, map_: ExportedMap, tf_keras: Any) -> Any:
    """Rebuilds extractor and localizer as one flat Keras 2 model with the same weights.

    Args:
        model: a Localization.
        map_: a map that does not need the classifier.
        tf_keras: the module Keras 2.

    Returns:
        A model of raw RGB float `[batch, H, W, 3]` -> `[batch, h, w, channels]`, with one channel
        unless the map is "all". Scaling is a 1x1 depthwise convolution, which can be quantized;
        the mean over channels is a 1x1 convolution.

    Raises:
        ValueError: see `check_layers`.
    """
    check_layers(model)
    layers, weights = tf_keras.layers, {}
    image = layers.Input(model.feature_extractor.input.shape[1:], name="image")
    tensors = {id(model.feature_extractor.input): image}
    for layer in model.feature_extractor.operations:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.layers.Rescaling):
            copy = layers.DepthwiseConv2D(1, name=layer.name, trainable=False)
            scale, offset = (np.broadcast_to(x, 3) for x in (layer.scale, layer.offset))
            weights[copy] = [scale.reshape(1, 1, 3, 1), offset]
        else:
            copy = _counterpart(layer, layers)
            weights[copy] = layer.get_weights()
        source = layer.input
        inputs = (
            [tensors[id(t)] for t in source] if isinstance(source, list) else tensors[id(source)]
        )
        tensors[id(layer.output)] = copy(inputs)
    x = tensors[id(model.feature_extractor.output)]
    kernel, bias = kernel_of(model, map_)
    head = layers.Conv2D(kernel.shape[-1], 3, padding="same", name="localizer_conv")
    weights[head] = [kernel, bias]
    x = layers.Activation("sigmoid", name="localizer_sigmoid")(head(x))
    if map_.kind == "mean" and kernel.shape[-1] > 1:
        mean = layers.Conv2D(1, 1, use_bias=False, name="mean", trainable=False)
        weights[mean] = [np.full((1, 1, kernel.shape[-1], 1), 1 / kernel.shape[-1])]
        x = mean(x)
    twin = tf_keras.Model(image, x, name="localize")
    for copy, values in weights.items():
        copy.set_weights(values)
    return twin


def check_layers(model: Localization) -> None:
    """Refuses a model that no twin can be made of.

    Raises:
        ValueError: a layer of its feature extractor has no counterpart in Keras 2.
    """
    for layer in model.feature_extractor.operations:
        kind = type(layer).__name__
        inside = kind != "Activation" and getattr(layer, "activation", None)
        grouped = getattr(layer, "groups", 1) != 1
        known = kind in ("InputLayer", "Rescaling", *_SHARED)
        if not known or grouped or (inside and inside is not keras.activations.linear):
            raise ValueError(
                f"Quantization-aware training has no counterpart in Keras 2 for the layer "
                f"'{layer.name}' ({kind}). Use `formats=int8`."
            )


def _counterpart(layer, layers):
    """The layer of Keras 2 with the settings of one of Keras 3."""
    kind = type(layer).__name__
    config = {key: value for key, value in layer.get_config().items() if key in _SHARED[kind]}
    if kind == "BatchNormalization":
        config["trainable"] = False  # on few pictures: keep those of the training
    return getattr(layers, kind)(name=layer.name, **config)


def weights_of(student: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a twin by the names of layer and weight, such as "conv1/kernel"."""
    weights = {}
    for layer in student.layers:
        for weight in layer.weights:
            kind = weight.name.rpartition("/")[2].removesuffix(":0")
            weights[f"{layer.name.removeprefix('quant_')}/{kind}"] = weight.numpy()
    return weights


def with_weights(
    model: Localization, map_: ExportedMap, weights: dict[str, np.ndarray]
) -> Localization:
    """Returns a copy of a Localization with the kernels and the biases of a twin.

    Args:
        model: the Localization that the twin was made of; it is not changed.
        map_: the map that the twin gives.
        weights: of `weights_of`.
    """
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    for layer in copy.feature_extractor.layers:
        if "Conv2D" in type(layer).__name__:
            own = zip(layer.weights, layer.get_weights(), strict=True)
            layer.set_weights([weights.get(f"{layer.name}/{w.name}", value) for w, value in own])
    kernel, bias = copy.localizer.get_layer("localizer_conv").get_weights()
    channels = map_.channels(model.classes)
    kernel[..., channels] = weights["localizer_conv/kernel"]
    bias[channels] = weights["localizer_conv/bias"]
    copy.localizer.get_layer("localizer_conv").set_weights([kernel, bias])
    return copy
