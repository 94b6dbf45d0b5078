"""From a folder of pictures, one folder inside it for each class, to a file for a phone.

    python examples/own_pictures.py PICTURES OUT
    python examples/own_pictures.py PICTURES OUT --epochs=10 --width=0.25

Further arguments are settings of the training (`python -m wsol_tf.train --helpfull` lists them).
OUT/run has the trained model and how good it is, OUT/files what goes to the phone, and OUT/seen
what that file finds in the pictures: an overlay and a mask for each.
"""

import subprocess
import sys

if len(sys.argv) < 3:
    sys.exit(__doc__)
pictures, output, *settings = sys.argv[1:]


def run(program, *arguments):
    """Runs one of the project's programs; ends here if it fails."""
    if subprocess.run([sys.executable, "-m", program, *arguments]).returncode:
        sys.exit(f"{program} failed: what it said stands above.")


run("wsol_tf.train", "--flagfile=configs/folder.flags", f"--data_dir={pictures}",
    f"--output_dir={output}/run", *settings)  # fmt: skip
run("edge.export", f"--model={output}/run/model.keras", f"--output_dir={output}/files",
    "--formats=int8", f"--calibration_data={pictures}")  # fmt: skip
run("edge.predict", f"--model={output}/files/localizer_int8.tflite", f"--output_dir={output}/seen",
    pictures)  # fmt: skip
