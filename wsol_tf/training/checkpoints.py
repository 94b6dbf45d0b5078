"""Checkpoints of a run: whole files or none, the newest good one, and one run for one folder."""

import contextlib
import json
import os
import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from wsol_tf import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


FOLDER = "checkpoints"
STATE = "state"
_NAME = re.compile(r"step-(\d{9})\.npz")


def write(run_dir: str, arrays: Sequence[np.ndarray], state: dict[str, Any], keep: int = 2) -> None:
    """Writes a checkpoint so that a kill or a full disk at any moment leaves the older ones whole.

    One file `checkpoints/step-NNNNNNNNN.npz` holds everything. It is written under another name,
    forced to the disk, and renamed; then all but the newest `keep` are removed.

    Args:
        run_dir: folder of the run.
        arrays: the variables in their order.
        state: dict for JSON, with the key `step`.
        keep: how many checkpoints are kept.

    Raises:
        OSError: the checkpoint could not be written; the older ones are as they were.
    """
    folder = os.path.join(run_dir, FOLDER)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"step-{state['step']:09}.npz")
    named: dict[str, Any] = {f"{index:05}": array for index, array in enumerate(arrays)}
    named[STATE] = np.array(json.dumps(state))
    with files.replacing(path) as unfinished:
        np.savez(unfinished, **named)
    for name in os.listdir(folder):
        if name.startswith(files.UNFINISHED):  # left by a kill
            os.remove(os.path.join(folder, name))
    for _, older in paths(run_dir)[max(keep, 1) :]:
        os.remove(older)


def paths(run_dir: str) -> list[tuple[int, str]]:
    """Returns the checkpoints of a run as (step, path), newest first."""
    folder = os.path.join(run_dir, FOLDER)
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        match = _NAME.fullmatch(name)
        if match:
            found.append((int(match[1]), os.path.join(folder, name)))
    return sorted(found, reverse=True)


def read(path: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Reads a whole checkpoint: (arrays, state), see `write`.

    Raises:
        ValueError: the file is truncated, damaged, or no checkpoint.
    """
    try:
        # Opened here, because numpy leaves it open where the file turns out to be damaged. It is a
        # zip file: every member has a checksum.
        with open(path, "rb") as opened, np.load(opened) as file:
            names = sorted(name for name in file.files if name != STATE)
            return [file[name] for name in names], json.loads(str(file[STATE]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Checkpoint '{path}' can't be read ({error}; {os.path.getsize(path)} bytes)."
        ) from error


def newest(
    run_dir: str, log: Callable[[str], None]
) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Reads the newest checkpoint that is whole.

    Args:
        run_dir: folder of the run.
        log: function that takes lines of text; it is told which checkpoints can't be read.

    Returns:
        (arrays, state), or None where the run has no checkpoint at all.

    Raises:
        ValueError: there are checkpoints, but none of them can be read.
    """
    found = paths(run_dir)
    for _, path in found:
        try:
            return read(path)
        except ValueError as error:
            log(f"{error} The one before it is used.")
    if found:
        raise ValueError(
            f"None of the {len(found)} checkpoints in '{os.path.join(run_dir, FOLDER)}' can be "
            "read. Pass `resume=false` to start anew, or restore one from a copy."
        )
    return None


def clear(run_dir: str) -> None:
    """Removes the checkpoints of a run."""
    for _, path in paths(run_dir):
        os.remove(path)


@contextlib.contextmanager
def lock(run_dir: str, log: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes from writing to a run's folder, until this one ends.

    Args:
        run_dir: folder of the run.
        log: function that takes lines of text; it is told where the file system has no locks.

    Raises:
        ValueError: another process holds it.
    """
    folder = os.path.join(run_dir, FOLDER)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "lock")
    with open(path, "a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ValueError(
                    f"Another run is writing to '{run_dir}' ({file.read().strip() or 'unknown'}). "
                    "Wait for it, end it, or name another `output_dir`."
                ) from None
            except OSError as error:
                log(f"'{path}' can't be locked ({error.strerror}): start only one run per folder.")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
