"""Pooling whose window reads positions that lie apart, as a dilated convolution does."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="wsol_tf")
class DilatedPooling(keras.layers.Layer):
    """Pools over a window of stride 1 whose positions lie `rate` apart.

    Keras's pooling layers have no dilation. Rows and columns are pooled one after the other, from
    shifted copies: the operations are those of every TFLite runtime.

    Args:
        kind: "max" or "average"; an average is that of the positions that exist.
        pool_size: rows and columns of the window.
        rate: positions from one of its values to the next.
        before: rows and columns that the window reaches above and left of its position, multiples
            of the rate; the output is as large as the input. None: the output has only the
            positions whose window lies inside.
    """

    def __init__(
        self,
        kind: str,
        pool_size: Sequence[int],
        rate: int,
        before: Sequence[int] | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind, self.rate = kind, rate
        self.pool_size = tuple(pool_size)
        self.before = None if before is None else tuple(before)

    def call(self, x: Any) -> Any:
        """Pools `[batch, height, width, channels]`."""
        for axis in (1, 2):
            size = self.pool_size[axis - 1]
            if size > 1:
                before = None if self.before is None else self.before[axis - 1]
                x = self._pooled(x, axis, size, before)
        return x

    def _pooled(self, x, axis, size, before):
        side = x.shape[axis]
        if before is None:
            inside = side - (size - 1) * self.rate
            shifted = [_cut(x, axis, i * self.rate, i * self.rate + inside) for i in range(size)]
            counts: Any = float(size)
        else:
            steps = [i * self.rate - before for i in range(size)]
            shifted = [self._shifted(x, axis, step) for step in steps]
            positions = np.arange(side)
            found = [(positions + step >= 0) & (positions + step < side) for step in steps]
            shape = [side if i == axis else 1 for i in range(4)]
            counts = np.sum(found, axis=0).reshape(shape).astype("float32")
        result = shifted[0]
        for other in shifted[1:]:
            result = ops.maximum(result, other) if self.kind == "max" else result + other
        if self.kind == "max":
            return result
        return result * ops.convert_to_tensor(1.0 / counts, dtype=result.dtype)

    def _shifted(self, x, axis, step):
        """Position i holds x[i + step]; where that is outside, x[i] for a maximum, 0 for a sum."""
        side = x.shape[axis]
        step = max(-side, min(step, side))
        if not step:
            return x
        moved = _cut(x, axis, max(step, 0), side + min(step, 0))
        outside = _cut(x, axis, side - step, side) if step > 0 else _cut(x, axis, 0, -step)
        if self.kind != "max":
            outside = ops.zeros_like(outside)
        return ops.concatenate([moved, outside] if step > 0 else [outside, moved], axis)

    def compute_output_shape(self, input_shape: Sequence) -> tuple:
        """Shape of the output of a shape of the input."""
        shape = list(input_shape)
        if self.before is None:
            for axis in (1, 2):
                shape[axis] -= (self.pool_size[axis - 1] - 1) * self.rate
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same layer of."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "pool_size": self.pool_size,
            "rate": self.rate,
            "before": self.before,
        }


def _cut(x, axis, first, end):
    return x[:, first:end] if axis == 1 else x[:, :, first:end]
