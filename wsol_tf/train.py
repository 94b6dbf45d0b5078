"""Trains a model, chooses its score-map threshold and scores it.

    python -m wsol_tf.train --flagfile=configs/voc.flags --data_dir=D --output_dir=RUN

writes RUN/run.flags (repeats the run), model.keras, history.csv, curves.png, metrics.json,
contact_sheet.png and logs/ for TensorBoard. Ctrl-C ends training and still writes all of them.
"""

import contextlib
import csv
import json
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image

from wsol_tf import (
    callbacks,
    charts,
    datasets,
    definitions,
    losses,
    pipeline,
    programs,
    scoring,
    sources,
)
from wsol_tf import config as config_lib
from wsol_tf import model as model_lib


def train(config, log=print):
    """Runs a whole training as the command does.

    Args:
        config: a Config; output_dir must be set.
        log: function that takes lines of text for the user.

    Returns:
        (model, metrics): the trained model with its thresholds, and what metrics.json holds.

    Raises:
        ValueError: for data or settings that can't work, before anything is trained.
        FloatingPointError: when a loss is no finite number; the last whole epoch is kept.
    """
    programs.make_output_dir(config.output_dir)
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    source = load(config, config.split)
    log(describe(source))
    if source.report.skipped or source.report.noted:
        log(source.report.summary())
    if config.threshold_from == "boxes" and not source.has_boxes:
        raise ValueError(
            f"{source.name} has no boxes to choose the threshold from. Use --threshold_from=maps."
        )
    validation = _load_validation(config, source.classes, log)
    kept, held = datasets.holdout(source.labels, config.holdout, config.seed)
    batches = pipeline.training_batches(
        source,
        kept,
        input_size=config.input_size,
        resize_size=config.crop_from,
        batch_size=config.batch_size,
        seed=config.seed,
        cache=config.cache,
        cache_dir=config.output_dir,
    )
    steps = int(batches.cardinality())
    model, loaded = model_lib.build(config, source.classes)
    model_lib.compile_from(model, config, steps)
    log(f"Feature extractor {loaded}.")
    log(
        f"Training on {len(kept)} pictures, {steps} steps in each of {config.epochs} epochs; "
        f"{len(held)} pictures are held out to choose the threshold on."
    )

    path = {name: os.path.join(config.output_dir, name) for name in _FILES}
    with open(path["run.flags"], "w") as file:
        file.write(config_lib.to_flagfile(config))
    stop = callbacks.StopAtNaN()
    history = keras.callbacks.History()
    interrupted = False
    try:
        model.fit(
            batches,
            epochs=config.epochs,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                history,
                stop,
                callbacks.SaveEachEpoch(path["model.keras"]),
                callbacks.TensorBoardScalars(path["logs"]),
            ],
        )
    except KeyboardInterrupt:
        interrupted = True
        log("\nInterrupted: the run is finished with what was learned so far.")
    except tf.errors.InvalidArgumentError as error:
        if source.report.failure:
            raise sources.StopAtBadImage(source.report.failure) from error
        if len(source.report.skipped) < len(kept):
            raise
        raise ValueError(
            f"{source.name}: no picture can be read.\n{source.report.summary()}"
        ) from error
    _write_history(history.history, model.loss_weights, path)
    if not stop.sentence and not callbacks.finite(model):
        stop.sentence = callbacks.BROKEN
    if stop.sentence:
        raise FloatingPointError(stop.sentence)

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
        "interrupted": interrupted,
        "epochs": len(history.history.get("loss", [])),
        "thresholds": thresholds,
        "thresholds_from": rule,
        "num_training_images": len(kept),
        "num_threshold_images": len(held),
        "skipped_in_training": dict(source.report.skipped),
        "minutes": round((time.monotonic() - started) / 60, 2),
    }
    scored, positions = (validation, None) if validation else (source, held)
    name = config.val_split if validation else f"held-out part of {config.split}"
    if not validation:
        log("The threshold was chosen on the pictures that are scored now: read it as optimistic.")
    figures, _, _ = scoring.score_and_draw(
        scoring.method_of(model),
        scored,
        positions,
        sheet_path=path["contact_sheet.png"],
        title=scoring.sheet_title(config.dataset, config.data_dir, name),
        log=log,
    )
    metrics |= _compare_rules(by_rule, config.map, figures)
    metrics = {
        "scored_on": name,
        "threshold_chosen_on_scored": validation is None,
        **figures,
        **metrics,
    }
    metrics["definitions"] = definitions.of(metrics)
    with open(path["metrics.json"], "w") as file:
        json.dump(metrics, file, indent=2)
    log(f"Wrote {', '.join(_FILES)} to {config.output_dir}.")
    return model, metrics


_FILES = (
    "run.flags",
    "model.keras",
    "history.csv",
    "curves.png",
    "metrics.json",
    "contact_sheet.png",
    "logs",
)


def load(config, split, classes=None):
    """Opens a split of the run's data set; of drawn pictures, a third as many to score on."""
    num_examples = config.num_examples
    if split != config.split:
        num_examples = -(-num_examples // 3)
    return datasets.load(
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


def describe(source):
    """One sentence on a data set: pictures and classes, with the rarest and the most frequent."""
    counts = np.bincount(np.concatenate(source.labels), minlength=len(source.classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    return (
        f"{source.name}: {len(source)} pictures, {len(source.classes)} classes, from "
        f"{counts[low]} ({source.classes[low]}) to {counts[high]} ({source.classes[high]}) each."
    )


def _load_validation(config, classes, log):
    """The split that is scored after training, or None where there is none."""
    if not config.val_split:
        return None
    try:
        return load(config, config.val_split, classes)
    except sources.StopAtBadImage:
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
    kinds = list(dict.fromkeys([kind, *model_lib.MAPS]))
    window = scoring.View(model.input_size, model.resize_size)
    for positions in (held, kept):
        scored = scoring.pairs(
            model.predict_on_batch, source, positions, kinds=kinds, view=window, top_k=model.top_k
        )
        accumulators = scoring.accumulate(scored, kinds)
        if len(accumulators[kind]):
            break
    by_rule = {"maps": scoring.choose_thresholds(accumulators, "maps")}
    with contextlib.suppress(ValueError):  # no boxes
        by_rule["boxes"] = scoring.choose_thresholds(accumulators, "boxes")
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


def _write_history(history, weights, path):
    with open(path["history.csv"], "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        for epoch, values in enumerate(zip(*history.values(), strict=True)):
            writer.writerow([epoch, *values])
    shown = {name: weights[name] for name in losses.TERMS}
    Image.fromarray(charts.curves(history, shown)).save(path["curves.png"])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        _, metrics = train(config_lib.from_flags())
    if metrics["interrupted"]:
        sys.exit(programs.INTERRUPTED)


if __name__ == "__main__":
    config_lib.define_flags()
    flags.adopt_module_key_flags(config_lib)
    app.run(main)
