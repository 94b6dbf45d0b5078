"""What is trained: rows of settings, seeds and folds; it needs neither JAX nor Keras."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from wsol_tf.config import Config
from wsol_tf.data.parts import fold_numbers
from wsol_tf.data.registry import holdout
from wsol_tf.studies.grid import Row, make_rows, parse_grid, row_config

# Settings that may differ between rows, because they are only numbers to a network.
VARIED = (
    *("cls_fg_weight", "ae_weight", "ae_fg_weight", "pseudo_weight", "bas_weight", "ac_weight"),
    *("ae_threshold", "ae_fg_threshold", "pseudo_high", "pseudo_low", "pseudo_target"),
    "pseudo_balance",
    *("localization_start", "erasing_start", "pseudo_start", "warmup", "min_crop"),
    "activation_form",
    *("learning_rate", "lr_drops", "bias_multiplier", "head_multiplier", "localizer_multiplier"),
    *("momentum", "l2", "clip_norm", "ema", "seed"),
)
# Settings that are the same for all rows.
SHARED = (
    *("split", "val_split", "holdout", "single_class", "epochs", "min_steps", "batch_size"),
    *("extractor", "width", "input_size", "resize_size", "output_stride", "levels", "dilation"),
    *("extractor_weights", "bn_momentum", "head_width", "final_relu", "localizer"),
    *("map", "top_k", "refine", "align"),
)
# Settings that say nothing here: what is read and written, and what the other trainer does besides.
WITHOUT_MEANING = (
    *("recipe", "dataset", "data_dir", "download", "on_bad_image", "cache", "data_seed"),
    *("validate_every", "validation_images", "strategy", "jit_compile", "steps_per_execution"),
    *("deterministic", "output_dir", "resume", "checkpoint_every_minutes", "keep_checkpoints"),
    "checkpoint_every_steps",
)
# Experiments: settings that `wsol_tf.train` does not have, with what leaves it as it is there.
# A tuple lists the legal words; all others are numbers from 0 on.
EXPERIMENTS: dict[str, float | tuple[str, ...]] = {
    "color_jitter": 0.0,  # see `crops.random_crops`
    "batch_area": 0.0,  # weight of |mean area of the batch's masks - 0.25|
    "binary": 0.0,  # weight of the mean of m (1 - m) of the blurred mask
    "erased_turns": ("all", "half", "alternate"),  # `bas` of all pictures, or twice that of half
}


@dataclasses.dataclass(frozen=True)
class Training:
    """One of the trainings.

    Attributes:
        row, seed, fold: which it is, counted from 0.
        config: its settings.
        own: its experimental settings, name -> number.
        samples: int `[num_samples, 2]`, (position, label) of what it is trained on.
        known: positions that its threshold may be chosen from: all but those of the fold.
        scored: positions of the fold.
    """

    row: int
    seed: int
    fold: int
    config: Config
    own: Mapping[str, float]
    samples: np.ndarray
    known: np.ndarray
    scored: np.ndarray


def rows_of(base, definition) -> tuple[list[Row], list[int]]:
    """Reads what a study varies: its rows, and its seeds from `grid=seed=0,1,2`.

    Args:
        base: arguments that all trainings have, `--name=value`.
        definition: a `wsol_tf.studies.grid.StudyFile`.

    Raises:
        ValueError: a setting or value that can't be trained here.
    """
    grid = parse_grid(definition.grid)
    if set(grid) - {"seed"}:
        raise ValueError(
            "`grid` varies the seed alone here: write row=NAME: setting=value; setting=value for "
            f"each row. Received: {definition.grid}."
        )
    _, seeds = make_rows(base, grid)
    rows = list(definition.rows) or [Row("as it is", {})]
    first = settings_of(base, rows[0])[0]
    for row in rows:
        _check(row.label, settings_of(base, row)[0], first)
    return rows, seeds


def settings_of(base, row: Row, seed: int | None = None) -> tuple[Config, dict[str, float]]:
    """Takes the settings of a row apart: those of the project, and the experimental ones.

    Raises:
        ValueError: a value is not legal.
    """
    known = {name: value for name, value in row.settings.items() if name not in EXPERIMENTS}
    if seed is not None:
        known["seed"] = str(seed)
    own = {name: _number(name, row.settings.get(name)) for name in EXPERIMENTS}
    try:
        return row_config(base, known), own
    except ValueError as error:
        raise ValueError(f"Row '{row.label}': {error}") from None


def _number(name, text):
    """The value of an experimental setting as a number: for words, their place."""
    legal = EXPERIMENTS[name]
    if isinstance(legal, tuple):
        if text is not None and text not in legal:
            raise ValueError(f"Unknown `{name}` '{text}'. Legal: {', '.join(legal)}.")
        return float(legal.index(text)) if text else 0.0
    try:
        value = legal if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a number, at least 0. Received: {text}.")
    return value


def _check(label, config, first):
    """Refuses what is not trained here, and what can't differ between rows."""
    for field in dataclasses.fields(Config):
        name, value = field.name, getattr(config, field.name)
        if name in SHARED and value != getattr(first, name):
            raise ValueError(
                f"Row '{label}': `{name}` must be the same for all rows, which are trained "
                f"together. Received: {value!r} and {getattr(first, name)!r}."
            )
        if name not in (*VARIED, *SHARED, *WITHOUT_MEANING) and value != field.default:
            raise ValueError(
                f"Row '{label}': `{name}` can't be changed here. Use `wsol_tf.study`, or leave it "
                f"at {field.default!r}. Received: {value!r}."
            )


def numbers_of(config: Config, own: Mapping[str, float]) -> dict[str, float]:
    """What one step of a training is told, as numbers: name -> value."""
    names = (
        *("ae_threshold", "ae_fg_threshold", "pseudo_high", "pseudo_low", "min_crop"),
        *("momentum", "l2", "clip_norm", "ema"),
    )
    numbers = {name: float(getattr(config, name)) for name in names}
    numbers["guided"] = float(config.pseudo_target == "guided")
    numbers["pseudo_balance"] = float(config.pseudo_balance)
    numbers["relu_of_mean"] = float(config.activation_form == "relu_of_mean")
    return numbers | dict(own)


def trainings_of(base, rows, seeds, labels, folds) -> list[Training]:
    """Makes the trainings of one data set: those of a row follow each other.

    Folds are those of `train+val[fold=k/N]`, and the share `holdout` of the other pictures is not
    trained on, as in `wsol_tf.train`.

    Args:
        base: arguments that all trainings have.
        rows: of `rows_of`.
        seeds: of `rows_of`.
        labels: per picture, its class ids.
        folds: how many folds.
    """
    numbers = fold_numbers(labels, folds)
    found = []
    for r, row in enumerate(rows):
        for s, seed in enumerate(seeds):
            config, own = settings_of(base, row, seed)
            for fold in range(folds):
                known = np.flatnonzero(numbers != fold)
                kept, _ = holdout([labels[i] for i in known], config.holdout, seed)
                samples = [(i, label) for i in known[kept] for label in labels[i]]
                scored = np.flatnonzero(numbers == fold)
                found.append(Training(r, s, fold, config, own, np.array(samples), known, scored))
    return found


def steps_of(trainings) -> int:
    """Steps of all trainings: as many as the longest would have in `wsol_tf.train`."""
    most = 0
    for training in trainings:
        config = training.config
        one_pass = len(training.samples) / config.batch_size
        passes = max(1, math.ceil(config.min_steps / (config.epochs * one_pass)))
        most = max(most, math.ceil(config.epochs * passes * one_pass))
    return most
