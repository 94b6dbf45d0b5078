"""Writes what finished studies say into the pages of the documentation.

    python benchmarks/results.py                                       # all pages
    python benchmarks/results.py --check                               # fails where one is behind
    python benchmarks/results.py --add=STUDY/study.json --name=NAME    # a study of wsol_tf.study
    python benchmarks/results.py --add=ARRAYS.npz --facts=FACTS.json --name=NAME
    python benchmarks/results.py --chart=NAME                          # docs/images/NAME.png

Studies are kept as docs/studies/NAME.json. Whatever a page has between one of these marks and
`<!-- end -->` is made of them, all else is written by hand:

    <!-- study NAME -->               the table of a study, how it was made, and the command
    <!-- studies -->                  every study in short
    <!-- rows NAME; NAME: ROW -->     one line for a row of each study, the first unless it is named

FACTS.json holds what is to be said otherwise than in study.json: title, question, data, machine,
notes and the like (`wsol_tf.studies.record.Record`), and `minutes` of one training. Where another
program trained the models, it says all of it, and may hold the `settings` of each row; ARRAYS.npz
has an IoU of each picture: see `wsol_tf.studies.arrays.results_of_arrays`.
"""

import dataclasses
import datetime
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from absl import flags

import wsol_tf
from wsol_tf import files, programs
from wsol_tf.report import study_page
from wsol_tf.report.pictures import as_png
from wsol_tf.report.study_page import (
    figure_in_words,
    markdown_differences,
    markdown_rows,
    markdown_table,
)
from wsol_tf.studies import arrays
from wsol_tf.studies.record import Record, read_record, with_facts, write_record

ROOT = pathlib.Path(__file__).parents[1]
STUDIES = "docs/studies"
SHORT = ("gt_known_loc", "miou_box", "top1_loc", "cam", "centred_box")
MARK = r"^<!-- (study|studies|rows)( [^\n]*?)? -->\n"
PART = re.compile(f"({MARK})(.*?)^(<!-- end -->)", re.DOTALL | re.MULTILINE)
HEADS = (
    "real pictures", "width", "GT-known", "not refined", "CAM of the same network",
    "best centred box",
)  # fmt: skip


def records_of(root):
    """Name -> Record of every study that is kept, in the order of the names."""
    paths = sorted((root / STUDIES).glob("*.json"))
    return {path.stem: read_record(str(path)) for path in paths}


def pages_of(root):
    """(path, text as it is, text as it should be) of every page with a part that is made here.

    Raises:
        ValueError: a page names a study or a row that there is not, or has a mark without an end.
    """
    records = records_of(root)
    found = []
    for path in [root / "README.md", *sorted(root.glob("docs/**/*.md"))]:
        text = path.read_text(encoding="utf-8")

        def made(match, path=path):
            start, what, names, _, end = match.groups()
            try:
                return f"{start}\n{_part(records, path, what, (names or '').strip())}\n\n{end}"
            except KeyError as error:
                name = path.relative_to(root)
                raise ValueError(f"{name} asks for {error.args[0]}, which is not there.") from None

        if len(PART.findall(text)) != len(re.findall(MARK, text, re.MULTILINE)):
            raise ValueError(f"{path.relative_to(root)} has a mark without an <!-- end -->.")
        found.append((path, text, PART.sub(made, text)))
    return [entry for entry in found if PART.search(entry[1])]


def _part(records, path, what, names):
    """What stands between two marks of a page."""
    if what == "study":
        return study_in_full(records[names])
    if what == "studies":
        return "\n\n".join(study_in_short(name, record, path) for name, record in records.items())
    rows = [HEADS]
    for entry in names.split(";"):
        name, _, row = (part.strip() for part in entry.partition(":"))
        rows.append(row_in_short(records[name], row))
    return markdown_rows(rows)


def study_in_full(record):
    """The table of a study with all that belongs to it."""
    results = record.results
    parts = [
        study_page.markdown_tables(results),
        study_page.how(results, record.folds, record.scored_on),
        command_of(record),
        made_in_words(record),
        "\n".join(f"- {note}" for note in record.notes),  # code behind a list would be part of it
    ]
    return "\n\n".join(part for part in parts if part)


def study_in_short(name, record, page):
    """A section on a study: its main figures, and all else if no page shows it in full."""
    pictures = study_page.pictures_in_words(record.results[0], record.folds, record.scored_on)
    data = record.data[:1].upper() + record.data[1:]
    said = [record.question, f"{data}: {pictures}", made_in_words(record)]
    rest = [markdown_differences(record.results), command_of(record)]
    for path in sorted((page.parent / "studies").glob("*.md")):
        if f"\n<!-- study {name} -->\n" in path.read_text(encoding="utf-8"):
            said.append(f"[Differences and command](studies/{path.name}).")
            rest = []
    words = " ".join(part for part in said if part)
    parts = [f"### {record.title}", words, markdown_table(record.results, SHORT), *rest]
    return "\n\n".join(part for part in parts if part)


def command_of(record):
    """The command as a block of code."""
    return "\n".join(f"    {line}".rstrip() for line in record.command.splitlines())


def made_in_words(record):
    """What a study ran on, how long a training took, and when."""
    minutes = [result.minutes for result in record.results if result.minutes]
    said = f"Trained by {record.program}"
    if record.machine:
        said += f" on {record.machine}"
    if minutes:
        low, high = min(minutes), max(minutes)
        span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        said += f", {span} minutes each"
    said += f"; wsol_tf {record.version}" if record.version else ""
    return f"{said}, {record.date}." if record.date else f"{said}."


def row_in_short(record, label):
    """One line of the README's table, as its cells."""
    rows = {result.row.label: result for result in record.results}
    result = rows[label] if label else record.results[0]
    width = result.row.settings.get("width", record.width)
    plain = rows.get(f"{result.row.label}, not refined")
    seeds = files.counted(len(result.seeds), "seed")
    folds = f" in {record.folds} folds" if record.folds else " scored"
    main, *rest = figure_in_words(result.figures["gt_known_loc"], True).split(" ", 1)
    cells = [
        f"{record.data}, {result.num_images}{folds}, {seeds}",
        "–" if width is None else str(width),
        " ".join([f"**{main}**", *rest]),
        figure_in_words(plain.figures["gt_known_loc"]) if plain else "–",
        *(_beside(result, name) for name in study_page.BASELINES),
    ]
    return cells


def _beside(result, name):
    """A baseline's figure, and by how much the row is above it: "0.602 (+0.340 [...])"."""
    text = figure_in_words(result.figures.get(name))
    difference = result.baselines.get(name)
    if difference is None:
        return text
    low, mean, high = (f"{x:+.3f}" for x in (difference.low, difference.mean, difference.high))
    return f"{text} ({mean} [{low}, {high}])".replace("-", "−")


def record_of(path, facts):
    """Makes the Record of a study from study.json or from arrays.

    Raises:
        ValueError: a file can't be read, or does not hold what it should.
    """
    facts = dict(facts)
    minutes, settings = facts.pop("minutes", None), facts.pop("settings", ())
    if not path.endswith(".npz"):
        record = with_facts(read_record(path), facts)
        if minutes is None:
            return record
        results = [dataclasses.replace(row, minutes=float(minutes)) for row in record.results]
        return dataclasses.replace(record, results=tuple(results))
    missing = [name for name in ("title", "data", "command", "machine") if not facts.get(name)]
    if missing:
        raise ValueError(f"--facts must say the '{missing[0]}' of a study that is made of arrays.")
    folds = facts.get("folds", 0)
    results = arrays.results_of_arrays(
        arrays.read_arrays(path), folds=folds, minutes=minutes or 0, settings=settings
    )
    today = f"{datetime.date.today()}"
    record = Record("", "", "", tuple(results), date=today, version=wsol_tf.__version__)
    return with_facts(record, facts)


def draw(name):
    """Draws the differences of a study to its first row."""
    record = records_of(ROOT).get(name)
    chart = record and study_page.difference_chart(record.results)
    if chart is None:
        raise ValueError(f"--chart names a study of 3 to 61 rows. Received: '{name}'.")
    path = ROOT / "docs/images" / f"{name}.png"
    files.write(str(path), as_png(chart))
    programs.say(f"Wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes.")


def define_flags():
    programs.define_path("add", "", "A study.json, or a .npz of arrays, to keep.")
    programs.define_path("facts", "", "A JSON file with what is to be said of it.")
    flags.DEFINE_string("name", "", "Name under which it is kept.")
    flags.DEFINE_bool("short", False, "Keep other ways to read a row's maps of the first alone.")
    flags.DEFINE_string("chart", "", "Draws the differences of this study in docs/images.")
    flags.DEFINE_bool("check", False, "Write nothing; fail where a page is not as it should be.")


def run(values):
    if values.add:
        if not re.fullmatch(r"\w+", values.name):
            raise ValueError(f"--name must be letters, digits and _. Received: '{values.name}'.")
        facts = files.read_json(values.facts) if values.facts else {}
        path = ROOT / STUDIES / f"{values.name}.json"
        record = record_of(values.add, facts)
        if values.short:
            rows = record.results
            others = study_page.as_they_are(rows)[1:]
            first = rows[: rows.index(others[0])] if others else rows
            record = dataclasses.replace(record, results=(*first, *others))
        write_record(str(path), record)
        programs.say(f"Wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes.")
    if values.chart:
        draw(values.chart)
    behind = [entry for entry in pages_of(ROOT) if entry[1] != entry[2]]
    for path, _, text in behind:
        programs.say(f"{'Behind' if values.check else 'Written'}: {path.relative_to(ROOT)}")
        if not values.check:
            files.write(str(path), text)
    if values.check and behind:
        programs.say("`python benchmarks/results.py` writes these pages anew.")
        return 1
    return 0


if __name__ == "__main__":
    programs.main(define_flags, run)
