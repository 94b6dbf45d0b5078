"""Pictures that annotations list, by the files that their names lead to."""

import os
import posixpath
from collections.abc import Callable, Sequence
from typing import NamedTuple

from wsol_tf.data.annotation import first_ten
from wsol_tf.data.names import plain, unescaped
from wsol_tf.data.source import Report


class Listed(NamedTuple):
    """A picture of a list.

    Attributes:
        name: as the list has it first.
        path: its file, or None where there is none.
        positions: where in the list it stands; several if it is listed more than once.
    """

    name: str
    path: str | None
    positions: list[int]


def by_file(
    names: Sequence[str], find: Callable[[str], str | None], report: Report
) -> list[Listed]:
    """Finds the files of a list of names, so that no file makes two pictures.

    Names that are written differently and lead to one file are one picture, and noted. A name that
    is found only without its first folders may have meant another file: where a second name leads
    to the same one, it is left out.

    Args:
        names: as annotations have them.
        find: name -> path or None, see `names.Finder`.
        report: takes what is left out or noted, with all names of the file.

    Returns:
        A record for each picture, in the order in which they first come.
    """
    groups: dict[object, list[tuple[int, str | None]]] = {}
    for position, name in enumerate(names):
        path = find(name)
        groups.setdefault(_identity(name, path), []).append((position, path))
    pictures = []
    for group in groups.values():
        kept = _sure(group, names, report)
        if kept:
            pictures.append(Listed(names[kept[0]], dict(group)[kept[0]], kept))
    return pictures


def _identity(name, path):
    """The same for all names of a file, links to it among them."""
    if path is None:
        return _spelled(name)
    try:
        status = os.stat(path)
    except OSError:
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _sure(group, names, report):
    """The positions of a file's names that are sure to mean it."""
    positions = [position for position, _ in group]
    sure = [position for position, path in group if path is None or _fits(names[position], path)]
    doubtful = [position for position in positions if position not in set(sure)]
    listed = first_ten(list(dict.fromkeys(names[i] for i in (*sure, *doubtful))))
    if doubtful and len({_spelled(names[i]) for i in positions}) > 1:
        which = "the first alone is sure to mean it, the others are" if sure else "all of them are"
        report.skip(listed, f"these names lead to one file by their last part; {which} left out")
        return sure
    if doubtful:
        report.note(listed, "found without the folders that the name begins with")
    if len({normal_name(names[i]) for i in positions}) > 1:
        report.note(listed, "these names lead to one file, so they are one picture")
    return positions


def normal_name(name: str) -> str:
    """Returns a name with slashes alone, and without `./` and the like."""
    return posixpath.normpath(name.replace("\\", "/"))


def _spelled(name):
    return plain(normal_name(unescaped(name)))


def _fits(name, path):
    """Whether a file, with or without its suffix, lies in the folders that a name begins with."""
    parts = [part for part in _spelled(name).split("/") if part not in ("", "..")]
    own = _spelled(os.path.abspath(path)).split("/")[-len(parts) :]
    if len(parts) != len(own) or parts[:-1] != own[:-1]:
        return False
    return parts[-1] in (own[-1], posixpath.splitext(own[-1])[0])
