"""Shares computation among processes, where threads would wait for Python's lock."""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import threading

import cv2


@contextlib.contextmanager
def mapper(count):
    """Gives a `map` that works in processes: a context manager, as they end with it.

    Each starts afresh and imports what it needs, TensorFlow as well, which takes some seconds.
    Results come in the order of the items. Only a few items are read ahead, so that memory stays
    flat whichever side is faster. Ctrl-C is left to the process that called.

    Args:
        count: number of processes; 0: none, the built-in `map`.

    Raises:
        OSError: while results are read: a process was ended from outside.
    """
    if not count:
        yield map
        return
    # Of TensorFlow, which they do not run, they would each say that there is no GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Not forked: a fork of a process in which TensorFlow runs waits for ever for its locks.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, context, initializer=_begin) as pool:
        yield functools.partial(_map, pool, 2 * count)


def _begin():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # A process whose parent is killed would wait for work for ever.
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
            "A process that shared the work was ended from outside, perhaps for want of memory. "
            "Take fewer processes, or none."
        ) from error
