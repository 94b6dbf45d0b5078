"""Scores a trained model on a data set with boxes or masks.

    python -m wsol_tf.evaluate --model=RUN/model.keras --dataset=voc_folder --data_dir=D \\
        --split=val --output_dir=OUT

writes OUT/metrics.json, predictions.jsonl (one line per picture and class in it) and
contact_sheet.png, and prints the table with CAM and the trivial boxes beside the model.
"""

import json
import os

from absl import app, flags

from wsol_tf import config as config_lib
from wsol_tf import datasets, programs, scoring
from wsol_tf import model as model_lib
from wsol_tf.score_maps import MAPS


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


def evaluate(values):
    """Does what the command does with parsed flags; returns the figures."""
    threshold = programs.parse_threshold(values.threshold)
    programs.make_output_dir(values.output_dir)
    model = model_lib.load(values.model)
    source = datasets.load(
        values.dataset,
        values.data_dir,
        values.split,
        classes=model.classes,
        seed=values.seed,
        image_size=model.resize_size,
        num_examples=values.num_examples or None,
    )
    figures, lines = scoring.score_and_draw(
        model,
        source,
        None,
        kind=values.map or model.map,
        threshold=threshold,
        view=values.view,
        sheet_path=os.path.join(values.output_dir, "contact_sheet.png"),
        title=scoring.sheet_title(values.dataset, values.data_dir, values.split),
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
    with programs.plain_ending():
        evaluate(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(config_lib)
    app.run(main)
