"""Compares scorings of the same pictures: is one model really better than another?

    python -m wsol_tf.compare FIRST SECOND ...
    python -m wsol_tf.compare ours=run0 ours=run1 CAM=cam --output_dir=OUT

Each is a folder that `evaluate` or `train` wrote, of any model or of another program's score maps.
NAME= gives it a name; those of one name are seeds of one setting, or folds, where they have no
picture in common. The others are compared with the first, picture by picture: differences with 95 %
intervals, and McNemar's exact test. OUT/table.md and comparison.json keep the figures and the
differences in GT-known Loc and mIoU. `wsol_tf.study` compares settings so, and trains them before.
"""

import datetime
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

import wsol_tf
from wsol_tf import files, programs
from wsol_tf.evaluation import outcomes
from wsol_tf.studies.grid import Row
from wsol_tf.studies.record import Record, without_folders, write_record
from wsol_tf.studies.results import Finished, key_of, results_of
from wsol_tf.studies.trials import Trial

PRINTED = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask")


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("output_dir", "", "Folder for table.md and comparison.json; '': no files.")


def run(values: flags.FlagValues, *entries: str) -> None:
    """Compares what the arguments name."""
    from wsol_tf.report import study_page  # with Matplotlib

    rows = {label: list(map(_read, folders)) for label, folders in parse_entries(entries).items()}
    for sentence in check(rows):
        programs.say(sentence)
    finished = [
        Finished(Trial(Row(label, {}), seed, 0, 0, "", ()), figures, lines)
        for label, scorings in rows.items()
        for seed, (figures, lines) in zip(seeds_of(scorings), scorings, strict=True)
    ]
    results = study_page.as_they_are(results_of([each.trial for each in finished], finished))
    programs.say(in_words(results))
    if values.output_dir:
        programs.make_output_dir(values.output_dir)
        record = Record(
            title="Comparison",
            data=finished[0].figures["scored_on"],
            command=without_folders(shlex.join(["python", "-m", "wsol_tf.compare", *entries])),
            results=tuple(results),
            program="",
            date=f"{datetime.date.today()}",
            version=wsol_tf.__version__,
        )
        write_record(os.path.join(values.output_dir, "comparison.json"), record)
        table = study_page.markdown_tables(results) + "\n"
        files.write(os.path.join(values.output_dir, "table.md"), table)
        programs.say(f"Wrote table.md and comparison.json to {values.output_dir}.")


def parse_entries(entries: Sequence[str]) -> dict[str, list[str]]:
    """Reads the arguments.

    Args:
        entries: folders, or NAME=FOLDER; those of one name are of one setting.

    Returns:
        dict name -> its folders; a folder without a name is called by its path.

    Raises:
        ValueError: fewer than two names, or one without a folder.
    """
    rows: dict[str, list[str]] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if os.path.isdir(entry) or not equals:
            name, folder = os.path.normpath(entry), entry
        if not name or not folder:
            raise ValueError(f"A name is followed by a folder, as in: A=out. Received: '{entry}'.")
        rows.setdefault(name, []).append(files.expanded(folder))
    if len(rows) < 2:
        raise ValueError(
            "Name two or more folders that evaluate or train wrote, as in: compare FIRST SECOND. "
            f"Received: {files.counted(len(rows), 'name')}."
        )
    return rows


def _read(folder):
    """(figures, lines) of a scoring: what metrics.json and outcomes.jsonl hold."""
    path = os.path.join(folder, outcomes.LINES)
    if not os.path.isfile(path):
        raise ValueError(
            f"'{folder}' has no {outcomes.LINES}: name a folder that evaluate or train wrote."
        )
    figures = files.read_json(os.path.join(folder, "metrics.json"))
    try:
        lines = outcomes.parse_outcomes(files.read_text(path))
        if not {key_of(line): line["iou"][figures["map"]] for line in lines}:
            raise ValueError("no picture was scored")
        kept = {name: figures[name] for name in ("map", "view", "scored_on", "num_pairs")}
        kept |= {"minutes": 0.0, "max_box_acc_v2": figures.get("max_box_acc_v2")}
        return kept, lines
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise files.BadFile(
            path, f"these are no outcomes of evaluate or train ({error!r})"
        ) from None


def seeds_of(scorings: Sequence[tuple[Mapping[str, Any], Sequence[Any]]]) -> list[int]:
    """Numbers the scorings of one setting: those without a picture in common are folds of a seed.

    Args:
        scorings: (figures, lines) of each.

    Returns:
        The seed of each, from 0 on.
    """
    seeds: list[int] = []
    scored: list[set] = [set() for _ in scorings]  # by each seed
    for _, lines in scorings:
        keys = {key_of(line) for line in lines}
        seeds.append(next(seed for seed, own in enumerate(scored) if not own & keys))
        scored[seeds[-1]] |= keys
    return seeds


def check(rows: Mapping[str, Sequence[tuple[Mapping[str, Any], Sequence[Any]]]]) -> list[str]:
    """Refuses scorings that have no picture in common with the first.

    Args:
        rows: name -> (figures, lines) of each of its scorings.

    Returns:
        Sentences on what is not alike: pictures that only one has scored, another view.

    Raises:
        ValueError: none of a row's pictures and classes are among those of the first.
    """
    pairs = {
        name: {key_of(line) for _, lines in scorings for line in lines}
        for name, scorings in rows.items()
    }
    views = {name: {figures["view"] for figures, _ in scored} for name, scored in rows.items()}
    first, *others = rows
    said = []
    for name in others:
        common = len(pairs[first] & pairs[name])
        if not common:
            own, its = (" of class ".join(min(pairs[each])) for each in (name, first))
            raise ValueError(
                f"'{name}' and '{first}' have scored no picture in common with the same class, but "
                f"{own} and so on, and {its} and so on. Only the same ones can be compared."
            )
        counts = len(pairs[first]), len(pairs[name])
        if counts != (common, common):
            said.append(
                f"'{first}' has {counts[0]} pairs of a picture and a class in it, '{name}' has "
                f"{counts[1]}; the {common} that both have are compared."
            )
        if views[name] != views[first]:
            said.append(
                f"'{first}' was scored with --view={'/'.join(sorted(views[first]))}, '{name}' with "
                f"{'/'.join(sorted(views[name]))}: they were shown different parts of the pictures."
            )
    return said


def in_words(results: Sequence[Any]) -> str:
    """The figures, and every difference to the first, as lines for a terminal."""
    from wsol_tf.report import study_page

    lines = [study_page.text_table(results)]
    for result in results[1:]:
        lines += ["", f"{result.row.label} against {results[0].row.label}"]
        for name in PRINTED:
            difference = result.differences.get(name)
            if difference is not None:
                said = f"{difference.verdict}: {study_page.difference_in_words(difference)}"
                lines.append(f"  {study_page.COLUMNS[name]:13} {said}")
    return "\n".join(lines)


if __name__ == "__main__":
    programs.main(define_flags, run)
