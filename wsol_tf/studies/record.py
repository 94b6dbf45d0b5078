"""A study as a small file, without anything of single pictures: what was run, and its table."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from wsol_tf import files
from wsol_tf.evaluation.paired import Difference
from wsol_tf.studies.grid import Row
from wsol_tf.studies.results import Figure, Result

DIGITS = 5
# Of these, differences to the first row are kept.
COMPARED = ("gt_known_loc", "miou_box", "miou_mask")
_FOLDER = re.compile(r"(^|[\s='\"]|:///)~?/(?:[^\s='\"/]+/)*([^\s='\"/]+)/?")
_LOGIN = re.compile(r"(?<=://)[^@/\s'\"]*@")  # in the URL of a database


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished study, as tables need it.

    Attributes:
        title: its heading.
        data: what was scored, such as "ten bird classes of CUB".
        command: the command lines that made it, see `without_folders`.
        results: the rows of its table, the first of which the others are compared with.
        question: what it asks; '': nothing.
        width: width multiplier of the network; None: not known, or of several widths.
        folds: how many folds the pictures were cut into; 0: none.
        scored_on: the split that was scored, where there are no folds.
        program: what trained the models.
        machine: what they were trained on; '': not known.
        date: when it was finished, YYYY-MM-DD.
        version: of wsol_tf.
        notes: sentences that belong below the table.
    """

    title: str
    data: str
    command: str
    results: tuple[Result, ...]
    question: str = ""
    width: float | None = None
    folds: int = 0
    scored_on: str = ""
    program: str = "wsol_tf.study"
    machine: str = ""
    date: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()


FACTS = tuple(field.name for field in dataclasses.fields(Record) if field.name != "results")


def with_facts(record: Record, facts: Mapping[str, Any]) -> Record:
    """Returns a record of which some facts, but not the figures, are said otherwise.

    Raises:
        ValueError: a fact that no study has, or one of another type.
    """
    values: dict[str, Any] = {}
    for name, value in facts.items():
        if name not in FACTS:
            raise ValueError(f"A study has no fact '{name}', but {', '.join(FACTS)}.")
        legal: Any = str
        if name == "width":
            legal = (int, float)
        elif name == "folds":
            legal = int
        elif name == "notes":
            legal = list
        if not isinstance(value, legal) or isinstance(value, bool):
            raise ValueError(f"'{name}' of a study has another type. Received: {value!r}.")
        values[name] = value
    if "notes" in values:
        values["notes"] = tuple(map(str, values["notes"]))
    if "command" in values:
        values["command"] = without_folders(values["command"])
    return dataclasses.replace(record, **values)


def without_folders(command: str) -> str:
    """Cuts each absolute path of a command to its last name: folders of one machine say nothing.

    The names and passwords in URLs, which nobody else should have, are left out as well.
    """
    return _FOLDER.sub(r"\1\2", _LOGIN.sub("", command))


def write_record(path: str, record: Record) -> None:
    """Writes a record as JSON, one row of the table in each line.

    Figures have 5 digits; what can't be said is left out.
    """
    facts = {name: getattr(record, name) for name in FACTS if getattr(record, name)}
    rows = ",\n    ".join(
        json.dumps(_row(result), separators=(",", ":")) for result in record.results
    )
    text = json.dumps(facts, indent=2).removesuffix("\n}")
    files.write(path, f'{text},\n  "rows": [\n    {rows}\n  ]\n}}\n')


def _row(result):
    return {
        "row": result.row.label,
        "settings": dict(result.row.settings),
        "trials": [result.finished, result.number],
        "seeds": list(result.seeds),
        "images": result.num_images,
        "pairs": result.num_pairs,
        "minutes": round(result.minutes, 2),
        "figures": _all_known(result.figures),
        "differences": _all_known(
            {name: result.differences[name] for name in COMPARED if name in result.differences}
        ),
        **({"baselines": _all_known(result.baselines)} if result.baselines else {}),
    }


def _all_known(figures):
    return {name: _known(figure) for name, figure in figures.items()}


def _known(figure):
    """The fields of a Figure or Difference that have a value."""
    values = {
        name: round(value, DIGITS) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(figure).items()
        if value is not None
    }
    if "by_seed" in values:
        values["by_seed"] = [round(value, DIGITS) for value in values["by_seed"]]
    return values


def read_record(path: str) -> Record:
    """Reads what `write_record` wrote.

    Raises:
        BadFile: it can't be read, or is no record of a study.
    """
    values = files.read_json(path)
    try:
        rows = values.pop("rows")
        missing = [name for name in ("title", "data", "command") if not values.get(name)]
        if missing or not rows:
            raise ValueError(f"it has no {(missing or ['rows'])[0]}")
        return with_facts(Record("", "", "", tuple(map(_result_of, rows))), values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise files.BadFile(path, f"this is no record of a study ({error})") from None


def _result_of(row):
    finished, number = row["trials"]
    return Result(
        row=Row(row["row"], row["settings"]),
        finished=int(finished),
        number=int(number),
        seeds=tuple(map(int, row["seeds"])),
        num_images=int(row["images"]),
        num_pairs=int(row["pairs"]),
        minutes=_finite(row["minutes"]),
        figures={
            name: Figure(**{key: _finite(value) for key, value in figure.items()})
            for name, figure in row["figures"].items()
        },
        differences=_differences_of(row["differences"]),
        baselines=_differences_of(row.get("baselines", {})),  # older records have none
    )


def _differences_of(entries):
    return {name: _difference_of(**difference) for name, difference in entries.items()}


def _difference_of(mean, low, high, by_seed, gained=None, lost=None, p=None):
    return Difference(
        _finite(mean),
        _finite(low),
        _finite(high),
        None if gained is None else int(gained),
        None if lost is None else int(lost),
        None if p is None else _finite(p),
        tuple(map(_finite, by_seed)),
    )


def _finite(value):
    if not math.isfinite(value):
        raise ValueError(f"{value} is no figure")
    return float(value)
