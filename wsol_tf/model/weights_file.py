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


def own_names(operations: Iterable) -> dict[str, str]:
    """Maps the name of each layer to one that does not depend on what was built before it.

    Keras numbers layers without a name through the whole process (conv2d, conv2d_1, ...); here
    the numbers start anew in every model.

    Args:
        operations: the layers of a model, and operations of `keras.ops`.
    """
    kinds = {operation.name: _class_name(operation) for operation in operations}
    automatic = [name for name, kind in kinds.items() if re.fullmatch(rf"{kind}(_\d+)?", name)]
    return {name: name for name in kinds} | _renumbered(automatic)


def _renumbered(names: Iterable[str]) -> dict[str, str]:
    """Name -> the same with the numbers of each kind counted from 0, for names as conv2d_7."""
    split = [(name, re.fullmatch(r"(.*?)(?:_(\d+))?", name)) for name in names]
    numbered = [(name, match[1], int(match[2] or 0)) for name, match in split if match]
    first: dict[str, int] = {}
    for _, kind, number in numbered:
        first[kind] = min(number, first.get(kind, number))
    return {
        name: f"{kind}_{number - first[kind]}" if number > first[kind] else kind
        for name, kind, number in numbered
    }


def load_weights(layers: Iterable[keras.layers.Layer], path: str) -> int:
    """Copies a weights file of a keras.applications network into its layers.

    Args:
        layers: those of the network that shall be loaded, in their order; a layer may be a model.
        path: a `.weights.h5` of Keras 3 or an older `.h5`, with or without the top.

    Returns:
        The number of layers that were loaded: all that have weights.

    Raises:
        ValueError: the file can't be read, or lacks a layer or has another shape for it; the
            message names the layers, and nothing is loaded.
    """
    layers = list(layers)
    names = own_names(layers)
    stored = _read_weights(path, layers, names)
    weighted = [layer for layer in layers if layer.weights]
    missing, differing, values = [], [], {}
    for layer in weighted:
        name = names[layer.name]
        found = stored.get(name)
        if found is None:
            missing.append(name)
            continue
        shapes = [tuple(w.shape) for w in layer.weights]
        if [w.shape for w in found] != shapes:
            differing.append(
                f"{name} ({_listed(found)} in the file, {_listed(layer.weights)} here)"
            )
            continue
        values[name] = (layer, found)
    if missing or differing:
        raise ValueError(
            f"The weights in {path} do not fit this feature extractor: "
            f"{len(values)} of {len(weighted)} layers match. "
            + (f"Other shapes: {_first(differing)}. " if differing else "")
            + (f"Not in the file: {_first(missing)}. " if missing else "")
            + "Check `extractor` and `width` against the file."
        )
    for layer, found in values.values():
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


def _read_weights(path, layers, names):
    """Reads own name of a layer -> its arrays, for those that the file has."""
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 weights file: {error}.") from None
    with file:
        if "layer_names" in file.attrs:
            return _read_old(file, {_class_name(layer) for layer in layers})
        if "layers" in file:
            found = ((names[layer.name], arrays) for layer, arrays in _by_class(layers, file))
            return {name: arrays for name, arrays in found if arrays}
    raise ValueError(
        f"{path} holds no layer weights that Keras wrote. Expected a .weights.h5 of "
        "keras.applications."
    )


def _read_old(file, kinds):
    """Reads an `.h5`, which names its layers; those of the oldest files are counted from 1."""
    names = [x.decode() if isinstance(x, bytes) else x for x in file.attrs["layer_names"]]
    own = {name: name for name in names} | _renumbered(
        name for name in names if re.sub(r"_\d+$", "", name) in kinds or name in kinds
    )
    found = {
        own[name]: [np.asarray(file[name][key]) for key in file[name].attrs["weight_names"]]
        for name in names
    }
    return {name: arrays for name, arrays in found.items() if arrays}


def _by_class(layers, group):
    """Yields (layer, its arrays): Keras 3 numbers the layers of each class: conv2d, conv2d_1."""
    counts: dict[str, int] = {}
    for layer in layers:
        key = _class_name(layer)
        count = counts[key] = counts.get(key, -1) + 1
        stored = group["layers"].get(f"{key}_{count}" if count else key, {})
        own = stored.get("vars", {})
        arrays = [np.asarray(own[name]) for name in sorted(own, key=int)]
        if isinstance(layer, keras.Model) and "layers" in stored:
            arrays += [array for _, inner in _by_class(layer.layers, stored) for array in inner]
        yield layer, arrays
