"""What all command lines share: their output folder, how a threshold is named, how they end."""

import contextlib
import os
import shlex
import sys

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
PREEMPTED = 75  # "try again later" (EX_TEMPFAIL): the same command goes on from the checkpoint


class Preempted(BaseException):
    """A run was ended from outside and goes on when it is started again.

    Like KeyboardInterrupt it may come at any moment, and is no error that code would handle.
    """


def preempt(number, frame):
    """A handler of SIGTERM, for the time in which there is nothing to save."""
    raise Preempted("Ended by SIGTERM. Nothing is lost: the same command goes on.")


@contextlib.contextmanager
def plain_ending():
    """Turns what a user can mend into one sentence and status 1, Ctrl-C into status 130.

    A run that was preempted ends with status 75.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"Error: {error}")
    except Preempted as error:
        print(error, file=sys.stderr)
        sys.exit(PREEMPTED)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def make_output_dir(path):
    """Makes the folder that a program writes to; one that can't be is refused with a sentence."""
    if not path:
        raise ValueError("--output_dir is empty: name the folder that the results are written to.")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        what = "a file has this name" if os.path.isfile(path) else error.strerror
        raise ValueError(
            f"--output_dir '{path}' can't be made: {what}. Name another folder."
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"--output_dir '{path}' can't be written to. Name another folder.")


def command_line(program, values):
    """The command that repeats a run: each flag that was given, quoted, on a line.

    program: name of the module; values: parsed flags.
    """
    given = [shlex.quote(values[name].serialize()) for name in values if values[name].present]
    return " \\\n    ".join([f"python -m {program}", *given])


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
