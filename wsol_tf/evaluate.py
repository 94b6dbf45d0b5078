"""Scores a model, or score maps made elsewhere, on a data set with boxes or masks.

    python -m wsol_tf.evaluate --model=RUN/model.keras --dataset=voc_folder --data_dir=D \\
        --split=val --output_dir=OUT

writes OUT/report.html (all of it to look at, in one file), metrics.json, predictions.jsonl (one
line per picture and class in it), contact_sheet.png, threshold_curves.png, outcomes.png and
per_class.png, and prints the table with CAM and the trivial boxes beside the model. Instead of
a trained model it takes `--score_maps=DIR` (or .npz) from any program, and as a baseline
`--model=imagenet` or `--model=FILE.weights.h5`: the keras.applications classifier of --extractor.
"""

import json
import os

from absl import app, flags
from PIL import Image

from wsol_tf import programs
from wsol_tf.config import MAPS
from wsol_tf.evaluation import workers, wsolevaluation
from wsol_tf.evaluation.methods import BASELINES, _classifier, _model, _stored
from wsol_tf.evaluation.score import score_and_draw
from wsol_tf.report import contact_sheets, definitions
from wsol_tf.report.page import draw_charts, write_report

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
    programs.define_flags(DATA, split="val")
    flags.DEFINE_list(
        "metrics",
        "all",
        "Metrics of wsolevaluation to compute besides GT-known and Top-1 Loc: a list of "
        f"{', '.join(wsolevaluation.METRICS)}; 'all' or 'none'.",
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
    programs.define_flags(NETWORK, output_stride=16)
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
        return wsolevaluation.METRICS if names == ["all"] else ()
    unknown = sorted(set(names) - set(wsolevaluation.METRICS))
    if unknown:
        raise ValueError(
            f"Unknown metric '{unknown[0]}'. Legal: {', '.join(wsolevaluation.METRICS)}, or all, "
            "or none."
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
    title = contact_sheets.sheet_title(values.dataset, values.data_dir, values.split)
    with workers.mapper(values.workers) as map_chunks:
        figures, lines, tiles = score_and_draw(
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
    figures["definitions"] = definitions.definitions_of(figures)
    with open(os.path.join(values.output_dir, "metrics.json"), "w") as file:
        json.dump(figures, file, indent=2)
    with open(os.path.join(values.output_dir, "predictions.jsonl"), "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    drawn = draw_charts(figures)
    for name, chart in drawn.items():
        Image.fromarray(chart).save(os.path.join(values.output_dir, f"{name}.png"))
    write_report(
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


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        evaluate(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(programs)
    app.run(main)
