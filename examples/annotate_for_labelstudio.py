"""Pictures that a model annotates, for people to correct in Label Studio, the doubtful ones first.

    python examples/annotate_for_labelstudio.py MODEL.keras PICTURES OUT

MODEL.keras is what `python -m wsol_tf.train` wrote, PICTURES a folder. OUT gets the tasks to
import, the page review.html to look through them first, and doubtful.csv.
"""

import os
import subprocess
import sys
import urllib.parse

if len(sys.argv) != 4:
    sys.exit(__doc__)
model, pictures, output = sys.argv[1:]
# Label Studio serves what lies in folders inside its root, not in the root itself.
root, folder = os.path.split(os.path.abspath(pictures))

command = [sys.executable, "-m", "wsol_tf.annotate", f"--model={model}", "--format=labelstudio",
           f"--image_url=/data/local-files/?d={urllib.parse.quote(folder)}/",
           f"--output_dir={output}", pictures]  # fmt: skip
if subprocess.run(command).returncode:
    sys.exit("wsol_tf.annotate failed: what it said stands above.")
interface, tasks = (os.path.join(output, f"labelstudio.{kind}") for kind in ("xml", "json"))
print(
    f"\nIn Label Studio\n"
    f"  1. start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and\n"
    f"     LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}\n"
    f"  2. make a project, and take {interface} as its labeling interface\n"
    f"  3. add a source storage of local files to it, which is not to be synchronized, with the\n"
    f"     path {os.path.join(root, folder)}\n"
    f"  4. import {tasks}: each picture brings its prediction"
)
