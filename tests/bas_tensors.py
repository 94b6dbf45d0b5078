"""Checkpoints of BAS with weights by a recipe, small heads and 3 classes, as arrays."""

import zlib

import keras
import numpy as np

from wsol_tf.model import bas
from wsol_tf.model.bas_networks import NETWORKS

HEADS = {"classifier_conv1": "classifier_cls.0", "classifier_conv2": "classifier_cls.2",
         "classifier_scores": "classifier_cls.4", "localizer_conv": "classifier_loc.0"}  # fmt: skip
NORMALIZED = ("weight", "bias", "running_mean", "running_var")


def tensors_of(network):
    """Name -> array in PyTorch's order; the values follow from the name of the tensor alone."""
    model = bas._untrained(NETWORKS[network], ("a", "b", "c"), 8)
    tensors = {}
    for part in (model.feature_extractor, model.classifier, model.localizer):
        for layer in part.layers:
            normalization = isinstance(layer, keras.layers.BatchNormalization)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            kinds = NORMALIZED if normalization else ("weight", "bias")
            for kind, variable in zip(kinds, layer.weights, strict=False):
                shape = tuple(variable.shape)
                if len(shape) == 4:
                    height, width, inputs, outputs = shape
                    shape = (inputs, outputs) if depthwise else (outputs, inputs)
                    shape = (*shape, height, width)
                name = f"{HEADS.get(layer.name, layer.name)}.{kind}"
                tensors[name] = _values(name, kind, shape)
    return tensors


def _values(name, kind, shape):
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    normal = normal.astype(np.float32)
    if len(shape) == 4:
        return normal * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if kind == "running_var":
        return 1 + np.float32(0.1) * abs(normal)
    if kind == "running_mean":
        return np.float32(0.1) * normal
    if kind == "weight":
        return (1 + np.float32(0.1) * normal) * np.float32(0.25 if ".bn3." in name else 1)
    return np.float32(0.05) * normal
