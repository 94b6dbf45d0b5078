"""A program whose workers die: `test_beam` has Dask run it, in a process of its own.

python beam_program.py FOLDER_OF_PICTURES OUTPUT_DIR RUNNER OPTIONS_OF_BEAM...
"""

import os
import pathlib
import signal
import sys
import time

from scenes import localize
from wsol_tf.annotations.look import Looking, Wanted, version_of
from wsol_tf.annotations.run import WAITING
from wsol_tf.beam import look_at


def wait_for_others(values, pieces=2, seconds=30):
    """Waits until the other workers have left something, for a second run to find."""
    end = time.monotonic() + seconds
    folder = pathlib.Path(values.died).parent / WAITING
    while time.monotonic() < end and len(list(folder.glob("?" * 64))) < pieces:
        time.sleep(0.05)


def open_localizer(values):
    """As a program makes it; the first worker that comes to picture 40 is killed."""

    def localize_or_die(image):
        if image.shape[0] == 40:
            try:
                os.mkdir(values.died)
            except FileExistsError:
                pass
            else:
                wait_for_others(values)
                os.kill(os.getpid(), signal.SIGKILL)
        return localize(image)

    return localize_or_die, ()


def main(folder, output_dir, runner, *options):
    paths = sorted(map(str, pathlib.Path(folder).iterdir()))
    outcomes = look_at(
        output_dir,
        folder,
        Looking(),
        [Wanted(path, os.path.basename(path), version_of(path)) for path in paths],
        program="beam_program",
        settings={"runner": runner, "died": os.path.join(output_dir, "died")},
        options=options,
        log=print,
    )
    for outcome in outcomes:
        print(outcome.path, outcome.picture and outcome.picture.height, outcome.reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
