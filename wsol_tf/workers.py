"""Shares computation among processes, where threads would wait for Python's lock."""

import collections
import concurrent.futures
import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys

import cv2

MOST = 16  # More would wait for the process that predicts.
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@contextlib.contextmanager
def mapper(count):
    """Gives a `map` that works in processes: a context manager, as they end with it.

    They are forked, so it has to be entered before TensorFlow runs anything, whose threads don't
    survive that. Results come in the order of the items. Only a few items are read ahead, so that
    memory stays flat whichever side is faster. Ctrl-C is left to the process that called.

    Args:
        count: number of processes. 1: none, the built-in `map`. 0: as many as this process has
            cores, at most MOST, where they can be forked safely, that is on Linux; elsewhere none.

    Raises:
        ValueError: count is above 1 on another system than Linux.
        OSError: while results are read: a process was ended from outside.
    """
    linux = sys.platform == "linux"
    if count > 1 and not linux:
        raise ValueError(
            f"Work is shared among processes on Linux alone. Received: {count} on {sys.platform}. "
            "Take 1."
        )
    count = count or (min(len(os.sched_getaffinity(0)), MOST) if linux else 1)
    if count == 1:
        yield map
        return
    with concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("fork"), initializer=_begin
    ) as pool:
        # The first tasks are what forks the processes.
        concurrent.futures.wait([pool.submit(os.getpid) for _ in range(count)])
        yield functools.partial(_map, pool, 2 * count)


def _begin():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Without it they would wait for work for ever when their parent is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    cv2.setNumThreads(1)


def _map(pool, ahead, function, items):
    waiting = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise OSError(
            "A process that shared the work was ended from outside, perhaps for want of memory. "
            "Take fewer processes, or 1."
        ) from error
