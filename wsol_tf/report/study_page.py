"""The report of a study, as a page and as a table in Markdown: study.html.jinja lays it out."""

import datetime
import html
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from wsol_tf import files
from wsol_tf.report import charts, templates

# What is compared, in the order of the columns: name -> (heading, digits).
COLUMNS = {
    "gt_known_loc": "GT-known Loc",
    "miou_box": "box mIoU",
    "miou_mask": "mask mIoU",
    "top1_loc": "Top-1 Loc",
    "top1_cls": "Top-1 Cls",
    "max_box_acc_v2": "MaxBoxAccV2",
    "cam": "CAM GT-known",
    "centred_box": "centred box",
}
MAIN = "gt_known_loc"
COMPARED = ("gt_known_loc", "miou_box", "miou_mask", "top1_loc", "top1_cls", "cam")
LEGEND = (
    "In brackets 95 % intervals; ± is the standard deviation between seeds. A difference is shown "
    "where its interval leaves out 0, McNemar's test (of hits) has p < 0.05, and no seed says "
    "otherwise; `no difference` does not mean that there is none."
)
INTERVALS = (
    "Thresholds were chosen without boxes. Intervals are for other pictures of this kind: each "
    "figure is averaged over the seeds, then pictures are drawn again and again (bootstrap), for "
    "differences together with what the first row reached on them. McNemar's exact test asks "
    "whether as many pictures might have been gained and lost by chance. Of 20 comparisons without "
    "any difference, about one will seem to have one."
)
# What a row is compared with on its own pictures: name -> heading.
BASELINES = {"cam": "CAM of the same networks", "centred_box": "the best centred box"}
_BAR = "\\|"
MOST_LINES = len(charts.TERM_COLOURS)  # in one chart
MOST_ROWS = 60  # in the chart of differences


def write_study(
    study_dir: str,
    results: Sequence[Any],
    *,
    title: str,
    question: str,
    command: str,
    folds: int,
    scored_on: str,
    choice: Any,
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]],
    photographs: Mapping[str, Sequence[Any]],
    warnings: Sequence[str],
) -> None:
    """Writes report.html and table.md.

    Args:
        study_dir: folder of the study.
        results: the rows, see `studies.results.Result`; the first is what others are compared with.
        title: heading.
        question: what the study asks; '' for nothing.
        command: the command line.
        folds: how many folds the pictures were cut into; 0: none.
        scored_on: the split that was scored, where there are no folds.
        choice: what choosing by held-out pictures reached, see `studies.results.Choice`, or None.
        curves: see `studies.show.curves_of`.
        photographs: label -> tiles with captions.
        warnings: sentences on what is missing or wrong.
    """
    shown = {"title": title, "question": question, "command": command, "warnings": warnings}
    shown |= {
        "how": how(results, folds, scored_on),
        "choice": choice_sentence(choice, results),
    }
    chart = difference_chart(results)
    settings = as_they_are(results)
    text = templates.template_environment().get_template("study.html.jinja").render(
        **shown,
        signed=_signed,
        interval=_interval,
        verdicts=verdicts(results),
        p_value=_p,
        today=f"{datetime.date.today():%d %B %Y}",
        results=results,
        columns=_columns(results),
        compared=[(name, COLUMNS[name]) for name in COMPARED if name in _columns(results)],
        measured=[result for result in settings if result.baselines],
        num_settings=len(settings),
        baselines=BASELINES,
        difference_chart=None if chart is None else templates.chart_uri(chart),
        charts=[
            (name, templates.chart_uri(charts.setting_curves(name, most_telling(lines))))
            for name, lines in curves.items()
        ],
        photographs=[
            (label, templates.embedded([(each.tile, each.caption) for each in row]))
            for label, row in photographs.items()
        ],
    )  # fmt: skip
    files.write(os.path.join(study_dir, "report.html"), text.encode(errors="xmlcharrefreplace"))
    files.write(os.path.join(study_dir, "table.md"), _markdown(results, **shown))


def difference_chart(results: Sequence[Any]) -> Any | None:
    """Draws how GT-known Loc differs from the first row's: uint8 `[height, width, 3]`.

    None: there are fewer than two rows beside it, or more than MOST_ROWS.
    """
    rows = {
        result.row.label: result.differences[MAIN]
        for result in as_they_are(results)
        if MAIN in result.differences
    }
    heading = f"Difference in {COLUMNS[MAIN]} from {results[0].row.label}"
    return charts.difference_rows(heading, rows) if 2 <= len(rows) <= MOST_ROWS else None


def as_they_are(results: Sequence[Any]) -> list[Any]:
    """The rows without those of the same maps read in another way ("..., not refined")."""
    labels = {result.row.label for result in results}
    return [r for r in results if r.row.label.rpartition(", not ")[0] not in labels]


def most_telling(lines: Mapping[str, Any]) -> dict[str, Any]:
    """The lines of a chart, as many as can be told apart: those of the first rows."""
    return dict(list(lines.items())[:MOST_LINES])


def _columns(results):
    """The figures that some row has: dict name -> heading."""
    return {n: h for n, h in COLUMNS.items() if any(n in result.figures for result in results)}


def verdicts(results: Sequence[Any]) -> list[str]:
    """Says for each row whether it differs from the first one in GT-known Loc, and by how much."""
    found = []
    for result in results[1:]:
        difference = result.differences.get(MAIN)
        if difference is not None:
            found.append(
                f"{result.row.label}: {difference.verdict} ({difference_in_words(difference)})"
            )
    return found


def difference_in_words(difference: Any) -> str:
    """Writes a difference: "+0.020, 95 % interval -0.010 to +0.050, 5 gained, 2 lost, p = 0.45"."""
    text = f"{_signed(difference.mean)}, 95 % interval {_interval(difference)}"
    if difference.p is not None:
        gained = files.counted(difference.gained, "picture")
        text += f", {gained} gained, {difference.lost} lost, {_p(difference.p)}"
    if len(difference.by_seed) > 1:
        text += f"; by seed {', '.join(map(_signed, difference.by_seed))}"
    return text


def how(results: Sequence[Any], folds: int, scored_on: str) -> str:
    """Says in a few sentences how the figures came about."""
    return f"{pictures_in_words(results[0], folds, scored_on)} {INTERVALS}"


def pictures_in_words(first: Any, folds: int, scored_on: str) -> str:
    """Says in a sentence which pictures the first row was scored on, and by how many seeds."""
    seeds = files.counted(len(first.seeds), "seed")
    pictures = files.counted(first.num_images, "picture")
    if folds:
        return (
            f"{pictures} in {folds} folds: each is scored by models that have not seen it, and "
            f"figures are over all of them, {seeds}."
        )
    return f"{pictures} of {scored_on}, {seeds}." if scored_on else f"{pictures}, {seeds}."


def choice_sentence(choice: Any, results: Sequence[Any]) -> str:
    """Says what was chosen by held-out training pictures, and what that reached; '' without it."""
    if choice is None:
        return ""
    labels = list(choice.chosen.values())
    counted = ", ".join(
        f"{label} ({labels.count(label)} of {len(labels)})" if len(labels) > 1 else label
        for label in dict.fromkeys(labels)
    )
    return (
        "The best row of a table is flattered by being chosen from it. Chosen by held-out training "
        f"pictures alone{', fold by fold' if len(labels) > 1 else ''}: {counted}. This reaches a "
        f"GT-known Loc of {choice.figure.mean:.3f}; against {results[0].row.label}: "
        f"{choice.difference.verdict} ({difference_in_words(choice.difference)})."
    )


def text_table(results: Sequence[Any]) -> str:
    """The main figures as lines for a terminal."""
    wide = max(len(result.row.label) for result in results)
    lines = [f"{'':{wide}}  GT-known Loc   box mIoU  against the first row"]
    for result in results:
        main, box = result.figures.get(MAIN), result.figures.get("miou_box")
        spread = "" if main is None or main.spread is None else f" ±{main.spread:.3f}"
        difference = result.differences.get(MAIN)
        said = "" if difference is None else f"{difference.verdict} ({_signed(difference.mean)}, "
        said += "" if difference is None else f"{_interval(difference)})"
        lines.append(
            f"{result.row.label:{wide}}  {_number(main) + spread:13}  {_number(box):>8}  {said}"
        )
    return "\n".join(lines)


def _markdown(results, *, title, question, command, warnings, how, choice):
    """The text of table.md."""
    parts = [f"# {title}", question, how, markdown_tables(results), choice]
    parts += ["\n".join(f"    {line}" for line in command.splitlines())]
    parts += ["\n".join(f"- {line}" for line in warnings)]  # code behind a list is part of it
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_tables(results: Sequence[Any]) -> str:
    """The figures, differences and baselines of a study: tables in Markdown, and their legend."""
    parts = [markdown_table(results), LEGEND]
    parts += [markdown_differences(results), markdown_baselines(results)]
    return "\n\n".join(part for part in parts if part)


def markdown_table(results: Sequence[Any], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """The figures of a study as a table in Markdown.

    Args:
        results: the rows, see `studies.results.Result`.
        columns: the figures that are shown, where some row has them.
    """
    columns = [name for name in _columns(results) if name in columns]
    same = len({(result.num_images, result.seeds) for result in results}) == 1  # `how` says it
    rows = [["setting", *(COLUMNS[name] for name in columns), *([] if same else ["pictures"])]]
    for result in results:
        figures = [figure_in_words(result.figures.get(name), name == MAIN) for name in columns]
        seen = f"{result.num_images}, seeds {', '.join(map(str, result.seeds))}"
        rows.append([result.row.label, *figures, *([] if same else [seen])])
    return markdown_rows(rows)


def markdown_differences(results: Sequence[Any]) -> str:
    """The differences to the first row as a table in Markdown; '' with one row."""
    compared = [name for name in (MAIN, "miou_box") if any(name in r.differences for r in results)]
    rows = [[f"against {results[0].row.label}"]]
    for name in compared:
        rows[0] += [COLUMNS[name], "shown", *(["gained, lost"] if name == MAIN else [])]
    for result in results[1:]:
        cells = [_cells(result.differences.get(name), name == MAIN) for name in compared]
        rows.append([result.row.label, *itertools.chain(*cells)])
    return markdown_rows(rows) if compared else ""


def markdown_baselines(results: Sequence[Any]) -> str:
    """By how much rows are above baselines, as a table in Markdown; '' where it isn't known."""
    measured = [result for result in as_they_are(results) if result.baselines]
    rows = [["GT-known Loc above that of"]]
    for heading in BASELINES.values():
        rows[0] += [heading, "shown", "gained, lost"]
    for result in measured:
        cells = [_cells(result.baselines.get(name), True) for name in BASELINES]
        rows.append([result.row.label, *itertools.chain(*cells)])
    return markdown_rows(rows) if measured else ""


def _cells(difference, of_hits):
    """The cells of a difference in a table: the figure, the verdict, and pictures that differ."""
    if difference is None:
        return ["–"] * (3 if of_hits else 2)
    text = f"{_signed(difference.mean)} [{_interval(difference)}]"
    if len(difference.by_seed) > 1:
        text += f"; by seed {', '.join(map(_signed, difference.by_seed))}"
    counts = [f"{difference.gained}, {difference.lost}; {_p(difference.p)}"] if of_hits else []
    return [text, difference.verdict.removesuffix(" shown"), *counts]


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first row of which is its head."""
    lines = [
        f"| {' | '.join(html.escape(cell, quote=False).replace('|', _BAR) for cell in row)} |"
        for row in rows
    ]
    lines.insert(1, f"|{'---|' * len(rows[0])}")
    return "\n".join(lines)


def figure_in_words(figure: Any, with_interval: bool = False) -> str:
    """Writes a figure: "0.897 [0.866, 0.927] ± 0.010", as much of it as there is."""
    text = _number(figure)
    if figure is not None and with_interval and figure.low is not None:
        text += f" [{figure.low:.3f}, {figure.high:.3f}]"
    if figure is not None and figure.spread is not None:
        text += f" ± {figure.spread:.3f}"
    return text


def _number(figure):
    return "–" if figure is None else f"{figure.mean:.3f}"


def _signed(value):
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def _interval(figure):
    return f"{_signed(figure.low)} to {_signed(figure.high)}"


def _p(value):
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
