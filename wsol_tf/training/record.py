"""The pages of a finished run: report.html to look at, model_card.md for users of the model."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsol_tf.report import run_page
from wsol_tf.report.page import Tiles
from wsol_tf.training import callbacks

if TYPE_CHECKING:
    from wsol_tf.training.run import Run

_SHEET = re.compile(r"epoch_(\d+)\.png")


def write_pages(run: "Run", figures: Mapping[str, Any], tiles: Tiles) -> None:
    """Writes report.html and model_card.md; a page that can't be written is reported.

    Args:
        run: the run, which has been scored.
        figures: what metrics.json holds.
        tiles: pictures that were scored, see `contact_sheets.draw_tiles`.
    """
    record = run_page.RunRecord(
        config=run.config,
        figures=figures,
        classes=run.model.classes,
        history=run.state.history,
        warnings=figures["warnings"],
        place=run.splits.place,
        weights=run.weights,
        parameters=run.model.count_params(),
        model_bytes=os.path.getsize(run.path("model.keras")),
    )
    with callbacks.tolerating_write_errors(run.log, "report.html", run.config.output_dir):
        run_page.write_run_page(
            run.path("report.html"),
            record,
            curves=_curves(run.path("curves.png")),
            sheets=_sheets(run.path("validation")),
            tiles=tiles,
        )
        run_page.write_model_card(run.path("model_card.md"), record)


def _curves(path):
    """The chart of the training, or None where there is none."""
    if not os.path.isfile(path):
        return None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _sheets(folder):
    """Epoch -> picture of the held-out pictures after it."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    found = ((_SHEET.fullmatch(name), name) for name in names)
    return {int(match[1]): os.path.join(folder, name) for match, name in found if match}
