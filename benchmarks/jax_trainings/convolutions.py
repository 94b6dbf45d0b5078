"""Convolutions as products of matrices and sums of shifted pictures, for `jax.vmap`.

Where each of many trainings has kernels of its own, a convolution under vmap becomes a grouped one,
and cuDNN's kernels for those are slow: on an H100 a depthwise layer (30 trainings, 16 pictures,
28 x 28 x 128) took 23 ms with its gradient, and 1.2 ms as it stands here.
"""

import jax.numpy as jnp
import keras.src.backend.jax.nn as keras_nn

KERAS_CONV, KERAS_DEPTHWISE = keras_nn.conv, keras_nn.depthwise_conv


def install():
    """Puts these convolutions in the place of Keras's, in this process."""
    keras_nn.conv, keras_nn.depthwise_conv = conv, depthwise_conv


def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    """`keras.ops.conv`; what is no plain convolution of pictures is left to Keras."""
    kernel = jnp.asarray(kernel)
    if inputs.ndim != 4 or data_format == "channels_first" or kernel.shape[2] != inputs.shape[3]:
        return KERAS_CONV(inputs, kernel, strides, padding, data_format, dilation_rate)
    seen = [part for _, _, part in _taps(inputs, kernel, strides, padding, dilation_rate)]
    matrix = kernel.reshape(-1, kernel.shape[3])
    return jnp.einsum("bhwi,io->bhwo", jnp.concatenate(seen, -1), matrix)


def depthwise_conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    """`keras.ops.depthwise_conv`; what is no plain one of pictures is left to Keras."""
    kernel = jnp.asarray(kernel)
    if inputs.ndim != 4 or data_format == "channels_first" or kernel.shape[3] != 1:
        return KERAS_DEPTHWISE(inputs, kernel, strides, padding, data_format, dilation_rate)
    taps = _taps(inputs, kernel, strides, padding, dilation_rate)
    return sum(part * kernel[row, column, :, 0] for row, column, part in taps)


def _taps(inputs, kernel, strides, padding, dilation):
    """Yields (row, column, what of the inputs that element of the kernel is multiplied with)."""
    sizes, strides, dilation = kernel.shape[:2], _pair(strides), _pair(dilation)
    reaches = [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]
    if padding == "same":
        pads = [_pads(*axis) for axis in zip(inputs.shape[1:3], reaches, strides, strict=True)]
        inputs = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    spans = [
        (side - reach) // stride * stride + 1
        for side, reach, stride in zip(inputs.shape[1:3], reaches, strides, strict=True)
    ]
    for row in range(sizes[0]):
        for column in range(sizes[1]):
            top, left = row * dilation[0], column * dilation[1]
            rows = slice(top, top + spans[0], strides[0])
            columns = slice(left, left + spans[1], strides[1])
            yield row, column, inputs[:, rows, columns]


def _pads(side, reach, stride):
    """What `same` adds before and behind a side, as TensorFlow does it."""
    total = max((-(-side // stride) - 1) * stride + reach - side, 0)
    return total // 2, total - total // 2


def _pair(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)
