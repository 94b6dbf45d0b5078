"""Batch normalization whose training step is one operation of TensorFlow in place of many."""

from typing import Any

import keras
import tensorflow as tf


# Named as Keras's: whoever looks at the kind of a layer, such as the exporters, finds the same one.
@keras.saving.register_keras_serializable(package="wsol_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster in training; the same values to rounding.

    Keras computes batch statistics, outputs and their gradients by a dozen operations that each
    pass over all features. FusedBatchNormV3 has one for the values and one for the gradients. What
    they can't do is left to Keras: statistics over several replicas, masks, renormalization, other
    axes than the last, other inputs than `[batch, height, width, channels]`, and float64. So is
    inference, and what is frozen.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes `[batch, height, width, channels]`, see `keras.layers.BatchNormalization`."""
        if not (training and self.trainable and mask is None and self._can_fuse(inputs)):
            return super().call(inputs, training=training, mask=mask)
        channels, count = inputs.shape[-1], tf.size(inputs) // inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
        )
        count = tf.cast(count, variance.dtype)
        variance *= (count - 1) / count  # Bessel's correction, which Keras's averages do not have
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)

    def _can_fuse(self, inputs):
        if tf.distribute.get_strategy().num_replicas_in_sync > 1 and self.synchronized:
            return False
        sides = len(inputs.shape)
        return (
            sides == 4
            and self.axis in (-1, 3)
            and not self.renorm
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
            and keras.backend.standardize_dtype(self.variable_dtype) == "float32"
        )
