"""The four networks of BAS (arXiv 2112.00580) in Keras, to hold the weights of its checkpoints.

Each is built as the authors' public code (github.com/wpy1999/BAS) describes it, and as PyTorch
computes it: zeros at both sides of a strided window, other epsilons, ReLU in place of ReLU6. Layers
have the names of their tensors in a checkpoint. All take 224x224 pixels to features of 28x28.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

SIDE = 224  # pixels; pictures are resized to 256 and cropped, as a Localization does it
BN_MOMENTUM = 0.9  # PyTorch calls it 0.1


# --- layers as PyTorch computes them -------------------------------------------------------------


def _pair(value):
    return (value, value) if isinstance(value, int) else value


def _padded(x, name, padding):
    if not any(padding):
        return x
    rows, columns = padding
    return keras.layers.ZeroPadding2D((_pair(rows), _pair(columns)), name=f"{name}.pad")(x)


def _conv(x, name, filters, size, *, stride=1, padding: Any = 0, bias=False):
    """A convolution of `filters` channels; 0: one of each channel by itself."""
    size, padding = _pair(size), _pair(padding)
    # Without a stride, zeros at both sides are what Keras calls the same.
    same = stride == 1 and all(
        2 * zeros + 1 == side for zeros, side in zip(padding, size, strict=True)
    )
    if not same:
        x = _padded(x, name, padding)
    settings = {
        "strides": stride, "padding": "same" if same else "valid", "use_bias": bias, "name": name
    }  # fmt: skip
    if filters:
        return keras.layers.Conv2D(filters, size, **settings)(x)
    return keras.layers.DepthwiseConv2D(size, **settings)(x)


def _normalized(x, name, epsilon=1e-5, relu=True):
    x = keras.layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=epsilon, name=name)(x)
    return _relu(x, name) if relu else x


def _relu(x, name):
    return keras.layers.ReLU(name=f"{name}.relu")(x)


def _max_pool(x, name, size, stride, padding: Any = 0):
    """Zeros stand in for the missing values: there is nothing below them behind a ReLU."""
    return keras.layers.MaxPooling2D(size, stride, name=name)(_padded(x, name, _pair(padding)))


# --- MobileNetV1 ---------------------------------------------------------------------------------

# Channels and strides of the blocks; the last two are behind the features.
_MOBILENET = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), *[(512, 1)] * 6, (1024, 2), (1024, 1)
)  # fmt: skip


def _mobilenet_blocks(x, first, last):
    for number in range(first, last):
        channels, stride = _MOBILENET[number - 1]
        name = f"model.{number}"
        x = _conv(x, f"{name}.0", 0, 3, stride=stride, padding=1)
        x = _normalized(x, f"{name}.1")
        x = _conv(x, f"{name}.3", channels, 1)
        x = _normalized(x, f"{name}.4")
    return x


def _mobilenet_features(x):
    x = _normalized(_conv(x, "model.0.0", 32, 3, stride=2, padding=1), "model.0.1")
    return _mobilenet_blocks(x, 1, 12)


def _mobilenet_rest(x):
    return _mobilenet_blocks(x, 12, 14)


# --- VGG16 ---------------------------------------------------------------------------------------


def _vgg_block(x, block, channels, convolutions):
    for number in range(1, convolutions + 1):
        name = f"conv{block}_{number}"
        x = _relu(_conv(x, name, channels, 3, padding=1, bias=True), name)
    return x


def _vgg_features(x):
    for block, (channels, convolutions) in enumerate(((64, 2), (128, 2), (256, 3)), 1):
        x = _vgg_block(x, block, channels, convolutions)
        x = _max_pool(x, f"pool{block}", 2, 2)
    return _vgg_block(x, 4, 512, 3)


def _vgg_rest(x):
    return _vgg_block(_max_pool(x, "pool4", 2, 2), 5, 512, 3)


# --- ResNet50 ------------------------------------------------------------------------------------


def _bottleneck(x, name, channels, stride, shortcut):
    identity = x
    if shortcut:
        identity = _conv(x, f"{name}.downsample.0", 4 * channels, 1, stride=stride)
        identity = _normalized(identity, f"{name}.downsample.1", relu=False)
    x = _normalized(_conv(x, f"{name}.conv1", channels, 1), f"{name}.bn1")
    x = _conv(x, f"{name}.conv2", channels, 3, stride=stride, padding=1)
    x = _normalized(x, f"{name}.bn2")
    x = _normalized(_conv(x, f"{name}.conv3", 4 * channels, 1), f"{name}.bn3", relu=False)
    return _relu(keras.layers.Add(name=f"{name}.add")([x, identity]), name)


def _resnet_stage(x, stage, channels, blocks, stride=1):
    for block in range(blocks):
        first = block == 0
        x = _bottleneck(x, f"layer{stage}.{block}", channels, stride if first else 1, first)
    return x


def _resnet_features(x):
    x = _normalized(_conv(x, "conv1", 64, 7, stride=2, padding=3), "bn1")
    x = _max_pool(x, "maxpool", 3, 2, padding=1)
    x = _resnet_stage(x, 1, 64, 3)
    x = _resnet_stage(x, 2, 128, 4, stride=2)
    return _resnet_stage(x, 3, 256, 6)


def _resnet_rest(x):
    return _resnet_stage(_max_pool(x, "maxpool4", 2, 2), 4, 512, 3)


# --- InceptionV3 ---------------------------------------------------------------------------------


def _unit(x, name, filters, size, **settings):
    """Convolution, normalization and ReLU, one of BAS's BasicConv2d."""
    return _normalized(_conv(x, f"{name}.conv", filters, size, **settings), f"{name}.bn", 1e-3)


def _chain(x, name, steps):
    """Units behind each other: (name, filters, size); odd windows are padded to the same size."""
    for part, filters, size, *stride in steps:
        padding = tuple(side // 2 for side in _pair(size))
        strides = {"stride": stride[0]} if stride else {}
        x = _unit(x, f"{name}.{part}", filters, size, padding=padding, **strides)
    return x


def _average(x, name, filters):
    """The mean of 3x3 positions, zeros outside counted, and a 1x1 unit."""
    x = _padded(x, f"{name}.average", (1, 1))
    x = keras.layers.AveragePooling2D(3, 1, name=f"{name}.average")(x)
    return _unit(x, f"{name}.branch_pool", filters, 1)


def _joined(name, parts):
    return keras.layers.Concatenate(name=name)(parts)


def _inception_a(x, name, pooled):
    chains = (
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    )
    parts = [_chain(x, name, steps) for steps in chains]
    return _joined(name, [*parts, _average(x, name, pooled)])


def _inception_b(x, name):
    chains = (
        [("branch3x3", 384, 3)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    )
    parts = [_chain(x, name, steps) for steps in chains]
    return _joined(name, [*parts, _max_pool(x, f"{name}.pool", 3, 1, padding=1)])


def _inception_c(x, name, inner):
    row, column = (1, 7), (7, 1)
    chains = (
        [("branch1x1", 192, 1)],
        [("branch7x7_1", inner, 1), ("branch7x7_2", inner, row), ("branch7x7_3", 192, column)],
        [("branch7x7dbl_1", inner, 1), ("branch7x7dbl_2", inner, column),
         ("branch7x7dbl_3", inner, row), ("branch7x7dbl_4", inner, column),
         ("branch7x7dbl_5", 192, row)],
    )  # fmt: skip
    parts = [_chain(x, name, steps) for steps in chains]
    return _joined(name, [*parts, _average(x, name, 192)])


def _inception_d(x, name):
    chains = (
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)),
         ("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2)],
    )  # fmt: skip
    parts = [_chain(x, name, steps) for steps in chains]
    return _joined(name, [*parts, _max_pool(x, f"{name}.pool", 3, 2, padding=1)])


def _inception_e(x, name):
    parts = [_chain(x, name, [("branch1x1", 320, 1)])]
    forks = (
        (("branch3x3_1", 384, 1),),
        (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)),
    )
    for steps, ends in zip(forks, ("branch3x3_2", "branch3x3dbl_3"), strict=True):
        stem = _chain(x, name, steps)
        parts += [
            _chain(stem, name, [(ends + letter, 384, size)])
            for letter, size in (("a", (1, 3)), ("b", (3, 1)))
        ]
    return _joined(name, [*parts, _average(x, name, 192)])


def _inception_features(x):
    # PyTorch's pools round up here: what the last window lacks on the far side is zeros as well.
    farther = ((1, 2), (1, 2))
    x = _unit(x, "Conv2d_1a_3x3", 32, 3, stride=2, padding=1)
    x = _unit(x, "Conv2d_2a_3x3", 32, 3)
    x = _unit(x, "Conv2d_2b_3x3", 64, 3, padding=1)
    x = _max_pool(x, "pool2", 3, 2, padding=farther)
    x = _unit(x, "Conv2d_3b_1x1", 80, 1)
    x = _unit(x, "Conv2d_4a_3x3", 192, 3)
    x = _max_pool(x, "pool4", 3, 2, padding=farther)
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _inception_a(x, name, pooled)
    x = _inception_b(x, "Mixed_6a")
    for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
        x = _inception_c(x, f"Mixed_6{letter}", inner)
    return x


def _inception_rest(x):
    x = _inception_d(x, "Mixed_7a")
    return _inception_e(_inception_e(x, "Mixed_7b"), "Mixed_7c")


# --- their names ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of BAS.

    Attributes:
        mark: a tensor by which its checkpoints are known.
        features: function of the scaled picture that gives F_f.
        rest: function of F_f that gives the features of the classifier.
        inference: classes -> (kind of map, classes averaged over, threshold): those of BAS's
            inference on CUB-200-2011 and on ILSVRC, where the map is that of the true class.
    """

    mark: str
    features: Callable[[Any], Any]
    rest: Callable[[Any], Any]
    inference: Mapping[int, tuple[str, int, float]]


_CUB, _ILSVRC = 200, 1000  # classes
NETWORKS = {
    "mobilenet_v1": Network(
        "model.0.0.weight", _mobilenet_features, _mobilenet_rest,
        {_CUB: ("mean", _CUB, 0.15), _ILSVRC: ("predicted", 1, 0.5)},
    ),
    "vgg16": Network(
        "conv1_1.weight", _vgg_features, _vgg_rest,
        {_CUB: ("topk", 80, 0.15), _ILSVRC: ("predicted", 1, 0.5)},
    ),
    "resnet50": Network(
        "layer1.0.conv1.weight", _resnet_features, _resnet_rest,
        {_CUB: ("mean", _CUB, 0.15), _ILSVRC: ("predicted", 1, 0.45)},
    ),
    "inception_v3": Network(
        "Conv2d_1a_3x3.conv.weight", _inception_features, _inception_rest,
        {_CUB: ("mean", _CUB, 0.1), _ILSVRC: ("predicted", 1, 0.3)},
    ),
}  # fmt: skip
