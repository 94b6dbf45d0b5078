"""Keeps a program's terminal to what the program says, and to what went wrong.

TensorFlow, LiteRT, libjpeg and workers of Apache Beam write to file descriptor 2 by themselves,
TensorFlow while it is loaded, before any of its settings counts. A small process reads what is
written there, leaves out the lines that are known to say nothing to a user, and passes on all
others as they are: it goes on where a fatal error ended the program. What Python writes to
`sys.stderr` does not pass through it.
"""

import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys

# How lines of TensorFlow begin, of 2.20 and of 2.21; %s is for the letter of the severity.
_NATIVE = rb"(?:\d{4}-\d\d-\d\d [\d:.]+: %s |%s\d{4} [\d:.]+ +\d+ )"
# What says nothing to a user, a line each. Other lines are passed on.
KNOWN = re.compile(
    rb"|".join(
        (
            # Information and warnings, but that memory ran out.
            _NATIVE.replace(b"%s", b"[IW]") + rb"(?!.*ran out of memory)\S+\.cc:\d+\] ",
            rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to ",
            rb"To enable the following instructions: ",
            # There is no driver of a GPU: 303 is what TensorFlow's own stand-in returns.
            _NATIVE.replace(b"%s", b"E") + rb"\S+\] failed call to cuInit: .*\(303\)$",
            rb"INFO: Created TensorFlow Lite \S+ delegate for ",
            rb"INFO: Initialized TensorFlow Lite runtime\.",
            # Of Apache Beam's workers, which are processes of their own.
            rb"INFO:(?:__main__|apache_beam\.[\w.]+):",
            rb"WARNING:root:apitools not found, ",
            rb"WARNING:__main__:No semi_persistent_directory found: ",
            # Of libjpeg, which does not know the picture's name; pictures that lack a part are
            # found by wsol_tf.data.jpeg.
            rb"Corrupt JPEG data: |Premature end of JPEG file|Invalid SOS parameters for ",
        )
    )
)
LONGEST = 1 << 16  # bytes of a line that are kept until its end comes


def hush() -> None:
    """Leaves lines of KNOWN out of what this process, and those it starts, write to descriptor 2.

    Nothing is left out where no other process could pass on what a fatal error says: in the first
    process of a container, with which all others end.
    """
    if os.getpid() == 1 or not sys.executable or sys.stderr is None:
        return
    real = os.dup(2)
    sys.stderr.flush()
    sys.stderr = open(  # noqa: SIM115 - for as long as the process lives
        real, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )
    # Isolated and without site: it starts in 10 ms and imports nothing of a user's. Ctrl-C, which a
    # terminal sends to a whole session, is not for it: it ends when all who write have ended.
    try:
        reader = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=real,
            stderr=real,
            start_new_session=True,
        )
    except OSError:  # no room for one more process: then the terminal is not quiet
        return
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    atexit.register(_hear_out, reader, real)


def _hear_out(reader, real):
    """Waits until everything has been passed on, so that a prompt comes after it."""
    os.dup2(real, 2)
    with contextlib.suppress(subprocess.TimeoutExpired):  # others may still be writing
        reader.wait(1)


def _pass_on(source: int, target: int) -> None:
    """Copies lines from one descriptor to another until the first ends, without those of KNOWN."""
    rest = b""
    while data := os.read(source, LONGEST):
        *lines, rest = (rest + data).split(b"\n")
        _write(target, b"".join(line + b"\n" for line in lines if not KNOWN.match(line)))
        if len(rest) > LONGEST:
            _write(target, rest)
            rest = b""
    _write(target, rest)


def _write(target, data):
    while data:
        data = data[os.write(target, data) :]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it to all processes of a job
    _pass_on(0, 1)
