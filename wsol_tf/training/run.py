"""One run: opens the data, builds the model, trains it, chooses the threshold and scores it."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time
import zlib

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from wsol_tf import files, programs
from wsol_tf.config import MAPS
from wsol_tf.data import transforms
from wsol_tf.data.batches import training_batches
from wsol_tf.data.cache import cached_reader
from wsol_tf.data.registry import holdout, open_dataset
from wsol_tf.data.source import StopAtBadImage
from wsol_tf.data.stream import TrainingStream
from wsol_tf.evaluation.pairs import method_of, predict_pairs
from wsol_tf.evaluation.score import accumulate, choose_thresholds, score
from wsol_tf.model import losses
from wsol_tf.model.build import build_model, load_model
from wsol_tf.report import charts, contact_sheets, definitions, terminal
from wsol_tf.training import callbacks, checkpoints, loop, strategies, validation
from wsol_tf.training.ledger import Ledger
from wsol_tf.training.watch import StopAtNaN, Watch


def train(config, log=print):
    """Runs a whole training as the command does, or the rest of one that was interrupted.

    Args:
        config: a Config; output_dir must be set. Of several workers each calls this with the same.
        log: function that takes lines of text for the user.

    Returns:
        (model, metrics): the trained model with its thresholds, and what metrics.json holds;
        metrics is None on workers other than the first.

    Raises:
        ValueError: for data or settings that can't work, before anything is trained, and for a
            folder that another run wrote or is writing to.
        FloatingPointError: when a loss is no finite number; the last good state is kept.
        programs.Preempted: after SIGTERM, or when another worker is gone; the run is saved.
    """
    strategy = strategies.make(config.strategy)
    chief = strategies.is_chief(strategy)
    log = log if chief else _say_nothing
    path = {name: os.path.join(config.output_dir, name) for name in _FILES}
    programs.make_output_dir(config.output_dir)
    with checkpoints.lock(config.output_dir, log) if chief else contextlib.nullcontext():
        saved = None
        if config.resume:
            metrics = _finished(config, path)
            if metrics:
                log(
                    f"The run in '{config.output_dir}' is finished; nothing is left to do. Name "
                    "another --output_dir, or pass --resume=false to train anew in this one."
                )
                return load_model(path["model.keras"]), metrics
            saved = checkpoints.newest(config.output_dir, log)
        elif chief:
            _clear(config.output_dir, path)
        try:
            return _train(config, strategy, saved, path, log)
        except _LOST as error:
            if not strategies.is_multi_worker(strategy):
                raise
            raise programs.Preempted(
                f"Lost another worker ({type(error).__name__}). Start all workers "
                "again: they go on from the last checkpoint."
            ) from error


def _train(config, strategy, saved, path, log):
    chief = strategies.is_chief(strategy)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    source = open_split(config, config.split)
    log(summary_of(source))
    if source.report.skipped or source.report.noted:
        log(source.report.summary())
    if config.threshold_from == "boxes" and not source.has_boxes:
        raise ValueError(
            f"{source.name} has no boxes to choose the threshold from. Use --threshold_from=maps."
        )
    scored = _load_scored(config, source.classes, log) if chief else None
    kept, held = holdout(source.labels, config.holdout, config.seed)
    stream = TrainingStream(
        source,
        kept,
        batch_size=config.batch_size,
        input_size=config.input_size,
        resize_size=config.crop_from,
        seed=config.seed,
        read=cached_reader(source, kept, config.crop_from, config.cache, config.output_dir),
    )
    steps_per_epoch = stream.num_samples / config.batch_size
    parts = config.gradient_accumulation
    state = loop.State(data=_digest(source, kept))
    if saved:
        state = _restored_state(saved[1], state.data, config)
        source.report.skipped.update(state.skipped)

    def batches_of(context):
        return training_batches(
            stream,
            epochs=config.epochs,
            start=state.step,
            parts=parts,
            replicas=strategy.num_replicas_in_sync,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    batches = strategy.distribute_datasets_from_function(batches_of)
    with strategies.scope(strategy):
        model = build_model(config, source.classes, steps_per_epoch)
        model.optimizer.build(model.trainable_variables)
    if saved:
        _restore(model, saved[0])
    agree = strategies.agreement(strategy)
    if agree([state.step]) != [state.step]:
        raise ValueError(
            f"The workers see different checkpoints (this one is at step {state.step}): "
            "--output_dir must be one folder that all of them share."
        )
    log(
        f"Resumed at step {state.step}." if saved else f"Feature extractor {model.loaded_weights}."
    )
    log(
        f"Training on {len(kept)} pictures with {strategies.describe(strategy)}, "
        f"{model.total_steps} steps in {config.epochs} epochs; "
        f"{len(held)} pictures are held out to choose the threshold on."
    )
    if chief:
        files.write(path["run.flags"], programs.to_flagfile(config))

    stop = StopAtNaN(state)
    shown = _callbacks(config, model, source, kept, held, state, path, log) if chief else []

    def save():
        if chief and not stop.sentence:
            state.skipped = dict(source.report.skipped)
            _save(model, state, config, log)

    interrupted = False
    with loop.signals() as signals:
        try:
            ended = loop.run(
                model,
                iter(batches),
                strategy,
                state=state,
                epochs=config.epochs,
                steps_per_epoch=steps_per_epoch,
                callbacks=[stop, *shown],
                steps_per_execution=config.steps_per_execution,
                parts=parts,
                stops=signals,
                save=save,
                save_every_steps=config.checkpoint_every_steps,
                save_every_minutes=config.checkpoint_every_minutes,
            )
        except KeyboardInterrupt:
            ended = {signal.SIGINT}
        except tf.errors.InvalidArgumentError as error:
            if source.report.failure:
                raise StopAtBadImage(source.report.failure) from error
            if len(source.report.skipped) < len(kept):
                raise
            raise ValueError(
                f"{source.name}: no picture can be read.\n{source.report.summary()}"
            ) from error
    if signal.SIGTERM in ended:
        raise programs.Preempted(
            f"Ended by SIGTERM at step {state.step} of {model.total_steps}. The run is saved: the "
            "same command goes on from here."
        )
    if signal.SIGINT in ended:
        interrupted = True
        log("\nInterrupted: the run is finished with what was learned so far.")
    if not stop.sentence and not callbacks.finite(model):
        stop.sentence = callbacks.BROKEN
    if chief:
        _write_curves(state.history, model.loss_weights, path["curves.png"])
    if stop.sentence:
        raise FloatingPointError(stop.sentence)
    metrics = None
    if chief:
        if state.best is None:
            with callbacks.averaged(model):
                callbacks.save(model, path["model.keras"])
        else:
            log(f"The model of epoch {state.best_epoch + 1} is kept, the best by {config.best_by}.")
        if strategies.describe(strategy) != "one device" or state.best is not None or config.ema:
            # From here on the model is one of a single device, whatever it was trained on.
            model = load_model(path["model.keras"])
        metrics = _finish(config, model, state, source, scored, held, kept, path, log)
        metrics = {"interrupted": interrupted, **metrics}
        metrics["definitions"] = definitions.definitions_of(metrics)
        files.write_json(path["metrics.json"], metrics)
        if not interrupted:
            checkpoints.clear(config.output_dir)
        log(f"Wrote {', '.join(_FILES)} to {config.output_dir}.")
    agree([0.0])  # the others wait here, for the first worker serves them
    return model, metrics


def _callbacks(config, model, source, kept, held, state, path, log):
    """What a run tells and keeps; the order matters: each adds to what the next ones write."""
    called = []
    if config.validate_every and len(held):
        chosen = np.linspace(0, len(held) - 1, min(len(held), config.validation_images))
        called.append(
            validation.Validation(
                source,
                held[np.round(chosen).astype(int)],
                state,
                view=transforms.View(model.input_size, model.resize_size),
                kind=config.map,
                rule=config.threshold_from,
                every=config.validate_every,
                picture_dir=path["validation"],
                log_dir=path["logs"],
                log=log,
            )
        )
    elif config.best_by != "last":
        raise ValueError(
            f"--best_by={config.best_by} needs held-out pictures, and there are none: raise "
            "--holdout."
        )
    if config.best_by == "gt_known" and not source.has_boxes:
        raise ValueError(
            f"--best_by=gt_known needs boxes, and {source.name} has none: take --best_by=loss."
        )
    counts = np.bincount(np.concatenate([source.labels[i] for i in kept]))
    return [
        *called,
        callbacks.KeepModel(
            path["model.keras"], state, best_by=config.best_by, patience=config.patience, log=log
        ),
        Ledger(
            state,
            log,
            csv_path=path["history.csv"],
            log_dir=path["logs"],
            epochs=config.epochs,
            total_steps=model.total_steps,
            batch_size=config.batch_size,
        ),
        Watch(
            state,
            log,
            steps=max(20, model.total_steps // 50),
            chance=counts.max() / counts.sum(),
        ),
    ]


def _finish(config, model, state, source, scored, held, kept, path, log):
    """Chooses the thresholds, stores them with the model, scores it; returns the metrics."""
    by_rule, held = _choose_thresholds(model, source, held, kept, config.map)
    rule = config.threshold_from
    if rule not in by_rule:
        rule = "maps"
        log("No held-out picture shows a box: the threshold is chosen from the maps instead.")
    thresholds = by_rule[rule]
    log(f"Training pictures: {source.report.summary()}")
    model.thresholds = thresholds
    callbacks.save(model, path["model.keras"])
    log(
        f"Score-map threshold {thresholds[config.map]:.2f} for map '{config.map}', chosen "
        f"from the {rule} of {len(held)} training pictures"
        f"{'.' if rule == 'boxes' else ', without boxes.'}"
    )
    metrics = {
        "epochs": len(state.history),
        "best_epoch": state.best_epoch + 1 if state.best is not None else None,
        "thresholds": thresholds,
        "thresholds_from": rule,
        "num_training_images": len(kept),
        "num_threshold_images": len(held),
        "skipped_in_training": dict(source.report.skipped),
    }
    started = time.monotonic()
    name, positions = config.val_split, None
    optimistic = scored is None
    if optimistic:
        scored, name, positions = source, f"held-out part of {config.split}", held
        log("The threshold was chosen on the pictures that are scored now: read it as optimistic.")
    method = method_of(model)
    count = len(scored if positions is None else positions)
    progress = terminal.progress_bar(count)
    figures, predictions = score(method, scored, positions, progress=progress)
    log(terminal.figures_table(figures))
    if scored.report.skipped or scored.report.noted:
        log(scored.report.summary())
    contact_sheets.write_contact_sheet(
        path["contact_sheet.png"],
        contact_sheets.draw_tiles(method, scored, predictions),
        contact_sheets.sheet_title(config.dataset, config.data_dir, name),
    )
    metrics |= _compare_rules(by_rule, config.map, figures)
    return {
        "scored_on": name,
        "threshold_chosen_on_scored": optimistic,
        **figures,
        **metrics,
        "minutes": round((state.seconds + time.monotonic() - started) / 60, 2),
    }


_FILES = (
    "run.flags",
    "model.keras",
    "history.csv",
    "curves.png",
    "metrics.json",
    "contact_sheet.png",
    "logs",
    "validation",
)
# What TensorFlow raises when a worker that it talked to is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def _say_nothing(text):
    pass


def _finished(config, path):
    """Metrics of the finished run in a folder, or None; refuses what another run wrote."""
    metrics = None
    if os.path.isfile(path["metrics.json"]) and os.path.isfile(path["model.keras"]):
        with open(path["metrics.json"]) as file:
            metrics = json.load(file)
    saved = checkpoints.paths(config.output_dir)
    if not os.path.isfile(path["run.flags"]) or not (metrics or saved):
        return None
    different = programs.differences(config, path["run.flags"])
    if different:
        raise ValueError(
            f"'{config.output_dir}' holds a run with other settings: {'; '.join(different)}. To go "
            f"on with it, take its own: --flagfile={path['run.flags']}. Otherwise name another "
            "--output_dir, or pass --resume=false to replace it."
        )
    # Where metrics.json is that of a later evaluation, checkpoints tell of a run that goes on.
    return None if metrics is None or metrics.get("interrupted", bool(saved)) else metrics


def _clear(output_dir, path):
    """Removes what an older run left in a folder, and nothing where there was none."""
    if not os.path.isfile(path["run.flags"]):
        return
    checkpoints.clear(output_dir)
    for name in path.values():
        if os.path.isdir(name):
            shutil.rmtree(name)
        elif os.path.exists(name):
            os.remove(name)


def _digest(source, kept):
    """A number that changes with the pictures that are trained on, and their labels."""
    text = [f"{source.image_ids[i]} {source.labels[i].tolist()}" for i in kept]
    return zlib.crc32("\n".join([*source.classes, *text]).encode())


def _restored_state(saved, data, config):
    state = loop.State(**saved)
    if state.data != data:
        raise ValueError(
            f"The run in '{config.output_dir}' began with other pictures or labels than are in "
            f"'{config.data_dir or config.dataset}' now. Bring those back, or pass --resume=false "
            "to start anew."
        )
    return state


def _restore(model, arrays):
    variables = loop.variables(model)
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [array.shape for array in arrays]:
        raise ValueError(
            f"The checkpoint holds {len(arrays)} variables of another model than this one with "
            f"{len(shapes)}. Was it written by another version? Pass --resume=false to start anew."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _save(model, state, config, log):
    """Writes a checkpoint; one that can't be written is reported, and the run goes on."""
    arrays = [variable.numpy() for variable in loop.variables(model)]
    if not all(np.isfinite(array).all() for array in arrays):
        return
    with callbacks.going_on(log, f"checkpoint at step {state.step}", config.output_dir):
        checkpoints.write(
            config.output_dir, arrays, dataclasses.asdict(state), config.keep_checkpoints
        )


def open_split(config, split, classes=None):
    """Opens a split of the run's data set; of drawn pictures, a third as many to score on."""
    num_examples = config.num_examples
    if split != config.split:
        num_examples = -(-num_examples // 3)
    return open_dataset(
        config.dataset,
        config.data_dir,
        split,
        classes=classes,
        seed=config.seed,
        image_size=config.crop_from,
        num_examples=num_examples or None,
        download=config.download,
        single_class=config.single_class,
        on_bad_image=config.on_bad_image,
    )


def summary_of(source):
    """One sentence on a data set: pictures and classes, with the rarest and the most frequent."""
    counts = np.bincount(np.concatenate(source.labels), minlength=len(source.classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    each = f"{counts[low]} each"
    if counts[low] < counts[high]:
        each = (
            f"from {counts[low]} ({source.classes[low]}) to {counts[high]} ({source.classes[high]})"
        )
    return f"{source.name}: {len(source)} pictures, {len(source.classes)} classes, {each}."


def _load_scored(config, classes, log):
    """The split that is scored after training, or None where there is none."""
    if not config.val_split:
        return None
    try:
        return open_split(config, config.val_split, classes)
    except StopAtBadImage:
        raise
    except ValueError as error:
        log(f"No split '{config.val_split}' to score on ({error}) The held-out part is scored.")
        return None


def _choose_thresholds(model, source, held, kept, kind):
    """Thresholds for every kind of map, from training pictures that were not trained on.

    Where none was held out, or none of those can be read, the pictures that were trained on serve.

    Returns:
        (dict rule -> thresholds, positions): see `scoring.choose_thresholds`, and what was used.
        The rule "boxes" is there where the pictures have boxes, for comparison at least.
    """
    kinds = list(dict.fromkeys([kind, *MAPS]))
    window = transforms.View(model.input_size, model.resize_size)
    for positions in (held, kept):
        scored = predict_pairs(
            model.predict_on_batch, source, positions, kinds=kinds, view=window, top_k=model.top_k
        )
        accumulators = accumulate(scored, kinds)
        if len(accumulators[kind]):
            break
    by_rule = {"maps": choose_thresholds(accumulators, "maps")}
    with contextlib.suppress(ValueError):  # no boxes
        by_rule["boxes"] = choose_thresholds(accumulators, "boxes")
    return by_rule, positions


def _compare_rules(by_rule, kind, figures):
    """The threshold of each rule for one kind of map, and the GT-known Loc at it."""
    curves = figures["threshold_curves"] or {}
    reached = dict(
        zip(
            curves.get("score_map_thresholds", ()),
            curves.get("gt_known_loc_iou_50", ()),
            strict=True,
        )
    )
    compared = {}
    for rule, thresholds in by_rule.items():
        compared[f"threshold_by_{rule}"] = thresholds[kind]
        compared[f"gt_known_loc_by_{rule}"] = reached.get(thresholds[kind])
    return compared


def _write_curves(history, weights, path):
    shown = {"loss": "loss", **{name: name for name in losses.TERMS}, "top1_cls": "top1_cls",
             "held_loss": "val_loss", "held_top1_cls": "val_top1_cls",
             "held_gt_known": "val_gt_known"}  # fmt: skip
    columns = {new: [row.get(name, np.nan) for row in history] for name, new in shown.items()}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    terms = {name: weights[name] for name in losses.TERMS}
    Image.fromarray(charts.training_curves(columns, terms)).save(path)
