"""Writing files so that a reader, a kill or a full disk never meets half of one."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

UNFINISHED = ".unfinished-"  # how the name of a file begins until all of it is on the disk


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
    """Yields the name of a file to write, which then takes the place of `path`.

    The file lies in the same folder and has the same suffix. It is forced to the disk before it is
    renamed; where writing fails, it is removed and what stood under `path` stays as it was.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f"{UNFINISHED}{os.getpid()}-{name}")
    try:
        yield unfinished
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), path) from error
        raise
    sync_folder(folder)


def write(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes a whole file, text in UTF-8; see `replacing`."""
    with replacing(path) as unfinished, open(unfinished, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Writes values as indented JSON; see `replacing`."""
    write(path, json.dumps(values, indent=2))


def sync_folder(path: str) -> None:
    """Forces the names in a folder to the disk; where a file system can't, nothing happens."""
    with contextlib.suppress(OSError):
        folder = os.open(path or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
