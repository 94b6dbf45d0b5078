"""What a study tries: rows of settings, from a grid and from a .study file."""

import csv
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence

from wsol_tf import files, programs
from wsol_tf.config import Config

# Settings that a study sets by itself, or that a run has for its own sake.
_CLOSED = {
    "output_dir": "the study gives each run a folder",
    "resume": "a study always resumes",
    "data_seed": "a study compares settings on the same pictures: give it for all of them",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: settings, whatever their seeds and folds.

    Attributes:
        label: what people read, such as `ae_weight=0.1`.
        settings: setting -> its value as on a command line.
        varied: those of them that the grid varies, which the curves are drawn over.
    """

    label: str
    settings: Mapping[str, str]
    varied: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval that a search draws a setting's values from."""

    low: float
    high: float
    log: bool

    def __str__(self):
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"


@dataclasses.dataclass(frozen=True)
class StudyFile:
    """A .study file; see `read_study`."""

    flagfile: str = ""
    grid: str = ""
    folds: int = 0
    title: str = ""
    question: str = ""
    rows: tuple[Row, ...] = ()


def read_study(path: str, further: Collection[str] = ()) -> StudyFile:
    """Reads a .study file: lines of `name=value`, and comments after #.

        # What does erasing add?
        title=Erasing
        question=Is a detector with erasing better than one without?
        flagfile=../cub.flags
        folds=5
        grid=ae_weight=0,0.1,0.5; seed=0,1,2

    Instead of values that go with all others, `row=NAME: setting=value; setting=value` names
    settings that go together; there may be many of them, and a grid beside them.

    Args:
        path: the file.
        further: settings that rows may name besides those of Config, for other programs.

    Raises:
        ValueError: the file can't be read, or a line of it can't be understood.
    """
    found: dict[str, str] = {}
    rows: list[Row] = []
    legal = [field.name for field in dataclasses.fields(StudyFile) if field.name != "rows"]
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        line = re.sub(r"^\s*#.*|\s#\s.*", "", line).strip()
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line:
            continue
        if not equals or name not in (*legal, "row") or name in found:
            twice = " is there twice" if name in found else ""
            raise ValueError(
                f"{path}, line {number}: '{line}'{twice}. Legal are {', '.join(legal)}, once each, "
                "and row=NAME: setting=value; setting=value."
            )
        if name == "row":
            rows.append(_named_row(value, f"{path}, line {number}", further))
        else:
            found[name] = value
    folds = found.pop("folds", "0")
    if not folds.isdigit():
        raise ValueError(f"{path}: folds must be a whole number. Received: {folds}.")
    if len({row.label for row in rows}) < len(rows):
        raise ValueError(f"{path}: two rows have the same name.")
    return StudyFile(**found, folds=int(folds), rows=tuple(rows))


def base_arguments(path: str, definition: StudyFile) -> list[str]:
    """Returns the arguments that a .study file gives to all runs: its flagfile, or nothing.

    Args:
        path: of the .study file, from whose folder the flagfile is looked for.
        definition: what was read from it.

    Raises:
        ValueError: there is no such flagfile.
    """
    if not definition.flagfile:
        return []
    found = os.path.join(os.path.dirname(path), definition.flagfile)
    if not os.path.isfile(found):
        raise ValueError(f"{path}: there is no flagfile '{found}'.")
    return [f"--flagfile={os.path.abspath(found)}"]


def _named_row(text, where, further):
    label, colon, settings = (part.strip() for part in text.partition(":"))
    if not label or not colon:
        raise ValueError(
            f"{where}: a row is written as row=NAME: setting=value; setting=value. Received: "
            f"'{text}'."
        )
    found = {}
    for part in filter(None, (part.strip() for part in settings.split(";"))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name in found:
            raise ValueError(f"{where}: '{part}' is not one setting=value of its own.")
        _check_open(name, further)
        found[name] = value
    return Row(label, found)


def parse_grid(text: str) -> dict[str, tuple[str, ...] | Range]:
    """Reads a grid: `ae_weight=0,0.1,0.5; seed=0,1,2`.

    A value with a comma in it is quoted: `lr_drops="0.667,0.933","0.8"`. `0..1` is an interval for
    a search to draw from, `1e-4..1e-2:log` one in which ratios are drawn evenly.

    Returns:
        dict setting -> its values in their order, or a Range.

    Raises:
        ValueError: it can't be understood.
    """
    grid: dict[str, tuple[str, ...] | Range] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        if not equals or not values:
            raise ValueError(
                f"'{part}' is no part of a grid, which is written as 'ae_weight=0,0.1; seed=0,1,2'."
            )
        if name in grid:
            raise ValueError(f"The grid names `{name}` twice. Write its values once, with commas.")
        _check_open(name)
        found = re.fullmatch(r"([^\s,]+?)\.\.([^\s,:]+)(:log)?", values)
        if found:
            grid[name] = _range(name, *found.groups())
        else:
            parts = [v.strip() for v in next(csv.reader([values], skipinitialspace=True))]
            grid[name] = tuple(parts)
            if "" in parts:
                raise ValueError(f"The grid has an empty value for `{name}`. Received: '{values}'.")
    return grid


def _range(name, low, high, log):
    try:
        found = Range(float(low), float(high), bool(log))
    except ValueError:
        found = Range(0, 0, False)
    is_number = Config.__dataclass_fields__[name].type in (int, float)
    if not is_number or not -math.inf < found.low < found.high < math.inf:
        raise ValueError(
            f"`{name}` can't be drawn from '{low}..{high}': that takes a setting that is a number, "
            "and two finite numbers, the smaller one first."
        )
    if found.log and found.low <= 0:
        raise ValueError(f"`{name}`: ratios are drawn from numbers above 0. Received: {low}.")
    return found


def _check_open(name, further=()):
    legal = (*Config.__dataclass_fields__, *further)
    if name not in legal:
        raise ValueError(f"Unknown setting '{name}'. Legal: {', '.join(legal)}.")
    if name in _CLOSED:
        raise ValueError(f"`{name}` can't be varied: {_CLOSED[name]}.")


def make_rows(
    base: Sequence[str], grid: Mapping[str, tuple[str, ...]], named: Sequence[Row] = ()
) -> tuple[list[Row], list[int]]:
    """Makes the rows of a study: each named row with each combination of the grid.

    Args:
        base: arguments that all runs have.
        grid: setting -> values; `seed` makes no rows.
        named: rows that are named by themselves; none: a single one.

    Returns:
        (rows, seeds): each row once, the first one being what the others are compared with.

    Raises:
        ValueError: a value is not legal.
    """
    varied = {name: values for name, values in grid.items() if name != "seed"}
    seeds = [row_config(base, {"seed": text}).seed for text in grid.get("seed", ())]
    if not seeds:
        seeds = [row_config(base, {}).seed]
    rows: dict[str, Row] = {}
    for start in named or (Row("", {}),):
        for values in itertools.product(*varied.values()):
            own = dict(zip(varied, values, strict=True))
            for name in own:
                if name in start.settings:
                    raise ValueError(f"Row '{start.label}' and the grid both set `{name}`.")
            row = make_row(base, own, start)
            rows.setdefault(row.label, row)
    return list(rows.values()), list(dict.fromkeys(seeds))


def make_row(base: Sequence[str], values: Mapping[str, str], start: Row | None = None) -> Row:
    """Makes a row whose label has every value as it is understood: 0.10 is 0.1.

    Args:
        base: arguments that all runs have.
        values: setting -> value.
        start: a named row that they are added to; None: none.

    Raises:
        ValueError: a value is not legal.
    """
    start = start or Row("", {})
    settings = {**start.settings, **values}
    config = row_config(base, settings)
    parts = [f"{name}={shown(getattr(config, name))}" for name in values]
    label = ",".join(filter(None, [start.label, *parts])) or "as it is"
    return Row(label, settings, tuple(values))


def row_config(base: Sequence[str], settings: Mapping[str, str]) -> Config:
    """Makes the Config of arguments and settings.

    Raises:
        ValueError: a value is not legal.
    """
    return programs.from_arguments(*base, *to_arguments(settings))


def to_arguments(settings: Mapping[str, str]) -> list[str]:
    """Returns settings as arguments of a command line."""
    return [f"--{name}={value}" for name, value in settings.items()]


def shown(value: object) -> str:
    """Writes a value of a setting as people do: 0.1, 3, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
