"""Runs the trials of a study: some at a time, sharing them with other processes on the folder."""

import contextlib
import dataclasses
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO

from wsol_tf import files, signals
from wsol_tf.studies import trials as trials_
from wsol_tf.studies.trials import Trial

POLL = 0.5  # seconds between two looks at the running trials
POLL_OTHERS = 5.0  # and at those of other processes
PATIENCE = 120  # seconds that a trial has to save itself


@dataclasses.dataclass
class Running:
    """A trial that runs in a process of ours."""

    trial: Trial
    process: subprocess.Popen
    claimed: IO
    started: float


class Pool:
    """Runs trials until each is finished or has failed.

    Args:
        parallel: how many run at a time.
        log: function that takes lines of text.
        number: how many trials the study has, for "[3/30]"; 0: nobody knows yet.
        done: how many of them were finished before.

    Attributes:
        failed: names of trials that ended with an error.
    """

    def __init__(
        self, parallel: int, log: Callable[[str], None], *, number: int = 0, done: int = 0
    ):
        self.parallel, self.log = parallel, log
        self.number, self.done = number, done
        self.failed: list[str] = []
        self._seconds: list[float] = []  # of the trials that were finished here

    def run(self, waiting: Sequence[Trial], watch: Callable[[Trial], bool] | None = None) -> bool:
        """Runs trials; those of other processes are waited for, and taken up where those end.

        Args:
            waiting: the trials, in the order in which they are started.
            watch: is called with each running trial again and again; all are given up where it
                returns True.

        Returns:
            Whether all were run, and not given up.

        Raises:
            ValueError: a trial's folder holds a run with other settings.
        """
        left, told = list(waiting), False
        running: list[Running] = []
        try:
            while left or running:
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    self._end(each, len(left) + len(running))
                elsewhere = self._start_some(left, running)
                if elsewhere and not running:
                    if not told:
                        names = ", ".join(trial.name for trial in left[:3])
                        what = files.counted(len(left), "trial")
                        self.log(f"Waiting for {what} of another process: {names}.")
                        told = True
                    time.sleep(POLL_OTHERS)
                elif running:
                    time.sleep(POLL)
                if watch and any([watch(each.trial) for each in running]):
                    return False
            return True
        except (KeyboardInterrupt, signals.Preempted):
            if running:
                what = files.counted(len(running), "trial")
                self.log(f"\nStopping {what}: what was learned is saved, and goes on later.")
            raise
        finally:
            stop(running, self.log)

    def _start_some(self, left, running):
        """Starts trials while there is room; returns whether all that are left run elsewhere."""
        for trial in list(left):
            if len(running) >= self.parallel:
                return False
            claimed = trials_.claim(trial)
            if claimed is None:
                continue
            left.remove(trial)
            if trials_.figures_of(trial):  # by another process, since we looked
                claimed.close()
                self._tell(trial, "finished by another process", len(left) + len(running))
                continue
            process = trials_.start(trial, claimed, self.parallel)
            running.append(Running(trial, process, claimed, time.monotonic()))
        return bool(left)

    def _end(self, ended, left):
        """Says how a trial ended."""
        ended.claimed.close()
        trial, seconds = ended.trial, time.monotonic() - ended.started
        figures = None if ended.process.returncode else trials_.figures_of(trial)
        if figures is None:
            self.failed.append(trial.name)
            lines = "\n".join(f"    {line}" for line in trials_.last_lines(trial))
            status = ended.process.returncode
            self._tell(trial, f"FAILED with status {status}, after:\n{lines}\n   ", left)
            return
        self._seconds.append(seconds)
        score = figures["gt_known_loc"]
        reached = "no boxes to score" if score is None else f"GT-known Loc {score:.3f}"
        self._tell(trial, f"{reached}, {in_words(seconds)}", left)

    def _tell(self, trial, what, left):
        self.done += 1
        time_left = ""
        if left:
            time_left = f" {left} to go"
            if self._seconds:
                mean = sum(self._seconds) / len(self._seconds)
                time_left += f", about {in_words(mean * left / min(self.parallel, left))}"
            time_left += "."
        place = f"[{self.done}/{self.number}] " if self.number else "  "
        self.log(f"{place}{trial.name}: {what}.{time_left}")


def stop(running: Sequence[Running], log: Callable[[str], None]) -> None:
    """Ends trials so that they are saved, and waits for that."""
    for each in running:
        each.process.terminate()
    for each in running:
        try:
            each.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            log(f"{each.trial.name} did not end within {PATIENCE} s; it is killed.")
            each.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(5)
        finally:
            each.claimed.close()


def in_words(seconds: float) -> str:
    """Says how long something takes: "40 s", "12 min", "1 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
