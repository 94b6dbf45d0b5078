"""How close exported files are to the Keras model: the same pictures through the same scoring.

The model is asked as `Localization.localize` asks it, not by the graph that files are made of: what
that graph does wrong shows as well.
"""

import dataclasses
import itertools
import os
import statistics
import time
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge.export.exported_map import ExportedMap
from edge.runners import Runner, batched
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.iou import box_iou, mask_iou
from wsol_tf.evaluation.localized_map import LOCALIZED, LocalizedMap
from wsol_tf.evaluation.paired import exact_mcnemar
from wsol_tf.evaluation.pairs import Pair, predict_pairs
from wsol_tf.evaluation.standard_metrics import StandardMetrics
from wsol_tf.model.alignment import placed
from wsol_tf.model.localization import Localization
from wsol_tf.model.score_maps import PLAIN, localize, map_of, resize

REFERENCE = "keras"
THREADS = (1, 2, 4)
LOW = 0.3  # a map that stays below it shows nothing for certain: trained models reach 0.7 and more


def reference(model: Localization, map_: ExportedMap) -> Runner:
    """Returns a model's own maps, moved back by its offset, under the names that a file has.

    Args:
        model: a trained Localization.
        map_: which of its maps files hold.
    """
    label = map_.label(model.classes)

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {
            name: np.asarray(x)[0] for name, x in model.predict_on_batch(image[None]).items()
        }
        maps = outputs["localization_map"]
        if label is not None:
            maps = maps[..., label : label + 1]
        elif not map_.has_all_maps:
            maps = map_of(
                map_.kind, maps, outputs["score_map"], outputs["logits"], 0, top_k=model.top_k
            )[..., None]
        moved = [placed(maps[..., i], model.offset) for i in range(maps.shape[-1])]
        found = {"foreground_mask": np.stack(moved, axis=-1)}
        if map_.has_classifier or model.background_class:
            found["class_scores"] = outputs["logits"]
        return found

    return run


def compare(
    runners: dict[str, Runner],
    source: Source,
    positions: Sequence[int],
    *,
    view: View,
    threshold: float | str,
    kind: str,
    refine: str = "none",
    label: int | None = None,
    labelled: bool = True,
) -> dict[str, dict[str, Any]]:
    """Runs models on the same pictures and compares each with the first.

    Args:
        runners: functions of one picture by name; the first is the reference.
        source: where the pictures come from.
        positions: positions in the source.
        view: what the models see of a picture.
        threshold: score-map threshold, or "otsu".
        kind: kind of map that is taken from several channels.
        refine: "guided" compares maps that were refined by the picture, see `refinement.refine`.
        label: class whose boxes count; None counts each picture's own.
        labelled: whether labels and boxes of the source mean anything.

    Returns:
        dict name -> dict of figures: mask_iou (mean) and mask_iou_min with the reference's masks;
        max_difference and mean_difference of the maps in 0..1; num_pictures; where there are
        class scores, same_class (share whose predicted class is the reference's) and
        mask_iou_same_class (mean over these, None without any); low_maps (share in which the
        reference's map stays below `LOW`) and mask_iou_not_low (mean over the others, None
        without any); and, where there are boxes,
        num_boxed (a picture of two classes counts twice), gt_known_loc at the threshold,
        max_box_acc_v2, how many pictures only the reference hits (lost) and only the other
        (gained), and the p_value of McNemar's exact test for that loss, one-sided.

    Raises:
        ValueError: no picture can be read, or the reference's map is constant on all of them.
        FloatingPointError: the reference gives NaN or infinity.
    """
    asked = {"kinds": [kind, PLAIN], "view": view, "batch_size": 8, "refine": refine}
    streams = [predict_pairs(batched(run), source, positions, **asked) for run in runners.values()]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    accuracies = {name: StandardMetrics(["max_box_acc_v2"], view) for name in runners}
    for pairs in zip(*streams, strict=True):
        expected = None
        for name, pair in zip(runners, pairs, strict=True):
            found = _Outputs.of(pair, kind, threshold)
            if expected is None:
                expected = found
                if not found.is_finite:
                    raise FloatingPointError("The model's output is not finite.")
            row = _difference(found, expected)
            if labelled and pair.boxes is not None and label in (None, pair.label):
                row["box_iou"] = box_iou(found.box[None], pair.boxes).max(initial=0)
                accuracies[name].add(LocalizedMap(pair, kind))
            rows[name].append(row)
    reference = next(iter(rows.values()))
    _check_reference(reference, source)
    return {name: _figures(rows[name], reference, accuracies[name]) for name in runners}


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """What one model says about one picture and class."""

    image_id: str
    score_map: np.ndarray
    mask: np.ndarray
    box: np.ndarray
    predicted: int | None  # class id; None without a classifier
    highest: float  # value of the map as the network gives it

    @classmethod
    def of(cls, pair: Pair, kind: str, threshold: float | str) -> "_Outputs":
        score_map = pair.maps[kind]
        height, width = pair.image.shape[:2]
        _, mask, box = localize(score_map, height, width, threshold)
        predicted = None if pair.logits is None else int(pair.logits.argmax())
        highest = float(pair.maps[PLAIN].max())
        return cls(pair.image_id, score_map, mask.astype(np.uint8), box, predicted, highest)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.score_map).all())


def _difference(found: _Outputs, expected: _Outputs) -> dict[str, Any]:
    """How far one model is from the reference on one picture and class."""
    # A constant map is not refined, and keeps its size beside those that are.
    score_map = resize(found.score_map, *expected.score_map.shape)
    difference = np.abs(score_map - expected.score_map)
    row = {
        "image_id": found.image_id,
        "is_constant": found.score_map.min() == found.score_map.max(),
        "mask_iou": mask_iou(found.mask, expected.mask) if found.is_finite else 0.0,
        "max_difference": difference.max(),
        "mean_difference": difference.mean(),
        "is_low": expected.highest < LOW,
    }
    if expected.predicted is not None:
        row["same_class"] = found.predicted == expected.predicted
    return row


def _check_reference(rows: list[dict[str, Any]], source: Source) -> None:
    """Refuses a comparison that says nothing."""
    if not rows:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    if all(row["is_constant"] for row in rows):  # any file would equal it
        raise ValueError(
            f"The model's map has one value everywhere on all {len(rows)} pictures: it shows no "
            "object. Its mask collapsed, or it was not trained; train it again."
        )


def _figures(rows, reference, accuracy):
    figures = {
        "num_pictures": len({row["image_id"] for row in rows}),
        "mask_iou": float(np.mean([row["mask_iou"] for row in rows])),
        "mask_iou_min": float(np.min([row["mask_iou"] for row in rows])),
        "max_difference": float(np.max([row["max_difference"] for row in rows])),
        "mean_difference": float(np.mean([row["mean_difference"] for row in rows])),
    }
    others = [row["mask_iou"] for row in rows if not row["is_low"]]
    figures["low_maps"] = 1 - len(others) / len(rows)
    figures["mask_iou_not_low"] = _mean(others)
    if "same_class" in rows[0]:
        same = [row["mask_iou"] for row in rows if row["same_class"]]
        figures["same_class"] = len(same) / len(rows)
        figures["mask_iou_same_class"] = _mean(same)
    hits, expected = (
        np.array([row["box_iou"] >= LOCALIZED for row in each if "box_iou" in row], bool)
        for each in (rows, reference)
    )
    if hits.size:
        lost, gained = int((expected & ~hits).sum()), int((hits & ~expected).sum())
        figures |= {
            "num_boxed": hits.size,
            "gt_known_loc": float(hits.mean()),
            "lost": lost,
            "gained": gained,
            "p_value": exact_mcnemar(gained, lost, one_sided=True),
            "max_box_acc_v2": accuracy.result()["max_box_acc_v2"]["value"],
        }
    return figures


def _mean(values):
    return float(np.mean(values)) if values else None


def latencies(
    graph: keras.Model,
    files: dict[str, bytes],
    image: np.ndarray,
    *,
    rounds: int = 15,
    threads: Sequence[int] = THREADS,
) -> dict[str, dict[int, float]]:
    """Times one picture: medians of calls that take turns, so that load hits all alike.

    Args:
        graph: of `graphs.export_graph`; its `predict_on_batch` is timed.
        files: dict name -> .tflite bytes.
        image: uint8 `[1, H, W, 3]`.
        rounds: calls of each.
        threads: numbers of threads that each file is run with.

    Returns:
        dict name -> dict threads -> milliseconds. Keras takes a thread for each core that this
        process may use, so "keras" has that one entry; files have it too, to be compared with it.
    """
    own = _cores()
    calls = {(REFERENCE, own): lambda: graph.predict_on_batch(image)}
    for (name, data), number in itertools.product(files.items(), sorted({*threads, own})):
        interpreter = Interpreter(model_content=data, num_threads=number)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        calls[name, number] = interpreter.invoke
    times: dict[tuple[str, int], list[float]] = {key: [] for key in calls}
    for i in range(rounds + 2):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:  # the first ones allocate and trace
                times[key].append(time.perf_counter() - start)
    medians: dict[str, dict[int, float]] = {}
    for (name, number), values in times.items():
        medians.setdefault(name, {})[number] = round(statistics.median(values) * 1000, 2)
    return medians


def _cores():
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def size_in_zip(data: bytes) -> int:
    """Returns the bytes that a file takes in a zip archive, such as an app's package."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return len(compressor.compress(data)) + len(compressor.flush())
