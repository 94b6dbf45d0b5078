"""Pictures by the names that annotations give them, as other programs and systems write them."""

import functools
import os
import unicodedata
import urllib.parse
from collections.abc import Callable, Sequence


class Finder:
    """Finds files in some folders by name; every reader of annotations looks through one.

    A name is looked for as it stands, then with Windows' backslashes as slashes, then whatever the
    case of its letters and the way its accents are composed. Where several files differ in these
    alone, none is taken. A name with folders that are not there is looked for without the first of
    them, and so on: an export holds paths of the machine where it was made. What is not found so is
    looked for as `unescaped` has it.

    Args:
        folders: where to look, in this order. The one that had the last file is tried first.
        accept: whether `find_stem` may take a file of this name; every file by default.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike],
        accept: Callable[[str], bool] = lambda name: True,
    ):
        self._folders = [os.fspath(folder) for folder in folders]
        self._accept = accept
        self._listings: dict[tuple[str, Callable[[str], str]], dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """Returns the path of a file, or None where no folder or more than one file fits."""
        return self._find(name, plain) or self._find(unescaped(name), plain)

    def find_stem(self, name: str) -> str | None:
        """Returns the path of the file that has this name without its suffix, see `find`."""
        return self._find(name, _plain_stem) or self._find(unescaped(name), _plain_stem)

    def _find(self, name, fold):
        if fold is plain and (found := self._in_folders(lambda root: os.path.join(root, name))):
            return found
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            *inside, last = parts[start:]
            found = self._in_folders(functools.partial(self._walk, inside, last, fold))
            if found:
                return found
        return None

    def _in_folders(self, path_in):
        """The first file that `path_in` leads to; its folder is tried first from now on."""
        for folder in self._folders:
            path = path_in(folder)
            if path and os.path.exists(path) and not os.path.isdir(path):
                self._folders.remove(folder)
                self._folders.insert(0, folder)
                return os.path.normpath(path)
        return None

    def _walk(self, inside, last, fold, folder):
        """The path of `last` in the folders `inside` of a folder, if each has one entry for it."""
        for part in inside:
            part = part if part == ".." else self._entry(folder, part, plain)
            if part is None:
                return None
            folder = os.path.join(folder, part)
        entry = self._entry(folder, last, fold)
        return entry and os.path.join(folder, entry)

    def _entry(self, folder, name, fold):
        """The entry of a folder with a name, or the only one that is equal in its plain form."""
        entries = self._listing(folder, fold).get(plain(name), [])
        own = [entry for entry in entries if (entry if fold is plain else _stem(entry)) == name]
        return own[0] if own else entries[0] if len(entries) == 1 else None

    def _listing(self, folder, fold):
        if (folder, fold) not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                entries = sorted(os.listdir(folder))
            except OSError:
                entries = []
            for entry in entries:
                if fold is plain or self._accept(entry):
                    listing.setdefault(fold(entry), []).append(entry)
            self._listings[folder, fold] = listing
        return self._listings[folder, fold]


def plain(name: str) -> str:
    """Returns a name without what systems disagree on: case, and how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def unescaped(name: str) -> str:
    """Returns a name without spaces around it, and with a space where a web address has %20."""
    return urllib.parse.unquote(name.strip(), errors="surrogateescape")


def _plain_stem(name):
    return plain(_stem(name))


def _stem(name):
    return os.path.splitext(name)[0]
