"""The folder of a run: its files, whether the run in it is finished, and how it is emptied."""

import dataclasses
import os
import shutil
from typing import Any

from wsol_tf import files, programs
from wsol_tf.config import Config
from wsol_tf.training import checkpoints

FILES = (
    "run.flags",
    "model.keras",
    "history.csv",
    "curves.png",
    "metrics.json",
    "outcomes.jsonl",
    "contact_sheet.png",
    "report.html",
    "model_card.md",
    "logs",
    "validation",
)

# Settings that run.flags of version 0.1.0 lack, and what runs did before there were any.
OF_BEFORE = {"min_crop": 1.0, "pseudo_target": "mask", "pseudo_balance": False}


def finished_figures(config: Config) -> dict[str, Any] | None:
    """Returns what metrics.json holds where the run in `output_dir` is finished, else None.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    paths = {name: os.path.join(config.output_dir, name) for name in FILES}
    figures = None
    if os.path.isfile(paths["metrics.json"]) and os.path.isfile(paths["model.keras"]):
        figures = files.read_json(paths["metrics.json"])
        if not isinstance(figures, dict):
            raise files.BadFile(paths["metrics.json"], "this holds no figures of a run")
    saved = checkpoints.paths(config.output_dir)
    if not os.path.isfile(paths["run.flags"]) or not (figures or saved):
        return None
    different = programs.differences(config, paths["run.flags"])
    if different:
        raise ValueError(
            f"'{config.output_dir}' holds a run with other settings: {'; '.join(different)}. To "
            f"resume it, use its own settings: `flagfile={paths['run.flags']}`. Otherwise name "
            "another `output_dir`, or pass `resume=false` to replace it."
        )
    # A later evaluation may have replaced metrics.json: then checkpoints mean that the run is not
    # finished.
    return None if figures is None or figures.get("interrupted", bool(saved)) else figures


def as_begun(config: Config) -> Config:
    """Returns the Config to go on with: as the run in `output_dir` began, if an older one wrote it.

    Otherwise the second half of a run would be trained by settings that its first half did not
    know.
    """
    path = os.path.join(config.output_dir, "run.flags")
    if not (os.path.isfile(path) and checkpoints.paths(config.output_dir)):
        return config
    written = files.read_text(path)
    missing = {name: value for name, value in OF_BEFORE.items() if f"--{name}=" not in written}
    return dataclasses.replace(config, **missing)


def clear(output_dir: str) -> None:
    """Removes an older run from a folder; a folder that holds no run is left as it is."""
    if not os.path.isfile(os.path.join(output_dir, "run.flags")):
        return
    checkpoints.clear(output_dir)
    for name in FILES:
        path = os.path.join(output_dir, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)
