"""Features of any stride: which layers of a graph lose theirs, and what follows for the others.

Layers that raise the reduction to the same value (parallel branches and shortcuts together) form a
group. Groups beyond the wanted stride lose theirs; with dilation, what reads windows behind them
reads the positions that it was trained on, 2 or 4 apart (atrous networks: Chen et al., arXiv
1606.00915). Vectors behind a global pooling have no positions and are left alone.

Alignment. A layer that loses its stride has its window centred on each position, where that is
possible: a 3x3 kernel that read positions 2j, 2j + 1, 2j + 2 then gives its old value j at position
2j + 1. A 2x2 kernel, which has no centre, reads its own position and the next one: its old value j
is found at 2j. Where the layers of one group disagree (a 3x3 convolution beside a 1x1 shortcut that
read 2j), all follow the largest kernel, so that what is added belongs together as it did before.
"""

import dataclasses
from typing import Any

import keras

from wsol_tf.model.graph import PADS, Graph, Step

_POOLS = {"MaxPooling2D": "max", "AveragePooling2D": "average"}


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
        if not reduction or not self.dilation or (not self.pools and step.kind in _POOLS):
            return 1
        return max(min(reduction, self.cut) // self.output_stride, 1)


@dataclasses.dataclass
class Change:
    """What becomes of a step: settings of its layer, and zeros around (or cut off) its input."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    pads: tuple[tuple[int, int], tuple[int, int]] | None = None
    pooling: dict[str, Any] | None = None  # settings of the DilatedPooling in its place


def changes(graph: Graph, resolution: Resolution) -> dict[int, Change]:
    """Decides what changes: id of a step -> Change, for those that do.

    Raises:
        ValueError: something other than a strided layer reduces the resolution where it must stay,
            or layers that read one ZeroPadding2D need different zeros.
    """
    makers = {id(x): step for step in graph.steps for x in step.outputs}
    found: dict[int, Change] = {}
    shifts = _shifts(graph, makers, resolution)
    pads = [_pad_before(step, makers) for step in graph.steps if step.window]
    of_windows = {id(pad) for pad in pads if pad is not None}
    for step in graph.steps:
        before, after = (graph.reductions[id(x)] for x in (step.inputs[0], step.outputs[0]))
        rate = resolution.rate(step, before)
        if isinstance(step.operation, PADS) and rate > 1 and id(step) not in of_windows:
            amounts = step.operation.get_config()[_amount(step)]  # moves the picture, here further
            scaled = [[rate * n for n in pair] for pair in amounts]
            found[id(step)] = Change({_amount(step): scaled})
        if step.window is None or before is None:
            if resolution.removes(before, after) and not isinstance(step.operation, PADS):
                raise ValueError(
                    f"'{step.name}' reduces the resolution without being a layer whose stride can "
                    "be removed. Take a larger `output_stride`."
                )
            continue
        pad = _pad_before(step, makers)
        removed = resolution.removes(before, after)
        if step.stride > 1 and not removed:
            if pad is None and step.operation.padding == "valid":
                found[id(step)] = Change({"padding": "same"})
            around = None
        else:
            shift = shifts[after] if removed else (0, 0)
            found[id(step)], around = _rewindowed(step, pad, rate, shift, removed)
        if pad is not None:
            zeros = around or [tuple(pair) for pair in pad.operation.get_config()["padding"]]
            if found.setdefault(id(pad), Change({"padding": zeros})).settings["padding"] != zeros:
                raise ValueError(
                    f"The layers that read '{pad.name}' need different zeros around it at this "
                    "resolution. Take another `output_stride`, or give each its own ZeroPadding2D."
                )
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
    is_pool = step.kind in _POOLS
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
        pooling = {"kind": _POOLS[step.kind], "pool_size": step.window, "rate": rate}
    if pad is not None:
        if not removed and rate == 1:
            return Change(settings), None
        if pooling is not None:
            pooling["before"] = None
        return Change(settings, pooling=pooling), around
    if pooling is not None:
        return Change(pooling={**pooling, "before": [before for before, _ in around]}), None
    if removed or (step.operation.padding == "valid" and step.window != (1, 1)):
        settings["padding"] = "same"
    if not centred and (removed or rate > 1):
        return Change({**settings, "padding": "valid"}, pads=tuple(around)), None
    return Change(settings), None
