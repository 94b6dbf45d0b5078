"""Engines that Apache Beam runs on: their options, their end, and what each worker is told."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import signal
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner
from apache_beam.runners.runner import PipelineState

from wsol_tf import files, runners


@dataclasses.dataclass(frozen=True)
class Work:
    """What workers are told, small enough to go to each of them.

    Attributes:
        run: tells this run from any other in the same process.
        program: the module that was called; it makes of flags what it needs.
        settings: the values of its flags, as JSON.
    """

    run: str
    program: str
    settings: str

    @classmethod
    def of(cls, program: str, settings: Mapping[str, Any]) -> "Work":
        """Makes the work of a program with such flags."""
        return cls(uuid.uuid4().hex, program, json.dumps(settings, default=str))

    def values(self) -> types.SimpleNamespace:
        """Returns the values of flags as attributes."""
        return types.SimpleNamespace(**json.loads(self.settings))


_LOCK = threading.Lock()


def once(load: Callable, *arguments: Any) -> Any:
    """What `load` returns, made once in a process: engines set a DoFn up for each of its threads.

    What a program says while it loads is left out: the program that started the workers said it.
    """
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):
        return load(*arguments)


@contextlib.contextmanager
def pipeline_of(
    runner: str, options: Sequence[str], number: int, log: Callable[[str], Any]
) -> Iterator[apache_beam.Pipeline]:
    """Yields a pipeline, which runs to its end when the context is left."""
    engine = _runner(runner)
    if not logging.getLogger().isEnabledFor(logging.INFO):  # then nobody asked for more
        for name in ("apache_beam", "distributed"):  # an error is a sentence, see below
            logging.getLogger(name).setLevel(logging.CRITICAL)
    pipeline = apache_beam.Pipeline(engine, _options(runner, options))
    yield pipeline
    log(f"{files.counted(number, 'picture')} go to the workers of `runner={runner}`.")
    try:
        with _dead_worker_interrupts():
            result = pipeline.run()
            state = result.wait_until_finish() or result.state
    except Exception as error:  # engines raise what they like, with the trace of a worker as text
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise OSError(f"The workers of `runner={runner}` gave up: {reason}") from error
    if state != PipelineState.DONE:
        raise OSError(f"The workers of `runner={runner}` ended before they were done: {state}.")


class _WorkerDied(BaseException):
    """Comes in the middle of whatever waits for a worker, which must not take it for its own."""


@contextlib.contextmanager
def _dead_worker_interrupts():
    """Raises OSError when a process of Beam's local runner has died, which may wait for it forever.

    A process that Ctrl-C or SIGTERM ended says nothing: they end this one as well.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    died = []
    before = threading.excepthook

    def hook(failed):
        text = str(failed.exc_value)
        code = re.search(r"Worker subprocess exited with return code (-?\d+)", text)
        if not code:
            before(failed)
        elif int(code[1]) not in (-2, -15, 130, 143):
            died.append(text)
            # It waits in a lock. Not SIGINT: what a script starts with `&` ignores that.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def stop(number, frame):
        raise _WorkerDied

    handler = signal.signal(signal.SIGUSR1, stop)
    threading.excepthook = hook
    try:
        yield
    except _WorkerDied:
        raise OSError(died[0] if died else "it was ended by SIGUSR1") from None
    finally:
        threading.excepthook = before
        signal.signal(signal.SIGUSR1, handler)


def _runner(name):
    try:
        return create_runner(runners.RUNNERS[name])
    except ImportError as error:
        raise ValueError(f"`runner={name}` can't be used here: {error}.") from error


def _options(runner, given):
    """Options of Apache Beam as it wants them.

    It passes over what it does not know. An engine that runs elsewhere may have options of its
    own, but here nothing else could want them.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known = PipelineOptions(list(given)).get_all_options()
            all_of_them = PipelineOptions(list(given)).get_all_options(retain_unknown_options=True)
    except SystemExit:
        reason = complaint.getvalue().strip().splitlines()[-1]
        raise ValueError(
            f"Apache Beam refuses an option: {reason.partition('error: ')[2]}"
        ) from None
    unknown = sorted(set(all_of_them) - set(known))
    if unknown and runner in ("direct", "dask"):
        raise ValueError(f"Apache Beam has no option --{unknown[0]} for `runner={runner}`.")
    return PipelineOptions(list(given))
