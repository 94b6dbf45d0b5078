"""Cuts a functional model in two copies, with changed strides: feature extractor and rest.

`graph` reads the model and finds where it can be cut, `resolution` decides what changes.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import keras

from wsol_tf.model.graph import Cut, Graph, Step
from wsol_tf.model.normalization import BatchNormalization
from wsol_tf.model.pooling import DilatedPooling
from wsol_tf.model.resolution import Change, Resolution, changes


class Copies:
    """Copies of operations, each made once, with changes; `weights()` copies the weights.

    Args:
        changed: of `changes`.
        bn_momentum: share of the moving average that a batch keeps.
    """

    def __init__(self, changed: dict[int, Change], bn_momentum: float | None):
        self._changed, self._bn_momentum = changed, bn_momentum
        # Of each operation: the original, what changed in its settings, and the copy.
        self._made: dict[int, list[tuple[Any, Any, Any]]] = {}
        self._calls: collections.Counter[str] = collections.Counter()

    def run(self, steps: Sequence[Step], tensors: dict[int, Any]) -> dict[int, Any]:
        """Calls the copies of steps.

        Args:
            steps: in order.
            tensors: id of an original tensor -> its copy, for what the steps take from outside.

        Returns:
            `tensors` with those that the steps make.

        Raises:
            ValueError: a layer with weights is called more than once, and its calls would have to
                change in different ways.
        """
        tensors = dict(tensors)

        def copied(value):
            return tensors.get(id(value), value)

        for step in steps:
            args, kwargs = keras.tree.map_structure(copied, (step.args, step.kwargs))
            self._calls[step.name] += 1
            number = self._calls[step.name]
            name = step.name if number == 1 else f"{step.name}_call{number}"
            change = self._changed.get(id(step), Change())
            if change.pads is not None:
                args = (_padded(args[0], change.pads, name), *args[1:])
            outputs = self._copy(step, change, name)(*args, **kwargs)
            tensors.update(zip(map(id, step.outputs), keras.tree.flatten(outputs), strict=True))
        return tensors

    def _copy(self, step, change, name):
        made = self._made.setdefault(id(step.operation), [])
        wanted = change.settings, change.pooling
        for _, settings, copy in made:
            if settings == wanted:
                return copy
        if made and getattr(step.operation, "weights", None):
            raise ValueError(
                f"Layer '{step.name}' is called more than once, and its calls would need different "
                "strides or dilation, with one set of weights. Take another `output_stride`, or "
                "give each call a layer of its own."
            )
        copy = _copy_of(step, change, name, self._bn_momentum)
        made.append((step.operation, wanted, copy))
        return copy

    def weights(self) -> None:
        """Gives all copies the weights of the originals."""
        for made in self._made.values():
            for original, _, copy in made:
                if getattr(copy, "weights", None):
                    given = zip(original.get_weights(), copy.weights, strict=True)
                    copy.set_weights([value.reshape(weight.shape) for value, weight in given])


def _copy_of(step, change, name, bn_momentum):
    operation = step.operation
    if change.pooling is not None:
        return DilatedPooling(**change.pooling, name=name, dtype=operation.dtype_policy)
    try:
        config = {**operation.get_config(), **change.settings, "name": name}
        if isinstance(operation, keras.layers.BatchNormalization) and bn_momentum is not None:
            # Statistics of the global batch: replicas then train as one device does.
            config.update(momentum=bn_momentum, synchronized=True)
        kind = type(operation)
        if kind is keras.layers.BatchNormalization:
            kind = BatchNormalization
        elif _is_depthwise(step):
            kind, config = keras.layers.DepthwiseConv2D, _depthwise(config)
        copy = kind.from_config(config)
        if type(operation).__module__.partition(".")[0] != "keras":  # it can be read from a file
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(copy))
    except Exception as error:  # whatever a class of the user's does
        copy = error
    if isinstance(copy, Exception) or isinstance(operation, keras.layers.Lambda):
        reason = "a Lambda" if isinstance(operation, keras.layers.Lambda) else str(copy)
        raise ValueError(
            f"Layer '{step.name}' ({type(operation).__name__}) can't be saved and loaded, which a "
            f"model has to be ({reason.partition(chr(10))[0].rstrip('.')}). Give its class a "
            "get_config and register it with keras.saving.register_keras_serializable."
        )
    return copy


def _is_depthwise(step):
    """Whether a step is a convolution with a group for each channel, as ConvNeXt's are."""
    operation = step.operation
    return (
        type(operation) is keras.layers.Conv2D
        and operation.data_format == "channels_last"
        and 1 < operation.groups == step.inputs[0].shape[-1]
    )


def _depthwise(config):
    """The settings of a Conv2D as those of a DepthwiseConv2D, whose kernel is the same reshaped.

    Keras leaves grouped convolutions to XLA: nine tenths of the time of a training step through
    ConvNeXt's features on a CPU.
    """
    filters, groups = config["filters"], config["groups"]
    given = {
        name.replace("kernel_", "depthwise_") if name != "kernel_size" else name: value
        for name, value in config.items()
        if name not in ("filters", "groups")
    }
    return {**given, "depth_multiplier": filters // groups}


def _padded(tensor, pads, name):
    """Zeros around a tensor; negative numbers are cut off."""
    zeros = [[max(n, 0) for n in pair] for pair in pads]
    cropped = [[max(-n, 0) for n in pair] for pair in pads]
    if any(map(any, zeros)):
        tensor = keras.layers.ZeroPadding2D(zeros, name=f"{name}_pad")(tensor)
    if any(map(any, cropped)):
        tensor = keras.layers.Cropping2D(cropped, name=f"{name}_crop")(tensor)
    return tensor


def split(
    graph: Graph,
    side: int,
    scaled: Callable[[Any], Any],
    resolution: Resolution,
    levels: Sequence[Cut],
    bn_momentum: float | None = None,
) -> tuple[keras.Model, keras.Model]:
    """Builds the two parts of a graph.

    Args:
        graph: of `graph_of`.
        side: of the picture in pixels.
        scaled: picture, raw RGB in 0..255 -> what the graph takes.
        resolution: how its strides are changed.
        levels: the features, finest first; the last one is the cut, the others are joined to it.
        bn_momentum: see Copies; None: as it is.

    Returns:
        (feature extractor, rest), with the weights of the graph.

    Raises:
        ValueError: a layer with weights is called on both sides of the cut, or several times in
            ways that one copy can't follow; the message names it.
    """
    _check_sides(graph.steps, levels[-1].last + 1)
    copies = Copies(changes(graph, resolution), bn_momentum)
    image = keras.Input((side, side, 3), name="image")
    cut = levels[-1]
    tensors = copies.run(graph.steps[: cut.last + 1], {id(graph.image): scaled(image)})
    own = [tensors[id(x)] for x in cut.tensors]
    joined = [tensors[id(x)] for level in levels[:-1] for x in level.tensors]
    finest = max(x.shape[1] for x in (*own, *joined))
    factor = finest // own[0].shape[1]
    features = _joined([_enlarged(x, finest) for x in (*own, *joined)])

    given = keras.Input(features.shape[1:], name="features", dtype=features.dtype)
    reached = graph.steps[cut.last + 1 :]
    x, first, parts = given, 0, {}
    for tensor, original in zip(own, cut.tensors, strict=True):
        channels = tensor.shape[-1]
        part = x if features.shape[-1] == channels else x[..., first : first + channels]
        if factor > 1:
            part = keras.layers.AveragePooling2D(factor, name="cut_pool")(part)
        parts[id(original)] = part
        first += channels
    ended = copies.run(reached, parts)[id(graph.output)]
    if ended is given:  # nothing is left behind the cut
        ended = keras.layers.Identity(name="end")(ended)
    copies.weights()
    return (
        keras.Model(image, features, name="feature_extractor"),
        keras.Model(given, ended, name="rest"),
    )


def _check_sides(steps, cut):
    """Refuses weights that both parts would have: a file holds them twice, and they part."""
    before = {id(step.operation) for step in steps[:cut]}
    for step in steps[cut:]:
        if id(step.operation) in before and getattr(step.operation, "weights", None):
            raise ValueError(
                f"Layer '{step.name}' is called before and behind the features that the localizer "
                "reads, where the backbone is cut in two. Take another `output_stride`, or give "
                "each call a layer of its own."
            )


def _enlarged(tensor, side):
    factor = side // tensor.shape[1]
    if factor == 1:
        return tensor
    name = f"level_{tensor.shape[1]}_up"
    return keras.layers.UpSampling2D(factor, name=name)(tensor)


def _joined(tensors):
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate(name="levels")(tensors)
