"""Progress: a bar on a terminal that leaves nothing behind, plain lines elsewhere."""

import os
import pty
import subprocess
import sys

from helpers import ROOT
from wsol_tf import progress
from wsol_tf.progress import Progress

CODE = """
from wsol_tf import programs, progress
progress.REDRAWN = 0
shown = progress.Progress(4, log=programs.say)
for done in range(1, 5):
    shown(done)
    if done == 2:
        programs.say("a line")
programs.say("ended")
"""


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_lines_where_nobody_watches_come_now_and_then_with_the_time_left(monkeypatch, capsys):
    clock, said = Clock(monkeypatch), []
    shown = Progress(100, "map", log=said.append)
    for done in range(1, 101):
        clock.now += 10
        shown(done)
    assert said[0] == "  6 of 100 maps, 16 min left."  # 94 times 10 s
    assert said[1] == "  12 of 100 maps, 15 min left."  # 88 times 10 s are 14.7 minutes
    assert said[-1] == "  96 of 100 maps, 40 s left."
    assert len(said) == 16 and capsys.readouterr().out == ""


def test_what_takes_less_than_a_minute_says_nothing(monkeypatch):
    clock, said = Clock(monkeypatch), []
    shown = Progress(5, log=said.append)
    for done in range(1, 6):
        clock.now += 11
        shown(done)
    assert said == []


def test_the_time_before_the_first_is_no_pace(monkeypatch):
    clock, said = Clock(monkeypatch), []
    shown = Progress(3, log=said.append, every=1)
    for passed, done in ((1000, 1), (2, 2)):
        clock.now += passed
        shown(done)
    assert said == ["  1 of 3 pictures.", "  2 of 3 pictures, 2 s left."]


def on_a_terminal(code, columns=60):
    """What a process writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(60) == 0
    return written.decode().replace("\r\n", "\n")


def screen(written):
    """The lines that a terminal shows in the end of text with carriage returns and erasures."""
    return [line.rpartition("\r\x1b[K")[2] for line in written.split("\n")]


def test_a_bar_on_a_terminal_is_drawn_over_itself_and_gone_in_the_end():
    written = on_a_terminal(CODE)
    assert "[######..................] 1 of 4 pictures" in written
    assert "[##################......] 3 of 4 pictures, 0 s left" in written
    assert screen(written) == ["a line", "ended", ""]


def test_a_bar_is_no_wider_than_the_terminal():
    bars = [text.partition("\r")[0] for text in on_a_terminal(CODE, 30).split("\x1b[K")]
    bars = [text for text in bars if text.startswith("[")]
    assert bars and max(map(len, bars)) == 29


def test_an_error_takes_the_bar_away():
    code = CODE.split("for done")[0] + "shown(1)\nwith programs.plain_ending():\n"
    written = on_a_terminal(
        "import sys\ntry:\n" + "".join(f"    {line}\n" for line in code.splitlines() if line)
        + "        raise ValueError('`seed` is wrong')\n"
        "except SystemExit as end:\n    print(end.code, file=sys.stderr)\n"
    )  # fmt: skip
    assert "] 1 of 4 pictures" in written
    assert screen(written) == ["Error: seed is wrong", ""]
