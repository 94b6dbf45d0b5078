"""How far something long has come: a bar where somebody watches, a line now and then elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from wsol_tf import files

WIDTH = 24  # characters of a bar
REDRAWN = 0.1  # seconds between two drawings of a bar
_ERASE = "\r\x1b[K"  # to the start of the line, and what is on it is gone
_drawn = False  # whether a bar is on the terminal's last line


class Progress:
    """Shows how much is done and how long the rest will take.

    On a terminal it is a bar that is drawn over itself and is gone in the end. Elsewhere (a file, a
    pipe, the log of a cluster) it is a plain line for each minute, and nothing for what takes less.

    Args:
        total: how many there are to do.
        noun: what they are, in the singular.
        log: function that takes a line of text.
        every: seconds between two plain lines.
    """

    def __init__(
        self,
        total: int,
        noun: str = "picture",
        *,
        log: Callable[[str], Any] = print,
        every: float = 60,
    ):
        self.total, self.noun, self.log, self.every = total, noun, log, every
        self.watched = sys.stdout.isatty()
        self.shown_at = time.monotonic()
        self.first: tuple[int, float] | None = None  # (done, time): what came before is no pace

    def __call__(self, done: int) -> None:
        """Shows that so many are done."""
        now = time.monotonic()
        self.first = self.first or (done, now)
        if done >= self.total:
            clear()
        else:
            first, began = self.first
            left = (now - began) / (done - first) * (self.total - done) if done > first else None
            text = f"{done} of {files.counted(self.total, self.noun)}"
            self.show(done, text if left is None else f"{text}, {format_duration(left)} left")

    def show(self, done: int, text: str) -> None:
        """Shows a text on what is done, where it is time for another one."""
        now = time.monotonic()
        if now - self.shown_at < (REDRAWN if self.watched else self.every):
            return
        self.shown_at = now
        if not self.watched:
            self.log(f"  {text}.")
            return
        full = min(WIDTH, WIDTH * done // max(1, self.total))
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {text}"
        global _drawn
        _drawn = True
        columns = shutil.get_terminal_size().columns
        print(f"{_ERASE}{line[: columns - 1]}", end="", flush=True)


def clear() -> None:
    """Takes a bar off the terminal, for what is printed next."""
    global _drawn
    if _drawn:
        print(_ERASE, end="", flush=True)
    _drawn = False


def above_bar(log: Callable[[str], Any]) -> Callable[[str], Any]:
    """Makes a function that takes lines of text where a bar may be on the terminal's last line."""

    def log_above(text: str) -> None:
        clear()
        log(text)

    return log_above


def format_duration(seconds: float) -> str:
    """Returns seconds in the unit in which people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
