"""Files in and out: nothing but a regular file is read, and nobody meets half of a written one."""

import contextlib
import errno
import io
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"  # how the name of a file begins until all of it is on the disk
MEBI = 2**20
MAX_BYTES = 4096 * MEBI  # of a file that is read whole, unless a reader asks for less

_KINDS = {
    stat.S_ISDIR: "a folder, not a file",
    stat.S_ISFIFO: "a pipe, not a file",
    stat.S_ISSOCK: "a socket, not a file",
    stat.S_ISCHR: "a device, not a file",
    stat.S_ISBLK: "a device, not a file",
}
_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "the file may not be read (permission denied)",
    errno.ELOOP: "this is a link that leads back to itself",
    errno.ENAMETOOLONG: "no file can have so long a name",
}


class BadFile(ValueError):
    """A file that cannot be used; the text is one sentence with the file and the reason.

    Attributes:
        reason: the sentence without the file, so that equal reasons can be counted together.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{printable(os.fspath(path))}: {reason}.")
        self.reason = reason


def printable(text: str) -> str:
    """Returns text that is safe on a terminal: control characters, lone surrogates as escapes.

    Names of files can hold both; a terminal would obey the first and no encoding has the second.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def expanded(path: str | os.PathLike) -> str:
    """Returns a path as a shell would understand it: `~` and `~name`, `$NAME` and `${NAME}`.

    Nothing else does it for a path in a flagfile, in code, or behind `--name=`.

    Raises:
        ValueError: there is no such variable, and nothing that is called so as it stands.
    """
    path = os.path.expanduser(os.fspath(path))
    if "$" not in path or os.path.lexists(path):
        return path
    found = os.path.expanduser(os.path.expandvars(path))
    missing = re.search(r"\$(\w+|\{\w+\})", found)
    if missing and not os.path.lexists(found):
        raise ValueError(
            f"There is no environment variable {missing[1].strip('{}')}. Received: "
            f"'{printable(path)}'."
        )
    return found


def counted(number: int, what: str) -> str:
    """Returns a number and what is counted: "1 picture", "2 pictures", "3 boxes"."""
    if number == 1:
        return f"1 {what}"
    return f"{number} {what}es" if what.endswith(("s", "x")) else f"{number} {what}s"


def open_binary(path: str | os.PathLike, limit: int = MAX_BYTES) -> IO[bytes]:
    """Opens a file to read, if it is a regular file.

    A pipe or a device could wait for ever or never end, so they are refused before a byte is read.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        BadFile: there is no such file, it may not be read, is no regular file, or has more bytes.
    """
    return open(_opened(path, limit)[0], "rb")


def read_bytes(path: str | os.PathLike, limit: int = MAX_BYTES) -> bytes:
    """Reads a whole file, see `open_binary`.

    Raises:
        BadFile: it can't be read, is no regular file, or has more than `limit` bytes.
    """
    number, size = _opened(path, limit)  # without a file object: training reads very many files
    try:
        # As much memory as the file says, and not the limit; what is in /proc says 0 bytes.
        # What came is all of it where it is no more than that, though a byte more was asked for.
        data = os.read(number, min(size, limit) + 1)
        is_whole = 0 < size == len(data)
        while not is_whole and len(data) <= limit:
            more = os.read(number, max(size - len(data), MEBI))
            is_whole = not more
            data += more
    except OSError as error:
        raise BadFile(path, _reason(path, error)) from None
    finally:
        os.close(number)
    if len(data) > limit:
        raise BadFile(path, f"the file has more than {_mebi(limit)}, the most that is read")
    return data


def _opened(path, limit):
    """Opens a regular file: its descriptor and its size in bytes; see `open_binary`."""
    try:
        _check_regular(path, os.stat(path), limit)
        # A pipe that took the file's place just now does not block here, and is refused below.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(number)
            _check_regular(path, status, limit)
        except BaseException:
            os.close(number)
            raise
        return number, status.st_size
    except OSError as error:
        raise BadFile(path, _reason(path, error)) from None
    except ValueError as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(path, "no file can have this name") from None


def read_text(path: str | os.PathLike, limit: int = MAX_BYTES) -> str:
    """Reads a whole text file in UTF-8, or as its first bytes tell in UTF-16, see `open_binary`.

    Ends of lines of any system become newlines; a byte-order mark is no part of the text.

    Raises:
        BadFile: it can't be read, has more than `limit` bytes, or is not in UTF-8 or UTF-16.
    """
    data = read_bytes(path, limit)
    encoding = json.detect_encoding(data)  # by a byte-order mark, or by where the zeros are
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-SIG")
        reason = f"this is not text in {name} (byte {error.start}: {error.reason})"
        raise BadFile(path, f"{reason}; save it in UTF-8") from None
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)


def read_json(path: str | os.PathLike, limit: int = MAX_BYTES) -> Any:
    """Reads a JSON file, see `read_text`.

    Raises:
        BadFile: it can't be read, or is no JSON: truncated, damaged, or nested too deeply.
    """
    try:
        return json.loads(read_text(path, limit))
    except RecursionError:
        raise BadFile(path, "the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadFile(path, f"this is not JSON, or only a part of it ({error})") from None
    except ValueError as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(path, "the JSON has a number of thousands of digits") from None


def _check_regular(path, status, limit):
    if not stat.S_ISREG(status.st_mode):
        kind = next((what for test, what in _KINDS.items() if test(status.st_mode)), "no file")
        raise BadFile(path, f"this is {kind}")
    if status.st_size > limit:
        raise BadFile(
            path,
            f"the file has {_mebi(status.st_size)}, more than {_mebi(limit)}, the most that is "
            "read",
        )


def _mebi(count):
    return f"{count / MEBI:.0f} MiB" if count >= MEBI else f"{count} bytes"


def _reason(path, error):
    if error.errno == errno.ENOENT and os.path.islink(path):
        return "this is a link to a file that is not there"
    return _REASONS.get(error.errno, f"the file can't be read ({error.strerror or error})")


# --- writing -------------------------------------------------------------------------------------


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
    # The end of a long name is enough, and no longer than a file system takes.
    unfinished = os.path.join(folder, f"{UNFINISHED}{os.getpid()}-{name[-50:]}")
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


# --- one process at a time -----------------------------------------------------------------------


def take_lock(
    path: str | os.PathLike,
    *,
    wait: bool = False,
    unlockable: Callable[[OSError], Any] = lambda error: None,
) -> IO[str] | None:
    """Opens a file, made where it is not there, and locks it until it is closed.

    The lock is the operating system's: it ends with the process, however that ends, and a child
    that inherits the file holds it too.

    Args:
        path: the file; it names the process that took it last.
        wait: whether to wait for another process that holds it.
        unlockable: is told the error where the file system has no locks; the file is then returned
            as if it were locked.

    Returns:
        The file, which the caller closes; None where another process holds it.
    """
    file = open(path, "a+")  # noqa: SIM115 - the caller closes it
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            unlockable(error)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def lock_holder(path: str | os.PathLike) -> str:
    """Returns who took a lock last, such as "process 12 on box"."""
    with contextlib.suppress(BadFile):
        return read_text(path, MEBI).strip() or "unknown"
    return "unknown"
