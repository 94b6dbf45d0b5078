"""The training loop: the model's own step under any `tf.distribute` strategy, and its callbacks.

`keras.Model.fit` does not support every strategy with Keras 3; this loop does, with the same
callbacks and files for all of them, and it can begin and end at any step.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time

import keras
import tensorflow as tf

from wsol_tf.training import strategies


@dataclasses.dataclass
class State:
    """How far a run has come; with the variables, all that a checkpoint needs.

    Order and augmentation of the pictures are functions of the seed and the step, so the step
    is also the position in the data.

    Attributes:
        step: steps done.
        sums: value -> sum over the steps done in the epoch that has begun.
        steps_in_epoch: how many those are.
        history: one dict of figures for each whole epoch.
        seconds: time spent in training, over all starts of the run.
        best: score of the best model so far.
        best_epoch: its epoch, from 0; -1: none.
        data: digest of the pictures and labels that the run began with.
        skipped: name -> reason, pictures that could not be read.
    """

    step: int = 0
    sums: dict = dataclasses.field(default_factory=dict)
    steps_in_epoch: int = 0
    history: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    data: int = 0
    skipped: dict = dataclasses.field(default_factory=dict)


def variables(model):
    """All variables that a checkpoint holds, in a fixed order."""
    measured = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in measured]
    return [*own, *model.optimizer.variables]


def make_steps(model, strategy, *, steps_per_execution=1, parts=1):
    """Returns a function (iterator, count) that trains `count` steps.

    Args:
        model: a compiled Localization, made in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        steps_per_execution: most steps that one call may ask for.
        parts: batches that the iterator yields for one step; their gradients are added up.

    Returns:
        A function that returns the mean of each of `model.STEP_VALUES` over the global batch, summed
        over the steps: float32 `[len(STEP_VALUES)]`.
    """
    share = 1.0 / (strategy.num_replicas_in_sync * parts)

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

    if parts > 1:
        with strategy.scope():
            accumulated = [
                tf.Variable(
                    tf.zeros(variable.shape, variable.dtype),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for variable in model.trainable_variables
            ]
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


def run(
    model,
    iterator,
    strategy,
    *,
    state,
    epochs,
    steps_per_epoch,
    callbacks=(),
    steps_per_execution=1,
    parts=1,
    stops=(),
    save=lambda: None,
    save_every_steps=0,
    save_every_minutes=0.0,
):
    """Trains from `state.step` to the end; `state` is kept up to date.

    Args:
        model: a compiled Localization, made in the strategy's scope.
        iterator: iterator over a data set distributed by the strategy, at `state.step`.
        strategy: a `tf.distribute.Strategy`.
        state: a State.
        epochs: passes over the pictures.
        steps_per_epoch: may be a fraction: epoch e ends with the step in which its last picture is.
        callbacks: Keras callbacks; on_train_batch_end gets the means over the last
            `steps_per_execution` steps, on_epoch_end those of the epoch.
        steps_per_execution, parts: see `make_steps`.
        stops: a set of signals that came in, see `signals`; any ends the loop.
        save: function that writes a checkpoint; it is called every so many steps or minutes, at
            the end, and when a signal came in.

    Returns:
        The signals that ended the loop, as a set; empty where it came to its end.
    """
    steps = make_steps(model, strategy, steps_per_execution=steps_per_execution, parts=parts)
    agree = strategies.agreement(strategy)
    total_steps = math.ceil(epochs * steps_per_epoch)
    called = keras.callbacks.CallbackList(
        list(callbacks), add_history=False, model=model, epochs=epochs, verbose=1,
        steps=math.ceil(steps_per_epoch),
    )  # fmt: skip
    kinds = (signal.SIGTERM, signal.SIGINT)
    ended = set()
    saved_at, saved_step = time.monotonic(), state.step
    model.stop_training = False
    called.on_train_begin()
    begun = -1
    while state.step < total_steps:
        epoch = len(state.history)
        if begun < epoch:
            called.on_epoch_begin(epoch)
            begun = epoch
        started = time.monotonic()
        end = min(math.ceil((epoch + 1) * steps_per_epoch), total_steps)
        count = min(steps_per_execution, end - state.step)
        if save_every_steps:
            count = min(count, save_every_steps - state.step % save_every_steps)
        called.on_train_batch_begin(state.steps_in_epoch)
        values = dict(zip(model.STEP_VALUES, steps(iterator, count).numpy().tolist(), strict=True))
        state.step += count
        state.steps_in_epoch += count
        for name, value in values.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.seconds += time.monotonic() - started
        called.on_train_batch_end(
            state.steps_in_epoch - 1, {name: value / count for name, value in values.items()}
        )
        if state.step == end or model.stop_training:
            means = {name: value / state.steps_in_epoch for name, value in state.sums.items()}
            row = {"epoch": epoch, "step": state.step, **means}
            state.sums, state.steps_in_epoch = {}, 0
            state.history.append(row)
            called.on_epoch_end(epoch, row)
        late = save_every_minutes and time.monotonic() - saved_at > 60 * save_every_minutes
        due = save_every_steps and state.step % save_every_steps == 0
        wanted = [bool(late or due), model.stop_training, *(kind in stops for kind in kinds)]
        wanted = agree([float(want) for want in wanted])
        ended = {kind for kind, want in zip(kinds, wanted[2:], strict=True) if want}
        if wanted[0] or ended:
            save()
            saved_at, saved_step = time.monotonic(), state.step
        if wanted[1] or ended:
            break
    if saved_step != state.step:
        save()
    called.on_train_end()
    return ended


@contextlib.contextmanager
def signals():
    """Collects SIGTERM and the first Ctrl-C in a set; a second Ctrl-C interrupts at once."""
    caught = set()

    def remember(number, frame):
        if number == signal.SIGINT and number in caught:
            raise KeyboardInterrupt
        caught.add(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {kind: signal.signal(kind, remember) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
