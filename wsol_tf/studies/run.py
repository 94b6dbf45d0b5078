"""One study, from its plan to its report."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from wsol_tf import files, programs
from wsol_tf.data.parts import fold_numbers
from wsol_tf.studies import show
from wsol_tf.studies import trials as trials_
from wsol_tf.studies.grid import (
    Range,
    Row,
    StudyFile,
    base_arguments,
    make_rows,
    parse_grid,
    read_study,
    row_config,
)
from wsol_tf.studies.pool import Pool
from wsol_tf.studies.search import Search
from wsol_tf.studies.trials import Trial, make_trial
from wsol_tf.training.splits import open_split, summarize


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study does.

    Attributes:
        output_dir: its folder.
        base: arguments that all trials have.
        definition: its grid, rows, folds, title and question.
        parallel: trials that run at a time.
        search: rows that a search tries; 0: all of the grid.
        storage: see `search.open_study`.
        report_only: train nothing.
        command: the command line, for the report.
        version: of wsol_tf, for the record.
    """

    output_dir: str
    base: tuple[str, ...]
    definition: StudyFile
    parallel: int = 1
    search: int = 0
    storage: str = ""
    report_only: bool = False
    command: str = ""
    version: str = ""

    @classmethod
    def make(
        cls,
        output_dir: str,
        arguments: Sequence[str],
        *,
        study: str | None = None,
        grid: str | None = None,
        folds: int | None = None,
        title: str | None = None,
        **rest: object,
    ) -> "Plan":
        """Puts a .study file and what is given besides together; what is given wins.

        Args:
            output_dir: folder of the study.
            arguments: those of all trials, `--name=value`.
            study: a .study file; its `flagfile` is looked for from the file's own folder.
            grid: see `grid.parse_grid`.
            folds: how many folds; 0: none.
            title: heading of the report.
            **rest: the other attributes.

        Raises:
            ValueError: the file can't be read.
        """
        definition = read_study(study) if study else StudyFile()
        base = base_arguments(study or "", definition)
        given = {"grid": grid, "folds": folds, "title": title}
        given = {name: value for name, value in given.items() if value is not None}
        definition = dataclasses.replace(definition, **given)  # type: ignore[arg-type]
        base += [argument for argument in arguments if argument != "--data_seed=-1"]
        if row_config(base, {}).data_seed < 0:
            base.append("--data_seed=0")  # every seed is scored on the same pictures
        return cls(output_dir, tuple(base), definition, **rest)  # type: ignore[arg-type]


def run_study(plan: Plan, log: Callable[[str], None] = print) -> list[str]:
    """Runs the trials of a study that are not finished, and writes its report.

    Args:
        plan: what to do.
        log: function that takes lines of text. They name settings in backticks.

    Returns:
        The names of trials that failed.

    Raises:
        ValueError: before anything is trained, for a plan that can't work.
        KeyboardInterrupt, signals.Preempted: the study was ended; trials that ran are saved.
    """
    definition = plan.definition
    grid = parse_grid(definition.grid)
    ranges = [name for name, values in grid.items() if isinstance(values, Range)]
    if ranges and not plan.search:
        raise ValueError(
            f"`{ranges[0]}` has an interval, which only a search can draw from: pass `search=30`, "
            "or name its values."
        )
    space = {name: values for name, values in grid.items() if name != "seed"}
    if plan.search and (not space or definition.rows):
        raise ValueError("A search needs settings in `grid` to draw from, and takes no row=.")
    # A search has its rows later; the seeds, and whether single values are legal, show now.
    listed = {name: values for name, values in grid.items() if not isinstance(values, Range)}
    rows, seeds = make_rows(plan.base, listed, definition.rows)
    programs.make_output_dir(plan.output_dir)
    split = _split_of(plan, rows, log)

    def make_trials(row: Row) -> list[Trial]:
        make = functools.partial(make_trial, plan.output_dir, plan.base, row, split=split)
        folds = range(1, definition.folds + 1) if definition.folds else (0,)
        return [make(seed=s, fold=k, folds=definition.folds) for s in seeds for k in folds]

    planned = [] if plan.search else _in_turn([make_trials(row) for row in rows])
    _check_base(plan, planned, _earlier(plan, planned, split, log))
    pool = Pool(plan.parallel, log)
    if plan.report_only:
        pass
    elif plan.search:
        Search(
            plan.output_dir, plan.storage, plan.base, space, plan.search, make_trials, pool, log
        ).run()
    else:
        _run_planned(pool, planned, rows, log)
    show.write_reports(plan, planned, _earlier(plan, planned, split), pool.failed, log)
    return pool.failed


def _run_planned(pool, planned, rows, log):
    """Runs the trials of a grid that are not finished."""
    for trial in planned:
        trials_.record(trial)
    waiting = [trial for trial in planned if not trials_.figures_of(trial)]
    pool.number, pool.done = len(planned), len(planned) - len(waiting)
    what = f"{files.counted(len(rows), 'row')}, {files.counted(len(planned), 'trial')}"
    log(f"{what}: {pool.done} finished, {len(waiting)} to go.")
    pool.run(waiting)


def _in_turn(trials_of_rows):
    """Every row with its first seed and fold, then with the next: so rows can be compared early."""
    return [trial for turn in zip(*trials_of_rows, strict=True) for trial in turn]


def _split_of(plan, rows, log):
    """Opens the pictures, to be sure that they can be; returns what is cut into folds, or ''."""
    config, folds = row_config(plan.base, {}), plan.definition.folds
    if not folds:
        source = open_split(config, config.split)
        log(summarize(source))
        try:
            open_split(config, config.val_split, source.classes)
        except ValueError as error:
            raise ValueError(
                f"There is no split '{config.val_split}' to score on: {error} Name another "
                "`val_split`, or cut the pictures into `folds=5`."
            ) from error
        return ""
    for row in rows:
        taken = {"split", "val_split"} & set(row.settings)
        if taken:
            raise ValueError(f"`folds` and a grid over `{taken.pop()}` can't go together.")
    split = config.split
    if "[fold" in config.split + config.val_split:
        raise ValueError(
            f"`folds` can't cut a fold again. Received: '{config.split}', '{config.val_split}'."
        )
    if config.val_split:
        split = f"{config.split}+{config.val_split}"
        try:
            open_split(config, config.val_split)
        except ValueError as error:
            log(f"Folds are cut from '{config.split}' alone: {error}")
            split = config.split
    source = open_split(dataclasses.replace(config, split=split), split)
    fold_numbers(source.labels, folds)  # refuses what is too little
    log(f"{summarize(source)} Cut into {folds} folds.")
    return split


def _earlier(plan, planned, split, log=lambda text: None):
    """The trials in the study's folder that are not planned: of an earlier grid, or of a search."""
    found = {trial.key: trial for trial in planned}
    num_planned = len(found)
    for trial in trials_.recorded(plan.output_dir, plan.base, split):
        counted = found.setdefault(trial.key, trial)
        if counted.name != trial.name:
            log(f"'{trial.name}' is left out: it is the same trial as '{counted.name}'.")
    return list(found.values())[num_planned:]


def _check_base(plan, planned, earlier):
    """Refuses a folder whose trials, of this grid or an earlier one, had another base."""
    folds = plan.definition.folds
    for trial in earlier:
        if trial.folds != folds:
            raise ValueError(
                f"'{plan.output_dir}' holds trials with {trial.folds or 'no'} folds, and these "
                f"have {folds or 'none'}. Name another `output_dir`, or keep to the same `folds`."
            )
    trials_.check_same_base([*planned, *earlier])
