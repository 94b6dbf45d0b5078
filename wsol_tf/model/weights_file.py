"""Weights files of keras.applications: reads them into a network that was changed.

Keras's own `load_weights` reads the same files, but it can't take the place of this reader. An
older `.h5` with the top loads by name only, and by name Keras skips what the file lacks without a
word: nothing is loaded and nothing is said where layers are numbered through the process, as those
of InceptionV3 are. And its refusal of a `.weights.h5` names the objects, but not the shapes.
"""

import re
from collections.abc import Iterable

import h5py
import keras
import numpy as np


def own_names(model: keras.Model) -> dict[str, str]:
    """Maps each layer's name to one that does not depend on what was built before it.

    Keras numbers layers without a name through the whole process (conv2d, conv2d_1, ...); here
    the numbers start anew in every model.
    """
    numbered = [re.fullmatch(r"(.*?)(?:_(\d+))?", layer.name) for layer in model.layers]
    first = {}
    for layer, match in zip(model.layers, numbered, strict=True):
        if match[1] == _class_name(layer):
            number = int(match[2] or 0)
            first[match[1]] = min(number, first.get(match[1], number))
    names = {}
    for layer, match in zip(model.layers, numbered, strict=True):
        name = layer.name
        if match[1] in first:
            number = int(match[2] or 0) - first[match[1]]
            name = f"{match[1]}_{number}" if number else match[1]
        names[layer.name] = name
    return names


def weighted_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model that have weights."""
    return [layer for layer in model.layers if layer.weights]


def load_weights(model: keras.Model, path: str) -> int:
    """Copies a weights file of a keras.applications network into a changed copy, layer by layer.

    Args:
        model: the copy, with the layers of the original in their order and the names of
            `own_names`; strides, dilation and padding may differ.
        path: a `.weights.h5` of Keras 3 or an older `.h5`, with or without the top.

    Returns:
        The number of layers that were loaded: all that have weights.

    Raises:
        ValueError: the file can't be read, or lacks a layer or has another shape for it; the
            message names the layers, and nothing is loaded.
    """
    stored, by_class = _read_weights(path)
    counts, missing, differing, values = {}, [], [], {}
    layers = weighted_layers(model)
    for layer in layers:
        key = layer.name
        if by_class:  # Keras 3 numbers the layers of each class: conv2d, conv2d_1, ...
            key = _class_name(layer)
            count = counts[key] = counts.get(key, -1) + 1
            key = f"{key}_{count}" if count else key
        found = stored.get(key)
        if found is None:
            missing.append(layer.name)
            continue
        shapes = [tuple(w.shape) for w in layer.weights]
        if [w.shape for w in found] != shapes:
            differing.append(
                f"{layer.name} ({_listed(found)} in the file, {_listed(layer.weights)} here)"
            )
            continue
        values[layer] = found
    if missing or differing:
        raise ValueError(
            f"The weights in {path} do not fit this feature extractor: "
            f"{len(values)} of {len(layers)} layers match. "
            + (f"Other shapes: {_first(differing)}. " if differing else "")
            + (f"Not in the file: {_first(missing)}. " if missing else "")
            + "Check `extractor` and `width` against the file."
        )
    for layer, found in values.items():
        layer.set_weights(found)
    return len(values)


def _class_name(layer):
    """The name Keras numbers layers and file groups by: DepthwiseConv2D -> depthwise_conv2d."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _listed(weights: Iterable) -> str:
    return " ".join(str(tuple(w.shape)) for w in weights)


def _first(items, most=8):
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _read_weights(path):
    """Reads (name -> list of arrays, whether the names are Keras 3's, numbered by class)."""
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 weights file: {error}.") from None
    with file:
        if "layer_names" in file.attrs:
            names = [x.decode() if isinstance(x, bytes) else x for x in file.attrs["layer_names"]]
            return {
                name: [np.asarray(file[name][key]) for key in file[name].attrs["weight_names"]]
                for name in names
                if len(file[name].attrs["weight_names"])
            }, False
        if "layers" in file:
            groups = {name: group.get("vars", {}) for name, group in file["layers"].items()}
            return {
                name: [np.asarray(group[key]) for key in sorted(group, key=int)]
                for name, group in groups.items()
                if len(group)
            }, True
    raise ValueError(
        f"{path} holds no layer weights that Keras wrote. Expected a .weights.h5 of "
        "keras.applications."
    )
