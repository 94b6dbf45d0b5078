"""Names of pictures: in the folder that was annotated, and among files that are written."""

import os
import re
import unicodedata
from collections.abc import Sequence

from wsol_tf.data.formats import is_picture
from wsol_tf.data.names import plain

LONGEST = 180  # bytes of a name without its suffix
# Control characters, halves of surrogate pairs and what is no character: no XML can hold them, and
# a newline in a name would end a line of a list.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def fit_text(text: str) -> str:
    r"""Returns text that any format can hold on one line: what none could becomes `\xNN`."""
    return _UNFIT.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def root_of(arguments: Sequence[str]) -> str:
    """Returns the folder that all files and folders lie in, absolute.

    Raises:
        ValueError: they lie on several drives.
    """
    folders = {
        path if os.path.isdir(path) else os.path.dirname(path)
        for path in map(os.path.abspath, arguments)
    }
    return os.path.commonpath(folders)


def relative_to(path: str, root: str) -> str:
    """Returns a path in a folder, with slashes on every system."""
    return os.path.relpath(path, root).replace(os.sep, "/")


class Namer:
    """Gives pictures names of files, flat and each once, whatever a system makes of case.

    `cat/1.jpg` becomes `cat__1.jpg`; a name that is taken gets a number. Readers of VOC's and
    YOLO's folders find annotations by the name without the suffix, so that is what is unique. A
    picture without a suffix gets one.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> None:
        """Marks a name as given."""
        self._taken.add(plain(os.path.splitext(name)[0]))

    def name(self, relative: str) -> str:
        """Returns a name for a picture, see `relative_to`."""
        flat = re.sub(r"[\\/:*?\"<>|]", "_", _UNFIT.sub("_", relative.replace("/", "__")))
        stem, suffix = os.path.splitext(unicodedata.normalize("NFC", flat))
        if not is_picture(flat):  # by what it holds it is one, but readers go by suffixes
            stem, suffix = flat, ".jpg"
        stem = stem.strip(" .") or "picture"
        while len(stem.encode()) > LONGEST:
            stem = stem[:-1]
        unique, number = stem, 1
        while plain(unique) in self._taken:
            number += 1
            unique = f"{stem}_{number}"
        self._taken.add(plain(unique))
        return unique + suffix
