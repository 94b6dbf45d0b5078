r"""Trains a grid of settings, or searches for them, and says which differences are real.

    python -m wsol_tf.study --flagfile=configs/demo.flags --grid='ae_weight=0,0.1,0.5; seed=0,1,2' \
        --folds=5 --output_dir=STUDY

Each trial is a run of `wsol_tf.train` in a process and a folder of its own, STUDY/trials/NAME.
Finished ones are never run again: the same command goes on where a study was ended, and another
grid adds to it. STUDY/table.md and report.html compare the rows picture by picture with the first
one; study.json has their figures for programs. `--study=configs/studies/NAME.study` reads all of
this from a small file; see docs/study.md.
"""

import dataclasses
import signal
from typing import TYPE_CHECKING, Any

from absl import flags

import wsol_tf
from wsol_tf import programs, signals
from wsol_tf.config import Config

if TYPE_CHECKING:
    from wsol_tf.studies.run import Plan

CLOSED = ("output_dir", "resume")


def define_flags():
    """Defines the flags of this program: those of train, for every trial, and its own."""
    programs.define_flags()
    programs.define_path("study", None, "A .study file, with all of the following; flags win.")
    flags.DEFINE_string(
        "grid",
        None,
        "Settings and their values, such as 'ae_weight=0,0.1; seed=0,1,2'. Every combination is a "
        "row of the table, but for seed. With --search also 'ae_weight=0..1' and "
        "'learning_rate=1e-4..1e-2:log'.",
    )
    flags.DEFINE_integer(
        "folds",
        None,
        "Cut --split and --val_split together into so many folds; each is scored by a model that "
        "was trained on the others. 0: score --val_split.",
        lower_bound=0,
    )
    flags.DEFINE_string("title", None, "Heading of the report.")
    flags.DEFINE_integer("parallel", 1, "Trials that run at a time.", lower_bound=1)
    flags.DEFINE_integer(
        "search",
        0,
        "Let Optuna propose so many rows from the grid, by held-out training pictures; 0: try all.",
        lower_bound=0,
    )
    programs.define_path(
        "storage",
        "",
        "Where a search keeps its trials: a file NAME.journal in a folder that several machines "
        "share, or the URL of a database; default: optuna.db in --output_dir.",
    )
    flags.DEFINE_bool("report_only", False, "Train nothing; report on what is finished.")


def plan_of(values: flags.FlagValues) -> "Plan":
    """Makes the plan of a study from parsed flags.

    Raises:
        ValueError: a setting is not legal, or the .study file can't be read.
    """
    from wsol_tf.studies.run import Plan  # with Matplotlib and more: --help does without

    names = [field.name for field in dataclasses.fields(Config) if field.name not in CLOSED]
    given = [values[name].serialize() for name in names if values[name].present]
    own: dict[str, Any] = {
        name: values[name].value for name in ("grid", "folds", "title") if values[name].present
    }
    return Plan.make(
        values.output_dir,
        given,
        study=values.study and programs.find_config(values.study),
        parallel=values.parallel,
        search=values.search,
        storage=values.storage,
        report_only=values.report_only,
        command=programs.command_line("wsol_tf.study", values),
        version=wsol_tf.__version__,
        **own,
    )


def run(values: flags.FlagValues) -> int:
    """Runs a study; returns the exit status: 1 where a trial failed."""
    from wsol_tf.studies.run import run_study

    before = signal.signal(signal.SIGTERM, signals.preempt)
    try:
        failed = run_study(plan_of(values), log=programs.say)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1 if failed else 0


if __name__ == "__main__":
    programs.main(define_flags, run)
