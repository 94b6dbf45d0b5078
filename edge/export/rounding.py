"""Rounds kernels and activations of a Keras 2 model while it is trained, as the int8 file does."""

from typing import Any

import numpy as np
import tensorflow as tf


def rounded(twin: Any, pictures: np.ndarray, tf_keras: Any, tfmot: Any) -> Any:
    """Wraps a twin so that kernels and activations are rounded as in the int8 file.

    The defaults of tensorflow_model_optimization are not used, for two reasons: they round
    depthwise kernels per tensor, where the file has a scale per channel, and their ranges of
    activations start at -6..6 and need thousands of steps to move. Here both are what the converter
    does.

    Args:
        twin: the Keras 2 model of `twin_of`, which shares its weights with the result.
        pictures: uint8 `[n, H, W, 3]`, for the ranges of activations.
        tf_keras: the module Keras 2.
        tfmot: the module tensorflow_model_optimization.
    """
    ranges = _ranges(twin, pictures, tf_keras)
    quantization = tfmot.quantization.keras
    quantizers = _quantizers(quantization)
    config = _quantize_config(quantization, *quantizers)

    def annotate(layer):
        kind = type(layer).__name__
        kernel = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}.get(kind)
        if not layer.trainable:
            kernel = None  # its channels have one value each, which rounding leaves as it is; and
            # what is wrapped for rounding is trained, whatever the layer says
        # A convolution, its normalization and its ReLU become one operation in the file.
        inside = kind in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "ZeroPadding2D")
        if layer.name in ("localizer_conv", "rescaling"):
            inside = False
        low, high = (None, None) if inside else ranges[layer.name]
        return quantization.quantize_annotate_layer(layer, config(kernel, low, high))

    annotated = tf_keras.models.clone_model(twin, clone_function=annotate)
    with quantization.quantize_scope({kind.__name__: kind for kind in (*quantizers, config)}):
        student = quantization.quantize_apply(annotated)
    for variable in student.layers[1].weights:  # the rounding of the picture
        if variable.name.endswith(("_min:0", "_max:0")):
            variable.assign(255.0 if "_max" in variable.name else 0.0)
    for layer in twin.layers:
        if not layer.trainable:  # scaling, normalization, the mean; a network of the user's may
            student.get_layer(f"quant_{layer.name}").trainable = False  # have no scaling
    return student


def _quantizers(quantization):
    """Classes, for what they extend is imported late: (of kernels, of outputs)."""

    class RoundedKernel(quantization.quantizers.Quantizer):
        """int8 per output channel, symmetric, straight-through gradient."""

        def __init__(self, axes):
            self.axes = axes  # all but that of the output channels

        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            scale = tf.reduce_max(tf.abs(inputs), self.axes, keepdims=True) / 127.0
            levels = tf.round(tf.math.divide_no_nan(inputs, scale))
            return inputs + tf.stop_gradient(levels * scale - inputs)

        def get_config(self):
            return {"axes": self.axes}

    class RoundedOutput(quantization.quantizers.Quantizer):
        """8 bits over a range that stays."""

        def __init__(self, low, high):
            self.low, self.high = low, high

        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            return tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high)

        def get_config(self):
            return {"low": self.low, "high": self.high}

    return RoundedKernel, RoundedOutput


def _quantize_config(quantization, rounded_kernel, rounded_output):
    """The class that says what of one layer is rounded."""

    class Rounding(quantization.QuantizeConfig):
        """What of one layer is rounded."""

        def __init__(self, kernel, low, high):
            self.kernel, self.low, self.high = kernel, low, high

        def get_weights_and_quantizers(self, layer):
            if not self.kernel:
                return []
            axes = (0, 1) if self.kernel == "depthwise_kernel" else (0, 1, 2)
            return [(getattr(layer, self.kernel), rounded_kernel(axes))]

        def set_quantize_weights(self, layer, quantize_weights):
            if self.kernel:
                setattr(layer, self.kernel, quantize_weights[0])

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return [] if self.low is None else [rounded_output(self.low, self.high)]

        def get_config(self):
            return {"kernel": self.kernel, "low": self.low, "high": self.high}

    return Rounding


def _ranges(twin, pictures, tf_keras):
    """Name of each layer -> (lowest, highest) output on pictures, with 0 between them."""
    probe = tf_keras.Model(twin.input, {layer.name: layer.output for layer in twin.layers[1:]})
    ranges = {}
    for picture in pictures:
        for name, value in probe(picture[None].astype(np.float32), training=False).items():
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(np.min(value))), max(high, float(np.max(value)), 1e-3)
    return ranges
