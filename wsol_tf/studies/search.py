"""Searches for settings with Optuna: it proposes them, the runs are the trials of any study."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.config import Config
from wsol_tf.studies import trials as trials_
from wsol_tf.studies.grid import Range, Row, make_row, row_config, shown
from wsol_tf.studies.pool import Pool
from wsol_tf.studies.trials import Trial

FOLDER = "search"  # of the locks
MISSING = (
    "A search needs Optuna, which is not installed: pip install 'optuna>=4', or leave `search` out "
    "and name all values in the grid."
)


@dataclasses.dataclass(frozen=True)
class Search:
    """A search: what it draws from, and how a row becomes trials.

    Attributes:
        study_dir: folder of the study.
        storage: see `open_study`.
        base: arguments that all runs have.
        space: setting -> values or Range.
        number: how many rows are tried.
        make_trials: the trials of a row, in their order.
        pool: runs them.
        log: function that takes lines of text.
    """

    study_dir: str
    storage: str
    base: Sequence[str]
    space: Mapping[str, tuple[str, ...] | Range]
    number: int
    make_trials: Callable[[Row], list[Trial]]
    pool: Pool
    log: Callable[[str], None]

    def run(self) -> None:
        """Tries rows until there are enough, together with other processes on the same folder.

        A row that fails is not counted and another one takes its place, but of those no more than
        rows were asked for: where all fail, there would be no end.

        The objective is GT-known Loc on held-out training pictures, the mean over a row's seeds and
        folds; what is scored in the table plays no part. The first row is the settings as they are.

        Raises:
            ValueError: Optuna is not installed, or the runs score no held-out pictures.
        """
        optuna = _optuna()
        config = row_config(self.base, {})
        study = open_study(self.study_dir, self.storage, config.epochs)
        os.makedirs(os.path.join(self.study_dir, FOLDER), exist_ok=True)
        failed = 0
        while failed < self.number:
            with self._next(optuna, study, config) as trial:
                if trial is None:
                    return
                before = len(self.pool.failed)
                self._try(optuna, study, trial, config.epochs)
                failed += len(self.pool.failed) > before
        self.log(
            f"{files.counted(failed, 'row')} failed, as many as the search was to try: it ends. "
            "The lines above and each trial's output.txt say why."
        )

    @contextlib.contextmanager
    def _next(self, optuna: Any, study: Any, config: Config) -> Iterator[Any]:
        """A trial of Optuna's for this process alone: one that a dead process left, or a new one.

        None where there are enough.
        """
        states = optuna.trial.TrialState
        with contextlib.ExitStack() as held:
            with _locked(self._path("lock"), wait=True):  # so that no two take the same one
                known = [t for t in study.get_trials(deepcopy=False) if t.state != states.FAIL]
                found = None
                for frozen in known:
                    lock = _locked(self._path(f"{frozen.number:04}.lock"))
                    if frozen.state == states.RUNNING and held.enter_context(lock):
                        found = optuna.trial.Trial(study, frozen._trial_id)
                        self.log(f"Taking up row {frozen.number + 1}, which another process left.")
                        break
                else:
                    if not known:
                        start = _as_it_is(self.space, config)
                        if start:
                            study.enqueue_trial(start)
                    begun = sum(t.state != states.WAITING for t in known)
                    if begun < self.number:
                        found = study.ask(_distributions(optuna, self.space))
                        held.enter_context(_locked(self._path(f"{found.number:04}.lock")))
            yield found

    def _try(self, optuna, study, trial, epochs):
        """Runs the trials of one row, and tells Optuna what they reached."""
        values = {name: _written(value) for name, value in trial.params.items()}
        row = make_row(self.base, values)
        trials = self.make_trials(row)
        self.log(f"Row {trial.number + 1} of {self.number}: {row.label}")
        reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def is_hopeless(run):
            for epoch, score in trials_.held_scores(run):
                step = trials.index(run) * epochs + epoch
                if step not in reported:
                    reported.add(step)
                    trial.report(score, step)
            return trial.should_prune()

        for run in trials:
            trials_.record(run)
        open_trials = [run for run in trials if not trials_.figures_of(run)]
        failed = len(self.pool.failed)
        if not self.pool.run(open_trials, is_hopeless):
            self.log("  given up: others had a better held-out score by then.")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        if len(self.pool.failed) > failed:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        scores = [scores[-1][1] for run in trials if (scores := trials_.held_scores(run))]
        if len(scores) < len(trials):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise ValueError(
                "A search needs a score of held-out pictures to go by, and these runs have none: "
                "it takes boxes, a `holdout` above 0 and `validate_every` above 0."
            )
        study.tell(trial, float(np.mean(scores)))
        self.log(f"  held-out GT-known Loc {np.mean(scores):.3f}, best {study.best_value:.3f}")

    def _path(self, name):
        return os.path.join(self.study_dir, FOLDER, name)


def open_study(study_dir: str, storage: str, epochs: int) -> Any:
    """Opens Optuna's study, or makes it.

    Args:
        study_dir: folder of the study.
        storage: '' for STUDY/optuna.db (SQLite, one machine); a path that ends with .journal for
            Optuna's journal, which many machines can share; or a URL of a database.
        epochs: of a run; half of them pass before a run is compared with others.

    Raises:
        ValueError: Optuna is not installed, or the storage can't be opened.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(n_startup_trials=8, constant_liar=True)
        return optuna.create_study(
            storage=_storage(optuna, study_dir, storage),
            study_name="wsol_tf",
            load_if_exists=True,
            direction="maximize",
            sampler=sampler,
            pruner=pruner,
        )


def _storage(optuna, study_dir, storage):
    if storage.endswith(".journal"):
        backend = optuna.storages.journal.JournalFileBackend(storage)
        return optuna.storages.JournalStorage(backend)
    url = storage if "://" in storage else f"sqlite:///{os.path.join(study_dir, 'optuna.db')}"
    if storage and "://" not in storage:
        raise ValueError(
            "`storage` is a path that ends with .journal, or a database as in "
            f"sqlite:///FILE. Received: '{storage}'."
        )
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # what the database gives
        first = str(error).splitlines()[0]
        raise ValueError(f"The storage '{url}' can't be opened: {first}.") from error


def _optuna():
    try:
        import optuna
    except ImportError:
        raise ValueError(MISSING) from None
    return optuna


def _distributions(optuna, space):
    return {name: _distribution(optuna, name, values) for name, values in space.items()}


def _distribution(optuna, name, values):
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(values)
    if Config.__dataclass_fields__[name].type is int:
        return optuna.distributions.IntDistribution(
            round(values.low), round(values.high), log=values.log
        )
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _as_it_is(space, config):
    """The settings as they are, as a first proposal; None where the space does not hold them."""
    start = {}
    for name, values in space.items():
        own = getattr(config, name)
        if isinstance(values, Range):
            if not values.low <= own <= values.high:
                return None
            start[name] = own
        else:
            same = [value for value in values if value == shown(own)]
            if not same:
                return None
            start[name] = same[0]
    return start


def _written(value):
    """A proposed value in four digits: more mean nothing, and folders are named by them."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _locked(path, wait=False):
    """Holds a lock until the block or the process ends; yields False where another holds it."""
    file = files.take_lock(path, wait=wait)
    if file is None:
        yield False
        return
    with file:
        yield True
