"""Makes the report of a study: its table, curves, and the same photographs under each row."""

import dataclasses
import datetime
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsol_tf import files
from wsol_tf.report import pictures, study_page
from wsol_tf.studies import results as results_
from wsol_tf.studies.choice import choice_of
from wsol_tf.studies.grid import row_config
from wsol_tf.studies.record import Record, without_folders, write_record
from wsol_tf.studies.results import Finished, Result
from wsol_tf.studies.trials import Trial

if TYPE_CHECKING:
    from wsol_tf.studies.run import Plan

SHOWN = 6  # photographs
MOST_ROWS = 12  # rows that have their photographs drawn
FOLDER = "pictures"  # where drawn photographs are kept
SIDE = 220
RECORD = "study.json"


def write_reports(
    plan: "Plan",
    planned: Sequence[Trial],
    earlier: Sequence[Trial],
    failed: Sequence[str],
    log: Callable[[str], None],
) -> None:
    """Writes table.md, report.html and study.json of all that is finished in a study's folder.

    Args:
        plan: the study.
        planned: its trials in their order.
        earlier: those of earlier grids in the folder, which come after them.
        failed: names of trials that failed.
        log: function that takes lines of text.
    """
    trials = [*planned, *_as_it_is_first(plan, earlier)]
    finished = results_.read_finished(trials)
    if not finished:
        log("No trial is finished, so there is nothing to report yet.")
        return
    results = results_.results_of(trials, finished)
    definition = plan.definition
    choice = choice_of(finished)
    warnings = _warnings(results, finished, failed)
    title = definition.title or f"Study {os.path.basename(os.path.normpath(plan.output_dir))}"
    scored_on = finished[0].figures["scored_on"] if not definition.folds else ""
    study_page.write_study(
        plan.output_dir,
        results,
        title=title,
        question=definition.question,
        command=plan.command,
        folds=definition.folds,
        scored_on=scored_on,
        choice=choice,
        curves=curves_of(plan.base, results),
        photographs=photographs_of(plan.output_dir, results, finished, log),
        warnings=warnings,
    )
    notes = (study_page.choice_sentence(choice, results), *warnings)
    record = _record_of(plan, results, title=title, scored_on=scored_on, notes=notes)
    write_record(os.path.join(plan.output_dir, RECORD), record)
    log(study_page.text_table(results))
    log(f"Wrote table.md, report.html and {RECORD} to {plan.output_dir}.")


def _record_of(plan, results, *, title, scored_on, notes):
    config = row_config(plan.base, {})
    is_varied = any("width" in result.row.settings for result in results)
    return Record(
        title=title,
        question=plan.definition.question,
        data=os.path.basename(os.path.normpath(config.data_dir or config.dataset)),
        width=None if is_varied else config.width,
        folds=plan.definition.folds,
        scored_on=scored_on,
        command=without_folders(plan.command),
        date=f"{datetime.date.today()}",
        version=plan.version,
        notes=tuple(note for note in notes if note),
        results=tuple(results),
    )


def _as_it_is_first(plan, trials):
    """Of trials that no grid orders: first the rows that change nothing, then by name."""
    base = row_config(plan.base, {})
    changes = {
        trial.row.label: row_config(plan.base, trial.row.settings) != base for trial in trials
    }
    return sorted(trials, key=lambda trial: changes[trial.row.label])


def _warnings(results, finished, failed):
    found = [f"Trial {name} failed; its output.txt says why." for name in failed]
    found += [
        f"Row {result.row.label}: {result.finished} of {result.number} trials are finished."
        for result in results
        if result.finished < result.number
    ]
    if any(each.figures["threshold_chosen_on_scored"] for each in finished):
        found.append(
            "The pictures that are scored are the held-out ones that the threshold was chosen on, "
            "and other ones for each seed: name a split to score, or use folds."
        )
    skipped = {name for each in finished for name in each.figures["skipped"]}
    if skipped:
        found.append(f"{len(skipped)} pictures could not be read and are not counted.")
    return found


def curves_of(
    base: Sequence[str], results: Sequence[Result]
) -> dict[str, dict[str, list[tuple[float, float, float, float]]]]:
    """Makes the curves over each setting that the grid varies and that is a number.

    Args:
        base: arguments that all trials have.
        results: the rows.

    Returns:
        dict setting -> dict of the other varied settings, in words -> list of (value, GT-known Loc,
        low, high), rising.
    """
    curves: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    for result in results:
        figure = result.figures.get(results_.MAIN)
        if figure is None or figure.low is None or figure.high is None:
            continue
        config = row_config(base, result.row.settings)
        for name in result.row.varied:
            value = getattr(config, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            others = [p for p in result.row.label.split(",") if not p.startswith(f"{name}=")]
            line = curves.setdefault(name, {}).setdefault(",".join(others), [])
            line.append((value, figure.mean, figure.low, figure.high))
    curves = {
        name: {label: sorted(line) for label, line in lines.items() if len(line) > 1}
        for name, lines in curves.items()
    }
    return {name: lines for name, lines in curves.items() if lines}


# --- photographs ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One photograph under one row: a drawn tile and what it says below it."""

    tile: np.ndarray
    caption: str


def photographs_of(
    study_dir: str,
    results: Sequence[Result],
    finished: Sequence[Finished],
    log: Callable[[str], None],
) -> dict[str, list[Photograph]]:
    """Draws the same photographs as each row's model of one fold and seed sees them.

    They are from those that the first row's model scored, from its best to its worst. Each is drawn
    once and kept in STUDY/pictures. Rows of the same models, such as "..., not refined", have none,
    and neither have those after the first MOST_ROWS.

    Args:
        study_dir: folder of the study.
        results: the rows.
        finished: the trials.
        log: function that takes lines of text.

    Returns:
        dict label of the row -> its photographs.
    """
    first = finished[0]
    lines = {results_.key_of(line): line for line in first.lines}
    kind = first.figures["map"]
    ranked = sorted(lines, key=lambda key: (-(lines[key]["iou"].get(kind) or 0), key))
    chosen = [
        ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, SHOWN).round().astype(int))
    ]
    drawn: dict[str, list[Photograph]] = {}
    for result in results:
        own = next(
            (
                each
                for each in finished
                if each.trial.row.label == result.row.label
                and (each.trial.seed, each.trial.fold) == (first.trial.seed, first.trial.fold)
            ),
            None,
        )
        if own is not None and len(drawn) < MOST_ROWS:
            drawn[result.row.label] = _photographs(study_dir, own, chosen, log)
    return drawn


def _photographs(study_dir, finished, keys, log):
    """The tiles of one trial, drawn now or before."""
    lines = {results_.key_of(line): line for line in finished.lines}
    keys = [key for key in keys if key in lines]
    folder = os.path.join(study_dir, FOLDER)
    os.makedirs(folder, exist_ok=True)
    paths = {
        key: os.path.join(
            folder, f"{finished.trial.name}-{zlib.crc32('/'.join(key).encode()):08x}.png"
        )
        for key in keys
    }
    if not all(os.path.isfile(path) for path in paths.values()):
        log(f"Drawing photographs of {finished.trial.name}.")
        for key, tile in _draw(finished, keys).items():
            files.write(paths[key], pictures.as_png(tile))
    found = []
    for key, path in paths.items():
        iou = lines[key]["iou"].get(finished.figures["map"])
        said = "" if iou is None else f", IoU {np.floor(iou * 100 + 1e-9) / 100:.2f}"
        if os.path.isfile(path):
            with Image.open(path) as tile:
                found.append(Photograph(np.asarray(tile), f"{key[1]}{said}"))
    return found


def _draw(finished: Finished, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Any]:
    """Localizes pictures with the model of a trial, at its threshold without boxes."""
    # Here, because TensorFlow takes a while, and a study that is drawn already needs none.
    import keras

    from wsol_tf.evaluation.localized_map import LocalizedMap, measured_thresholds
    from wsol_tf.evaluation.methods import method_of
    from wsol_tf.model.build import load_model
    from wsol_tf.training.splits import open_split

    trial, threshold = finished.trial, finished.figures["threshold_by_maps"]
    model = load_model(os.path.join(trial.path, "model.keras"), to_train=False)
    method = method_of(model, threshold=threshold)
    config, kind = trial.config, method.kinds[0]
    split = config.split if finished.figures["threshold_chosen_on_scored"] else config.val_split
    source = open_split(config, split, model.classes)
    wanted = {image_id for image_id, _ in keys}
    positions = [i for i, name in enumerate(source.image_ids) if name in wanted]
    tiles = {}
    for pair in method.pairs(source, positions, kinds=[kind], batch_size=SHOWN):
        found = LocalizedMap(
            pair, kind, threshold, measured_thresholds([threshold]),
            separate=kind in method.separated_kinds,
        )  # fmt: skip
        boxes = () if pair.boxes is None else pair.boxes
        key = pair.image_id, source.classes[pair.label]
        if key in keys:
            tiles[key] = pictures.overlay(
                pair.image, found.score_map, found.mask, found.box, true_boxes=boxes, side=SIDE
            )
    keras.backend.clear_session()
    return tiles
