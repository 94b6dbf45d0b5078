"""The demo: trains on drawn objects, scores, exports for a phone, and says how good the model is.

    python -m wsol_tf.demo --output_dir=demo

Runs the command lines as a user would, in minutes on two CPU cores, and downloads nothing. What
they print goes to log.txt in its folder. `--quick` does the same in a minute, with a model that
learns next to nothing.
"""

import math
import os
import re
import subprocess
import sys
import time
from typing import Any

import numpy as np
from absl import flags

from wsol_tf import files, programs
from wsol_tf.progress import Progress, clear

CONFIG = os.path.join(programs.CONFIGS, "demo.flags")
SHOWN = 6  # pictures in the side-by-side sheet


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("output_dir", "demo", "Folder for everything that the demo writes.")
    flags.DEFINE_bool(
        "quick", False, "One minute instead of several; the model learns next to nothing."
    )


def run_stage(title: str, seconds: float, log_path: str, *command: str) -> None:
    """Runs a program and shows how far it is; stops the demo if it fails.

    Args:
        title: what it does, for the user.
        seconds: how long it takes on two quiet cores, for a program that counts no steps.
        log_path: file that takes its command and all that it prints.
        *command: the module, and its arguments.
    """
    started, shown = time.monotonic(), Progress(100, every=math.inf)
    with open(log_path, "a") as log:
        log.write(f"\n$ python -m {' '.join(command)}\n")
        log.flush()
        before = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                passed = time.monotonic() - started
                share = steps_done(log_path, before)
                share = passed / seconds if share is None else share
                shown.show(min(97, round(100 * share)), f"{title}, {passed:.0f} s")
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
            clear()
    if process.returncode:
        with open(log_path, errors="replace") as log:
            log.seek(before)
            last = "".join(log.readlines()[-12:])
        sys.exit(
            f"\nThe demo stopped: {command[0]} ended with status {process.returncode}. "
            f"{log_path} has all that it printed, at last:\n{last}"
        )
    print(f"{title:44} {time.monotonic() - started:4.0f} s", flush=True)


def steps_done(log_path: str, before: int) -> float | None:
    """Returns the share of steps that a log tells of from a position on; None: it counts none."""
    with open(log_path, errors="replace") as log:
        log.seek(before)
        counts = re.findall(r"step (\d+)/(\d+)", log.read())
    return int(counts[-1][0]) / int(counts[-1][1]) if counts else None


def draw_side_by_side(model_path: str, output_path: str) -> None:
    """Draws the CAM and the localizer's mask of the same pictures, one below the other."""
    # They bring TensorFlow, which takes seconds; what the demo is about to do is said before.
    from wsol_tf.data.registry import open_dataset
    from wsol_tf.evaluation.localized_map import LocalizedMap
    from wsol_tf.evaluation.methods import method_of
    from wsol_tf.model.build import load_model
    from wsol_tf.report import pictures

    model = load_model(model_path)
    method = method_of(model)
    source = open_dataset(
        "shapes", "", "test", classes=model.classes, image_size=model.resize_size,
        num_examples=SHOWN,
    )  # fmt: skip
    tiles: dict[str, list[np.ndarray]] = {"cam": [], model.map: []}
    for pair in method.pairs(source, range(SHOWN), kinds=[model.map, "cam"]):
        for kind, row in tiles.items():
            separate = kind in method.separated_kinds
            found = LocalizedMap(pair, kind, method.thresholds[kind], separate=separate)
            parts = found.score_map, found.mask, found.box
            boxes = () if pair.boxes is None else pair.boxes
            row.append(pictures.overlay(pair.image, *parts, true_boxes=boxes, side=256))
    sheet = pictures.contact_sheet(
        {
            "CAM: where the classifier looks": tiles["cam"],
            "Localizer: the full method": tiles[model.map],
        },
        title="Trained on one label per picture\nThe features were pretrained on other drawn "
        f"pictures, with one label each. Here: {pictures.LEGEND}",
        columns=SHOWN,
    )
    files.write(output_path, pictures.as_png(sheet))


def verdict(metrics: dict[str, Any], quick: bool) -> str:
    """Says in plain words what the figures of metrics.json mean."""

    def shown(share):  # 0.995 is not all of them
        return f"{share:.1%}".replace(".0%", "%")

    cam = metrics["other_maps"]["cam"]
    centred = metrics["baselines"]["centered_box_oracle"]
    found, named = shown(metrics["gt_known_loc"]), shown(metrics["top1_cls"])
    text = (
        f"On {metrics['num_images']} drawn pictures that it never saw, the model, which was told "
        "nothing but one class per\npicture, puts its box around the object (IoU at least 0.5) in "
        f"{found} of them. Its masks overlap the\ntrue ones with a mean IoU "
        f"of {metrics['miou_mask']:.2f}. It names the right class in {named}.\n"
        f"The usual explanation map (CAM) of the very same network reaches "
        f"{shown(cam['gt_known_loc'])} and {cam['miou_mask']:.2f}\n(boxes: "
        f"{shown(cam['gt_known_loc_oracle'])} at the threshold that is best for it, which takes "
        "boxes to know); a centred box\nthat ignores the picture, "
        f"{shown(centred['gt_known_loc'])}."
    )
    if quick:
        text += "\nThis was the quick demo: three short epochs teach a model next to nothing."
    return text


def say_opening(output_dir: str, quick: bool) -> None:
    """Says what will happen, how long it takes, and what the features were made of."""
    count, time_ = ("96", "a minute") if quick else ("600", "two minutes")
    programs.say(
        f"In about {time_} on two CPU cores, a network learns from {count} drawn pictures with one "
        "label each where\nthe objects are, is scored on others, and becomes a file for a phone.\n"
        "Its feature extractor was pretrained on other drawn pictures, with one label each too.\n"
        f"Everything is written to {output_dir}; log.txt there has what the programs print.\n"
    )


def say_results(output_dir: str, metrics: dict[str, Any], quick: bool) -> None:
    """Says how good the model is, where the results are, and how to go on."""
    programs.say(f"\n{verdict(metrics, quick)}\n\nLook at")
    for name, what in (
        ("cam_and_localizer.png", "CAM and the localizer on the same pictures"),
        ("scored/report.html", "figures, charts, best and worst localizations"),
        ("found", "what the int8 file finds in 12 pictures, without TensorFlow"),
        ("edge/parity.md", "the files for a phone beside the Keras model"),
    ):
        programs.say(f"  {os.path.join(output_dir, name):32} {what}")
    python = os.path.relpath(sys.executable)
    python = "python" if python.startswith(os.pardir) else python
    programs.say(
        "\nYour own pictures, in one folder per class\n"
        f"  {python} -m wsol_tf.train --flagfile=configs/folder.flags --data_dir=PICTURES "
        "--output_dir=run\n"
        f"  {python} -m wsol_tf.predict --model=run/model.keras --output_dir=seen NEW_PICTURES\n"
        f"  {python} -m edge.export --model=run/model.keras --output_dir=files "
        "--calibration_data=PICTURES"
    )


def demonstrate(output_dir: str, quick: bool) -> None:
    """Trains, scores, draws, exports, runs what was exported, and says where the results are.

    Args:
        output_dir: folder to write to.
        quick: whether to train next to nothing.
    """
    programs.make_output_dir(output_dir)
    run_dir, scored, edge, drawn, found = (
        os.path.join(output_dir, name) for name in ("run", "scored", "edge", "pictures", "found")
    )
    model, log = os.path.join(run_dir, "model.keras"), os.path.join(output_dir, "log.txt")
    say_opening(output_dir, quick)
    files.write(log, "")
    run_stage(
        "Train: one label per picture", 70, log, "wsol_tf.train", f"--flagfile={CONFIG}",
        f"--output_dir={run_dir}", "--resume=false",
        *(["--num_examples=96", "--epochs=3"] if quick else []),
    )  # fmt: skip
    run_stage(
        "Score on pictures that it never saw", 15, log, "wsol_tf.evaluate", f"--model={model}",
        "--dataset=shapes", f"--output_dir={scored}", *(["--num_examples=48"] if quick else []),
    )  # fmt: skip
    # On the 200 drawn pictures the usual limit of 0.01 can't be told from chance; 0.03 can.
    run_stage(
        "Export: an int8 file, beside Keras", 25, log, "edge.export", f"--model={model}",
        f"--output_dir={edge}", "--formats=float32,int8", "--calibration_data=shapes",
        *(["--num_calibration=16", "--num_parity=16", "--max_drop=1", "--min_mask_iou=0"]
          if quick else ["--max_drop=0.03"]),
    )  # fmt: skip
    run_stage(
        "Draw 12 pictures", 1, log, "wsol_tf.data.shapes", f"--output_dir={drawn}",
        "--num_images=12", "--size=224", "--split=test",
    )  # fmt: skip
    run_stage(
        "Find the objects in them with that file", 3, log, "edge.predict",
        f"--model={os.path.join(edge, 'localizer_int8.tflite')}", f"--output_dir={found}",
        os.path.join(drawn, "JPEGImages"),
    )  # fmt: skip
    draw_side_by_side(model, os.path.join(output_dir, "cam_and_localizer.png"))
    say_results(output_dir, files.read_json(os.path.join(scored, "metrics.json")), quick)


def run(values: flags.FlagValues) -> None:
    """Runs the demo."""
    demonstrate(values.output_dir, values.quick)


if __name__ == "__main__":
    programs.main(define_flags, run)
