"""What the trials of a study say together: figures pooled over folds, and paired differences."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.evaluation import certainty, paired
from wsol_tf.evaluation.localized_map import LOCALIZED
from wsol_tf.evaluation.paired import Difference, difference_of
from wsol_tf.evaluation.scored_pair import CENTERED_AREAS
from wsol_tf.model.score_maps import PLAIN, WHOLE
from wsol_tf.studies import trials as trials_
from wsol_tf.studies.grid import Row
from wsol_tf.studies.trials import Trial

MAIN = "gt_known_loc"
OUTCOMES = ("iou", "mask_iou", "cam_iou", "top1_cls")  # what is known of a picture
OF_PICTURES = ("gt_known_loc", "miou_box", "miou_mask", "top1_loc", "top1_cls", "cam")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a row.

    Attributes:
        mean: over all pictures and seeds.
        spread: standard deviation between the seeds; None with one seed.
        low, high: ends of the 95 % interval, for other pictures; None where none is computed.
    """

    mean: float
    spread: float | None = None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Pooled:
    """The outcomes of a row's trials, each picture with a class in it being a column.

    Attributes:
        seeds: the seeds.
        values: name -> `[seeds, pairs]`, NaN where it is missing: those of OF_PICTURES.
        centered: IoUs of the centred boxes, `[pairs, areas]`, NaN where there is no box.
    """

    seeds: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    centered: np.ndarray


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        row: its settings.
        finished, number: how many of its trials are finished, and how many it has.
        seeds: those with a finished trial.
        num_images, num_pairs: what was scored.
        minutes: of a trial, on the average.
        figures: name -> Figure; what can't be said is left out.
        differences: name -> Difference to the first row; empty for that one itself.
        baselines: name -> by how much GT-known Loc is above that of what needs no localizer, on the
            same pictures: "cam" of the same networks, and "centred_box", the best one of them all.
    """

    row: Row
    finished: int
    number: int
    seeds: tuple[int, ...]
    num_images: int
    num_pairs: int
    minutes: float
    figures: Mapping[str, Figure]
    differences: Mapping[str, Difference]
    baselines: Mapping[str, Difference] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished trial with its figures, as metrics.json has them, and its outcomes."""

    trial: Trial
    figures: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]


def read_finished(trials: Sequence[Trial]) -> list[Finished]:
    """Reads the trials that are finished.

    Raises:
        ValueError: a trial's folder holds a run with other settings.
    """
    found = []
    for trial in trials:
        figures = trials_.figures_of(trial)
        if figures is not None:
            found.append(Finished(trial, figures, trials_.outcomes_of(trial)))
    return found


def results_of(trials: Sequence[Trial], finished: Sequence[Finished]) -> list[Result]:
    """Computes the table: a Result for each row with a finished trial, in the order of the trials.

    Trials that refined their maps (`refine=guided`) make a second one, of the same maps before, and
    those that cut objects that touch apart (`separate=true`) one of the components as they are.

    Args:
        trials: all trials of the study.
        finished: those that are finished.
    """
    keys = sorted({key_of(line) for each in finished for line in each.lines})
    images = np.array([image_id for image_id, _ in keys])
    rows: dict[str, list[Trial]] = {}
    for trial in trials:
        rows.setdefault(trial.row.label, []).append(trial)
    results: list[Result] = []
    first = None
    for label, members in rows.items():
        own = [each for each in finished if each.trial.row.label == label]
        for row, kind in _ways_to_read(members[0].row, own):
            pooled = pool(own, keys, kind)
            if first is None and members is next(iter(rows.values())):
                first = pooled
            results.append(_result_of(row, own, len(members), pooled, first, images, kind))
    return results


def _ways_to_read(row, finished):
    """(row, kind of map) for each table row that a row's trials make; kind "": the scored one."""
    if not finished:
        return []
    ways = [(row, "")]
    for kind, what in ((WHOLE, "not separated"), (PLAIN, "not refined")):
        if any(kind in line["iou"] for each in finished for line in each.lines):
            ways.append((dataclasses.replace(row, label=f"{row.label}, {what}"), kind))
    return ways


def _result_of(row, finished, number, pooled, first, images, kind):
    minutes = float(np.mean([each.figures["minutes"] for each in finished]))
    result = make_result(row, pooled, first, images, len(finished), number, minutes)
    further = {} if kind else _fold_figures(finished)
    return dataclasses.replace(result, figures={**result.figures, **further})


def make_result(
    row: Row,
    pooled: Pooled,
    first: Pooled | None,
    images: np.ndarray,
    finished: int,
    number: int,
    minutes: float,
) -> Result:
    """Computes one row of the table.

    Args:
        row: its settings.
        pooled: its outcomes.
        first: those of the first row; None, or the same object, for that one itself.
        images: `[pairs]`, the picture of each column.
        finished: how many of its trials are finished.
        number: how many trials it has.
        minutes: of a trial, on the average.
    """
    is_scored = ~np.isnan([pooled.values[name] for name in OF_PICTURES]).all((0, 1))
    differences = {}
    if first is not None and first is not pooled:
        compared = {name: compare(first, pooled, name, images) for name in OF_PICTURES}
        differences = {name: found for name, found in compared.items() if found is not None}
    return Result(
        row=row,
        finished=finished,
        number=number,
        seeds=pooled.seeds,
        num_images=len(set(images[is_scored])),
        num_pairs=int(is_scored.sum()),
        minutes=minutes,
        figures=figures_of(pooled, images),
        differences=differences,
        baselines=above_baselines(pooled, images),
    )


def key_of(line: Mapping[str, Any]) -> tuple[str, str]:
    """What tells the lines of outcomes.jsonl apart: picture and class."""
    return line["image_id"], line["class"]


def pool(finished: Sequence[Finished], keys: Sequence[tuple[str, str]], kind: str = "") -> Pooled:
    """Puts the outcomes of a row's folds and seeds together.

    Args:
        finished: the row's trials.
        keys: (image id, class) of each column.
        kind: the kind of map that is read; '': the one that was scored.
    """
    seeds = tuple(sorted({each.trial.seed for each in finished}))
    place = {key: i for i, key in enumerate(keys)}
    outcomes = {name: np.full((len(seeds), len(keys)), np.nan) for name in OUTCOMES}
    centered = np.full((len(keys), len(CENTERED_AREAS)), np.nan)
    for each in finished:
        seed, read = seeds.index(each.trial.seed), kind or each.figures["map"]
        for line in each.lines:
            column, rank = place[key_of(line)], line["class_rank"]
            found = (
                line["iou"].get(read),
                line["mask_iou"].get(read),
                line["iou"].get("cam"),
                None if rank is None else rank == 0,
            )
            for name, value in zip(OUTCOMES, found, strict=True):
                outcomes[name][seed, column] = np.nan if value is None else value
            if line["centered_ious"] is not None:
                centered[column] = line["centered_ious"]
    return pooled_of(seeds, centered, **outcomes)


def pooled_of(
    seeds: tuple[int, ...],
    centered: np.ndarray,
    iou: np.ndarray,
    mask_iou: np.ndarray,
    cam_iou: np.ndarray,
    top1_cls: np.ndarray,
) -> Pooled:
    """Makes the outcomes of a row from IoUs; all arrays are `[seeds, pairs]`, NaN: missing.

    Args:
        seeds: the seeds.
        centered: see `Pooled`.
        iou: of the box and a true one.
        mask_iou: of the mask and the true one.
        cam_iou: of the box of the classifier's CAM.
        top1_cls: 1 where the predicted class is right, else 0.
    """
    hit, cam = (np.where(np.isnan(x), np.nan, x >= LOCALIZED) for x in (iou, cam_iou))
    values = (hit, iou, mask_iou, hit * top1_cls, top1_cls, cam)
    return Pooled(seeds, dict(zip(OF_PICTURES, values, strict=True)), centered)


def figures_of(pooled: Pooled, images: np.ndarray) -> dict[str, Figure]:
    """Computes the figures of a row over all its pictures; what can't be said is left out."""
    found = {}
    for name in OF_PICTURES:
        values = pooled.values[name]
        mean, low, high = paired.bootstrap_mean(values, images)
        if not np.isnan(mean):
            found[name] = Figure(mean, spread_of(values), low, high)
    centred = certainty.hits_of_best_centered_box(pooled.centered)
    if not np.isnan(centred).all():
        found["centred_box"] = Figure(float(np.nanmean(centred)))
    return found


def above_baselines(pooled: Pooled, images: np.ndarray) -> dict[str, Difference]:
    """Computes by how much GT-known Loc is above the baselines', see `Result.baselines`."""
    hits = pooled.values[MAIN]
    centred = certainty.hits_of_best_centered_box(pooled.centered)
    baselines = {"cam": pooled.values["cam"], "centred_box": np.tile(centred, (len(hits), 1))}
    found = {name: difference_of(its, hits, images, True) for name, its in baselines.items()}
    return {name: difference for name, difference in found.items() if difference is not None}


def spread_of(values: np.ndarray) -> float | None:
    """Standard deviation between the seeds' means, `[seeds, pairs]`; None with one seed."""
    means = [row[~np.isnan(row)].mean() for row in values if not np.isnan(row).all()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _fold_figures(finished):
    """MaxBoxAccV2 of each seed, whose folds each have their own best threshold."""
    by_seed: dict[int, list[tuple[float, int]]] = {}
    for each in finished:
        metric = each.figures.get("max_box_acc_v2") or {}
        if metric.get("value") is not None:
            entry = metric["value"], each.figures["num_pairs"]
            by_seed.setdefault(each.trial.seed, []).append(entry)
    if not by_seed:
        return {}
    means = [float(np.average([v for v, _ in e], weights=[n for _, n in e]))
             for e in by_seed.values()]  # fmt: skip
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return {"max_box_acc_v2": Figure(float(np.mean(means)), spread)}


def compare(first: Pooled, second: Pooled, name: str, images: np.ndarray) -> Difference | None:
    """Compares a figure of two rows on the pictures that both have scored, with the same seeds.

    Where the rows have no seed in common, each has all of its own.

    Returns:
        The Difference; None where there is no such picture.
    """
    a, b = first.values[name], second.values[name]
    common = [seed for seed in first.seeds if seed in second.seeds]
    if common:
        a, b = a[[*map(first.seeds.index, common)]], b[[*map(second.seeds.index, common)]]
    return difference_of(a, b, images, name not in ("miou_box", "miou_mask"), bool(common))
