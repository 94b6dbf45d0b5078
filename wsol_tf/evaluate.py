"""Scores a model, or score maps made elsewhere, on a data set with boxes or masks.

    python -m wsol_tf.evaluate --model=RUN/model.keras --dataset=voc_folder --data_dir=D \\
        --split=val --output_dir=OUT

writes OUT/report.html (all of it to look at, in one file), metrics.json, predictions.jsonl (one
line per picture and class in it), contact_sheet.png, threshold_curves.png, outcomes.png and
per_class.png, and prints the table with CAM and the trivial boxes beside the model. Instead of
a trained model it takes `--score_maps=DIR` (or .npz) from any program, and as a baseline
`--model=imagenet` or `--model=FILE.weights.h5`: the keras.applications classifier of --extractor.
"""

import dataclasses
import json
import os
import re

import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf import (
    baselines,
    datasets,
    definitions,
    programs,
    report,
    scoring,
    stored_maps,
    workers,
)
from wsol_tf import config as config_lib
from wsol_tf import model as model_lib
from wsol_tf.score_maps import MAPS

BASELINES = ("grad_cam", "center")
DATA = (
    "dataset",
    "data_dir",
    "download",
    "split",
    "output_dir",
    "num_examples",
    "single_class",
    "on_bad_image",
    "seed",
)
NETWORK = ("extractor", "width", "input_size", "resize_size", "output_stride", "dilation")


def define_data_flags():
    """Defines the flags that say what is scored on and with which metrics."""
    config_lib.define_flags(DATA, split="val")
    flags.DEFINE_list(
        "metrics",
        "all",
        "Metrics of wsolevaluation to compute besides GT-known and Top-1 Loc: a list of "
        f"{', '.join(scoring.METRICS)}; 'all' or 'none'.",
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Processes that score beside the one that predicts, such as one for each core; for many "
        "pictures, since each takes some seconds to start. 0: none.",
        lower_bound=0,
    )


def define_flags():
    """Defines the flags of this program."""
    define_data_flags()
    config_lib.define_flags(NETWORK, output_stride=16)
    flags.DEFINE_string(
        "model",
        None,
        "The .keras file that train wrote; or 'imagenet' or a .weights.h5 with its class scores: "
        "the untouched classifier of --extractor, --width, --input_size and --output_stride.",
    )
    flags.DEFINE_string(
        "score_maps",
        None,
        "Score maps to score instead of a model's: a folder of IMAGE_ID.npy, or a .npz.",
    )
    flags.DEFINE_string(
        "class_scores",
        None,
        "With --score_maps: class scores for Top-1 and Top-5, a folder of .npy or a .npz as well.",
    )
    flags.DEFINE_enum(
        "map",
        None,
        [*MAPS, *BASELINES],
        "Score map that is scored; default: the model's own, or CAM of an ImageNet classifier.",
    )
    flags.DEFINE_integer(
        "top_k", None, "Classes of --map=topk; default: the model's own.", lower_bound=1
    )
    flags.DEFINE_string(
        "threshold",
        "stored",
        "A number in 0..1, 'stored' or 'otsu'; 'stored' is 'otsu' where nothing is stored.",
    )
    flags.DEFINE_bool(
        "ten_crop", False, "Classify by ten crops together, as BAS does for Top-1 and Top-5."
    )
    flags.DEFINE_enum(
        "view",
        None,
        ["crop", "whole"],
        "'crop': the centre 7/8 of the picture, as BAS scores; 'whole': all of it. Default: crop, "
        "for --score_maps whole.",
    )


def parse_metrics(names):
    """Reads --metrics: a list of names, or 'all' or 'none' alone."""
    if names in (["all"], ["none"], []):
        return scoring.METRICS if names == ["all"] else ()
    unknown = sorted(set(names) - set(scoring.METRICS))
    if unknown:
        raise ValueError(
            f"Unknown metric '{unknown[0]}'. Legal: {', '.join(scoring.METRICS)}, or all, or none."
        )
    return tuple(names)


def evaluate(values, make=None, program="wsol_tf.evaluate"):
    """Does what the command does with parsed flags; returns the figures.

    make: function of (flags, threshold) that returns what is scored, as `_model` does; None: what
    the flags name. program: the module that was called, for the command in the report.
    """
    threshold = programs.parse_threshold(values.threshold)
    metrics = parse_metrics(values.metrics)
    make = make or _named(values)
    programs.make_output_dir(values.output_dir)
    method, source, stored = make(values, threshold)
    title = scoring.sheet_title(values.dataset, values.data_dir, values.split)
    with workers.mapper(values.workers) as map_chunks:
        figures, lines, tiles = scoring.score_and_draw(
            method,
            source,
            sheet_path=os.path.join(values.output_dir, "contact_sheet.png"),
            title=title,
            metrics=metrics,
            map_chunks=map_chunks,
        )
    for arrays in stored.values():
        if arrays.summary():
            print(arrays.summary())
    figures = {
        "model": values.model or values.score_maps,
        "scored_on": source.name,
        **figures,
        **{name: arrays.findings() for name, arrays in stored.items()},
    }
    figures["definitions"] = definitions.of(figures)
    with open(os.path.join(values.output_dir, "metrics.json"), "w") as file:
        json.dump(figures, file, indent=2)
    with open(os.path.join(values.output_dir, "predictions.jsonl"), "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    drawn = report.charts_of(figures)
    for name, chart in drawn.items():
        Image.fromarray(chart).save(os.path.join(values.output_dir, f"{name}.png"))
    report.write_report(
        os.path.join(values.output_dir, "report.html"),
        figures,
        drawn,
        tiles,
        title=title,
        command=programs.command_line(program, values),
    )
    if not source.has_boxes and not source.has_masks:
        print(
            "This data has no boxes and no masks, so only the classification is scored. To score "
            "localization, give boxes: --dataset=csv, --dataset=coco or --dataset=voc_folder, "
            "see docs/data.md."
        )
    written = ["report.html", "metrics.json", "predictions.jsonl", "contact_sheet.png"]
    written += [f"{name}.png" for name in drawn]
    print(f"Wrote {', '.join(written)} to {values.output_dir}.")
    return figures


def _named(values):
    """The function that makes what the flags name."""
    if (values.model is None) == (values.score_maps is None):
        raise ValueError(
            "Name what is to be scored, one of the two: --model=RUN/model.keras, --score_maps=DIR."
        )
    if values.class_scores and not values.score_maps:
        raise ValueError("--class_scores go with --score_maps; a model has its own.")
    if values.ten_crop and values.score_maps:
        raise ValueError("--ten_crop needs a model that classifies; stored maps have no crops.")
    if values.score_maps:
        return _stored
    if values.model == "imagenet" or values.model.endswith(".h5"):
        return _classifier
    return _model


def _model(values, threshold):
    """A trained model of ours: (Method, Source, no stored arrays)."""
    model = model_lib.load(values.model)
    own = None if values.map in BASELINES else values.map
    stored = threshold if own == values.map else "stored"
    method = scoring.method_of(
        model,
        kind=own,
        threshold=stored,
        view=values.view or "crop",
        top_k=values.top_k,
        ten_crop=values.ten_crop,
    )
    source = load(values, model.classes, model.resize_size)
    if own != values.map:
        method = _baseline(method, values.map, threshold, model.feature_extractor, model.classifier)
    return method, source, {}


def _classifier(values, threshold):
    """A classifier of keras.applications as it was trained on ImageNet."""
    source = load(values, None, values.resize_size or round(values.input_size * 8 / 7))
    try:
        feature_extractor, classifier, loaded = baselines.imagenet_classifier(
            values.extractor,
            width=values.width,
            input_size=values.input_size,
            output_stride=values.output_stride,
            dilation=values.dilation,
            weights=values.model,
        )
    except ValueError as error:  # --model names the weights here
        sentence = re.sub("(--)?extractor_weights", "--model", str(error))
        raise ValueError(sentence) from error
    print(f"Classifier {loaded}.")
    scores = classifier.output.shape[-1]
    if len(source.classes) != scores:
        raise ValueError(
            f"The classifier tells {scores} classes and {source.name} has {len(source.classes)}. "
            "A classes.txt with all names in the order of the classifier's scores is needed: for "
            "ImageNet its 1000 wnids, sorted."
        )
    kind = values.map or "cam"
    if kind not in ("cam", *BASELINES):
        raise ValueError(
            f"An ImageNet classifier has no map '{kind}'. Legal: cam, grad_cam, center."
        )
    method = scoring.Method(
        predict=baselines.class_scores(feature_extractor, classifier),
        view=_view(values, "crop"),
        kinds=("cam",),
        thresholds={"cam": "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        ten_crop=values.ten_crop,
    )
    if kind != "cam":
        method = _baseline(method, kind, threshold, feature_extractor, classifier)
    return method, source, {}


def _stored(values, threshold):
    """Score maps that another program made."""
    if values.map:
        raise ValueError("--map picks a map of a model; stored score maps are scored as they are.")
    source = load(values, None, values.resize_size or round(values.input_size * 8 / 7))
    count = len(source.classes)
    stored = {
        "score_maps": stored_maps.StoredArrays(
            values.score_maps, "score maps", lambda array: stored_maps.check_map(array, count)
        )
    }
    if values.class_scores:
        stored["class_scores"] = stored_maps.StoredArrays(
            values.class_scores,
            "class scores",
            lambda array: stored_maps.check_scores(array, count),
        )
    for arrays in stored.values():
        arrays.check_ids(source.image_ids)

    def own_maps(batch):
        ids = [image_id.decode() for image_id in batch.image_id]
        found = {"stored": [stored["score_maps"].read_map(image_id) for image_id in ids]}
        if values.class_scores:
            read = [stored["class_scores"].read(image_id) for image_id in ids]
            found["logits"] = [np.full(count, np.nan) if row is None else row for row in read]
        return found

    method = scoring.Method(
        predict=lambda images: {},
        view=_view(values, "whole"),
        kinds=("stored",),
        thresholds={"stored": "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
    )
    return method, source, stored


def _baseline(method, kind, threshold, feature_extractor, classifier):
    """The same method with Grad-CAM or the centre as the map that is scored."""
    gradients = baselines.grad_cam(feature_extractor, classifier)
    center = baselines.center_map()

    def own_maps(batch):
        if kind == "center":
            return {kind: [center] * len(batch.image)}
        rows, columns = np.nonzero(batch.labels >= 0)
        labels = batch.labels[rows, columns]
        found = [{} for _ in batch.image]
        for row, label, drawn in zip(
            rows, labels, gradients(batch.image[rows], labels).numpy(), strict=True
        ):
            found[row][int(label)] = drawn
        return {kind: found}

    return dataclasses.replace(
        method,
        kinds=(kind, *method.kinds),
        thresholds={**method.thresholds, kind: "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
    )


def load(values, classes, image_size):
    """Opens the data set that the flags name."""
    return datasets.load(
        values.dataset,
        values.data_dir,
        values.split,
        classes=classes,
        seed=values.seed,
        image_size=image_size,
        num_examples=values.num_examples or None,
        download=values.download,
        single_class=values.single_class,
        on_bad_image=values.on_bad_image,
    )


def _view(values, default):
    resize_size = values.resize_size or round(values.input_size * 8 / 7)
    return scoring.View(values.input_size, resize_size, values.view or default)


def _threshold_from(threshold):
    return "each map's own (Otsu): nothing is stored" if threshold == "stored" else "given"


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        evaluate(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(config_lib)
    app.run(main)
