"""Cuts a functional model in two, with features of any stride between the parts.

The graph of a model is read as a list of steps: one call of a layer or an operation each, nested
models flattened. From the strides of the layers follows the reduction of every tensor: pixels of
the picture for each of its positions. Layers that raise it (parallel branches and shortcuts
together) form a group. Groups beyond the wanted stride lose theirs; with dilation, what reads
windows behind them reads the positions that it was trained on, 2 or 4 apart (atrous networks: Chen
et al., arXiv 1606.00915). Vectors behind a global pooling have no positions and are left alone.

Alignment. A layer that loses its stride has its window centred on each position, where that is
possible: a 3x3 kernel that read positions 2j, 2j + 1, 2j + 2 then gives its old value j at position
2j + 1. A 2x2 kernel, which has no centre, reads its own position and the next one: its old value j
is found at 2j. Where the layers of one group disagree (a 3x3 convolution beside a 1x1 shortcut that
read 2j), all follow the largest kernel, so that what is added belongs together as it did before.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from wsol_tf.model.pooling import DilatedPooling
from wsol_tf.model.weights_file import own_names

_PADS = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)
_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "average"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One call in a functional model; its tensors are those of the original graph.

    Attributes:
        operation: the layer or Keras operation that is called.
        name: of the operation, unique among all steps.
        args, kwargs: of the call, tensors among them.
        inputs, outputs: the tensors.
    """

    operation: Any
    name: str
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple
    outputs: tuple

    @property
    def window(self) -> tuple[int, int] | None:
        """Size of the window that the step slides over its input; None: it slides none."""
        size = getattr(self.operation, "kernel_size", getattr(self.operation, "pool_size", None))
        return tuple(size) if isinstance(size, (tuple, list)) and len(size) == 2 else None

    @property
    def stride(self) -> int:
        """Positions of the input from one window to the next."""
        return self.operation.strides[0] if self.window else 1


def _kind(step: Step) -> str:
    return type(step.operation).__name__


@dataclasses.dataclass(frozen=True)
class Graph:
    """A functional model as steps.

    Attributes:
        image: the tensor it takes.
        output: the tensor it gives.
        steps: in an order in which they can be called.
        reductions: id of a tensor -> pixels per position, None for what has no positions.
    """

    image: Any
    output: Any
    steps: tuple[Step, ...]
    reductions: dict[int, int | None]


def graph_of(model: keras.Model, *, core: bool = False, trim: int = 0) -> Graph:
    """Reads the graph of a functional model.

    Args:
        model: one picture `[batch, side, side, 3]` -> features `[batch, h, w, channels]`.
        core: leave out the scaling that the model starts with (Rescaling, Normalization).
        trim: layers at the end to leave out.

    Raises:
        ValueError: the model has several inputs or outputs, or a layer that can't be followed; the
            message names it.
    """
    model = functional(model)
    calls: list[Step] = []
    alias: dict[int, Any] = {}
    _collect(model, alias, calls)

    def own(tensor):
        while id(tensor) in alias:
            tensor = alias[id(tensor)]
        return tensor

    image, output = own(model.inputs[0]), own(model.outputs[0])
    calls = calls[: len(calls) - trim]
    if trim:
        output = calls[-1].outputs[0]
    if core:
        scaling = (keras.layers.Rescaling, keras.layers.Normalization)
        while isinstance(calls[0].operation, scaling):
            alias[id(calls.pop(0).outputs[0])] = image
    steps = []
    for call, name in zip(calls, _names([call.operation for call in calls]), strict=True):
        args, kwargs = keras.tree.map_structure(own, (call.args, call.kwargs))
        inputs = tuple(map(own, call.inputs))
        steps.append(Step(call.operation, name, args, kwargs, inputs, call.outputs))
    return Graph(image, output, tuple(steps), _reductions(image, steps))


def functional(model: keras.Model) -> keras.Model:
    """Returns a model as the flat graph of one picture -> one tensor of features.

    Raises:
        ValueError: it isn't functional, or has other inputs or outputs than one.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            "A backbone must be a functional model: made by keras.Model(inputs, outputs), or a "
            f"Sequential that has seen its input. Received: {type(model).__name__} "
            f"'{getattr(model, 'name', '')}'."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "A backbone must have one input, the picture, and one output, its last features. "
            f"Received: '{model.name}' with inputs {_named(inputs)} and outputs {_named(outputs)}."
        )
    if len(outputs[0].shape) != 4 or len(inputs[0].shape) != 4:
        raise ValueError(
            "A backbone ends in features [batch, height, width, channels]: take the top off "
            f"(include_top=False). Received: '{model.name}' with {tuple(inputs[0].shape)} -> "
            f"{tuple(outputs[0].shape)}."
        )
    return keras.Model(inputs[0], outputs[0], name=model.name)


def _named(tensors):
    return ", ".join(tensor.name for tensor in tensors)


def _collect(model, alias, calls):
    """Adds the calls in a model to `calls`; `alias`: id of a tensor -> the one it stands for."""
    # The one place where the graph itself is read: Keras has no public way to its nodes.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            operation, given = node.operation, node.arguments
            if node.is_input:
                continue
            inputs, outputs = tuple(node.input_tensors), tuple(node.outputs)
            if not isinstance(operation, keras.Model) or not getattr(operation, "inputs", None):
                name = operation.name
                calls.append(Step(operation, name, given.args, given.kwargs, inputs, outputs))
                continue
            if id(operation.inputs[0]) in alias:
                raise ValueError(
                    f"The backbone calls its part '{operation.name}' twice, which can't be cut."
                )
            inner = keras.Model(operation.inputs, operation.outputs)
            alias.update(zip(map(id, inner.inputs), inputs, strict=True))
            _collect(inner, alias, calls)
            alias.update(zip(map(id, outputs), inner.outputs, strict=True))


def _names(operations):
    """A name for each operation: its own, whatever was built before, and no other's."""
    names, taken = own_names(operations), {}
    for operation in operations:
        wanted, number = names[operation.name], 0
        name = wanted
        while taken.setdefault(name, id(operation)) != id(operation):
            number += 1
            name = f"{wanted}_{number}"
        yield name


def _reductions(image, steps):
    """Id of each tensor -> pixels of the picture per position; None: it has no positions."""
    found = {id(image): 1}
    for step in steps:
        known = [(found[id(x)], x) for x in step.inputs if found.get(id(x)) is not None]
        reduction, source = max(known, key=lambda pair: pair[0], default=(None, None))
        for output in step.outputs:
            found[id(output)] = reduction and _reduced(step, reduction, source, output)
    return found


def _reduced(step, reduction, source, output):
    """The reduction of a step's output, of that of its input."""
    if len(output.shape) != 4 or "Global" in _kind(step):
        return None
    if isinstance(step.operation, _PADS):
        return reduction
    if step.window and "Transpose" not in _kind(step):
        if len(set(step.operation.strides)) > 1:
            raise ValueError(
                f"Layer '{step.name}' has other strides along rows than along columns "
                f"({tuple(step.operation.strides)}), which can't be followed."
            )
        return reduction * step.stride
    before, after = source.shape[1], output.shape[1]
    if before is None or after is None:
        return reduction  # a model for pictures of any size: only strides tell
    if after == 1 < before:
        return None  # a mean over all positions
    if after >= before:
        return max(reduction // round(after / before), 1)
    return reduction * round(before / after)


@dataclasses.dataclass(frozen=True)
class Cut:
    """A place where a graph falls in two parts.

    Attributes:
        last: position of the last step before it.
        tensors: what passes it; more than one where cells also read the output of the cell before
            the last one.
        reduction: pixels per position.
    """

    last: int
    tensors: tuple
    reduction: int


def cuts(graph: Graph) -> dict[int, Cut]:
    """Finds, for each reduction, the last place that as few tensors as possible pass, all of it.

    Returns:
        reduction -> Cut, finest first; the last of them is the graph's output.
    """
    last_use = {id(x): i for i, step in enumerate(graph.steps) for x in step.inputs}
    last_use[id(graph.output)] = len(graph.steps)
    padded = {id(x) for s in graph.steps if isinstance(s.operation, _PADS) for x in s.outputs}
    best: dict[int, Cut] = {}
    live: dict[int, Any] = {}
    for i, step in enumerate(graph.steps):
        live.update({id(x): x for x in step.outputs})
        live = {key: x for key, x in live.items() if last_use.get(key, -1) > i}
        if i < last_use[id(graph.image)] or padded & live.keys():
            continue
        reductions = {graph.reductions[key] for key in live}
        if len(reductions) != 1 or None in reductions:
            continue
        (reduction,) = reductions
        if reduction not in best or len(live) <= len(best[reduction].tensors):
            best[reduction] = Cut(i, tuple(live.values()), reduction)
    return dict(sorted(best.items()))


@dataclasses.dataclass(frozen=True)
class Resolution:
    """How the strides of a graph are changed.

    Attributes:
        output_stride: pixels per position at and before `cut` that no stride goes beyond.
        cut: reduction of the original features; strides behind it stay.
        dilation: whether windows behind a removed stride are dilated.
        pools: whether those of pooling layers are too.
    """

    output_stride: int
    cut: int
    dilation: bool = True
    pools: bool = True

    def removes(self, before: int | None, after: int | None) -> bool:
        """Whether a layer between these reductions loses its stride."""
        return bool(before and after) and before < after <= self.cut and after > self.output_stride

    def rate(self, step: Step, reduction: int | None) -> int:
        """Positions between two values of a window, for a step that reads this reduction."""
        if not reduction or not self.dilation or (not self.pools and _kind(step) in _POOLS):
            return 1
        return max(min(reduction, self.cut) // self.output_stride, 1)


@dataclasses.dataclass
class _Change:
    """What becomes of a step: settings of its layer, and zeros around (or cut off) its input."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    pads: tuple[tuple[int, int], tuple[int, int]] | None = None
    pooling: dict[str, Any] | None = None  # settings of the DilatedPooling in its place


def changes(graph: Graph, resolution: Resolution) -> dict[int, _Change]:
    """Decides what changes: id of an operation -> _Change, for those that do.

    Raises:
        ValueError: something other than a strided layer reduces the resolution where it must stay.
    """
    makers = {id(x): step for step in graph.steps for x in step.outputs}
    found: dict[int, _Change] = {}
    shifts = _shifts(graph, makers, resolution)
    pads = [_pad_before(step, makers) for step in graph.steps if step.window]
    of_windows = {id(pad.operation) for pad in pads if pad is not None}
    for step in graph.steps:
        before, after = (graph.reductions[id(x)] for x in (step.inputs[0], step.outputs[0]))
        rate = resolution.rate(step, before)
        if isinstance(step.operation, _PADS) and rate > 1 and id(step.operation) not in of_windows:
            amounts = step.operation.get_config()[_amount(step)]  # moves the picture, here further
            scaled = [[rate * n for n in pair] for pair in amounts]
            found[id(step.operation)] = _Change({_amount(step): scaled})
        if step.window is None or before is None:
            if resolution.removes(before, after) and not isinstance(step.operation, _PADS):
                raise ValueError(
                    f"'{step.name}' reduces the resolution without being a layer whose stride can "
                    "be removed. Take a larger `output_stride`."
                )
            continue
        pad = _pad_before(step, makers)
        removed = resolution.removes(before, after)
        if step.stride > 1 and not removed:
            if pad is None and step.operation.padding == "valid":
                found[id(step.operation)] = _Change({"padding": "same"})
            continue
        shift = shifts[after] if removed else (0, 0)
        change, around = _rewindowed(step, pad, rate, shift, removed)
        found[id(step.operation)] = change
        if around is not None:
            found[id(pad.operation)] = _Change({"padding": around})
    return found


def _amount(step):
    return "padding" if isinstance(step.operation, keras.layers.ZeroPadding2D) else "cropping"


def _pad_before(step, makers):
    """The ZeroPadding2D that a step reads without padding of its own; else None."""
    maker = makers.get(id(step.inputs[0]))
    padded = maker is not None and isinstance(maker.operation, keras.layers.ZeroPadding2D)
    return maker if padded and step.operation.padding == "valid" else None


def _zeros_before(step, pad):
    """Zeros that the window of a step finds above and left of the first position."""
    if pad is not None:
        return tuple(pair[0] for pair in pad.operation.get_config()["padding"])
    return tuple(max(size - step.stride, 0) // 2 for size in step.window)


def _shifts(graph, makers, resolution):
    """Reduction -> (rows, columns) by which a group without its stride centres its windows."""
    largest: dict[int, Step] = {}
    for step in graph.steps:
        before, after = (graph.reductions[id(x)] for x in (step.inputs[0], step.outputs[0]))
        if step.window and resolution.removes(before, after):
            other = largest.get(after)
            if other is None or max(step.window) > max(other.window):
                largest[after] = step
    return {
        reduction: tuple(
            (size - 1) // 2 - zeros
            for size, zeros in zip(
                step.window, _zeros_before(step, _pad_before(step, makers)), strict=True
            )
        )
        for reduction, step in largest.items()
    }


def _rewindowed(step, pad, rate, shift, removed):
    """The change of a step that reads windows, and the padding of the ZeroPadding2D before it."""
    settings: dict[str, Any] = {"strides": 1} if removed else {}
    is_pool = _kind(step) in _POOLS
    spatial = max(step.window) > 1
    if rate > 1 and spatial and not is_pool:
        own = step.operation.dilation_rate
        settings["dilation_rate"] = [rate * value for value in own]
    around = []
    for size, zeros, by in zip(step.window, _zeros_before(step, pad), shift, strict=True):
        before = (zeros + by) * rate
        around.append((before, (size - 1) * rate - before))
    centred = all(
        before == (size - 1) * rate // 2
        for (before, _), size in zip(around, step.window, strict=True)
    )
    pooling = None
    if is_pool and spatial and rate > 1:
        pooling = {"kind": _POOLS[_kind(step)], "pool_size": step.window, "rate": rate}
    if pad is not None:
        if not removed and rate == 1:
            return _Change(settings), None
        if pooling is not None:
            pooling["before"] = None
        return _Change(settings, pooling=pooling), around
    if pooling is not None:
        return _Change(pooling={**pooling, "before": [before for before, _ in around]}), None
    if step.operation.padding == "valid" and step.window != (1, 1) or removed:
        settings["padding"] = "same"
    if not centred and (removed or rate > 1):
        return _Change({**settings, "padding": "valid"}, pads=tuple(around)), None
    return _Change(settings), None


class Copies:
    """Copies of operations, each made once, with changes; `weights()` copies the weights.

    Args:
        changed: of `changes`.
        bn_momentum: share of the moving average that a batch keeps.
    """

    def __init__(self, changed: dict[int, _Change], bn_momentum: float | None):
        self._changed, self._bn_momentum = changed, bn_momentum
        self._made: dict[int, tuple[Any, Any]] = {}

    def run(self, steps: Sequence[Step], tensors: dict[int, Any]) -> dict[int, Any]:
        """Calls the copies of steps.

        Args:
            steps: in order.
            tensors: id of an original tensor -> its copy, for what the steps take from outside.

        Returns:
            `tensors` with those that the steps make.
        """
        tensors = dict(tensors)

        def copied(value):
            return tensors.get(id(value), value)

        for step in steps:
            args, kwargs = keras.tree.map_structure(copied, (step.args, step.kwargs))
            pads = self._changed.get(id(step.operation), _Change()).pads
            if pads is not None:
                args = (_padded(args[0], pads, step.name), *args[1:])
            outputs = self._copy(step)(*args, **kwargs)
            tensors.update(zip(map(id, step.outputs), keras.tree.flatten(outputs), strict=True))
        return tensors

    def _copy(self, step):
        if id(step.operation) not in self._made:
            change = self._changed.get(id(step.operation), _Change())
            made = _copy_of(step, change, self._bn_momentum)
            self._made[id(step.operation)] = (step.operation, made)
        return self._made[id(step.operation)][1]

    def weights(self) -> None:
        """Gives all copies the weights of the originals."""
        for original, copy in self._made.values():
            if getattr(copy, "weights", None):
                copy.set_weights(original.get_weights())


def _copy_of(step, change, bn_momentum):
    operation = step.operation
    if change.pooling is not None:
        return DilatedPooling(**change.pooling, name=step.name)
    try:
        config = {**operation.get_config(), **change.settings, "name": step.name}
        if isinstance(operation, keras.layers.BatchNormalization) and bn_momentum is not None:
            # Statistics of the global batch: replicas then train as one device does.
            config.update(momentum=bn_momentum, synchronized=True)
        copy = operation.__class__.from_config(config)
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
    """
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


def _enlarged(tensor, side):
    factor = side // tensor.shape[1]
    if factor == 1:
        return tensor
    name = f"level_{tensor.shape[1]}_up"
    return keras.layers.UpSampling2D(factor, name=name)(tensor)


def _joined(tensors):
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate(name="levels")(tensors)
