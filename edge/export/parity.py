"""How close exported files are to the Keras model: the same pictures through the same scoring.

The model is asked as `Localization.localize` asks it, not by the graph that files are made of: what
that graph does wrong shows as well.
"""

import dataclasses
import itertools
import math
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
from wsol_tf.model.score_maps import localize, map_of, resize

REFERENCE = "keras"
THREADS = (1, 2, 4)
SIGNIFICANT = 0.05  # a loss that is less likely by chance than this is one
_FEWEST = math.ceil(-math.log2(SIGNIFICANT))  # lost pictures, none gained, that are significant


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
        mask_iou_same_class (mean over these, None without any); and, where there are boxes,
        num_boxed (a picture of two classes counts twice), gt_known_loc at the threshold,
        max_box_acc_v2, how many pictures only the reference hits (lost) and only the other
        (gained), and the p_value of McNemar's exact test for that loss, one-sided.

    Raises:
        ValueError: no picture can be read, or the reference's map is constant on all of them.
        FloatingPointError: the reference gives NaN or infinity.
    """
    asked = {"kinds": [kind], "view": view, "batch_size": 8, "refine": refine}
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

    @classmethod
    def of(cls, pair: Pair, kind: str, threshold: float | str) -> "_Outputs":
        score_map = pair.maps[kind]
        height, width = pair.image.shape[:2]
        _, mask, box = localize(score_map, height, width, threshold)
        predicted = None if pair.logits is None else int(pair.logits.argmax())
        return cls(pair.image_id, score_map, mask.astype(np.uint8), box, predicted)

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
    if "same_class" in rows[0]:
        same = [row["mask_iou"] for row in rows if row["same_class"]]
        figures["same_class"] = len(same) / len(rows)
        figures["mask_iou_same_class"] = float(np.mean(same)) if same else None
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


def failures(
    figures: dict[str, dict[str, Any]], *, max_drop: float, min_mask_iou: float
) -> dict[str, str]:
    """Says which files are worse than allowed.

    A drop of GT-known Loc counts where it is above `max_drop` and more than chance: boxes that are
    barely right or wrong fall on the other side in any file, in both directions.

    Args:
        figures: of `compare`.
        max_drop: GT-known Loc that a file may lose, 0..1.
        min_mask_iou: lowest mean IoU with the reference's masks, 0..1.

    Returns:
        dict name -> sentence.
    """
    failed = {}
    for name, row in figures.items():
        wrong = []
        if not row["mask_iou"] >= min_mask_iou:
            masks = f"mask IoU with Keras {row['mask_iou']:.4f}, allowed {min_mask_iou}"
            wrong.append(masks + _flips(row))
        if _drops(figures, name, max_drop) and row.get("p_value", 0.0) <= SIGNIFICANT:
            wrong.append(_drop_text(figures, name, max_drop))
        if wrong:
            failed[name] = "; ".join(wrong)
    return failed


def doubts(figures: dict[str, dict[str, Any]], *, max_drop: float) -> list[str]:
    """Says, in sentences, what the pictures are too few to tell about GT-known Loc."""
    number = figures[REFERENCE].get("num_boxed", 0)
    if not number:
        return []
    found = [
        f"{name}: {_drop_text(figures, name, max_drop)}, which can be chance"
        for name, row in figures.items()
        if _drops(figures, name, max_drop) and row["p_value"] > SIGNIFICANT
    ]
    # The smallest drop above max_drop, all of it losses, has to be able to be significant.
    if math.floor(max_drop * number + 1e-9) + 1 < _FEWEST:
        needed = f"; give at least {math.ceil((_FEWEST - 1) / max_drop)}" if max_drop else ""
        found.append(
            f"{number} pictures with boxes are too few to tell a drop of {max_drop} from chance: "
            f"fewer than {_FEWEST} lost ones, a drop of {_FEWEST / number:.4f}, say nothing{needed}"
        )
    return [f"{text}." for text in found]


def _drops(figures, name, max_drop):
    """Whether a file loses more GT-known Loc than allowed; a NaN is more."""
    drop = figures[REFERENCE].get("gt_known_loc", 0.0) - figures[name].get("gt_known_loc", 0.0)
    return not drop <= max_drop + 1e-9


def _drop_text(figures, name, max_drop):
    row, expected = figures[name], figures[REFERENCE]["gt_known_loc"]
    text = (
        f"GT-known Loc {row['gt_known_loc']:.4f} against {expected:.4f} of Keras, a drop of "
        f"{expected - row['gt_known_loc']:.4f}, allowed {max_drop}"
    )
    if "p_value" in row:
        text += (
            f" ({row['lost']} pictures hit by Keras only, {row['gained']} by the file only, "
            f"p = {row['p_value']:.2g})"
        )
    return text


def _flips(row):
    """Says how much of a low mask IoU is due to another predicted class."""
    if row.get("same_class", 1.0) == 1.0:
        return ""
    text = f" (on {1 - row['same_class']:.1%} of the pictures another class is predicted"
    if row["mask_iou_same_class"] is None:
        return text + ")"
    return text + f"; mask IoU on the others {row['mask_iou_same_class']:.4f})"


def to_markdown(report: dict[str, Any]) -> str:
    """Renders what parity.json holds as Markdown."""
    files, reference = report["files"], report["files"][REFERENCE]
    boxed, classed = "gt_known_loc" in reference, "same_class" in reference
    threads = sorted({number for row in files.values() for number in row["milliseconds"]})
    head = ["file", "MB", "MB in zip", "mask IoU", "lowest", "difference, mean", "largest"]
    if classed:
        head += ["same class", "their mask IoU"]
    if boxed:
        head += ["GT-known Loc", "drop", "hit by Keras only", "by the file only"]
        head += ["MaxBoxAccV2", "drop"]
    head += [f"ms, {n} thread{'s' * (n > 1)}" for n in threads]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, row in files.items():
        sizes = [f"{row[k] / 1e6:.2f}" if k in row else "" for k in ("bytes", "bytes_in_zip")]
        cells = [name, *sizes, f"{row['mask_iou']:.4f}", f"{row['mask_iou_min']:.4f}"]
        cells += [f"{row['mean_difference']:.5f}", f"{row['max_difference']:.4f}"]
        if classed:
            iou = row["mask_iou_same_class"]
            cells += [f"{row['same_class']:.4f}", "" if iou is None else f"{iou:.4f}"]
        if boxed:
            drops = {
                figure: [f"{row[figure]:.4f}", f"{reference[figure] - row[figure]:+.4f}"]
                for figure in ("gt_known_loc", "max_box_acc_v2")
            }
            cells += [*drops["gt_known_loc"], str(row["lost"]), str(row["gained"])]
            cells += drops["max_box_acc_v2"]
        times = row["milliseconds"]
        cells += [f"{times[n]:.1f}" if n in times else "" for n in threads]
        lines.append(f"| {' | '.join(cells)} |")
    said = "".join(f"\n\n**{name} failed**: {why}." for name, why in report["failed"].items())
    said += "".join(f"\n\nNot certain: {text}" for text in report.get("doubts", ()))
    left = {name: ops for name, ops in report.get("gpu_fallbacks", {}).items() if ops}
    said += "".join(
        f"\n\n{name}: a GPU delegate leaves {', '.join(left[name])} to the CPU." for name in left
    )
    return (
        f"# Parity of {report['model']}\n\n"
        f"Map `{report['map']}`, threshold {report['threshold']}, "
        f"{reference['num_pictures']} pictures of {report['scored_on']}, view "
        f"`{report['view']}`. Masks are compared with those of the Keras model's own `localize`"
        f"{'' if boxed else '; GT-known Loc is not measured, for want of boxes of its classes'}. "
        "Milliseconds are medians of calls that took turns; the row `keras` is predict_on_batch "
        "of the same part of the model, which takes a thread for each core: compare it with the "
        "files in its column.\n\n" + "\n".join(lines) + said + "\n"
    )


def size_in_zip(data: bytes) -> int:
    """Returns the bytes that a file takes in a zip archive, such as an app's package."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return len(compressor.compress(data)) + len(compressor.flush())
