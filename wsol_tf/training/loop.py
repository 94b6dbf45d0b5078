"""The training loop: the model's own step under any `tf.distribute` strategy, and its callbacks.

`keras.Model.fit` does not support every strategy with Keras 3; this loop does, with the same
callbacks and files for all of them, and it can begin and end at any step.
"""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wsol_tf.model.localization import Localization
from wsol_tf.training import strategies


@dataclasses.dataclass
class State:
    """How far a run has come; with the variables, all that a checkpoint needs.

    Order and augmentation of the pictures are functions of the seed and the step, so the step
    is also the position in the data.

    Attributes:
        step: steps done.
        sums: name of a value -> its sum over the steps done in the epoch that has begun.
        steps_in_epoch: how many those are.
        history: one dict of figures for each whole epoch.
        seconds: time spent in training, over all starts of the run.
        best: score of the best model so far.
        best_epoch: its epoch, from 0; -1: none.
        data: digest of the pictures and labels that the run began with.
        skipped: name -> reason, pictures that could not be read.
        warnings: what `watch.Watch` warned of.
    """

    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps_in_epoch: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    data: int = 0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def add(self, values: dict[str, float], count: int, seconds: float) -> None:
        """Counts `count` more steps, with the sums of their values and the time that they took."""
        self.step += count
        self.steps_in_epoch += count
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.seconds += seconds

    def end_epoch(self) -> dict[str, float]:
        """Adds the means of the epoch that ends to the history, and returns them."""
        means = {name: value / self.steps_in_epoch for name, value in self.sums.items()}
        row = {"epoch": len(self.history), "step": self.step, **means}
        self.sums, self.steps_in_epoch = {}, 0
        self.history.append(row)
        return row


def saved_state(values: dict[str, Any]) -> State:
    """Makes a State of what a checkpoint holds of it.

    Raises:
        ValueError: it holds what no State of this version has.
    """
    unknown = values.keys() - {field.name for field in dataclasses.fields(State)}
    if unknown:
        raise ValueError(
            "The newest checkpoint was written by another version of the program: it holds "
            f"{', '.join(sorted(unknown))}. Go on with that version, or pass `resume=false` to "
            "start anew."
        )
    return State(**values)


@dataclasses.dataclass
class Saving:
    """When a run writes checkpoints: every so many steps or minutes, and where it ends.

    Attributes:
        write: function that writes a checkpoint.
        every_steps: steps between two checkpoints; 0: by time only.
        every_minutes: minutes between two checkpoints; 0: by steps only.
    """

    write: Callable[[], None] = lambda: None
    every_steps: int = 0
    every_minutes: float = 0.0
    saved_at: float = dataclasses.field(default=0.0, init=False)
    saved_step: int = dataclasses.field(default=0, init=False)

    def start(self, step: int) -> None:
        """Counts from now, and from a step that needs no checkpoint."""
        self.saved_at, self.saved_step = time.monotonic(), step

    def steps_left(self, step: int) -> float:
        """Returns how many steps may be taken before a checkpoint is due."""
        return self.every_steps - step % self.every_steps if self.every_steps else math.inf

    def is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due after so many steps."""
        minutes = self.every_minutes
        late = minutes and time.monotonic() - self.saved_at > 60 * minutes
        return bool(late or (self.every_steps and step % self.every_steps == 0))

    def save(self, step: int) -> None:
        """Writes a checkpoint, unless the last one is of this step."""
        if self.saved_step != step:
            self.write()
            self.start(step)


def variables(model: Localization) -> list[keras.Variable]:
    """Returns all variables that a checkpoint holds, in a fixed order."""
    measured = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in measured]
    return [*own, *model.optimizer.variables]


def restore(model: Localization, arrays: Sequence[np.ndarray]) -> None:
    """Sets the variables of a model to what a checkpoint holds.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    own = variables(model)
    if [tuple(variable.shape) for variable in own] != [array.shape for array in arrays]:
        raise ValueError(
            f"The checkpoint holds {len(arrays)} variables of another model than this one with "
            f"{len(own)}. Was it written by another version? Pass `resume=false` to start anew."
        )
    for variable, array in zip(own, arrays, strict=True):
        variable.assign(array)


def make_steps(
    model: Localization,
    strategy: tf.distribute.Strategy,
    *,
    steps_per_execution: int = 1,
    parts: int = 1,
) -> Callable[[Iterator, int], tf.Tensor]:
    """Returns a function (iterator, count) that trains `count` steps.

    Args:
        model: a compiled Localization, built in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        steps_per_execution: most steps that one call may ask for.
        parts: batches that the iterator yields for one step; their gradients are added up.

    Returns:
        A function that returns the mean of each of `model.STEP_VALUES` over the global batch,
        summed over the steps: float32 `[len(STEP_VALUES)]`.
    """
    step = _single_step(model, strategy, parts)

    def steps(iterator, count):
        total = tf.zeros(len(model.STEP_VALUES))
        for _ in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            total += step(iterator)
        return total

    if model.run_eagerly:
        return lambda iterator, count: sum(step(iterator) for _ in range(count))
    if steps_per_execution == 1:
        compiled = tf.function(step)
        return lambda iterator, count: compiled(iterator)
    compiled = tf.function(steps)
    return lambda iterator, count: compiled(iterator, tf.constant(count))


def _single_step(model, strategy, parts):
    """Returns a function of an iterator that trains one step, not compiled."""
    share = 1.0 / (strategy.num_replicas_in_sync * parts)
    accumulated = _accumulators(model, strategy) if parts > 1 else ()

    def packed(values):
        means = [tf.reduce_mean(tf.cast(values[name], tf.float32)) for name in model.STEP_VALUES]
        return tf.stack(means) * share

    def learn(data):
        return packed(model.learn(data))

    def add_up(data):
        gradients, values = model.gradients(data, parts)
        for sum_, gradient in zip(accumulated, gradients, strict=True):
            sum_.assign_add(gradient)
        return packed(values)

    def apply():
        model.apply([sum_.read_value() for sum_ in accumulated])
        for sum_ in accumulated:
            sum_.assign(tf.zeros_like(sum_))

    if model.jit_compile and not model.run_eagerly:
        learn = tf.function(learn, jit_compile=True, reduce_retracing=True)
        add_up = tf.function(add_up, jit_compile=True, reduce_retracing=True)

    def summed(function, iterator):
        return strategy.reduce("SUM", strategy.run(function, args=(next(iterator),)), axis=None)

    def step(iterator):
        if parts == 1:
            return summed(learn, iterator)
        total = tf.zeros(len(model.STEP_VALUES))
        for _ in tf.range(parts):
            # One after the other, for the memory of one alone.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            total += summed(add_up, iterator)
        strategy.run(apply)
        return total

    return step


def _accumulators(model, strategy):
    """Variables in which each replica adds up its gradients over the parts of a batch."""
    with strategy.scope():
        return [
            tf.Variable(
                tf.zeros(variable.shape, variable.dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for variable in model.trainable_variables
        ]


def run(
    model: Localization,
    iterator: Iterator,
    strategy: tf.distribute.Strategy,
    *,
    state: State,
    epochs: int,
    steps_per_epoch: float,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    steps_per_execution: int = 1,
    parts: int = 1,
    stops: Collection[signal.Signals] = (),
    saving: Saving | None = None,
) -> set[signal.Signals]:
    """Trains from `state.step` to the end; `state` is kept up to date.

    Args:
        model: a compiled Localization, built in the strategy's scope.
        iterator: iterator over a data set distributed by the strategy, at `state.step`.
        strategy: a `tf.distribute.Strategy`.
        state: how far the run has come.
        epochs: passes over the pictures.
        steps_per_epoch: may be a fraction: an epoch ends with the step in which its last picture
            is.
        callbacks: Keras callbacks; on_train_batch_end gets the means over the last
            `steps_per_execution` steps, on_epoch_end those of the epoch.
        steps_per_execution: most steps that are taken before callbacks see them.
        parts: batches that the iterator yields for one step, see `make_steps`.
        stops: the signals that came in, see `signals.collected`; any ends the loop.
        saving: when checkpoints are written besides at the end and after a signal.

    Returns:
        The signals that ended the loop; empty where it came to its end.
    """
    saving = saving or Saving()
    loop = _Loop(
        model=model,
        steps=make_steps(model, strategy, steps_per_execution=steps_per_execution, parts=parts),
        iterator=iterator,
        state=state,
        callbacks=keras.callbacks.CallbackList(
            list(callbacks), add_history=False, model=model, epochs=epochs, verbose=1,
            steps=math.ceil(steps_per_epoch),
        ),
        most_steps=steps_per_execution,
        agree=strategies.agreement(strategy),
        stops=stops,
        saving=saving,
    )  # fmt: skip
    return loop.run(math.ceil(epochs * steps_per_epoch), steps_per_epoch)


@dataclasses.dataclass
class _Loop:
    """What `run` works with.

    `steps` is what `make_steps` returns, `agree` what `strategies.agreement` returns; at most
    `most_steps` are taken before callbacks see them.
    """

    model: Localization
    steps: Callable
    iterator: Iterator
    state: State
    callbacks: keras.callbacks.CallbackList
    most_steps: int
    agree: Callable
    stops: Collection[signal.Signals]
    saving: Saving

    def run(self, total_steps, steps_per_epoch):
        state, stopped, ended = self.state, False, set()
        self.saving.start(state.step)
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        while state.step < total_steps and not stopped and not ended:
            end = math.ceil((len(state.history) + 1) * steps_per_epoch)
            stopped, ended = self._train_epoch(min(end, total_steps))
        self.saving.save(state.step)
        self.callbacks.on_train_end()
        return ended

    def _train_epoch(self, end):
        """Trains up to the step `end`, or less; returns (whether to stop, signals that came in)."""
        state, epoch, stopped, ended = self.state, len(self.state.history), False, set()
        self.callbacks.on_epoch_begin(epoch)
        while len(state.history) == epoch and not stopped and not ended:
            self._take_steps(end)
            if state.step == end or self.model.stop_training:
                self.callbacks.on_epoch_end(epoch, state.end_epoch())
            due, stopped, ended = self._agree_on_what_comes()
            if due or ended:
                self.saving.save(state.step)
        return stopped, ended

    def _take_steps(self, end):
        """Takes as many steps as may pass before callbacks see their values."""
        state, started = self.state, time.monotonic()
        count = min(self.most_steps, end - state.step, self.saving.steps_left(state.step))
        self.callbacks.on_train_batch_begin(state.steps_in_epoch)
        sums = self.steps(self.iterator, count).numpy().tolist()
        sums = dict(zip(self.model.STEP_VALUES, sums, strict=True))
        state.add(sums, count, time.monotonic() - started)
        means = {name: value / count for name, value in sums.items()}
        self.callbacks.on_train_batch_end(state.steps_in_epoch - 1, means)

    def _agree_on_what_comes(self):
        """Whether a checkpoint is due, whether to stop, and the signals: alike on all workers."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        due = self.saving.is_due(self.state.step)
        wanted = [due, self.model.stop_training, *(kind in self.stops for kind in kinds)]
        due, stopped, *came = self.agree([float(want) for want in wanted])
        return due, stopped, {kind for kind, want in zip(kinds, came, strict=True) if want}
