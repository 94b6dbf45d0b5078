"""One run: opens the data, builds the model, trains it, chooses the threshold and scores it."""

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files, programs, progress, signals
from wsol_tf.config import Config
from wsol_tf.data.batches import evaluation_batches, training_batches
from wsol_tf.data.cache import cached_reader
from wsol_tf.data.source import Source
from wsol_tf.data.stream import TrainingStream
from wsol_tf.data.transforms import View
from wsol_tf.evaluation import outcomes
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.score import score
from wsol_tf.model import alignment
from wsol_tf.model.build import build_model, load_model
from wsol_tf.model.localization import Localization
from wsol_tf.model.score_maps import WHOLE
from wsol_tf.report import contact_sheets, definitions, terminal
from wsol_tf.training import (
    bookkeeping,
    callbacks,
    checkpoints,
    folder,
    loop,
    record,
    splits,
    strategies,
    thresholds,
)
from wsol_tf.training.ledger import write_curves, write_history
from wsol_tf.training.watch import StopAtNaN

ALIGN_IMAGES = 64  # training pictures that the place of the maps is measured on


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
        figures = None
        if self.chief:
            self.restore_folder()
            self._take_best_model()
            self._align()
            rule, chosen = self._choose_thresholds()
            figures = self._score(rule, chosen)
            figures["definitions"] = definitions.definitions_of(figures)
            files.write_json(self.path("metrics.json"), figures)
            record.write_pages(self, figures, self.tiles)
            if not self.interrupted:
                checkpoints.clear(self.config.output_dir)
            written = [name for name in folder.FILES if os.path.exists(self.path(name))]
            self.log(f"Wrote {', '.join(written)} to {self.config.output_dir}.")
        self.agree([0.0])  # the others wait here, for the first worker serves them
        return self.model, figures

    def _take_best_model(self):
        """Saves the last model, or takes the best one, as a model of a single device."""
        config, state, path = self.config, self.state, self.path("model.keras")
        if state.best is None:
            with callbacks.averaged_weights(self.model):
                callbacks.save_model(self.model, path)
        else:
            epoch = state.best_epoch + 1
            self.log(f"Kept the model of epoch {epoch}, the best by its held-out {config.best_by}.")
        single = strategies.is_single_device(self.strategy)
        if not single or state.best is not None or config.ema:
            self.model = load_model(path)

    def _align(self):
        """Measures where the localizer's positions are; what comes after reads its maps there."""
        if not self.config.align:
            return
        # Where there is no object, the brightest part of a map lies anywhere.
        usable = thresholds.with_object(self.source.labels, self.model.background_id)
        labels = [self.source.labels[i] for i in usable]
        positions = usable[thresholds.spread(labels, ALIGN_IMAGES)]
        view = View(self.model.input_size, self.model.resize_size)
        batches = evaluation_batches(self.source, positions, view)
        images = [example.image for batch in batches for example in batch]
        self.model.offset = alignment.measure(
            lambda batch: self.model.predict_on_batch(batch)["localization_map"].mean(-1), images
        )
        pixels = self.model.input_size / self.model.localizer.output.shape[1]
        down, right = (distance * pixels for distance in self.model.offset)
        sentence = (
            f"The localizer's maps lay {down:+.1f} pixels down and {right:+.1f} right of what they "
            "show; they are moved back by that."
        )
        if not any(self.model.offset):
            sentence = "The localizer's maps stay as they are: no offset was found, or no sure one."
        self.log(sentence)

    def _choose_thresholds(self):
        """Stores thresholds with the model; returns the rule that gave them, and all rules'."""
        kind, rule = self.config.map, self.config.threshold_from
        chosen = thresholds.choose_by_rule(self.model, self.source, self.held, kind)
        if rule not in chosen.by_rule:
            rule = "maps"
            self.log("No held-out picture shows a box: the threshold is chosen from the maps.")
        self.log(f"Training pictures: {self.source.report.summary()}")
        self.model.thresholds = chosen.by_rule[rule]
        self.model.presence_threshold = chosen.presence
        callbacks.save_model(self.model, self.path("model.keras"))
        spread = ", without boxes; half of them suggest {:.2f} to {:.2f}".format(
            *chosen.quartiles[::2]
        )
        self.log(
            f"Score-map threshold {chosen.by_rule[rule][kind]:.2f} for map '{kind}', chosen from "
            f"the {rule} of {chosen.num_images[rule]} training pictures"
            f"{spread if rule == 'maps' else ''}."
        )
        return rule, chosen

    def _score(self, rule, chosen):
        """Scores the model; returns the figures of the run, but for their definitions."""
        state, started = self.state, time.monotonic()
        scored = self.splits.scored
        optimistic = scored is None
        if optimistic:
            self.log(
                "The threshold was chosen on the same pictures that are scored now: the figures "
                "are optimistic."
            )
            scored = self.source
        positions = chosen.held if optimistic and len(chosen.held) else None
        figures = self._score_and_show(scored, positions, chosen.by_rule["maps"])
        return {
            "interrupted": self.interrupted,
            "scored_on": self.splits.scored_on,
            "threshold_chosen_on_scored": optimistic,
            **figures,
            "epochs": len(state.history),
            "best_epoch": state.best_epoch + 1 if state.best is not None else None,
            "thresholds": chosen.by_rule[rule],
            "thresholds_from": rule,
            "presence_threshold": chosen.presence,
            "num_threshold_images": chosen.num_images[rule],
            "threshold_quartiles": chosen.quartiles,
            "map_offset": list(self.model.offset),
            "num_training_images": len(self.kept),
            "num_held_out_images": len(self.held),
            "skipped_in_training": dict(self.source.report.skipped),
            "warnings": [programs.shown(text) for text in state.warnings],
            **thresholds.compare_rules(chosen, self.config.map, figures),
            "minutes": round((state.seconds + time.monotonic() - started) / 60, 2),
        }

    def _score_and_show(self, source, positions, label_only):
        """Scores the model on pictures; shows the figures as a table and a contact sheet.

        outcomes.jsonl is of the thresholds `label_only`, that were chosen without boxes. Objects
        that touch are cut apart at the model's own threshold alone, which is the same one but for
        `threshold_from=boxes`.
        """
        method = method_of(self.model)
        bar = progress.Progress(len(source if positions is None else positions), log=self.log)
        figures, predictions, accumulators = score(
            method, source, positions, metrics=("max_box_acc_v2",), progress=bar
        )
        if self.restore_folder():
            callbacks.save_model(self.model, self.path("model.keras"))
            write_curves(self.path("curves.png"), self.state.history, self.model.loss_weights)
        label_only = {**label_only, WHOLE: label_only[self.config.map]}
        lines = outcomes.outcome_lines(accumulators, label_only, source.classes)
        files.write(self.path(outcomes.LINES), lines)
        self.log(terminal.figures_table(figures))
        if source.report.skipped or source.report.noted:
            self.log(source.report.summary())
        self.tiles = contact_sheets.draw_tiles(method, source, predictions)
        title = contact_sheets.sheet_title(self.splits.place, "", self.splits.scored_on)
        contact_sheets.write_contact_sheet(self.path("contact_sheet.png"), self.tiles, title)
        return figures

    def path(self, name: str) -> str:
        """Returns the path of a file in the folder of the run."""
        return os.path.join(self.config.output_dir, name)
