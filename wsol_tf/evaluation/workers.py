"""Shares computation among processes, where threads would wait for Python's lock."""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator

import cv2


@contextlib.contextmanager
def mapper(count: int) -> Iterator[Callable]:
    """Yields a `map` that works in other processes, which end with the context.

    Each starts afresh and imports what the function needs; scoring needs no TensorFlow. Results
    come in the order of the items. Only a few items are read ahead, so that memory stays flat
    whichever side is faster. Ctrl-C is left to the calling process.

    Args:
        count: number of processes; 0: none, the built-in `map`.

    Raises:
        OSError: a process was ended from outside, while results were read.
    """
    if not count:
        yield map
        return
    # Not forked: a fork of a process in which TensorFlow runs waits forever for its locks.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, context, initializer=_begin) as pool:
        yield functools.partial(_map, pool, 2 * count)


def _begin():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # A process whose parent is killed would wait for work forever.
    multiprocessing.parent_process().join()
    os._exit(1)


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
            "A process that shared the work was ended from outside, perhaps because memory ran "
            "out. Take fewer processes, or none."
        ) from error
