"""The steps of an export: from a trained model to files that were compared with it."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from edge.export import bias_correction, convert, graphs, metadata, parity, qat, verdict
from edge.export.exported_map import ExportedMap
from edge.export.formats import FORMATS, TRAINED
from edge.runners import keras_runner, tflite_runner
from wsol_tf import files
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.model.localization import Localization

_BIAS_PICTURES = 16  # 48 gave the same


def check_formats(formats: Sequence[str], model: Localization, map_: ExportedMap) -> None:
    """Refuses what is known before any work not to become a file.

    Raises:
        ValueError: no format or an unknown one; or one that needs further training, which the
            model, the map or a missing package rules out.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"Unknown format '{''.join(unknown[:1])}'. Legal: {', '.join(FORMATS)}.")
    if not TRAINED.keys().isdisjoint(formats):
        qat.check(model, map_)


def make_files(
    model: Localization,
    map_: ExportedMap,
    graph: keras.Model,
    pictures: np.ndarray,
    formats: Sequence[str],
    *,
    log: Callable[[str], Any] = print,
    **training: Any,
) -> dict[str, bytes]:
    """Makes the .tflite files of a model, with metadata and checked.

    Args:
        model: a trained Localization in float32.
        map_: which of its maps the files hold.
        graph: of `graphs.export_graph` for this map.
        pictures: uint8 `[n, H, W, 3]` of `calibration.read_pictures`.
        formats: names of `formats.FORMATS`; each counts once.
        log: is told which file is being made, for some take minutes.
        **training: `steps`, `sparsity`, `clusters` and `seed` of `qat.train`.

    Returns:
        dict format -> bytes of the file.

    Raises:
        ValueError: a file would break a promise of `convert.check`.
    """
    information = metadata.information_of(model, map_, graph)
    made = {}
    for name, plain in _converted(model, map_, graph, pictures, formats, log, training):
        made[name] = metadata.add(plain, {**information, "format": name})
        convert.check(made[name], name)
    return made


def _converted(
    model: Localization,
    map_: ExportedMap,
    graph: keras.Model,
    pictures: np.ndarray,
    formats: Sequence[str],
    log: Callable[[str], Any],
    training: dict[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Yields (format, bytes of a .tflite without metadata)."""
    float_bytes = convert.convert(graph, "float32")
    for name in dict.fromkeys(formats):
        log(f"Making localizer_{name}.tflite")
        if name == "float32":
            yield name, float_bytes
        elif name == "int8":
            yield name, quantized(graph, float_bytes, pictures)
        elif name in TRAINED:
            # What it shall give is the localizer's own map, whatever is done to it afterwards.
            target = keras_runner(graphs.export_graph(model, map_, bare=True))
            kind = TRAINED[name]
            trained = qat.train(model, map_, target, pictures, kind, **training)
            side = graph.output["foreground_mask"].shape[1]
            changed = graphs.export_graph(trained, map_, output_size=side)
            yield name, quantized(changed, float_bytes, pictures)
        else:
            yield name, convert.convert(graph, name)


def quantized(graph: keras.Model, float_bytes: bytes, pictures: np.ndarray) -> bytes:
    """Makes the int8 .tflite of a graph, with corrected biases.

    Args:
        graph: of `graphs.export_graph`.
        float_bytes: a float32 .tflite of the same shape, whose means the int8 file shall have. With
            further training it is the one from before: what that gives is what is wanted.
        pictures: uint8 `[n, H, W, 3]` to calibrate on.
    """
    int8_bytes = convert.convert(graph, "int8", pictures)
    return bias_correction.correct(int8_bytes, float_bytes, pictures[:_BIAS_PICTURES])


def compare_files(
    model: Localization,
    map_: ExportedMap,
    graph: keras.Model,
    made: dict[str, bytes],
    source: Source,
    *,
    labelled: bool,
    view: str = "crop",
    num_pictures: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compares files with the Keras model they were made of, as `Localization.localize` asks it.

    Args:
        model: a trained Localization in float32.
        map_: which of its maps the files hold.
        graph: of `graphs.export_graph` for this map; it is timed.
        made: dict format -> bytes, of `make_files`.
        source: pictures to compare on.
        labelled: whether labels and boxes of the source mean anything.
        view: "crop" or "whole", see `View`.
        num_pictures: at most so many, chosen at random; 0 takes all.
        seed: of that choice.

    Returns:
        dict "keras" or format -> figures of `parity.compare`, with `milliseconds` and, for files,
        `bytes` and `bytes_in_zip`.

    Raises:
        ValueError: no picture can be read, or the model's map shows nothing.
        FloatingPointError: the model's output is not finite.
    """
    # Where there is no object, a map is noise stretched to 0..1: nothing to compare.
    positions: Sequence[int] = [
        i for i, own in enumerate(source.labels) if not labelled or model.background_id not in own
    ]
    if 0 < num_pictures < len(positions):
        rng = np.random.default_rng(seed)
        positions = sorted(rng.choice(positions, num_pictures, replace=False).tolist())
    figures = parity.compare(
        {parity.REFERENCE: parity.reference(model, map_)}
        | {name: tflite_runner(data) for name, data in made.items()},
        source,
        positions,
        view=View(model.input_size, model.resize_size, view),
        threshold=metadata.threshold_of(model, map_),
        kind="true" if map_.has_all_maps and labelled else "mean",
        refine=model.refine,
        label=map_.label(model.classes),
        labelled=labelled,
    )
    picture = np.random.default_rng(0).integers(0, 256, graph.input.shape, np.uint8)
    for name, milliseconds in parity.latencies(graph, made, picture).items():
        figures[name]["milliseconds"] = milliseconds
    for name, data in made.items():
        figures[name] |= {"bytes": len(data), "bytes_in_zip": parity.size_in_zip(data)}
    return figures


def write_files(
    output_dir: str, classes: Sequence[str], made: dict[str, bytes], report: dict[str, Any]
) -> None:
    """Writes files and report, each file at once or not at all.

    Args:
        output_dir: an existing folder.
        classes: names of the classes, for labels.txt.
        made: dict format -> bytes.
        report: what parity.json holds; files that it names as `failed` get another name.
    """
    for name, data in made.items():
        good, bad = (
            os.path.join(output_dir, f"localizer_{name}{end}")
            for end in (".tflite", ".failed.tflite")
        )
        written, other = (bad, good) if name in report["failed"] else (good, bad)
        files.write(written, data)
        if os.path.exists(other):  # of an earlier export; it would contradict the report
            os.remove(other)
    for name, text in (
        ("labels.txt", "\n".join(classes) + "\n"),
        ("parity.json", json.dumps(report, indent=2)),
        ("parity.md", verdict.to_markdown(report)),
    ):
        files.write(os.path.join(output_dir, name), text)


def refuse_failed(report: dict[str, Any], output_dir: str) -> None:
    """Raises a ValueError that says which files are too far from the Keras model, if any is."""
    if not report["failed"]:
        return
    good = {
        name: row
        for name, row in report["files"].items()
        if name != parity.REFERENCE and name not in report["failed"]
    }
    advice = "Take float16"
    if good:
        name = min(good, key=lambda name: good[name]["bytes"])
        iou, size = good[name]["mask_iou"], good[name]["bytes"] / 1e6
        advice = f"Take {name}, which is close enough (mask IoU {iou:.4f}, {size:.2f} MB)"
    failed = (
        f"localizer_{name} is too far from the Keras model: {why}. "
        for name, why in report["failed"].items()
    )
    raise ValueError(
        f"{''.join(failed)}The files that failed are in {output_dir} as .failed.tflite. {advice}, "
        "calibrate on more pictures like the app's, or allow more with `max_drop` and "
        "`min_mask_iou`."
    )
