"""The table of a study whose models another program trained: from one array for each outcome."""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.studies.grid import Row
from wsol_tf.studies.results import OUTCOMES, Figure, Pooled, Result, make_result, pooled_of

_PLAIN = {"plain_iou": "iou", "plain_mask_iou": "mask_iou"}
_OF_PICTURES = (*OUTCOMES, *_PLAIN)  # [rows, seeds, pairs]
_OTHERS = ("rows", "seeds", "images", "centered_ious", "max_box_acc_v2", "minutes")


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a .npz file that `results_of_arrays` takes; nothing in it is run.

    Raises:
        BadFile: it can't be read, or is no such file.
    """
    try:
        with np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except files.BadFile:
        raise
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise files.BadFile(path, f"this is no .npz file of plain arrays ({error})") from None


def results_of_arrays(
    arrays: Mapping[str, np.ndarray],
    *,
    folds: int = 0,
    minutes: float = 0.0,
    settings: Sequence[Mapping[str, str]] = (),
) -> list[Result]:
    """Computes the table of a study as `results.results_of` does, from arrays.

    Args:
        arrays: for R rows, S seeds and P columns, each of which is a picture with one class in it:
            rows: `[R]` names; the others are compared with the first.
            iou: `[R, S, P]`, IoU of the predicted box and a true one, 0..1; NaN: not scored.
            mask_iou, cam_iou, top1_cls: of the same shape and range, each of them optional: IoU of
                the mask, of the box of the classifier's CAM, and whether the class is right.
            plain_iou, plain_mask_iou: optional, the same of maps that were not refined; they make a
                row of their own, as trials with `refine=guided` do.
            seeds: optional, `[S]` whole numbers; 0, 1, ... without it.
            images: optional, `[P]`, the picture of each column; each its own without it.
            centered_ious: optional, `[P, A]`, IoUs of centred boxes of A sizes.
            max_box_acc_v2: optional, `[R, S]`.
            minutes: optional, `[R]`, of one training.
        folds: how many trainings a seed has; 0: one.
        minutes: of one training, where `arrays` has none.
        settings: setting -> value of each row.

    Returns:
        The rows, the first one first. A seed of which a row has no value is none of its seeds.

    Raises:
        ValueError: an array is missing, unknown, of another shape or outside of its range.
    """
    _check(arrays, settings)
    labels = [str(label) for label in arrays["rows"]]
    num_rows, num_seeds, num_pairs = arrays["iou"].shape
    images = np.asarray(arrays.get("images", np.arange(num_pairs)))
    spent = np.asarray(arrays.get("minutes", np.full(num_rows, minutes)), float)
    results: list[Result] = []
    first = None
    for i, label in enumerate(labels):
        row = Row(label, dict(settings[i]) if settings else {})
        for read, suffix in _ways_to_read(arrays):
            pooled, kept = _pooled(arrays, i, read)
            if first is None:
                first = pooled
            number = num_seeds * max(folds, 1)
            finished = len(kept) * max(folds, 1)
            result = make_result(
                Row(row.label + suffix, row.settings), pooled, first, images, finished, number,
                float(spent[i]),
            )  # fmt: skip
            further = {} if suffix else _of_seeds(arrays, i, kept)
            results.append(dataclasses.replace(result, figures={**result.figures, **further}))
    return results


def _ways_to_read(arrays):
    """(names of the arrays, end of the row's name) for each row that a set of runs makes."""
    ways = [(dict(zip(OUTCOMES, OUTCOMES, strict=True)), "")]
    if "plain_iou" in arrays:
        plain = {ours: theirs for theirs, ours in _PLAIN.items()}
        ways.append(({name: plain.get(name, name) for name in OUTCOMES}, ", not refined"))
    return ways


def _of_seeds(arrays, row, kept):
    """MaxBoxAccV2, of which each seed has one value."""
    values = np.asarray(arrays.get("max_box_acc_v2", arrays["iou"][:, :, 0] * np.nan), float)
    values = values[row, kept]
    values = values[~np.isnan(values)]
    if not len(values):
        return {}
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"max_box_acc_v2": Figure(float(values.mean()), spread)}


def _pooled(
    arrays: Mapping[str, np.ndarray], row: int, read: Mapping[str, str]
) -> tuple[Pooled, np.ndarray]:
    """The outcomes of a row, and which of the seeds it has."""
    _, num_seeds, num_pairs = arrays["iou"].shape
    kept = np.flatnonzero(~np.isnan(np.asarray(arrays["iou"][row], float)).all(1))
    if not len(kept):
        raise ValueError(f"Row '{arrays['rows'][row]}' has no picture that was scored.")
    missing = np.full((num_seeds, num_pairs), np.nan)
    # float64 of float32 is exact, so that an IoU below one half stays there.
    found = {
        ours: (np.asarray(arrays[theirs][row], float) if theirs in arrays else missing)[kept]
        for ours, theirs in read.items()
    }
    seeds = np.asarray(arrays.get("seeds", np.arange(num_seeds)))[kept]
    centered = np.asarray(arrays.get("centered_ious", np.full((num_pairs, 1), np.nan)), float)
    return pooled_of(tuple(int(seed) for seed in seeds), centered, **found), kept


def _check(arrays: Mapping[str, np.ndarray], settings: Sequence[Any]) -> None:
    """Refuses arrays that don't fit together."""
    for name in ("rows", "iou"):
        if name not in arrays:
            raise ValueError(f"There is no array '{name}'. Received: {', '.join(arrays)}.")
    unknown = [name for name in arrays if name not in (*_OF_PICTURES, *_OTHERS)]
    if unknown:
        known = ", ".join((*_OF_PICTURES, *_OTHERS))
        raise ValueError(f"There is no array called '{unknown[0]}', but {known}.")
    if arrays["iou"].ndim != 3:
        raise ValueError(f"`iou` is [rows, seeds, pictures]. Received: {arrays['iou'].shape}.")
    rows, seeds, pairs = arrays["iou"].shape
    shapes = dict.fromkeys(_OF_PICTURES, (rows, seeds, pairs)) | {
        "rows": (rows,),
        "seeds": (seeds,),
        "images": (pairs,),
        "centered_ious": (pairs, *arrays.get("centered_ious", arrays["iou"]).shape[1:2]),
        "max_box_acc_v2": (rows, seeds),
        "minutes": (rows,),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(
                f"`{name}` must be of shape {shapes[name]}, as `iou` says. Received: {array.shape}."
            )
        if name in ("rows", "images"):
            continue
        if array.dtype.kind not in "fiub":
            raise ValueError(f"`{name}` must hold numbers. Received: {array.dtype}.")
        values = array[~np.isnan(array)] if array.dtype.kind == "f" else array
        most = 1 if name not in ("seeds", "minutes") else np.inf
        if ((values < 0) | (values > most)).any():
            raise ValueError(f"`{name}` must be at least 0{' and at most 1' if most == 1 else ''}.")
    if len(set(map(str, arrays["rows"]))) < rows:
        raise ValueError(f"Rows must have different names. Received: {arrays['rows'].tolist()}.")
    if settings and len(settings) != rows:
        raise ValueError(f"There are {rows} rows, and settings of {len(settings)}.")
