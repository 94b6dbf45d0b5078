"""SGD with a learning rate per group of weights, L2 decay and momentum as BAS has them."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from wsol_tf.config import PUBLISHED_CLASSES


@keras.saving.register_keras_serializable(package="wsol_tf")
class GroupSGD(keras.optimizers.SGD):
    """SGD whose learning rate is multiplied per weight, with L2 decay inside the gradient.

    Steps are PyTorch's, which BAS trains with: where a schedule changes the rate, what the momentum
    carries on changes with it.

    Args:
        multipliers: regular expression on the weight's path -> factor; a weight's learning rate
            is multiplied by the factors of all expressions that are found in its path.
        l2: decay; l2 * weight is added to the gradient before the momentum (BAS, arXiv
            2112.00580), unlike Keras's decoupled `weight_decay`.
        **kwargs: the arguments of `keras.optimizers.SGD`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        multipliers: Mapping[str, float] | None = None,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.multipliers = dict(multipliers or {})
        self.l2 = l2

    def multiplier(self, path: str) -> float:
        """Computes the product of the factors whose expression is found in a weight's path."""
        product = 1.0
        for pattern, factor in self.multipliers.items():
            if re.search(pattern, path):
                product *= factor
        return product

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the momenta of the variables, and looks up their factors."""
        self._factors = [self.multiplier(variable.path) for variable in variables]
        super().build(variables)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if self.momentum and isinstance(self._learning_rate, Schedule):
            # Where all replicas meet, as Keras's own updates: one condition for all velocities.
            tf.__internal__.distribute.interim.maybe_merge_call(
                self._rescale_velocities, self._distribution_strategy
            )
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _rescale_velocities(self, strategy):
        """Changes the velocities with the rate, at the steps where that changes.

        Keras's velocity holds the rate: after a drop it would coast on at the old one, with
        gradients too small to steer it. BAS's (PyTorch's) does not hold it.
        """
        before = self._learning_rate(ops.maximum(self.iterations - 1, 0))
        now = self._learning_rate(self.iterations)

        def rescale():
            for velocity in self.momentums:
                change = ops.cast(now / before, velocity.dtype)
                strategy.extended.update(
                    velocity.value, lambda v, by: v.assign(v * by), args=(change,), group=False
                )

        ops.cond(ops.logical_and(before > 0, ops.not_equal(now, before)), rescale, lambda: None)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes one variable by its gradient, as Keras asks for each variable of a step."""
        if self.l2:
            gradient = gradient + self.l2 * ops.cast(variable, gradient.dtype)
        # On TensorFlow the variable is a bare tf.Variable here: only its index is known.
        index = self._get_variable_index(variable)
        rate = learning_rate * self._factors[index]
        if not self.momentum:
            super().update_step(gradient, variable, rate)
            return
        velocity = self.momentums[index].value
        # Keras's own step passes over the weights six times.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=ops.cast(rate, variable.dtype),
            grad=ops.cast(gradient, variable.dtype),
            momentum=ops.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def _clip_gradients(self, grads):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1 or not self.global_clipnorm:
            return super()._clip_gradients(grads)
        # Keras clips each replica's gradients by themselves; the norm meant is that of their sum.
        summed = tf.distribute.get_replica_context().all_reduce("SUM", grads)
        return [gradient / replicas for gradient in super()._clip_gradients(summed)]

    @property
    def averages(self) -> list[keras.Variable]:
        """The moving averages of the weights, in the order of the weights; empty without EMA."""
        return self._model_variables_moving_average if self.use_ema else []

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same optimizer of."""
        return {**super().get_config(), "multipliers": self.multipliers, "l2": self.l2}


def group_sgd(
    localizer: keras.Model,
    learning_rate: float | Schedule = 1e-3,
    *,
    localizer_multiplier: float = 0.0,
    head_multiplier: float = 10.0,
    bias_multiplier: float = 2.0,
    momentum: float = 0.9,
    l2: float = 5e-4,
    clip_norm: float = 5.0,
    ema: float = 0.0,
) -> GroupSGD:
    """Makes SGD with BAS's groups, and a learning rate of the localizer that fits its shape.

    One step moves a mask's logit by about rate x (channels of F_f) x (share of the batch's mean
    gradient that reaches the mask's channel). BAS's rates were tuned with 200 classes, where that
    share is 1 / 200. With fewer, the same rate moves a mask so far that it saturates before the
    classifier has learned anything. So the rate is multiplied by classes / 200, at most 1 and at
    least 12.8 / (channels of F_f), the largest that was stable with one channel that all pictures
    train.

    Args:
        localizer: the model's localizer.
        learning_rate: number or schedule, for kernels of the backbone.
        localizer_multiplier: rate of the localizer relative to the heads'; 0: as described above.
        head_multiplier: rate of both heads relative to the backbone's.
        bias_multiplier: rate of biases and of the offsets of batch normalization, relative.
        momentum: Nesterov momentum.
        l2: decay, added to the gradient.
        clip_norm: norm that all gradients together are clipped to, because the first ones throw
            the heads, whose rate is high, far off their start; 0: no clipping.
        ema: share that the moving average of the weights keeps at each step; 0: no average.

    Returns:
        The optimizer, for this model and others of the same layer names.
    """
    if not localizer_multiplier:
        features, channels = localizer.input.shape[-1], localizer.output.shape[-1]
        localizer_multiplier = min(1.0, max(12.8 / features, channels / PUBLISHED_CLASSES))
    return GroupSGD(
        learning_rate,
        multipliers={
            r"(classifier|localizer)_": head_multiplier,
            r"localizer_": localizer_multiplier,
            r"(bias|beta)$": bias_multiplier,
        },
        l2=l2,
        momentum=momentum,
        nesterov=True,
        global_clipnorm=clip_norm or None,
        use_ema=ema > 0,
        ema_momentum=ema or 0.99,
    )
