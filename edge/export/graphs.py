"""The part of a trained model that a map needs, as a Keras model for one picture at a time."""

import json
import re
from typing import Any

import keras
import numpy as np
from keras import ops

from edge.export.exported_map import ExportedMap
from wsol_tf.model import alignment
from wsol_tf.model.localization import Localization
from wsol_tf.model.score_maps import averaged_channels


def in_float32(model: Localization) -> Localization:
    """Returns the model itself or, where it computes in 16 bits, a copy that computes in 32.

    TFLite's converter has no convolutions in 16 bits. The weights are float32 in both.
    """
    config = model.get_config()
    names = {name: config.pop(name) for name in ("classes", "background_class")}  # any names
    text = json.dumps(config)
    replaced = re.sub(r'"(mixed_)?b?float16"', '"float32"', text)
    if replaced == text:
        return model
    copy = type(model).from_config({**json.loads(replaced), **names})
    copy.set_weights(model.get_weights())
    return copy


def kernel_of(model: Localization, map_: ExportedMap) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel `[3, 3, features, channels]` and bias of the channels that a map needs."""
    kernel, bias = model.localizer.get_layer("localizer_conv").get_weights()
    channels = map_.channels(model.classes)
    return kernel[..., channels], bias[channels]


@keras.saving.register_keras_serializable(package="wsol_tf")
class ChosenMaps(keras.layers.Layer):
    """Computes the mean of the localizer's maps of the k highest-scoring classes, and no others.

    A 3x3 convolution to one channel multiplies each position's features with nine vectors and sums
    the nine products at shifted positions. So the vectors of the chosen classes are gathered and
    multiplied, and a small constant convolution shifts and sums: the work grows with k, not with
    the number of classes.

    Args:
        kernel: `[3, 3, features, classes]` of the localizer.
        bias: `[classes]`.
        k: number of classes.
    """

    def __init__(self, kernel: np.ndarray, bias: np.ndarray, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        size, _, features, classes = kernel.shape
        self.k, self.taps = k, size * size
        taps = np.transpose(kernel, (3, 0, 1, 2)).reshape(classes, -1)
        self.table = self._constant("table", taps)
        self.biases = self._constant("biases", np.asarray(bias)[:, None])
        # One-hot: tap (row, column) of class i reads product i * taps + row * size + column.
        shift = np.zeros((size, size, k * self.taps, k), np.float32)
        for i in range(k):
            for tap in range(self.taps):
                shift[tap // size, tap % size, i * self.taps + tap, i] = 1
        self.shift = self._constant("shift", shift)
        self.features = features

    def _constant(self, name, value):
        weight = self.add_weight(shape=value.shape, name=name, trainable=False)
        weight.assign(value)
        return weight

    def call(self, features: Any, logits: Any) -> Any:
        """Returns maps `[n, h, w, 1]` of features `[n, h, w, features]` and logits `[1, C]`."""
        count, height, width = features.shape[:3]
        _, best = ops.top_k(logits, self.k)
        kernels = ops.take(self.table, best[0], axis=0)
        kernels = ops.reshape(kernels, (1, self.k * self.taps, self.features))
        positions = ops.reshape(features, (1, count * height * width, self.features))
        products = ops.matmul(positions, ops.transpose(kernels, (0, 2, 1)))
        products = ops.reshape(products, (count, height, width, self.k * self.taps))
        maps = ops.conv(products, self.shift, padding="same")
        maps = ops.sigmoid(maps + ops.reshape(ops.take(self.biases, best[0], axis=0), (self.k,)))
        return ops.mean(maps, axis=-1, keepdims=True)


def _maps(model, map_, features, logits):
    """The map of each picture, `[pictures, h, w, channels]`, from its features."""
    kernel, bias = kernel_of(model, map_)
    if map_.needs_classifier:
        k = averaged_channels(map_.kind, kernel.shape[-1], model.top_k)
        assert k is not None, "only the mean of all channels needs no classifier"
        return ChosenMaps(kernel, bias, k, name="chosen_maps")(features, logits)
    if map_.kind == "class":
        one = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="localizer_conv")
        maps = one(features)
        one.set_weights([kernel, bias])
        return maps
    maps = model.localizer(features, training=False)
    if map_.kind == "mean" and maps.shape[-1] > 1:
        maps = ops.mean(maps, axis=-1, keepdims=True)
    return maps


def _placed(maps, offset):
    """Maps as `alignment.placed` puts them, by operations that GPUs have."""
    if not any(offset):
        return maps
    height, width = (alignment.PLACES * side for side in maps.shape[1:3])
    maps = ops.image.resize(maps, (height, width), interpolation="bilinear")
    for axis, distance in enumerate(offset, 1):
        before, after, share = alignment.read_positions(distance, maps.shape[axis])
        first = _read(maps, before, axis)
        maps = first + float(share) * (_read(maps, after, axis) - first) if share else first
    return maps


def _read(maps, positions, axis):
    """Takes these rows or columns: slices of successive ones, joined."""
    runs = [slice(a, b) for a, b in _runs(positions)]
    return ops.concatenate([maps[:, run] if axis == 1 else maps[:, :, run] for run in runs], axis)


def _runs(positions):
    """Cuts positions into runs of successive ones: (first, last + 1) of each."""
    starts = np.flatnonzero(np.diff(positions, prepend=positions[0] - 2) != 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(positions, starts[1:])]


def export_graph(
    model: Localization, map_: ExportedMap, *, output_size: int = 0, bare: bool = False
) -> keras.Model:
    """Builds the network of an exported file.

    Args:
        model: a trained Localization.
        map_: the map that it gives.
        output_size: side in pixels that the map is upsampled to, bilinear; 0 keeps its own.
        bare: whether the map is the localizer's own, neither moved back by the model's `offset`
            nor averaged with that of the mirror image.

    Returns:
        A model of image float `[1, H, W, 3]` in 0..255 -> dict of the outputs that
        `edge/__init__.py` describes.

    Raises:
        ValueError: `output_size` is below the map's own side.
    """
    side = model.localizer.output.shape[1]
    if output_size and output_size < side:
        raise ValueError(
            f"`output_size` must be 0 or at least the map's own side, {side}. "
            f"Received: {output_size}."
        )
    image = keras.Input(batch_shape=(1, *model.feature_extractor.input.shape[1:]), name="image")
    mirror = model.mirror and not bare
    seen = ops.concatenate([image, ops.flip(image, axis=2)]) if mirror else image
    features = model.feature_extractor(seen, training=False)
    outputs = {}
    if map_.has_classifier or model.background_class:  # which says where nothing is found
        logits = ops.mean(model.classifier(features, training=False), axis=(1, 2))
        outputs["class_scores"] = ops.mean(logits, axis=0, keepdims=True) if mirror else logits
    maps = _maps(model, map_, features, outputs.get("class_scores"))
    if mirror:
        # Halved first: in an int8 file REVERSE_V2 copies bytes, and its output gets a scale from
        # its own values. A sigmoid's scale is fixed, so the bytes would be read with another one.
        straight, mirrored = (half / 2 for half in ops.split(maps, 2))
        maps = straight + ops.flip(mirrored, axis=2)
    if not bare:
        maps = _placed(maps, model.offset)
    if output_size and output_size != maps.shape[1]:
        maps = ops.image.resize(maps, (output_size, output_size), interpolation="bilinear")
    return keras.Model(image, {"foreground_mask": maps, **outputs}, name="localize")
