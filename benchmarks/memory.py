"""Trains for thousands of steps on drawn pictures, and prints how much memory the process has.

    python benchmarks/memory.py --steps=10000 --output_dir=MEMORY

The whole program runs: pictures, losses, held-out pictures every tenth epoch, a checkpoint every
500 steps. Memory is the resident set at the end of an epoch. What grows with the steps would show
as a slope; it is fitted to the second half of the run, when everything has been allocated.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags

from wsol_tf import config as config_lib
from wsol_tf.training.run import train

PICTURES, BATCH = 128, 2


def resident():
    """Resident memory of this process in MiB (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(argv):
    values = flags.FLAGS
    steps_per_epoch = round(PICTURES * 0.9) / BATCH
    config = config_lib.Config.recipe(
        width=0.25, input_size=64, head_width=8, extractor_weights="none",
        num_examples=PICTURES, batch_size=BATCH, epochs=-(-values.steps // int(steps_per_epoch)),
        validate_every=10, checkpoint_every_steps=500, resume=False, val_split="",
        output_dir=values.output_dir,
    )  # fmt: skip
    seen = []

    def log(text):
        if text.startswith("Epoch "):
            step = int(text.partition("step ")[2].partition("/")[0])
            if not seen or step // (values.steps // 20) > seen[-1][0] // (values.steps // 20):
                print(f"step {step:6}: {resident():7.1f} MiB", flush=True)
            seen.append((step, resident()))

    train(config, log=log)
    steps, memory = np.array(seen)[len(seen) // 2 :].T
    slope = np.polyfit(steps, memory, 1)[0]
    print(
        f"Second half: {memory.min():.1f} to {memory.max():.1f} MiB; slope "
        f"{slope * 1000:+.2f} MiB in 1,000 steps."
    )


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 10000, "Steps to take.", lower_bound=1000)
    flags.DEFINE_string(
        "output_dir", os.path.join(tempfile.gettempdir(), "wsol_tf_memory"), "Folder of the run."
    )
    app.run(main)
