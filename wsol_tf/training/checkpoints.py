"""Checkpoints of a run: whole files or none, the newest good one, and one run for one folder."""

import contextlib
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from wsol_tf import files

FOLDER = "checkpoints"
RECORD = "record"  # the member with the state and the digest of the whole
OLD_STATE = "state"  # that of files from before there was a digest
ANY_SIZE = 2**63
_NAME = re.compile(r"step-(\d{9})\.npz")


def write(run_dir: str, arrays: Sequence[np.ndarray], state: dict[str, Any], keep: int = 2) -> None:
    """Writes a checkpoint so that a kill or a full disk at any moment leaves the older ones whole.

    One file `checkpoints/step-NNNNNNNNN.npz` holds everything, and a digest of it. It is written
    under another name, forced to the disk, and renamed; then all but the newest `keep` are removed.

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
    text = json.dumps(state)
    named[RECORD] = np.array(json.dumps({"digest": _digest(arrays, text), "state": text}))
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
        with files.open_binary(path, ANY_SIZE) as opened, zipfile.ZipFile(opened) as archive:
            return _contents(archive)
    except files.BadFile as error:
        raise ValueError(f"Checkpoint can't be read: {error}") from error
    except Exception as error:  # what damage does to a zip file has no end of kinds
        raise ValueError(f"Checkpoint '{path}' is damaged ({error}).") from error


def _contents(archive):
    """Reads and checks the members of a checkpoint: (arrays, state)."""
    names = archive.namelist()
    arrays = [f"{index:05}.npy" for index in range(len(names) - 1)]
    if names not in ([*arrays, f"{RECORD}.npy"], [*arrays, f"{OLD_STATE}.npy"]):
        raise ValueError("its members are not those of a checkpoint")
    # A member is read whole before it is looked at: then its own checksum has been compared.
    *arrays, record = (
        np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
        for name in names
    )
    if names[-1] == f"{OLD_STATE}.npy":
        return arrays, json.loads(str(record))
    record = json.loads(str(record))
    if record["digest"] != _digest(arrays, record["state"]):
        raise ValueError("its digest is that of other values")
    return arrays, json.loads(record["state"])


def _digest(arrays, state):
    """Returns a digest of all that a checkpoint holds: order, dtypes, shapes, values, state."""
    digest = hashlib.sha256(f"{len(arrays)} {state}".encode())
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"\n{array.dtype.str} {np.shape(array)}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


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
def lock(run_dir: str, log: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Keeps other processes from writing to a run's folder, until this one ends.

    Args:
        run_dir: folder of the run.
        log: function that takes lines of text; it is told where the file system has no locks.

    Yields:
        A function that makes the folder again, and takes the lock in it, where somebody removed or
        renamed the folder; it returns whether that was needed. A run of hours does not end for it:
        what it has in memory can still be saved.

    Raises:
        ValueError: another process holds it.
    """
    path = os.path.join(run_dir, FOLDER, "lock")
    file = _take_lock(run_dir, path, log)

    def keep() -> bool:
        nonlocal file
        try:
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return False
        except FileNotFoundError:
            pass
        except OSError:  # a network drive that does not answer: what it holds is not known
            return False
        try:
            held, file = file, _take_lock(run_dir, path, log)
        except OSError as error:
            log(f"'{run_dir}' was removed and can't be made again ({error.strerror}).")
            return False
        held.close()
        log(
            f"'{run_dir}' was removed or renamed while the run was writing to it. The folder is "
            "made again and the run goes on; what was in it before is not there."
        )
        return True

    try:
        yield keep
    finally:
        file.close()


def _take_lock(run_dir, path, log):
    """Opens and locks the file `path`, which ends with its being closed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)

    def tell(error):
        log(f"'{path}' can't be locked ({error.strerror}): start only one run per folder.")

    file = files.take_lock(path, unlockable=tell)
    if file is None:
        raise ValueError(
            f"Another run is writing to '{run_dir}' ({files.lock_holder(path)}). Wait for it, end "
            "it, or name another `output_dir`."
        )
    return file
