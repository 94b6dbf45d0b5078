r"""Scores a model, or score maps made elsewhere, on a data set with boxes or masks.

    python -m wsol_tf.evaluate --model=RUN/model.keras --dataset=voc_folder --data_dir=D \
        --split=val --output_dir=OUT

writes OUT/report.html (everything in one page), metrics.json, predictions.jsonl (one line per
picture and class in it), contact_sheet.png, threshold_curves.png, outcomes.png and per_class.png,
and prints a table with CAM and the trivial boxes beside the model. Instead of a trained model it
takes `--score_maps=DIR` (or .npz) from any program, and as a baseline `--model=imagenet` or
`--model=FILE.weights.h5`: the keras.applications classifier of --extractor.

`wsol_tf.evaluation.evaluate` gives the same figures from code.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from wsol_tf import files, importing, programs, runners
from wsol_tf.config import MAPS, resize_side
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation import outcomes, stored_maps, workers, wsolevaluation
from wsol_tf.evaluation.methods import (
    BASELINES,
    method_of,
    method_of_classifier,
    method_of_stored_maps,
    with_baseline,
)
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.score import compute_scored
from wsol_tf.evaluation.scores import accumulate_scores
from wsol_tf.evaluation.stored_maps import StoredArrays
from wsol_tf.predict import define_object_flags, limits_of
from wsol_tf.progress import Progress
from wsol_tf.report import contact_sheets, definitions, pictures, terminal

# What a function returns that makes what is scored of (parsed flags, threshold): the method, the
# data set, and stored arrays by the name that their findings have in metrics.json.
Scored = tuple[Method, Source, dict[str, StoredArrays]]

DATA = (
    "dataset",
    "data_dir",
    "image_dir",
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
    programs.define_flags(DATA, split="val")
    flags.DEFINE_list(
        "metrics",
        "all",
        "Metrics of wsolevaluation to compute besides GT-known and Top-1 Loc: a list of "
        f"{', '.join(wsolevaluation.METRICS)}; 'all' or 'none'.",
    )
    define_object_flags(max_objects=0)
    flags.DEFINE_integer(
        "workers",
        0,
        "Processes that score beside the one that predicts, such as one for each core; for many "
        "pictures, since each has to start. 0: none.",
        lower_bound=0,
    )
    runners.define_flag()


def define_flags():
    """Defines the flags of this program."""
    define_data_flags()
    programs.define_flags(NETWORK, output_stride=16)
    programs.define_path(
        "model",
        None,
        "The .keras file that train wrote; or 'imagenet' or a .weights.h5 with its class scores: "
        "the untouched classifier of --extractor, --width, --input_size and --output_stride.",
    )
    programs.define_path(
        "score_maps",
        None,
        "Score maps to score instead of a model's: a folder of IMAGE_ID.npy, or a .npz.",
    )
    programs.define_path(
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
        "A number in 0..1, 'stored' or 'otsu'; 'stored' is 'otsu' for what can store none: score "
        "maps, an ImageNet classifier, and --map=grad_cam or center.",
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


def parse_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Reads --metrics: a list of names, or 'all' or 'none' alone.

    Raises:
        ValueError: for an unknown name.
    """
    if names in (["all"], ["none"], []):
        return wsolevaluation.METRICS if names == ["all"] else ()
    unknown = sorted(set(names) - set(wsolevaluation.METRICS))
    if unknown:
        raise ValueError(
            f"Unknown metric '{unknown[0]}'. Legal: {', '.join(wsolevaluation.METRICS)}, or all, "
            "or none."
        )
    return tuple(names)


def evaluate(
    values: flags.FlagValues,
    make_scored: Callable[[flags.FlagValues, float | str], Scored] | None = None,
    program: str = "wsol_tf.evaluate",
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Does what the command does with parsed flags.

    Args:
        values: parsed flags of `define_data_flags`, and `model` and `threshold`.
        make_scored: makes what is scored of (values, threshold); None: what the flags name.
        program: the module that was called, for the command in the report; workers of `runner`
            call its function `make_scored`.
        options: Apache Beam's own, see `runners`.

    Returns:
        The figures, as in metrics.json.

    Raises:
        ValueError: for flags that can't work.
    """
    threshold = programs.parse_threshold(values.threshold)
    metrics = parse_metrics(values.metrics)
    runners.check(values, options)
    make_scored = make_scored or _named(values)
    programs.make_output_dir(values.output_dir)
    method, source, stored = make_scored(values, threshold)
    method = dataclasses.replace(method, **limits_of(values))
    if values.runner:
        shared = {"program": program, "settings": runners.settings_of(values), "options": options}
        scores = runners.beam().accumulate(
            method, source, stored, metrics, threshold, **shared, log=programs.say
        )
    else:
        scores = _accumulate_here(method, source, metrics, values.workers)
    figures = compute_scored(scores, method, source)
    _say_figures(figures, source, stored)
    figures = {
        "model": values.model or values.score_maps,
        "scored_on": source.name,
        **figures,
        **{name: arrays.findings() for name, arrays in stored.items()},
    }
    figures["definitions"] = definitions.definitions_of(figures)
    command = programs.command_line(program, values, options)
    written = _write(values, command, figures, scores.predictions, method, source)
    lines = outcomes.outcome_lines(scores.accumulators, method.thresholds, source.classes)
    files.write(os.path.join(values.output_dir, outcomes.LINES), lines)
    written.append(outcomes.LINES)
    if not source.has_boxes and not source.has_masks:
        programs.say(
            "This data has no boxes and no masks, so only the classification is scored. To score "
            "localization, give boxes: --dataset=csv, --dataset=coco or --dataset=voc_folder, "
            "see docs/data.md."
        )
    programs.say(f"Wrote {', '.join(written)} to {values.output_dir}.")
    return figures


def _accumulate_here(method, source, metrics, number):
    """Scores in this process, and in others of this machine if there are to be any."""
    with workers.mapper(number) as map_chunks:
        return accumulate_scores(
            method,
            source,
            metrics=metrics,
            map_chunks=map_chunks,
            progress=Progress(len(source), log=programs.say),
        )


def _say_figures(figures, source, stored):
    programs.say(terminal.figures_table(figures))
    if source.report.skipped or source.report.noted:
        programs.say(source.report.summary())
    for arrays in stored.values():
        if arrays.summary():
            programs.say(arrays.summary())


def _write(values, command, figures, predictions, method, source):
    """Writes the files of an evaluation; returns their names."""

    def path(name):
        return os.path.join(values.output_dir, name)

    from wsol_tf.report.page import draw_charts, write_report  # with Matplotlib

    programs.keep_output_dir(values.output_dir)
    title = contact_sheets.sheet_title(values.dataset, values.data_dir, values.split)
    files.write_json(path("metrics.json"), figures)
    lines = [json.dumps(line) + "\n" for line in predictions]
    files.write(path("predictions.jsonl"), "".join(lines))
    tiles = contact_sheets.draw_tiles(method, source, predictions)
    contact_sheets.write_contact_sheet(path("contact_sheet.png"), tiles, title)
    charts = draw_charts(figures)
    for name, chart in charts.items():
        files.write(path(f"{name}.png"), pictures.as_png(chart))
    write_report(
        path("report.html"),
        figures,
        charts,
        tiles,
        title=title,
        command=command,
    )
    written = ["report.html", "metrics.json", "predictions.jsonl", "contact_sheet.png"]
    if not any(tiles.values()):
        written.remove("contact_sheet.png")
    return [*written, *(f"{name}.png" for name in charts)]


def make_scored(values: flags.FlagValues, threshold: float | str) -> Scored:
    """Makes what is scored of parsed flags."""
    return _named(values)(values, threshold)


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
    if values.map and values.score_maps:
        raise ValueError("--map picks a map of a model; stored score maps are scored as they are.")
    if values.score_maps:
        return _scored_maps
    if values.model == "imagenet" or values.model.endswith(".h5"):
        return _scored_classifier
    return _scored_model


def _scored_model(values, threshold):
    """A trained model of ours."""
    importing.import_keras()
    from wsol_tf.model.build import load_model

    model = load_model(values.model, to_train=False)
    model.freeze()
    own_map = None if values.map in BASELINES else values.map
    method = method_of(
        model,
        kind=own_map,
        threshold=threshold if own_map == values.map else "stored",
        view=values.view or "crop",
        top_k=values.top_k,
        ten_crop=values.ten_crop,
    )
    source = open_scored(values, model.classes, model.resize_size)
    if own_map != values.map:
        method = with_baseline(
            method, values.map, model.feature_extractor, model.classifier, threshold=threshold
        )
    return method, source, {}


def _scored_classifier(values, threshold):
    """A classifier of keras.applications as it was trained on ImageNet."""
    importing.import_keras()
    from wsol_tf.evaluation import baselines

    resize_size = resize_side(values.input_size, values.resize_size)
    source = open_scored(values, None, resize_size)
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
        sentence = re.sub("`?(--)?extractor_weights`?", "--model", str(error))
        raise ValueError(sentence) from error
    programs.say(f"Classifier {loaded}.")
    scores = classifier.output.shape[-1]
    if len(source.classes) != scores:
        raise ValueError(
            f"The classifier tells {scores} classes apart and {source.name} has "
            f"{len(source.classes)}. A classes.txt with all names in the order of the classifier's "
            "scores is needed: for ImageNet its 1000 wnids, sorted."
        )
    method = method_of_classifier(
        feature_extractor,
        classifier,
        view=View(values.input_size, resize_size, values.view or "crop"),
        kind=values.map,
        threshold=threshold,
        ten_crop=values.ten_crop,
    )
    return method, source, {}


def _scored_maps(values, threshold):
    """Score maps that another program made."""
    resize_size = resize_side(values.input_size, values.resize_size)
    source = open_scored(values, None, resize_size, pictures_needed=False)
    stored = {"score_maps": stored_maps.open_maps(values.score_maps, source)}
    if values.class_scores:
        stored["class_scores"] = stored_maps.open_scores(values.class_scores, source)
    method = method_of_stored_maps(
        **stored,
        num_classes=len(source.classes),
        view=View(values.input_size, resize_size, values.view or "whole"),
        threshold=threshold,
    )
    return method, source, stored


def open_scored(
    values: flags.FlagValues,
    classes: Sequence[str] | None,
    image_size: int,
    *,
    pictures_needed: bool = True,
) -> Source:
    """Opens the data set that the flags of `define_data_flags` name.

    Args:
        values: parsed flags.
        classes: the classes of what is scored; None: those of the data set.
        image_size: side in pixels of drawn pictures.
        pictures_needed: see `open_dataset`.
    """
    return open_dataset(
        values.dataset,
        values.data_dir,
        values.split,
        image_dir=values.image_dir,
        classes=classes,
        seed=values.seed,
        image_size=image_size,
        num_examples=values.num_examples or None,
        download=values.download,
        single_class=values.single_class,
        on_bad_image=values.on_bad_image,
        pictures_needed=pictures_needed,
    )


def run(values: flags.FlagValues, *, options: Sequence[str] = ()) -> None:
    """Scores what the flags name."""
    evaluate(values, options=options)


if __name__ == "__main__":
    programs.main(define_flags, run)
