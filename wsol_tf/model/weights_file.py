"""Weights files of keras.applications: reads them into a network that was changed."""

import re

import h5py
import numpy as np


def _own_names(model):
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


def _class_name(layer):
    """The name Keras numbers layers and file groups by: DepthwiseConv2D -> depthwise_conv2d."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _weighted(model):
    return [layer for layer in model.layers if layer.weights]


def _load_file(clone, original, backbone, path):
    """Copies a weights file of the original application into its clone, layer by layer."""
    stored = _read_weights(path)
    names = _own_names(original)
    counts, missing, differing, values = {}, [], [], {}
    weighted = _weighted(clone)
    for layer, source in zip(weighted, _weighted(original), strict=True):
        kind = _class_name(layer)
        count = counts[kind] = counts.get(kind, -1) + 1
        key = f"{kind}_{count}" if count else kind
        # Keras 3 numbers a file's groups by class; older files use the layers' own names.
        found = stored.get(names[source.name], stored.get(key))
        if "\0keras3" in stored:
            found = stored.get(key)
        if found is None:
            missing.append(layer.name)
            continue
        shapes = [tuple(w.shape) for w in layer.weights]
        if [w.shape for w in found] != shapes:
            got = " ".join(str(w.shape) for w in found)
            differing.append(f"{layer.name} ({got} in the file, {' '.join(map(str, shapes))} here)")
            continue
        values[layer] = found
    if missing or differing:
        raise ValueError(
            f"The weights in {path} do not fit this feature extractor: "
            f"{len(values)} of {len(weighted)} layers match. "
            + (f"Other shapes: {_some(differing)}. " if differing else "")
            + (f"Not in the file: {_some(missing)}. " if missing else "")
            + "Check --extractor and --width against the file."
        )
    for layer, found in values.items():
        layer.set_weights(found)
    return len(values), len(weighted)


def _some(items, most=8):
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _read_weights(path):
    """Reads layer -> list of arrays from a Keras 3 `.weights.h5` or an older `.h5` file."""
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 weights file: {error}.") from None
    with file:
        if "layer_names" in file.attrs:
            stored = {}
            for name in file.attrs["layer_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                group = file[name]
                keys = group.attrs["weight_names"]
                if len(keys):
                    stored[name] = [np.asarray(group[key]) for key in keys]
            return stored
        if "layers" in file:
            stored = {"\0keras3": []}
            for name, group in file["layers"].items():
                variables = group.get("vars", {})
                if len(variables):
                    stored[name] = [
                        np.asarray(variables[key]) for key in sorted(variables, key=int)
                    ]
            return stored
    raise ValueError(
        f"{path} holds no layer weights that Keras wrote. Expected a .weights.h5 of "
        "keras.applications."
    )
