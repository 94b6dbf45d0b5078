"""Makes .tflite files of a trained localizer and checks them against it on real pictures.

    python -m edge.export --model=RUN/model.keras --output_dir=OUT --calibration_data=FOLDER

writes OUT/localizer_<format>.tflite (see `edge/__init__.py` for what is in them), labels.txt,
parity.json and parity.md. A file that differs too much from the Keras model is written as
localizer_<format>.failed.tflite, and the command fails with the figures.
"""

import json
import os

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import wsol_tf
from edge.export import bias_correction, calibration, convert, graphs, metadata, parity, qat
from wsol_tf import files as whole_files
from wsol_tf import programs
from wsol_tf.data import transforms
from wsol_tf.model.build import load_model


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_string("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the files; it is made.", required=True)
    flags.DEFINE_list(
        "formats",
        "float32,float16,dynamic,int8",
        f"Which files, of {', '.join(convert.FORMATS)}; the last three are trained for minutes.",
    )
    flags.DEFINE_string(
        "calibration_data",
        None,
        "Folder of pictures as the app will see them; no labels are needed. In VOC layout its "
        "split 'train' is read. 'shapes' takes drawn objects, and the name of a public data set "
        "what tensorflow_datasets has of it.",
        required=True,
    )
    flags.DEFINE_integer(
        "num_calibration", 100, "Pictures to calibrate on.", lower_bound=calibration.MIN_PICTURES
    )
    flags.DEFINE_string(
        "parity_data",
        None,
        "As calibration_data, for the comparison with Keras; default: the same. In VOC layout "
        "--split is read, and boxes give GT-known Loc.",
    )
    flags.DEFINE_string("split", "val", "Split of parity_data.")
    flags.DEFINE_integer("num_parity", 200, "Pictures to compare on; 0: all.", lower_bound=0)
    flags.DEFINE_string(
        "map", "mean", f"Score map of the file: {', '.join(graphs.MAPS)} or class:NAME."
    )
    flags.DEFINE_integer(
        "output_size", 0, "Side in pixels of the map, upsampled; 0: the network's own."
    )
    flags.DEFINE_enum("view", "crop", ["crop", "whole"], "View that is compared, as in evaluate.")
    flags.DEFINE_float("max_drop", 0.01, "GT-known Loc that a file may lose.", lower_bound=0)
    flags.DEFINE_float("min_mask_iou", 0.95, "Mean IoU of a file's masks with Keras's.")
    flags.DEFINE_integer(
        "qat_steps", 100, "Batches of 8 pictures that int8_qat and the others are trained on.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_float("sparsity", 0.5, "Share of zeros in the kernels of int8_pruned.", 0, 0.95)
    flags.DEFINE_integer("clusters", 32, "Distinct values in each kernel of int8_clustered.", 2)
    flags.DEFINE_integer("seed", 0, "Seed of the choice of pictures and of further training.")


def export(values):
    """Does what the command does with parsed flags; returns the report.

    Raises:
        ValueError: bad settings or data, or a file that differs too much.
    """
    unknown = [name for name in values.formats if name not in convert.FORMATS]
    if unknown or not values.formats:
        raise ValueError(
            f"Unknown format '{''.join(unknown[:1])}'. Legal: {', '.join(convert.FORMATS)}."
        )
    model = graphs.in_float32(load_model(values.model))
    map_ = graphs.parse_map(values.map, model)
    graph = graphs.build(model, map_, output_size=values.output_size)
    if not convert.TRAINED.keys().isdisjoint(values.formats):
        qat.check(map_)
    source, _ = calibration.open_source(
        values.calibration_data, split="train", classes=model.classes, image_size=model.resize_size
    )
    pictures = calibration.pictures(
        source, model.input_size, values.num_calibration, seed=values.seed
    )
    parity_source, labelled = calibration.open_source(
        values.parity_data or values.calibration_data,
        split=values.split,
        classes=model.classes,
        image_size=model.resize_size,
    )
    programs.make_output_dir(values.output_dir)
    information = describe(model, map_, graph)
    files = {}
    for name, plain in made(model, map_, graph, pictures, values):
        files[name] = metadata.add(plain, {**information, "format": name})
        convert.check(files[name], name)
    report = {
        "model": values.model,
        "map": map_,
        "threshold": information["threshold"],
        "scored_on": parity_source.name,
        "view": values.view,
        **compare(model, graph, files, parity_source, labelled, map_, values),
    }
    write(values.output_dir, model, files, report)
    print(parity.table(report))
    if report["failed"]:
        raise ValueError(
            "".join(
                f"localizer_{name} is too far from the Keras model: {why}. "
                for name, why in report["failed"].items()
            )
            + f"What failed is in {values.output_dir} as .failed.tflite. Calibrate on more "
            "pictures like the app's, take float16, or allow more with --max_drop and "
            "--min_mask_iou."
        )
    print(f"Wrote {', '.join(f'localizer_{name}.tflite' for name in files)} to {values.output_dir}")
    return report


def made(model, map_, graph, pictures, values):
    """Yields (format, .tflite bytes) of what --formats asks for."""
    float_bytes = convert.convert(graph, "float32")
    for name in dict.fromkeys(values.formats):
        print(f"Making localizer_{name}.tflite", flush=True)
        if name == "float32":
            yield name, float_bytes
        elif name == "int8":
            yield name, quantized(graph, float_bytes, pictures)
        elif name in convert.TRAINED:
            trained = qat.train(
                model,
                map_,
                parity.keras_runner(graphs.build(model, map_)),
                pictures,
                convert.TRAINED[name],
                steps=values.qat_steps,
                sparsity=values.sparsity,
                clusters=values.clusters,
                seed=values.seed,
            )
            changed = graphs.build(trained, map_, output_size=values.output_size)
            yield name, quantized(changed, float_bytes, pictures)
        else:
            yield name, convert.convert(graph, name)


def quantized(graph, float_bytes, pictures):
    """The int8 .tflite, its biases corrected by a float32 file of the same shape.

    After further training that is still the file of before: what it gives is what is wanted.
    """
    int8_bytes = convert.convert(graph, "int8", pictures)
    # 48 pictures gave the same as 16.
    return bias_correction.correct(int8_bytes, float_bytes, pictures[:16])


def describe(model, map_, graph):
    """The metadata of all formats, without the format."""
    rescaling = model.feature_extractor.get_layer("rescaling")
    return {
        "labels": list(model.classes),
        "map": map_,
        "top_k": min(model.top_k, len(model.classes)) if map_ == "topk" else None,
        "threshold": model.thresholds.get(graphs.stored_kind(map_), "otsu"),
        "normalization": {
            "scale": float(rescaling.scale),
            "offset": float(rescaling.offset),
            "in_graph": True,
        },
        "input_size": list(graph.input.shape[1:3]),
        "output_size": list(graph.output["foreground_mask"].shape[1:3]),
        "versions": {
            "wsol_tf": wsol_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def compare(model, graph, files, source, labelled, map_, values):
    """Compares files with Keras: a dict with `files` and `failed` for the report."""
    positions = np.arange(len(source))
    if values.num_parity and values.num_parity < len(source):
        rng = np.random.default_rng(values.seed)
        positions = np.sort(rng.choice(len(source), values.num_parity, replace=False))
    label = None
    if map_.startswith("class:"):
        label = model.classes.index(map_.removeprefix("class:"))
    runners = {parity.REFERENCE: parity.keras_runner(graph)}
    runners |= {name: parity.runner(data) for name, data in files.items()}
    figures = parity.compare(
        runners,
        source,
        positions,
        view=transforms.View(model.input_size, model.resize_size, values.view),
        threshold=model.thresholds.get(graphs.stored_kind(map_), "otsu"),
        kind="true" if map_ == "all" and labelled else "mean",
        label=label,
        labelled=labelled,
    )
    picture = np.random.default_rng(0).integers(0, 256, graph.input.shape, np.uint8)
    for name, milliseconds in parity.latencies(graph, files, picture).items():
        figures[name]["milliseconds"] = milliseconds
    for name, data in files.items():
        figures[name] |= {"bytes": len(data), "bytes_in_zip": parity.size_in_zip(data)}
    failed = parity.failures(figures, max_drop=values.max_drop, min_mask_iou=values.min_mask_iou)
    return {"files": figures, "failed": failed}


def write(output_dir, model, contents, report):
    """Writes everything, each file at once or not at all."""
    for name, data in contents.items():
        good, bad = (
            os.path.join(output_dir, f"localizer_{name}{end}")
            for end in (".tflite", ".failed.tflite")
        )
        written, other = (bad, good) if name in report["failed"] else (good, bad)
        whole_files.write(written, data)
        if os.path.exists(other):  # of an earlier export; it would contradict the report
            os.remove(other)
    for name, text in (
        ("labels.txt", "\n".join(model.classes) + "\n"),
        ("parity.json", json.dumps(report, indent=2)),
        ("parity.md", parity.table(report)),
    ):
        whole_files.write(os.path.join(output_dir, name), text)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        export(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(main)
