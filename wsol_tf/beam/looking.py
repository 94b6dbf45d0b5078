"""annotate on Apache Beam: workers look at pictures, and leave what they found in files."""

import functools
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam

from wsol_tf import files
from wsol_tf.annotations.look import Localize, Looking, Outcome, Wanted, look
from wsol_tf.annotations.record import from_line, to_line
from wsol_tf.annotations.run import WAITING
from wsol_tf.beam.engine import Work, once, pipeline_of

PIECE = 32  # pictures that go to a worker together
WANTED = "wanted.jsonl"


@functools.lru_cache(maxsize=1)
def _open_localizer(work: Work) -> Localize:
    return importlib.import_module(work.program).open_localizer(work.values())[0]


class _LookFn(apache_beam.DoFn):
    """Looks at the pictures in some lines of a list, and writes what became of them to a file."""

    def __init__(self, work, folder, settings):
        self.work, self.folder, self.settings = work, folder, settings

    def setup(self):
        self.localize = once(_open_localizer, self.work)

    def process(self, piece):
        start, end, name, _ = piece
        with files.open_binary(os.path.join(self.folder, WANTED), limit=2**63) as file:
            file.seek(start)
            lines = file.read(end - start).splitlines()
        outcomes = (look(_wanted(line), localize=self.localize, **self.settings) for line in lines)
        text = "".join(map(_outcome_line, outcomes))
        files.write(os.path.join(self.folder, name), text)
        yield name


def look_at(
    output_dir: str,
    root: str,
    looking: Looking,
    wanted: Iterable[Wanted],
    *,
    program: str,
    settings: Mapping[str, Any],
    options: Sequence[str],
    log: Callable[[str], Any],
) -> Iterator[Outcome]:
    """Has workers look at pictures, and yields what became of each, in their order.

    What they have found stays in the folder until all of it was taken, so that a run that was
    stopped goes on with the same pictures where it was.

    Args:
        output_dir: an existing folder.
        root: see `look`.
        looking: see `look`.
        wanted: the pictures.
        program: module with `open_localizer`, which workers call.
        settings: values of its flags, `runner` among them.
        options: Apache Beam's own.
        log: is told what is done.

    Raises:
        OSError: the engine gave up.
        ValueError: an option that Apache Beam does not know.
    """
    output_dir = os.path.abspath(output_dir)
    folder = os.path.join(output_dir, WAITING)
    os.makedirs(folder, exist_ok=True)
    pieces = _write_wanted(wanted, os.path.join(folder, WANTED))
    missing = [piece for piece in pieces if not os.path.exists(os.path.join(folder, piece[2]))]
    if missing:
        own = {"output_dir": output_dir, "root": root, "looking": looking}
        work = Work.of(program, settings)
        number = sum(piece[3] for piece in missing)
        with pipeline_of(settings["runner"], options, number, log) as pipeline:
            (
                pipeline
                | apache_beam.Create(missing)
                | apache_beam.Reshuffle()
                | apache_beam.ParDo(_LookFn(work, folder, own))
            )
    for _, _, name, _ in pieces:
        for line in files.read_bytes(os.path.join(folder, name)).splitlines():
            yield _outcome(line)
    shutil.rmtree(folder, ignore_errors=True)


def _write_wanted(wanted, path):
    """Writes the list of pictures; returns (start, end, name, number) of each piece.

    The name is made of what a piece says, so that what is known of other pictures, or of others
    that these were before, is not taken for it.
    """
    pieces, lines, start = [], [], 0
    with files.replacing(path) as unfinished, open(unfinished, "wb") as file:

        def end_piece():
            nonlocal lines, start
            text = b"".join(lines)
            file.write(text)
            name = hashlib.sha256(text).hexdigest()
            pieces.append((start, start + len(text), name, len(lines)))
            lines, start = [], start + len(text)

        for one in wanted:
            lines.append(json.dumps([one.path, one.name, one.version]).encode() + b"\n")
            if len(lines) == PIECE:
                end_piece()
        if lines:
            end_piece()
    return pieces


def _wanted(line):
    path, name, version = json.loads(line)
    return Wanted(path, name, version and tuple(version))


def _outcome_line(outcome):
    line = None if outcome.picture is None else to_line(outcome.picture)
    return json.dumps([outcome.path, line, outcome.reason, outcome.notes]) + "\n"


def _outcome(line):
    path, picture, reason, notes = json.loads(line)
    return Outcome(path, picture and from_line(picture), reason, tuple(notes))
