"""One run: opens the data, builds the model, trains it, and finishes it (see `finishing`)."""

import contextlib
import dataclasses
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files, programs, progress, signals
from wsol_tf.config import Config
from wsol_tf.data.batches import training_batches
from wsol_tf.data.cache import cached_reader
from wsol_tf.data.source import Source
from wsol_tf.data.stream import TrainingStream
from wsol_tf.model.build import build_model, load_model
from wsol_tf.model.localization import Localization
from wsol_tf.training import (
    bookkeeping,
    callbacks,
    checkpoints,
    finishing,
    folder,
    loop,
    splits,
    strategies,
)
from wsol_tf.training.ledger import write_curves, write_history
from wsol_tf.training.watch import StopAtNaN


def train(
    config: Config,
    dataset: Source | None = None,
    val_dataset: Source | None = None,
    *,
    log: Callable[[str], None] = print,
) -> tuple[Localization, dict[str, Any] | None]:
    """Trains as `python -m wsol_tf.train` does, or resumes a run that was interrupted.

    Args:
        config: settings of the run; `output_dir` must be set. Of several workers each calls this
            with the same settings.
        dataset: pictures to train on, instead of those that `config` names with `dataset`,
            `data_dir` and `split`. A share of them, `holdout`, is held out.
        val_dataset: pictures to score after training, with the classes of those that are trained
            on. By default `val_split` of the data set that `config` names; with a `dataset` of
            your own the held-out pictures.
        log: function that takes lines of text on progress. They name settings in backticks.

    Returns:
        (model, figures): the trained model with its thresholds, and what metrics.json holds; on
        workers other than the first, figures is None.

    Raises:
        ValueError: before anything is trained, for data or settings that can't work, and for a
            folder that another run wrote or is writing to.
        FloatingPointError: a loss is NaN or infinite; the last good model is kept.
        signals.Preempted: after SIGTERM, or when another worker is gone; the run is saved.
    """
    strategy = strategies.make_strategy(config.strategy)
    chief = strategies.is_chief(strategy)
    log = log if chief else lambda text: None
    programs.make_output_dir(config.output_dir)
    lock = checkpoints.lock(config.output_dir, log) if chief else contextlib.nullcontext(bool)
    with lock as keep_folder:
        figures = folder.finished_figures(config) if config.resume else None
        if figures:
            log(
                f"The run in '{config.output_dir}' is finished; nothing is left to do. Name "
                "another `output_dir`, or pass `resume=false` to train anew in this one."
            )
            return load_model(os.path.join(config.output_dir, "model.keras")), figures
        if config.resume:
            config = folder.as_begun(config)
        elif chief:
            folder.clear(config.output_dir)
        if config.deterministic:
            strategies.make_deterministic()
        keras.utils.set_random_seed(config.seed)
        run = Run(config, strategy, log, keep_folder)
        with strategies.preempted_by_lost_workers(strategy):
            run.open_data(dataset, val_dataset)
            run.build()
            run.resume()
            run.fit()
            return run.finish()


class Run:
    """One run; its methods are called once each, in the order in which they stand here.

    Args:
        config: settings of the run.
        strategy: a `tf.distribute.Strategy`.
        log: function that takes lines of text.
        keep_folder: makes the folder again where it was removed, see `checkpoints.lock`.

    Attributes:
        chief: whether this process writes the files.
        passes: how often an epoch sees each picture, so that all are `min_steps` long.
        splits: the pictures; `source`, `kept` and `held` are its own.
        state: how far the run has come.
        arrays: variables of the checkpoint that the run resumes from, or None.
        model: the Localization.
        interrupted: whether Ctrl-C ended the training.
    """

    def __init__(
        self,
        config: Config,
        strategy: tf.distribute.Strategy,
        log: Callable[[str], None],
        keep_folder: Callable[[], bool] = bool,
    ):
        self.config, self.strategy = config, strategy
        self.log = progress.above_bar(log)
        self.keep_folder = keep_folder
        self.logging: list[keras.callbacks.Callback] = []
        self.chief = strategies.is_chief(strategy)
        self.agree = strategies.agreement(strategy)
        self.interrupted = False

    # --- open_data -------------------------------------------------------------------------------

    def open_data(self, dataset: Source | None = None, val_dataset: Source | None = None) -> None:
        """Opens the pictures, from where the newest checkpoint is in them; see `train`."""
        config = self.config
        opened = splits.open_splits(config, dataset, val_dataset, score=self.chief, log=self.log)
        self.splits = opened
        self.source, self.kept, self.held = opened.source, opened.kept, opened.held
        side = config.crop_from
        self.stream = TrainingStream(
            self.source,
            self.kept,
            batch_size=config.batch_size,
            input_size=config.input_size,
            resize_size=side,
            min_crop=config.min_crop,
            seed=config.seed,
            read=cached_reader(self.source, self.kept, side, config.cache, config.output_dir),
        )
        one_pass = self.stream.num_samples / config.batch_size
        self.passes = max(1, math.ceil(config.min_steps / (config.epochs * one_pass)))
        self.steps_per_epoch = self.passes * one_pass
        self._read_state()
        self.batches = self.strategy.distribute_datasets_from_function(self._batches)

    def _read_state(self):
        """Reads the newest checkpoint; a run without one begins at step 0."""
        config = self.config
        saved = checkpoints.newest(config.output_dir, self.log) if config.resume else None
        digest = self.splits.digest()
        self.arrays, self.state = None, loop.State(data=digest)
        if saved is None:
            return
        self.arrays, self.state = saved[0], loop.saved_state(saved[1])
        if self.state.data != digest:
            raise ValueError(
                f"The run in '{config.output_dir}' began with other pictures or labels than are in "
                f"'{self.splits.place}' now. Bring those back, or pass `resume=false` to start "
                "anew."
            )
        self.source.report.skipped.update(self.state.skipped)

    def _batches(self, context):
        """The batches of one worker, from the step that the run has reached."""
        return training_batches(
            self.stream,
            epochs=self.config.epochs * self.passes,
            start=self.state.step,
            parts=self.config.gradient_accumulation,
            replicas=self.strategy.num_replicas_in_sync,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    # --- build, resume ---------------------------------------------------------------------------

    def build(self) -> None:
        """Builds and compiles the model."""
        with strategies.scope(self.strategy):
            self.model = build_model(self.config, self.source.classes, self.steps_per_epoch)
        self.weights = self.model.loaded_weights

    def resume(self) -> None:
        """Brings the variables back to where the newest checkpoint left them, if there is one."""
        step = self.state.step
        if self.agree([step]) != [step]:
            raise ValueError(
                f"The workers see different checkpoints (this one is at step {step}): "
                "`output_dir` must be one folder that all of them share."
            )
        if self.arrays is None:
            self.log(f"Feature extractor {self.model.loaded_weights}.")
        else:
            loop.restore(self.model, self.arrays)
            self.arrays = None
            self.log(f"Resumed at step {step}.")
        passes = f" of {self.passes} passes each" if self.passes > 1 else ""
        self.log(
            f"Training on {files.counted(len(self.kept), 'picture')} with "
            f"{strategies.describe_devices(self.strategy)}, "
            f"{files.counted(self.model.total_steps, 'step')} in "
            f"{files.counted(self.config.epochs, 'epoch')}{passes}; held out: "
            f"{files.counted(len(self.held), 'picture')}."
        )

    # --- fit -------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Trains to the end, to Ctrl-C, or to what `train` raises."""
        config, state = self.config, self.state
        if self.chief:
            files.write(self.path("run.flags"), programs.to_flagfile(config))
        stop = StopAtNaN(state)
        self.logging = bookkeeping.callbacks_of(self) if self.chief else []
        called = [stop, *self.logging]
        with signals.collected() as stops:
            try:
                ended = loop.run(
                    self.model,
                    iter(self.batches),
                    self.strategy,
                    state=state,
                    epochs=config.epochs,
                    steps_per_epoch=self.steps_per_epoch,
                    callbacks=called,
                    steps_per_execution=config.steps_per_execution,
                    parts=config.gradient_accumulation,
                    stops=stops,
                    saving=loop.Saving(
                        lambda: self._save() if self.chief and not stop.failure else None,
                        every_steps=config.checkpoint_every_steps,
                        every_minutes=config.checkpoint_every_minutes,
                    ),
                )
            except KeyboardInterrupt:
                ended = {signal.SIGINT}
            except tf.errors.InvalidArgumentError as error:
                self.splits.raise_if_unreadable(error)
                raise
        if signal.SIGTERM in ended:
            raise signals.Preempted(
                f"Ended by SIGTERM at step {state.step} of {self.model.total_steps}. The run is "
                "saved: the same command goes on from here."
            )
        self.interrupted = signal.SIGINT in ended
        if self.interrupted:
            self.log("\nInterrupted: the run is finished with what was learned so far.")
        if not stop.failure and not callbacks.has_finite_weights(self.model):
            stop.failure = callbacks.NONFINITE_WEIGHTS
        if self.chief:
            write_curves(self.path("curves.png"), state.history, self.model.loss_weights)
        if stop.failure:
            raise FloatingPointError(stop.failure)

    def _save(self):
        """Writes a checkpoint; one that can't be written is reported, and the run goes on."""
        arrays = [variable.numpy() for variable in loop.variables(self.model)]
        if not all(np.isfinite(array).all() for array in arrays):
            return
        self.state.skipped = dict(self.source.report.skipped)
        self.restore_folder()
        folder_of_run, state = self.config.output_dir, dataclasses.asdict(self.state)
        with callbacks.tolerating_write_errors(
            self.log, f"checkpoint at step {self.state.step}", folder_of_run
        ):
            checkpoints.write(folder_of_run, arrays, state, self.config.keep_checkpoints)

    def restore_folder(self) -> bool:
        """Brings the folder back where it was removed meanwhile; returns whether it was."""
        if not self.keep_folder():
            return False
        with callbacks.tolerating_write_errors(self.log, "run.flags", self.config.output_dir):
            files.write(self.path("run.flags"), programs.to_flagfile(self.config))
            write_history(self.path("history.csv"), self.state.history)
        if self.state.best is not None:
            self.log("The best model so far was in it: the best of the epochs to come is kept.")
            self.state.best, self.state.best_epoch = None, -1
        for callback in self.logging:
            if hasattr(callback, "open_log"):
                callback.open_log()
        return True

    # --- finish ----------------------------------------------------------------------------------

    def finish(self) -> tuple[Localization, dict[str, Any] | None]:
        """Chooses the thresholds, stores them with the model and scores it; see `train`."""
        figures = finishing.finish(self) if self.chief else None
        self.agree([0.0])  # the others wait here, for the first worker serves them
        return self.model, figures

    def path(self, name: str) -> str:
        """Returns the path of a file in the folder of the run."""
        return os.path.join(self.config.output_dir, name)
