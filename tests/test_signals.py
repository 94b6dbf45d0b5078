"""SIGTERM and Ctrl-C: in order at first, and at once inside a step that Python can't interrupt."""

import os
import signal
import time

import pytest

from helpers import start
from wsol_tf import signals

# Minutes in one call into C that lets other threads run, as a step of TensorFlow is.
STEP = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)'
PLAIN = f"""
import hashlib
from wsol_tf import programs

def run(values):
    print("begun", flush=True)
    {STEP}

programs.call(run, ["program"])
"""
LOOP = f"""
import hashlib
from wsol_tf import programs, signals

def run(values):
    with signals.collected():
        print("begun", flush=True)
        {STEP}

programs.call(run, ["program"])
"""


@pytest.mark.parametrize(
    "script, first, second, status",
    [
        (PLAIN, signal.SIGINT, signal.SIGINT, 130),
        (PLAIN, signal.SIGTERM, signal.SIGTERM, 143),
        (LOOP, signal.SIGINT, signal.SIGINT, 130),
        (LOOP, signal.SIGTERM, signal.SIGTERM, 75),
        (LOOP, signal.SIGINT, signal.SIGTERM, 75),
    ],
)
def test_a_second_signal_ends_a_step_that_does_not_end(script, first, second, status):
    process = start(command=("-c", script))
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(1)  # it is inside the step by then
        process.send_signal(first)
        again = "Press Ctrl-C" if first == signal.SIGINT else "Send the signal"
        assert process.stderr.readline() == "\n"
        assert (
            process.stderr.readline() == f"Still ending, in order. {again} again to end at once.\n"
        )
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(timeout=60) == status
        assert "Ended at once, by a second signal." in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_a_program_that_python_runs_in_order(kind, status):
    script = PLAIN.replace(STEP, "import time; time.sleep(600)")
    process = start(command=("-c", script))
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(kind)
        process.send_signal(kind)  # passed on twice, by the shell and by a launcher
        assert process.wait(timeout=60) == status
        said = "Interrupted." if kind == signal.SIGINT else "Ended by SIGTERM."
        assert process.stderr.read() == f"\n{said}\n"
    finally:
        process.kill()
        process.communicate()


def test_handlers_are_as_before_afterwards():
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(kind) for kind in kinds]
    with pytest.raises(signals.Terminated), signals.watched(print):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert [signal.getsignal(kind) for kind in kinds] == before
    assert signal.set_wakeup_fd(-1) == -1
