"""The last part of `make demo`: the trained model becomes an int8 file, which is checked and run.

    python -m edge.demo --model=demo/run/model.keras --output_dir=demo/edge

exports for drawn objects, prints the parity table, and lets a process without TensorFlow draw what
the int8 file finds in a drawn picture.
"""

import os
import subprocess
import sys

from absl import flags

from wsol_tf import programs


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .keras file that train wrote.", required=True)
    programs.define_path("output_dir", "demo/edge", "Folder for what the demo writes.")
    flags.DEFINE_bool("quick", False, "Fewer pictures, and no limits: for a model of --quick.")


def run_program(*arguments: str) -> None:
    """Runs one of the project's programs and shows its command; stops the demo if it fails."""
    print(f"\n$ python -m {' '.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", *arguments]).returncode
    if status:
        sys.exit(f"The demo stopped: {arguments[0]} ended with status {status}.")


def run(values: flags.FlagValues) -> None:
    """Exports the model, checks the files and runs one; says where the results are."""
    quick = ["--num_calibration=16", "--num_parity=16", "--max_drop=1", "--min_mask_iou=0"]
    # On the 200 drawn pictures the usual 0.01 can't be told from chance; 0.03 can.
    limits = quick if values.quick else ["--max_drop=0.03"]
    run_program("edge.export", f"--model={values.model}", f"--output_dir={values.output_dir}",
                "--formats=float32,int8", "--calibration_data=shapes", *limits)  # fmt: skip
    model = os.path.join(values.output_dir, "localizer_int8.tflite")
    picture, overlay = (
        os.path.join(values.output_dir, name) for name in ("golden.png", "found.png")
    )
    run_program("edge.golden", f"--model={model}", f"--output_dir={values.output_dir}")
    run_program("edge.example", model, picture, overlay)
    print("\nLook at")
    for path, what in (
        (overlay, "drawn by a process without TensorFlow"),
        (os.path.join(values.output_dir, "parity.md"), "the files beside the Keras model"),
        (model, "for an app: labels and threshold inside"),
        (picture, "with golden_mask.png and golden.json: for the app's own test"),
    ):
        print(f"  {path:36} {what}")
    print(f"\nTry it in the browser (needs npm):\n  make web MODEL={model}")


if __name__ == "__main__":
    programs.main(define_flags, run)
