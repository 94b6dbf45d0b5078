"""Scores a trained model on a data set with boxes or masks.

    python -m wsol_tf.evaluate --model=RUN/model.keras --dataset=voc_folder --data_dir=D \\
        --split=val --output_dir=OUT

writes OUT/metrics.json, predictions.jsonl (one line per picture and class in it) and
contact_sheet.png, and prints the table with CAM and the trivial boxes beside the model.
"""

import json
import os
import sys
import zipfile

import keras
from absl import app, flags

from wsol_tf import config as config_lib
from wsol_tf import datasets
from wsol_tf.model import Localization
from wsol_tf.score_maps import MAPS
from wsol_tf.train import INTERRUPTED, make_output_dir, score_and_draw, sheet_title


def define_flags():
    """Defines the flags of this program."""
    config_lib.define_flags(
        ["dataset", "data_dir", "split", "output_dir", "num_examples", "seed"], split="val"
    )
    flags.DEFINE_string("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_enum("map", None, MAPS, "Score map that is scored; default: the model's own.")
    flags.DEFINE_integer(
        "top_k", None, "Classes of --map=topk; default: the model's own.", lower_bound=1
    )
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_enum(
        "view",
        "crop",
        ["crop", "whole"],
        "'crop': the centre 7/8 of the picture, as the papers score; 'whole': all of it.",
    )


def load_model(path) -> Localization:
    """Loads a model that this project trained; anything else is refused with a sentence."""
    if not os.path.isfile(path):
        raise ValueError(f"--model '{path}' is no file. Name the model.keras of a run.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"--model '{path}' is cut off or no .keras file ({os.path.getsize(path)} bytes). "
            "Copy it again, or name the model.keras of a run."
        )
    try:
        model = keras.saving.load_model(path)
    except Exception as error:
        raise ValueError(
            f"--model '{path}' can't be loaded ({str(error).partition(chr(10))[0]}). "
            "Name the model.keras of a run."
        ) from error
    if not isinstance(model, Localization):
        raise ValueError(f"--model '{path}' is a {type(model).__name__}, not a Localization.")
    return model


def parse_threshold(text):
    """Reads --threshold: 'stored', 'otsu' or a number in 0..1."""
    if text in ("stored", "otsu"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(
            f"--threshold is a number in 0..1, 'stored' or 'otsu'. Received: '{text}'."
        )
    return value


def evaluate(values):
    """Does what the command does with parsed flags; returns the figures."""
    threshold = parse_threshold(values.threshold)
    make_output_dir(values.output_dir)
    model = load_model(values.model)
    source = datasets.load(
        values.dataset,
        values.data_dir,
        values.split,
        classes=model.classes,
        seed=values.seed,
        image_size=model.resize_size,
        num_examples=values.num_examples or None,
    )
    figures, lines = score_and_draw(
        model,
        source,
        None,
        kind=values.map or model.map,
        threshold=threshold,
        view=values.view,
        sheet_path=os.path.join(values.output_dir, "contact_sheet.png"),
        title=sheet_title(values.dataset, values.data_dir, values.split),
        top_k=values.top_k,
    )
    figures = {"model": values.model, "scored_on": source.name, **figures}
    with open(os.path.join(values.output_dir, "metrics.json"), "w") as file:
        json.dump(figures, file, indent=2)
    with open(os.path.join(values.output_dir, "predictions.jsonl"), "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    if not source.has_boxes and not source.has_masks:
        print(
            "This data has no boxes and no masks, so only the classification is scored. To score "
            "localization, give boxes: VOC layout (--dataset=voc_folder) with Annotations."
        )
    print(f"Wrote metrics.json, predictions.jsonl and contact_sheet.png to {values.output_dir}.")
    return figures


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    try:
        evaluate(flags.FLAGS)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(config_lib)
    app.run(main)
