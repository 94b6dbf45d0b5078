"""SIGTERM and Ctrl-C: the first ends a program in order, the second ends it at once."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
TERMINATED = 143  # after SIGTERM, as shells have it
PREEMPTED = 75  # "try again later" (EX_TEMPFAIL): the same command goes on from the checkpoint

SLOW = 1.0  # seconds after which a program that has not ended says how it would
_INTERRUPT = signal.default_int_handler
APART = 0.25  # seconds; a shell and a launcher may both pass on the same Ctrl-C


class Preempted(BaseException):
    """A run was ended from outside and goes on when it is started again.

    Like KeyboardInterrupt it may come at any moment, and is no error that code would handle.
    """


class Terminated(BaseException):
    """A program that has nothing to go on from was ended from outside, see Preempted."""


def preempt(number: int, frame: FrameType | None) -> None:
    """Handles SIGTERM while there is nothing to save.

    Raises:
        Preempted: always.
    """
    raise Preempted("Ended by SIGTERM. Nothing is lost: the same command resumes the run.")


@contextlib.contextmanager
def collected() -> Iterator[set[signal.Signals]]:
    """Collects SIGTERM and Ctrl-C in a set, for a loop that ends between two of its steps.

    A second Ctrl-C raises KeyboardInterrupt.
    """
    caught: set[signal.Signals] = set()
    began = 0.0

    def remember(number, frame):
        nonlocal began
        if number == signal.SIGINT and number in caught and time.monotonic() - began > APART:
            raise KeyboardInterrupt
        began = began or time.monotonic()
        caught.add(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {kind: signal.signal(kind, remember) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[None]:
    """Lets SIGTERM raise Terminated, and a second signal of any kind end the process at once.

    Python handles a signal between two of its own instructions, so a step of TensorFlow, the
    reading of a slow disk or a handler that waits can keep it for minutes. A thread is told of
    signals by the operating system instead. What is on the disk is whole: files are written under
    other names and renamed.

    Args:
        say: prints a line for the user.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    for kind, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, _INTERRUPT)):
        if before[kind] == default:
            signal.signal(kind, _Once())
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    woken = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(told, say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        for kind in before:
            own = signal.getsignal(kind)
            if isinstance(own, _Once) and own.raised:  # the same one, passed on, may be on its way
                time.sleep(max(0.0, own.at + APART - time.monotonic()))
        signal.set_wakeup_fd(woken)
        for kind, handler in before.items():
            if handler is not None:  # else it is one of C, and still there
                signal.signal(kind, handler)
        os.close(tells)  # ends the thread
        thread.join()
        os.close(told)


class _Once:
    """Raises what ends a program at the first signal; the next one may come while it ends."""

    def __init__(self):
        self.raised = False
        self.at = 0.0

    def __call__(self, number, frame):
        if not self.raised:
            self.raised, self.at = True, time.monotonic()
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _watch(told, say):
    """Ends the process at the second signal; `told` yields the number of each, then its end."""
    first = at = 0
    asked = False
    while True:
        if not select.select([told], [], [], SLOW if first and not asked else None)[0]:
            asked = True
            again = "Press Ctrl-C" if first == signal.SIGINT else "Send the signal"
            say(f"\nStill ending, in order. {again} again to end at once.")
            continue
        number = (os.read(told, 1) or b"\0")[0]
        if not number:
            return
        if number not in (signal.SIGINT, signal.SIGTERM):
            continue
        if first and time.monotonic() - at > APART:
            _end_at_once(number, say)
        first, at = first or number, at or time.monotonic()


def _end_at_once(number, say):
    status = INTERRUPTED
    if number == signal.SIGTERM:
        has_own = isinstance(signal.getsignal(signal.SIGTERM), _Once)
        status = TERMINATED if has_own else PREEMPTED
    say("\nEnded at once, by a second signal. Every file under its own name is whole.")
    sys.stdout.flush()
    os._exit(status)
