"""The steps of a training, and what happens at which share of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule, PiecewiseConstantDecay


@dataclasses.dataclass
class Span:
    """The steps of one training, of which the starts, ramps and drops of the rate are shares.

    Attributes:
        steps: how many there are; None as long as nobody knows.
        first: number of the first one, as the optimizer counts steps.
        fixed: whether they were given, so that `begin` leaves them as they are.
    """

    steps: int | None = None
    first: int = 0
    fixed: bool = False

    def begin(self, iterations: int, steps_per_epoch: int, epochs: int, initial_epoch: int) -> None:
        """Begins a training of `epochs` epochs, of which `initial_epoch` are done already.

        Args:
            iterations: steps that the optimizer has taken.
            steps_per_epoch: steps of one epoch.
            epochs: the last epoch, as for `keras.Model.fit`: those before count from 0.
            initial_epoch: the epoch that comes next; its predecessors' steps belong to the span.
        """
        self.first = iterations - initial_epoch * steps_per_epoch
        self.steps = epochs * steps_per_epoch

    def progress(self, iterations: Any) -> Any:
        """The share of the steps that are done, a float32 scalar; above 1 after the last.

        Args:
            iterations: int scalar, steps that the optimizer has taken.

        Raises:
            ValueError: the number of steps is not known.
        """
        if not self.steps:
            raise ValueError(
                "The length of the training is unknown: pass total_steps to compile, or call fit."
            )
        return ops.cast(iterations - self.first, "float32") / float(self.steps)


@keras.saving.register_keras_serializable(package="wsol_tf")
class RateDrops(LearningRateSchedule):
    """A learning rate that is divided by 10 after given shares of the training.

    Args:
        learning_rate: the rate until the first drop.
        drops: shares of the steps in (0, 1), ascending: with 0.5 and 100 steps, the first 50 keep
            the rate.
        span: the steps; a Localization that is compiled with this schedule puts its own here, so
            that each `fit` has its own drops. As long as their number is unknown there are none.
    """

    def __init__(self, learning_rate: float, drops: Sequence[float], span: Span | None = None):
        super().__init__()
        self.learning_rate = learning_rate
        self.drops = tuple(drops)
        self.span = span or Span()

    def __call__(self, step: Any) -> Any:
        """Returns the rate of the step with this number, a float32 scalar."""
        if not self.span.steps:
            return ops.convert_to_tensor(self.learning_rate)
        # Keras keeps the old rate for the step with the boundary's number; steps count from 0.
        boundaries = [self.span.first + round(share * self.span.steps) - 1 for share in self.drops]
        rates = [self.learning_rate * 0.1**i for i in range(len(self.drops) + 1)]
        return PiecewiseConstantDecay(boundaries, rates)(step)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same schedule of."""
        return {
            "learning_rate": self.learning_rate,
            "drops": list(self.drops),
            "span": dataclasses.asdict(self.span),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RateDrops":
        """Makes the schedule that `get_config` describes."""
        return cls(config["learning_rate"], config["drops"], Span(**config["span"]))


def share_span(optimizer: Any, span: Span) -> None:
    """Makes the learning-rate schedule of an optimizer, if it is RateDrops, follow a span."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # float16: with loss scaling outside
    schedule = getattr(inner, "_learning_rate", None)
    if isinstance(schedule, RateDrops):
        schedule.span = span
