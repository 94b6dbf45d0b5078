"""What a run leaves for people: one page on its course and its result, and a model card.

Like report.html of an evaluation the page asks for nothing from elsewhere and runs no script: the
slider through the epochs is made of radio buttons, which arrow keys move.
"""

import dataclasses
import datetime
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from wsol_tf import files
from wsol_tf.config import Config
from wsol_tf.report import page, templates
from wsol_tf.report.definitions import DISPLAY_NAMES, MAP_NAMES, certainty_in_words

MOST_SHEETS = 16  # epochs of the slider
SHEET_WIDTH = 960  # pixels
MOST_ROWS = 300  # epochs of the ledger
MOST_CLASSES = 100  # names in a model card
SHARE_TERMS = "weighted_"  # columns of the history that are parts of the loss


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What is told about a run.

    Attributes:
        config: its settings.
        figures: what metrics.json holds.
        classes: names of the classes.
        history: one dict of figures for each epoch.
        warnings: what it warned of.
        place: where its pictures come from.
        weights: a sentence on the weights that its feature extractor started from.
        parameters: number of weights of the model.
        model_bytes: size of model.keras.
    """

    config: Config
    figures: Mapping[str, Any]
    classes: Sequence[str]
    history: Sequence[Mapping[str, float]]
    warnings: Sequence[str]
    place: str
    weights: str
    parameters: int
    model_bytes: int


def write_run_page(
    path: str | os.PathLike,
    record: RunRecord,
    *,
    curves: np.ndarray | None,
    sheets: Mapping[int, str | os.PathLike],
    tiles: page.Tiles,
) -> None:
    """Writes the page of a run; it stays below 4 MB.

    Args:
        path: file to write.
        record: the run.
        curves: chart of the training, uint8 `[height, width, 3]`; None: there is none.
        sheets: epoch, from 1 -> picture file of the held-out pictures after it. Of more than 16
            some are left out, evenly.
        tiles: heading -> pictures that were scored, see `contact_sheets.draw_tiles`.
    """
    figures, config = record.figures, record.config
    own = templates.template_environment().get_template("run.html.jinja").render(
        title=f"{os.path.basename(os.path.normpath(record.place))}: {config.extractor}",
        today=f"{datetime.date.today():%d %B %Y}",
        record=record,
        figures=figures,
        verdict=page.verdict(figures),
        cards=page.cards(figures),
        rows=_compared(figures),
        names=DISPLAY_NAMES,
        curves=None if curves is None else templates.chart_uri(curves),
        sheets=_embedded_sheets(sheets),
        tiles=[(heading, templates.embedded(row)) for heading, row in tiles.items()
               if heading not in DISPLAY_NAMES and row],
        ledger=_ledger(record.history),
        changed=changed_settings(config),
        flagfile=shlex.quote(f"--flagfile={os.path.join(config.output_dir, 'run.flags')}"),
        troubles=list(page.troubles({**figures, "skipped": {
            **figures["skipped_in_training"], **figures["skipped"]}})),
    )  # fmt: skip
    files.write(path, own.encode(errors="xmlcharrefreplace"))


def write_model_card(path: str | os.PathLike, record: RunRecord) -> None:
    """Writes what a user of a model should know of it, as Markdown.

    Args:
        path: file to write.
        record: the run that made the model.
    """
    figures = record.figures
    text = templates.markdown_environment().get_template("model_card.md.jinja").render(
        record=record,
        config=record.config,
        figures=figures,
        rows=_compared(figures),
        names=DISPLAY_NAMES,
        certainty=certainty_in_words(figures),
        class_names=[files.printable(name) for name in record.classes[:MOST_CLASSES]],
        today=f"{datetime.date.today():%d %B %Y}",
    )  # fmt: skip
    files.write(path, text.encode(errors="xmlcharrefreplace"))


def add_files_to_card(path: str | os.PathLike, exported: Mapping[str, Mapping[str, Any]]) -> bool:
    """Adds exported files to a model card, in place of those of an earlier export.

    Args:
        path: the card.
        exported: name of a file -> its `bytes`, and `milliseconds` by number of threads.

    Returns:
        Whether there is a card with a table of files.
    """
    if not os.path.isfile(path):
        return False
    lines = files.read_text(path).split("\n")
    kept = [line for line in lines if not line.startswith("| localizer_")]
    row = next((i for i, line in enumerate(kept) if line.startswith("| model.keras")), None)
    if row is None:
        return False
    rows = []
    for name, figures in exported.items():
        times = [f"{figures['milliseconds'][threads]:.1f} ({files.counted(int(threads), 'thread')})"
                 for threads in figures["milliseconds"]]  # fmt: skip
        rows.append(f"| {name} | {figures['bytes'] / 1e6:.2f} MB | {', '.join(times)} |")
    files.write(path, "\n".join([*kept[: row + 1], *rows, *kept[row + 1 :]]))
    return True


def changed_settings(config: Config) -> list[tuple[str, Any, Any, str]]:
    """Returns (name, value, default, meaning) of each setting that is not at its default."""

    def shown(value):
        return str(value).lower() if isinstance(value, bool) else value

    return [
        (
            field.name,
            shown(getattr(config, field.name)),
            shown(field.default),
            field.metadata["help"],
        )
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]


def _compared(figures):
    """Rows of a table of the maps and the trivial boxes: (name, figures, whether an oracle)."""
    rows = [(figures["map"], figures), *figures["other_maps"].items()]
    maps = [(MAP_NAMES.get(kind, kind), row, False) for kind, row in rows]
    return [*maps, *page.baselines(figures)]


def _embedded_sheets(sheets):
    """The pictures of some epochs, the first and the last among them: (epoch, data URI)."""
    epochs = sorted(sheets)
    chosen = np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_SHEETS)).round().astype(int)
    found = []
    for epoch in (epochs[i] for i in chosen):
        with Image.open(io.BytesIO(files.read_bytes(sheets[epoch]))) as image:
            small = image.convert("RGB")
        if small.width > SHEET_WIDTH:
            small = small.resize((SHEET_WIDTH, round(small.height * SHEET_WIDTH / small.width)))
        found.append((epoch, templates.embedded([(np.asarray(small), "")])[0][0]))
    return found


def _ledger(history):
    """The history as a table: columns, rows of texts, and how many rows are left out."""
    terms = [name for name in (history[0] if history else {}) if name.startswith(SHARE_TERMS)]
    held = dict.fromkeys(name for row in history for name in row if name.startswith("held_"))
    columns = ["epoch", "loss", *(name.removeprefix(SHARE_TERMS) for name in terms), "top1_cls",
               *(name.replace("held_", "held-out ") for name in held)]  # fmt: skip
    chosen = np.linspace(0, len(history) - 1, min(len(history), MOST_ROWS)).round().astype(int)
    rows = []
    for row in (history[i] for i in chosen):
        total = row["loss"] or 1.0
        rows.append([
            str(row["epoch"] + 1),
            f"{row['loss']:.3f}",
            *(f"{row[name.removeprefix(SHARE_TERMS)]:.3f} ({row[name] / total:.0%})"
              for name in terms),
            f"{row['top1_cls']:.3f}",
            *(f"{row[name]:.3f}" if name in row else "–" for name in held),
        ])  # fmt: skip
    return {"columns": columns, "rows": rows, "num_cut": len(history) - len(rows)}
