"""evaluate on Apache Beam: pictures are scored by workers, and a CombineFn merges the scores.

Pictures go to workers 32 at a time, which is a batch of one process too: what comes out of a
network may differ in the last digit with those that go through it together.
"""

import dataclasses
import functools
import hashlib
import importlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import apache_beam

from wsol_tf import files
from wsol_tf.beam.engine import Work, once, pipeline_of
from wsol_tf.data.batches import BATCH_SIZE
from wsol_tf.data.source import Source
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.scores import Scores, accumulate_scores, maker_of_scores
from wsol_tf.evaluation.stored_maps import StoredArrays

PART = 4096  # pictures whose scores are put together in one file, of some 30 MB


@dataclasses.dataclass
class Part:
    """The scores of some pictures, and what was wrong with them.

    Attributes:
        scores: what was accumulated.
        skipped: name -> reason, see `Report`.
        noted: name -> reason, see `Report`.
        stored: name of stored arrays -> their notes, see `StoredArrays.notes_of`.
    """

    scores: Scores
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    noted: dict[str, str] = dataclasses.field(default_factory=dict)
    stored: dict[str, dict[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)

    def merge(self, other: "Part") -> None:
        """Adds other pictures, in any order."""
        self.scores.merge(other.scores)
        self.skipped |= other.skipped
        self.noted |= other.noted
        for name, kinds in other.stored.items():
            own = self.stored.setdefault(name, {})
            for kind, notes in kinds.items():
                own[kind] = own.get(kind, {}) | notes


@functools.lru_cache(maxsize=1)
def _open_scored(
    work: Work, threshold: float | str, limits: tuple[tuple[str, float], ...], digest: str
) -> tuple[Method, Source, dict[str, StoredArrays], set[str], set[str]]:
    method, source, stored = importlib.import_module(work.program).make_scored(
        work.values(), threshold
    )
    if _digest(source.image_ids) != digest:
        raise ValueError(
            f"A worker finds other pictures in {source.name} than the program that started it: "
            "all of them must see the same files under the same paths."
        )
    method = dataclasses.replace(method, **dict(limits))
    return method, source, stored, set(source.report.skipped), set(source.report.noted)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


class _ScoreFn(apache_beam.DoFn):
    """Scores the batch that begins at a position: (number of the part, Part)."""

    def __init__(self, work, threshold, metrics, limits, digest):
        self.opened = work, threshold, limits, digest
        self.metrics = metrics

    def setup(self):
        self.scored = once(_open_scored, *self.opened)

    def process(self, first):
        method, source, stored, skipped, noted = self.scored
        positions = range(first, min(first + BATCH_SIZE, len(source)))
        scores = accumulate_scores(method, source, positions, metrics=self.metrics)
        image_ids = [source.image_ids[position] for position in positions]
        report = source.report
        yield (
            first // PART,
            Part(
                scores,
                {name: why for name, why in dict(report.skipped).items() if name not in skipped},
                {name: why for name, why in dict(report.noted).items() if name not in noted},
                {name: arrays.notes_of(image_ids) for name, arrays in stored.items()},
            ),
        )


class _MergeFn(apache_beam.CombineFn):
    """Puts Parts together."""

    def __init__(self, make_scores):
        self.make_scores = make_scores

    def create_accumulator(self):
        return Part(self.make_scores())

    def add_input(self, accumulator, part):
        accumulator.merge(part)
        return accumulator

    def merge_accumulators(self, accumulators):
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator):
        return accumulator


class _WriteFn(apache_beam.DoFn):
    """Writes a part to a file; written twice, it is the same."""

    def __init__(self, folder):
        self.folder = folder

    def process(self, keyed):
        number, part = keyed
        files.write(os.path.join(self.folder, str(number)), pickle.dumps(part))
        yield number


def accumulate(
    method: Method,
    source: Source,
    stored: Mapping[str, StoredArrays],
    metrics: Sequence[str],
    threshold: float | str,
    *,
    program: str,
    settings: Mapping[str, Any],
    options: Sequence[str],
    log: Callable[[str], Any],
) -> Scores:
    """Accumulates all that is scored of a data set, as `scores.accumulate_scores` does.

    What was wrong with pictures and stored arrays is added to what is known of them here.

    Args:
        method: what is scored.
        source: the data set.
        stored: stored arrays that are read, by name.
        metrics: those of wsolevaluation to compute besides.
        threshold: what `make_scored` of the program takes.
        program: module with `make_scored`, which workers call.
        settings: values of its flags, `runner` and `output_dir` among them.
        options: Apache Beam's own.
        log: is told what is done.

    Raises:
        OSError: the engine gave up.
        ValueError: an option that Apache Beam does not know.
    """
    work, digest = Work.of(program, settings), _digest(source.image_ids)
    limits = tuple(method.limits.items())  # what can be hashed
    make_scores = maker_of_scores(method, len(source.classes), metrics)
    folder = os.path.join(os.path.abspath(settings["output_dir"]), f".beam-{work.run}")
    whole = Part(make_scores())
    os.mkdir(folder)
    try:
        firsts = range(0, len(source), BATCH_SIZE)
        with pipeline_of(settings["runner"], options, len(source), log) as pipeline:
            (
                pipeline
                | apache_beam.Create(firsts)
                | apache_beam.Reshuffle()
                | apache_beam.ParDo(_ScoreFn(work, threshold, metrics, limits, digest))
                | apache_beam.CombinePerKey(_MergeFn(make_scores))
                | apache_beam.ParDo(_WriteFn(folder))
            )
        for number in range(-(-len(source) // PART)):
            whole.merge(pickle.loads(files.read_bytes(os.path.join(folder, str(number)))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _put_in_order(whole, source, stored)
    return whole.scores


def _put_in_order(whole, source, stored):
    """Brings lines and notes in the order of the pictures, and adds what is noted where it goes."""
    place = {image_id: position for position, image_id in enumerate(source.image_ids)}
    whole.scores.predictions.sort(key=lambda line: place[line["image_id"]])
    for name, reason in whole.skipped.items():
        source.report.skip(name, reason)
    for name, reason in whole.noted.items():
        source.report.note(name, reason)
    for name, kinds in whole.stored.items():
        stored[name].add_notes(
            {
                kind: {image_id: notes[image_id] for image_id in sorted(notes, key=place.get)}
                for kind, notes in kinds.items()
            }
        )
