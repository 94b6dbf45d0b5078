"""The demo: trains on drawn objects, scores, predicts, and says in words how good the model is.

    python -m wsol_tf.demo --output_dir=demo

Runs the three command lines as a user would, in a few minutes on two CPU cores, and downloads
nothing. `--quick` does the same in a minute, with a model that learns next to nothing.
"""

import os
import subprocess
import sys
from typing import Any

import numpy as np
from absl import flags

from wsol_tf import files, programs
from wsol_tf.data import transforms
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.model.build import load_model
from wsol_tf.model.score_maps import localize
from wsol_tf.report import pictures

CONFIG = os.path.join(os.path.dirname(os.path.dirname(__file__)), "configs", "demo.flags")
QUICK = ("--num_examples=96", "--epochs=3")
SHOWN = 6  # pictures in the side-by-side sheet


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("output_dir", "demo", "Folder for everything that the demo writes.")
    flags.DEFINE_bool(
        "quick", False, "One minute instead of several; the model learns next to nothing."
    )


def run_program(program: str, *arguments: str) -> None:
    """Runs a program of wsol_tf and shows its command; stops the demo if it fails."""
    shown = " ".join(os.path.relpath(a) if os.path.isabs(a) else a for a in arguments)
    programs.say(f"\n$ python -m wsol_tf.{program} {shown}")
    status = subprocess.run([sys.executable, "-m", f"wsol_tf.{program}", *arguments]).returncode
    if status:
        sys.exit(f"The demo stopped: wsol_tf.{program} ended with status {status}.")


def draw_side_by_side(model_path: str, output_path: str) -> None:
    """Draws the CAM and the localizer's mask of the same pictures, one below the other."""
    model = load_model(model_path)
    source = open_dataset(
        "shapes", "", "test", classes=model.classes, image_size=model.resize_size,
        num_examples=SHOWN,
    )  # fmt: skip
    view = transforms.View(model.input_size, model.resize_size)
    tiles: dict[str, list[np.ndarray]] = {"cam": [], model.map: []}
    for pair in predict_pairs(
        model.predict_on_batch,
        source,
        range(SHOWN),
        kinds=list(tiles),
        view=view,
        offset=model.offset,
        refine=model.refine,
    ):
        for kind, row in tiles.items():
            height, width = pair.image.shape[:2]
            boxes = () if pair.boxes is None else pair.boxes
            found = localize(pair.maps[kind], height, width, model.thresholds[kind])
            row.append(pictures.overlay(pair.image, *found, true_boxes=boxes, side=256))
    sheet = pictures.contact_sheet(
        {
            "CAM: where the classifier looks": tiles["cam"],
            "Localizer: the full method": tiles[model.map],
        },
        title=f"Trained on one label per picture\n{pictures.LEGEND}",
        columns=SHOWN,
    )
    files.write(output_path, pictures.as_png(sheet))


def verdict(metrics: dict[str, Any], quick: bool) -> str:
    """Says in plain words what the figures of metrics.json mean."""
    cam = metrics["other_maps"]["cam"]
    centred = metrics["baselines"]["centered_box_oracle"]
    text = (
        f"On {metrics['num_images']} drawn pictures that it never saw, the model, which was told "
        "nothing but one class per\npicture, puts its box around the object (IoU at least 0.5) in "
        f"{metrics['gt_known_loc']:.0%} of them. Its masks overlap the\ntrue ones with a mean IoU "
        f"of {metrics['miou_mask']:.2f}. It names the right class in {metrics['top1_cls']:.0%}.\n"
        f"The usual explanation map (CAM) of the very same network reaches "
        f"{cam['gt_known_loc']:.0%} and {cam['miou_mask']:.2f}; a centred box that\nignores the "
        f"picture, {centred['gt_known_loc']:.0%}."
    )
    if quick:
        text += "\nThis was the quick demo: three short epochs teach a model next to nothing."
    return text


def demonstrate(output_dir: str, quick: bool) -> None:
    """Trains, scores, predicts, and says where the results are.

    Args:
        output_dir: folder to write to.
        quick: whether to train next to nothing.
    """
    if not os.path.isfile(CONFIG):
        sys.exit(f"Error: the demo runs from a checkout of the project; {CONFIG} is missing.")
    run_dir, scored, predicted, drawn = (
        os.path.join(output_dir, name) for name in ("run", "scored", "predicted", "pictures")
    )
    model = os.path.join(run_dir, "model.keras")
    run_program(
        "train",
        f"--flagfile={CONFIG}",
        f"--output_dir={run_dir}",
        "--resume=false",
        *(QUICK if quick else ()),
    )
    run_program("evaluate", f"--model={model}", "--dataset=shapes", f"--output_dir={scored}",
        *(["--num_examples=48"] if quick else []))  # fmt: skip
    run_program(
        "data.shapes", f"--output_dir={drawn}", "--num_images=12", "--size=224", "--split=test"
    )
    run_program("predict", f"--model={model}", f"--output_dir={predicted}",
        os.path.join(drawn, "JPEGImages"))  # fmt: skip
    sheet = os.path.join(output_dir, "cam_and_localizer.png")
    draw_side_by_side(model, sheet)
    metrics = files.read_json(os.path.join(scored, "metrics.json"))
    programs.say(f"\n{verdict(metrics, quick)}\n\nLook at")
    for path, what in (
        (sheet, "CAM and the localizer on the same pictures"),
        (os.path.join(scored, "report.html"), "figures, charts, best and worst localizations"),
        (predicted, "an overlay and a mask for each of 12 pictures"),
        (os.path.join(run_dir, "curves.png"), "the seven losses over the epochs"),
        (model, "the model: classes, preprocessing and threshold inside"),
    ):
        programs.say(f"  {path:36} {what}")


def run(values: flags.FlagValues) -> None:
    """Runs the demo."""
    demonstrate(values.output_dir, values.quick)


if __name__ == "__main__":
    programs.main(define_flags, run)
