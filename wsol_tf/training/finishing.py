"""The end of a run: it gets its thresholds and is scored, and its files are written."""

import os
import time
from typing import TYPE_CHECKING, Any

from wsol_tf import files, programs, progress
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.transforms import View
from wsol_tf.evaluation import outcomes
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.score import score
from wsol_tf.model import alignment
from wsol_tf.model.build import load_model
from wsol_tf.model.score_maps import WHOLE
from wsol_tf.report import contact_sheets, definitions, terminal
from wsol_tf.training import callbacks, checkpoints, folder, record, strategies, thresholds
from wsol_tf.training.ledger import write_curves

if TYPE_CHECKING:
    from wsol_tf.training.run import Run

ALIGN_IMAGES = 64  # training pictures that the place of the maps is measured on


def finish(run: "Run") -> dict[str, Any]:
    """Chooses the thresholds, stores them with the model, scores it and writes the run's files.

    Args:
        run: the run, which has been trained, on the worker that writes the files.

    Returns:
        What metrics.json holds.
    """
    run.restore_folder()
    _take_best_model(run)
    _align(run)
    rule, chosen = _choose_thresholds(run)
    figures, tiles = _score(run, rule, chosen)
    figures["definitions"] = definitions.definitions_of(figures)
    files.write_json(run.path("metrics.json"), figures)
    record.write_pages(run, figures, tiles)
    if not run.interrupted:
        checkpoints.clear(run.config.output_dir)
    written = [name for name in folder.FILES if os.path.exists(run.path(name))]
    run.log(f"Wrote {', '.join(written)} to {run.config.output_dir}.")
    return figures


def _take_best_model(run):
    """Saves the last model, or takes the best one, as a model of a single device."""
    config, state, path = run.config, run.state, run.path("model.keras")
    if state.best is None:
        with callbacks.averaged_weights(run.model):
            callbacks.save_model(run.model, path)
    else:
        epoch = state.best_epoch + 1
        run.log(f"Kept the model of epoch {epoch}, the best by its held-out {config.best_by}.")
    single = strategies.is_single_device(run.strategy)
    if not single or state.best is not None or config.ema:
        run.model = load_model(path)


def _align(run):
    """Measures where the localizer's positions are; what comes after reads its maps there."""
    if not run.config.align:
        return
    # Where there is no object, the brightest part of a map lies anywhere.
    usable = thresholds.with_object(run.source.labels, run.model.background_id)
    labels = [run.source.labels[i] for i in usable]
    positions = usable[thresholds.spread(labels, ALIGN_IMAGES)]
    view = View(run.model.input_size, run.model.resize_size)
    batches = evaluation_batches(run.source, positions, view)
    images = [example.image for batch in batches for example in batch]
    run.model.offset = alignment.measure(
        lambda batch: run.model.predict_on_batch(batch)["localization_map"].mean(-1), images
    )
    pixels = run.model.input_size / run.model.localizer.output.shape[1]
    down, right = (distance * pixels for distance in run.model.offset)
    sentence = (
        f"The localizer's maps lay {down:+.1f} pixels down and {right:+.1f} right of what they "
        "show; they are moved back by that."
    )
    if not any(run.model.offset):
        sentence = "The localizer's maps stay as they are: no offset was found, or no sure one."
    run.log(sentence)


def _choose_thresholds(run):
    """Stores thresholds with the model; returns the rule that gave them, and all rules'."""
    kind, rule = run.config.map, run.config.threshold_from
    chosen = thresholds.choose_by_rule(run.model, run.source, run.held, kind)
    if rule not in chosen.by_rule:
        rule = "maps"
        run.log("No held-out picture shows a box: the threshold is chosen from the maps.")
    run.log(f"Training pictures: {run.source.report.summary()}")
    run.model.thresholds = chosen.by_rule[rule]
    run.model.presence_threshold = chosen.presence
    callbacks.save_model(run.model, run.path("model.keras"))
    spread = ", without boxes; half of them suggest {:.2f} to {:.2f}".format(*chosen.quartiles[::2])
    run.log(
        f"Score-map threshold {chosen.by_rule[rule][kind]:.2f} for map '{kind}', chosen from "
        f"the {rule} of {chosen.num_images[rule]} training pictures"
        f"{spread if rule == 'maps' else ''}."
    )
    return rule, chosen


def _score(run, rule, chosen):
    """Scores the model; returns the figures, but for their definitions, and drawn pictures."""
    state, started = run.state, time.monotonic()
    scored = run.splits.scored
    optimistic = scored is None
    if optimistic:
        run.log(
            "The threshold was chosen on the same pictures that are scored now: the figures "
            "are optimistic."
        )
        scored = run.source
    positions = chosen.held if optimistic and len(chosen.held) else None
    figures, tiles = _score_and_show(run, scored, positions, chosen.by_rule["maps"])
    figures = {
        "interrupted": run.interrupted,
        "scored_on": run.splits.scored_on,
        "threshold_chosen_on_scored": optimistic,
        **figures,
        "epochs": len(state.history),
        "best_epoch": state.best_epoch + 1 if state.best is not None else None,
        "thresholds": chosen.by_rule[rule],
        "thresholds_from": rule,
        "presence_threshold": chosen.presence,
        "num_threshold_images": chosen.num_images[rule],
        "threshold_quartiles": chosen.quartiles,
        "map_offset": list(run.model.offset),
        "num_training_images": len(run.kept),
        "num_held_out_images": len(run.held),
        "skipped_in_training": dict(run.source.report.skipped),
        "warnings": [programs.shown(text) for text in state.warnings],
        **thresholds.compare_rules(chosen, run.config.map, figures),
        "minutes": round((state.seconds + time.monotonic() - started) / 60, 2),
    }
    return figures, tiles


def _score_and_show(run, source, positions, label_only):
    """Scores the model on pictures; shows the figures as a table and a contact sheet.

    outcomes.jsonl is of the thresholds `label_only`, that were chosen without boxes. Objects
    that touch are cut apart at the model's own threshold alone, which is the same one but for
    `threshold_from=boxes`.
    """
    method = method_of(run.model)
    bar = progress.Progress(len(source if positions is None else positions), log=run.log)
    figures, predictions, accumulators = score(
        method, source, positions, metrics=("max_box_acc_v2",), progress=bar
    )
    if run.restore_folder():
        callbacks.save_model(run.model, run.path("model.keras"))
        write_curves(run.path("curves.png"), run.state.history, run.model.loss_weights)
    label_only = {**label_only, WHOLE: label_only[run.config.map]}
    lines = outcomes.outcome_lines(accumulators, label_only, source.classes)
    files.write(run.path(outcomes.LINES), lines)
    run.log(terminal.figures_table(figures))
    if source.report.skipped or source.report.noted:
        run.log(source.report.summary())
    tiles = contact_sheets.draw_tiles(method, source, predictions)
    title = contact_sheets.sheet_title(run.splits.place, "", run.splits.scored_on)
    contact_sheets.write_contact_sheet(run.path("contact_sheet.png"), tiles, title)
    return figures, tiles
