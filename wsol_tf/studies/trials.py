"""A trial of a study: one run of `wsol_tf.train`, in a process and a folder of its own."""

import csv
import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from wsol_tf import files, programs
from wsol_tf.config import Config
from wsol_tf.data.parts import Fold
from wsol_tf.evaluation import outcomes
from wsol_tf.studies.grid import Row, row_config, to_arguments
from wsol_tf.training import folder

FOLDER = "trials"
RECORD = "trial.json"
LOG = "output.txt"
CLAIM = "claim"
PROGRAM = ("-m", "wsol_tf.train")
_LONGEST = 200  # letters of a folder's name


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        row: the row of the table that it belongs to.
        seed: its seed.
        fold: which fold is scored, from 1 on; 0: the split that is always scored.
        folds: how many folds there are; 0: none.
        path: its folder.
        arguments: those of `wsol_tf.train`.
    """

    row: Row
    seed: int
    fold: int
    folds: int
    path: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its folder, which tells its settings."""
        return os.path.basename(self.path)

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What tells it from the other trials of its study: label of its row, seed, fold, folds."""
        return self.row.label, self.seed, self.fold, self.folds

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return row_config(self.arguments, {})


def make_trial(
    study_dir: str,
    base: Sequence[str],
    row: Row,
    *,
    seed: int,
    fold: int = 0,
    folds: int = 0,
    split: str = "",
    name: str = "",
) -> Trial:
    """Makes one trial of a row.

    Args:
        study_dir: folder of the study.
        base: arguments that all runs have.
        row: the row.
        seed: its seed.
        fold: the fold that is scored, from 1 on; 0: none.
        folds: how many folds there are.
        split: what is cut into folds.
        name: of its folder; empty: by its settings.
    """
    settings = {**row.settings, "seed": str(seed)}
    if fold:
        settings["split"] = f"{split}{Fold(fold, folds, False)}"
        settings["val_split"] = f"{split}{Fold(fold, folds, True)}"
    path = os.path.join(study_dir, FOLDER, name or _own_name(row.label, seed, fold, folds))
    settings["output_dir"] = path
    return Trial(row, seed, fold, folds, path, (*base, *to_arguments(settings)))


def _own_name(label, seed, fold, folds):
    """The name of the folder that a trial is begun in."""
    return folder_name(f"{label},seed={seed}" + (f",fold={fold}of{folds}" if fold else ""))


def folder_name(text: str) -> str:
    """Turns a label into the name of a folder, with a hash where that takes more than a blank."""
    name = re.sub(r"[^\w.=,+-]+", "_", text)
    if name != text.replace(" ", "_") or len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def record(trial: Trial) -> None:
    """Makes the trial's folder, and notes in it which row it belongs to."""
    os.makedirs(trial.path, exist_ok=True)
    values = {
        "row": trial.row.label,
        "settings": dict(trial.row.settings),
        "varied": list(trial.row.varied),
        "seed": trial.seed,
        "fold": trial.fold,
        "folds": trial.folds,
        "arguments": list(trial.arguments),
    }
    files.write_json(os.path.join(trial.path, RECORD), values)


def recorded(study_dir: str, base: Sequence[str], split: str = "") -> list[Trial]:
    """Reads the trials that are noted in a study's folder; all else is left out.

    They are sorted by name, those whose folder was renamed or copied behind the others.

    Args:
        study_dir: folder of the study.
        base: arguments that all runs have. Those that a trial was begun with may name a flagfile
            or a folder that has moved since.
        split: what is cut into folds.
    """
    top = os.path.join(study_dir, FOLDER)
    found = []
    for name in sorted(os.listdir(top) if os.path.isdir(top) else ()):
        path = os.path.join(top, name)
        try:
            values = files.read_json(os.path.join(path, RECORD))
            row = Row(values["row"], values["settings"], tuple(values["varied"]))
            numbers = {key: int(values[key]) for key in ("seed", "fold", "folds")}
            found.append(make_trial(study_dir, base, row, **numbers, split=split, name=name))
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda trial: trial.name != _own_name(*trial.key))


def figures_of(trial: Trial) -> dict[str, Any] | None:
    """Returns what metrics.json holds where the trial is finished, else None.

    Raises:
        ValueError: its folder holds a run with other settings.
    """
    try:
        figures = folder.finished_figures(trial.config)
    except files.BadFile:  # half a file, of a copy that was cut off: the run itself says so
        return None
    is_whole = os.path.isfile(os.path.join(trial.path, outcomes.LINES))
    return figures if is_whole else None


def outcomes_of(trial: Trial) -> list[dict[str, Any]]:
    """Returns what became of each picture that the trial scored, see `outcomes.outcome_lines`."""
    return outcomes.parse_outcomes(files.read_text(os.path.join(trial.path, outcomes.LINES)))


def history_of(trial: Trial) -> Sequence[Mapping[str, str]]:
    """Returns the rows of the trial's history.csv so far, without one that is half written."""
    try:
        text = files.read_text(os.path.join(trial.path, "history.csv"))
    except files.BadFile:
        return []
    rows = list(csv.DictReader(text.splitlines()))
    return rows if text.endswith("\n") else rows[:-1]


def held_scores(trial: Trial) -> list[tuple[int, float]]:
    """Returns (epoch, GT-known Loc on held-out training pictures), from epoch 1 on."""
    return [
        (int(row["epoch"]) + 1, float(row["held_gt_known"]))
        for row in history_of(trial)
        if row.get("held_gt_known")
    ]


def claim(trial: Trial) -> IO | None:
    """Claims a trial for this process, so that others which share the study pass it over.

    Returns:
        The locked file, which the trial's own process is to inherit and the caller closes; None
        where another process has it. The claim ends with both processes, however they end.
    """
    return files.take_lock(os.path.join(trial.path, CLAIM))


def start(trial: Trial, claimed: IO, parallel: int = 1) -> subprocess.Popen:
    """Starts the trial's process; what it prints goes to output.txt in its folder.

    It does not get the Ctrl-C that the study gets: a run that is interrupted so is finished early.

    Args:
        trial: the trial.
        claimed: see `claim`.
        parallel: how many trials share the machine.
    """
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        cores = max(1, (os.cpu_count() or 1) // parallel)
        environment.setdefault("TF_NUM_INTRAOP_THREADS", str(cores))
    with open(os.path.join(trial.path, LOG), "ab") as log:
        return subprocess.Popen(
            [sys.executable, *PROGRAM, *trial.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[claimed.fileno()] if os.name == "posix" else (),
        )


def last_lines(trial: Trial, number: int = 6) -> list[str]:
    """Returns the last lines that the trial printed."""
    path = os.path.join(trial.path, LOG)
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 20_000))
        text = file.read().decode(errors="replace")
    lines = [files.printable(line) for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-number:]


def check_same_base(trials: Sequence[Trial]) -> None:
    """Refuses trials that were begun with settings other than those they would have now.

    Args:
        trials: those of the study, with the arguments that they have now.

    Raises:
        ValueError: a trial's run.flags differs.
    """
    for trial in trials:
        path = os.path.join(trial.path, "run.flags")
        if os.path.isfile(path) and (different := programs.differences(trial.config, path)):
            raise ValueError(
                f"Trial '{trial.name}' was begun with other settings: {'; '.join(different)}. All "
                "trials of a study share what the grid does not vary: name another `output_dir`, "
                f"or remove '{trial.path}'."
            )
