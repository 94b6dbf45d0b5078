"""What a model predicts with its weights as they are now, in less time than with its variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from keras import ops

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization

MOST_BYTES = 2**30  # of weights: a graph, with the constants in it, may have twice as many


def predictor(model: Localization) -> Callable[[Any], dict[str, np.ndarray]] | None:
    """Makes a function that returns what `model.predict_on_batch` does, with constant weights.

    TensorFlow folds the batch normalization of a graph of constants into its convolutions, and
    prepares their kernels once, not at every call. Outputs differ by rounding alone. The graph is
    traced at the first call, for batches of any length; what happens to the weights after that
    changes nothing.

    Args:
        model: a Localization.

    Returns:
        The function; None for a model that runs eagerly, and for weights that no graph can hold.
    """
    weights = model.trainable_variables, model.non_trainable_variables
    size = sum(tf.as_dtype(x.dtype).size * np.prod(x.shape) for some in weights for x in some)
    if model.run_eagerly or size > MOST_BYTES:
        return None

    # float32 holds every value that a picture may have: one graph is enough.
    spec = tf.TensorSpec((None, *model.feature_extractor.input.shape[1:]), tf.float32)

    @tf.function(input_signature=[spec], jit_compile=model.jit_compile)
    def graph(images):
        with tf.init_scope():  # where variables have values
            values = [[ops.convert_to_numpy(x) for x in some] for some in weights]
        constants = ([tf.constant(x) for x in some] for some in values)
        return model.stateless_call(*constants, images, training=False)[0]

    def predict(images):
        outputs = graph(tf.constant(np.asarray(images, np.float32)))
        return {name: x.numpy() for name, x in outputs.items()}

    return predict
