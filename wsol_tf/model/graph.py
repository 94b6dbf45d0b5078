"""A functional model as a list of calls, and the places where it falls in two parts.

Nested models are flattened. From the strides of the layers follows the reduction of every tensor:
pixels of the picture for each of its positions. Vectors behind a global pooling have none.
"""

import dataclasses
from typing import Any

import keras

from wsol_tf.model.weights_file import own_names

PADS = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)
_SLIDING = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)


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
    def kind(self) -> str:
        """Name of the operation's class."""
        return type(self.operation).__name__

    @property
    def window(self) -> tuple[int, int] | None:
        """Size of the window that the step slides over its input; None: it slides none.

        What a layer of another class does inside, such as a whole block, can't be seen.
        """
        if not isinstance(self.operation, _SLIDING):
            return None
        return tuple(getattr(self.operation, "kernel_size", None) or self.operation.pool_size)

    @property
    def stride(self) -> int:
        """Positions of the input from one window to the next."""
        return self.operation.strides[0] if self.window else 1


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


def graph_of(
    model: keras.Model, *, side: int | None = None, core: bool = False, trim: int = 0
) -> Graph:
    """Reads the graph of a functional model.

    Args:
        model: one picture `[batch, side, side, 3]` -> features `[batch, h, w, channels]`.
        side: of the picture, where the model takes pictures of any size: what layers of unknown
            kinds do to the resolution shows in shapes alone.
        core: leave out the scaling that the model starts with (Rescaling, Normalization).
        trim: layers at the end to leave out.

    Raises:
        ValueError: the model has several inputs or outputs, or a layer that can't be followed; the
            message names it.
    """
    model = functional(model)
    if side is not None and None in model.inputs[0].shape[1:3]:
        image = keras.Input((side, side, model.inputs[0].shape[-1]))
        model = keras.models.clone_model(model, image, clone_function=lambda layer: layer)
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
    if len(output.shape) != 4 or "Global" in step.kind:
        return None
    if isinstance(step.operation, PADS):
        return reduction
    if step.window and "Transpose" not in step.kind:
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
    padded = {id(x) for s in graph.steps if isinstance(s.operation, PADS) for x in s.outputs}
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
