"""Values of JSON and CSV as other programs write them: numbers as text, ids as floats."""

import math
import re
from typing import Any

_ID_NUMBER = re.compile(r"(-?(?:0|[1-9]\d{0,17}))(?:\.0+)?")  # "007" is a name: "7" may be another
_TRUTHS = {
    **dict.fromkeys(("none", "", "0", "0.0", "false", "no"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
}
_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def number(value: Any) -> float | None:
    """Returns a finite number, also where it is written as text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """Returns a whole number, also as text or with a point and zeros; None for all else."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def identifier(value: Any) -> int | str | None:
    """Returns an id: `3`, `3.0`, `"3"` and `[3]` are the same; other text is an id as it stands.

    What can be no id is None: null, true and false, fractions, objects, longer lists.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        text = value.strip()
        found = _ID_NUMBER.fullmatch(text)
        return int(found[1]) if found else text or None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def truth(value: Any) -> bool | None:
    """Returns what 0, 1, true, false, yes and no mean, also as text; null is False, else None."""
    if isinstance(value, (list, dict)):
        return None
    return _TRUTHS.get(str(value).strip().lower())


def kind(value: Any) -> str:
    """Returns what a value of JSON is, for a sentence."""
    return _KINDS[type(value)]
