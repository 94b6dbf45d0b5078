"""Score maps that any other program made: .npy files by image id, or one .npz archive."""

import io
import math
import os
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from wsol_tf import files
from wsol_tf.data.formats import SUFFIXES
from wsol_tf.data.source import Source

MAX_VALUES = 2**26  # of an array: a map of 8192 x 8192, or of 1000 classes at 256 x 256
_MAX_HEADER = 2**14  # bytes; numpy itself refuses more than 10,000
_NOTES = ("missing", "unreadable", "outside_0_1", "used")
_WHAT = {
    "missing": "without one, counted as missed",
    "unreadable": "that can't be read, counted as missed",
    "outside_0_1": "with values outside 0..1, stretched to it as every map is",
    "unused": "that belong to none of the pictures",
}


class StoredArrays:
    """Arrays by image id, and a record of what was wrong with them.

    An image id is found with or without the picture's suffix: `a/b.jpg` as `a/b.jpg.npy` or
    `a/b.npy`.

    Args:
        path: a folder of .npy files (with folders inside where ids have slashes), or a .npz.
        what: what they are, for messages.
        check: function of a stored array that returns the one to use, or raises ValueError.

    Raises:
        ValueError: there is nothing to read at the path.
    """

    def __init__(self, path: str, what: str, check: Callable[[np.ndarray], np.ndarray]):
        self.path = path
        self.what = what
        self._check = check
        # By image id, so that a picture that is read again (for the contact sheet) counts once.
        self._notes: dict[str, dict[str, Any]] = {kind: {} for kind in _NOTES}
        self._archive = None
        advice = "Write one array per picture as IMAGE_ID.npy into a folder, or all in one .npz."
        try:
            if os.path.isdir(path):
                self._names = _files_by_name(path)
            else:
                self._archive = zipfile.ZipFile(files.open_binary(path, limit=sys.maxsize))
                self._names = {name.removesuffix(".npy"): name for name in self._archive.namelist()}
        except files.BadFile as error:
            reason = error.reason if os.path.lexists(path) else "it does not exist"
            raise ValueError(f"The {what} in {path!r}: {reason}. {advice}") from None
        except Exception as error:  # of a damaged zip, see `read`
            reason = f"this is no .npz archive, or a damaged one ({_text(error)})"
            raise ValueError(f"The {what} in {path!r}: {reason}. {advice}") from error
        if not self._names:
            raise ValueError(f"The {what} in {path!r}: there are none. {advice}")
        self._stems = {_stem(name): name for name in self._names}

    def check_ids(self, image_ids: Sequence[str]) -> None:
        """Refuses arrays of other pictures.

        Raises:
            ValueError: nothing stored belongs to any of these pictures.
        """
        if not any(map(self._name_of, image_ids)):
            raise ValueError(
                f"The {self.what} in {self.path!r} belong to none of the pictures. Names there: "
                f"{_names(sorted(self._names)[:3])}; ids of pictures: "
                f"{_names(image_ids[:3])}. Name each as its picture's id."
            )

    def _name_of(self, image_id):
        return image_id if image_id in self._names else self._stems.get(_stem(image_id))

    def read(self, image_id: str) -> np.ndarray | None:
        """Reads the array of a picture; None, and a note of the reason, where there is none."""
        name = self._name_of(image_id)
        if name is None:
            self._notes["missing"][image_id] = True
            return None
        self._notes["used"][image_id] = name
        try:
            return self._check(self._load(self._names[name]))
        except Exception as error:  # numpy and zipfile raise a dozen types for damaged bytes
            self._notes["unreadable"][image_id] = _text(error)
            return None

    def _load(self, name):
        """The array in a file, or in an entry of the archive."""
        if self._archive is None:
            with files.open_binary(name) as file:
                return _read_npy(file, os.fstat(file.fileno()).st_size)
        entry = self._archive.getinfo(name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile expands whatever the other kinds hold in one go; numpy writes none of them.
            raise ValueError("an archive of numpy.savez or savez_compressed is expected")
        with self._archive.open(entry) as file:
            return _read_npy(file, entry.file_size)

    def read_map(self, image_id: str) -> np.ndarray:
        """Reads the score map of a picture; where there is none, a single NaN, which is a miss."""
        found = self.read(image_id)
        if found is None:
            return np.full((1, 1), np.nan, np.float32)
        finite = found[np.isfinite(found)]
        if finite.size and (finite.min() < 0 or finite.max() > 1):
            self._notes["outside_0_1"][image_id] = True
        return found

    def read_scores(self, image_id: str, count: int) -> np.ndarray:
        """Reads the class scores of a picture, `[count]`; where there are none, NaNs: a miss."""
        found = self.read(image_id)
        return np.full(count, np.nan) if found is None else found

    def notes_of(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns what was noted of these pictures: kind -> image id -> note, for `add_notes`."""
        return {
            kind: {image_id: notes[image_id] for image_id in image_ids if image_id in notes}
            for kind, notes in self._notes.items()
        }

    def add_notes(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds what was noted where another process read the same arrays."""
        for kind, own in notes.items():
            self._notes[kind].update(own)

    def findings(self) -> dict[str, Any]:
        """Returns what was wrong so far, with the image ids, as a dict for JSON."""
        return {
            "path": self.path,
            "missing": list(self._notes["missing"]),
            "unreadable": dict(self._notes["unreadable"]),
            "outside_0_1": list(self._notes["outside_0_1"]),
            "unused": sorted(set(self._names) - set(self._notes["used"].values())),
        }

    def summary(self) -> str:
        """Returns `findings` in lines that name the first ten of each; empty if all is well."""
        findings = self.findings()
        lines = []
        for key, text in _WHAT.items():
            found = findings[key]
            if found:
                reasons = found if isinstance(found, dict) else {}
                named = [f"{x} ({reasons[x]})" if reasons else x for x in list(found)[:10]]
                more = ", ..." if len(found) > 10 else ""
                of = f" picture{'s' * (len(found) != 1)}" if key == "missing" else ""
                lines.append(f"{self.what}: {len(found)}{of} {text}: {_names(named)}{more}")
        return "\n".join(lines)


def open_maps(path: str, source: Source) -> StoredArrays:
    """Opens the score maps of a data set's pictures, `[h, w]` or `[h, w, classes]` each.

    Raises:
        ValueError: there are none, or none that belong to these pictures.
    """
    count = len(source.classes)
    found = StoredArrays(path, "score maps", lambda array: check_map(array, count))
    found.check_ids(source.image_ids)
    return found


def open_scores(path: str, source: Source) -> StoredArrays:
    """Opens the class scores of a data set's pictures, `[classes]` each.

    Raises:
        ValueError: there are none, or none that belong to these pictures.
    """
    count = len(source.classes)
    found = StoredArrays(path, "class scores", lambda array: check_scores(array, count))
    found.check_ids(source.image_ids)
    return found


def check_map(array: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns a score map as float64 `[h, w]`, or `[h, w, classes]` with a map per class.

    A first or last axis of length 1 is removed.

    Raises:
        ValueError: for anything else.
    """
    array = _numbers(array)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == num_classes)
    if not fits or not array.size:
        raise ValueError(f"[h, w] or [h, w, {num_classes}] is expected, received {array.shape}")
    return array


def check_scores(array: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns class scores as float64 `[classes]`.

    Raises:
        ValueError: for another shape, or what are no numbers.
    """
    array = _numbers(array)
    if array.shape != (num_classes,):
        raise ValueError(f"[{num_classes}] is expected, received {array.shape}")
    return array


def _files_by_name(path):
    """Name without .npy, with slashes -> path of each array in a folder and those inside it."""
    found = {}
    for folder, folders, names in sorted(os.walk(path)):
        for name in sorted([*names, *folders]):  # a folder of such a name is no array, and named
            if name.endswith(".npy"):
                full = os.path.join(folder, name)
                found[os.path.relpath(full, path)[: -len(".npy")].replace(os.sep, "/")] = full
    return found


def _read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Reads a .npy file of numbers, after its header was compared with the file's size.

    Raises:
        ValueError: the header promises something else than the file holds, more than MAX_VALUES or
            no numbers; numpy raises it, and others, for a damaged header.
    """
    head = io.BytesIO(file.read(_MAX_HEADER))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):  # the others are for names of fields, which maps lack
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not read")
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(head)
    if dtype.kind not in "fiub":
        raise ValueError(f"numbers are expected, received {dtype}")
    number = math.prod(shape)
    if min(shape, default=0) < 0 or number > MAX_VALUES:
        raise ValueError(f"at most {MAX_VALUES:,} values are read, the header promises {shape}")
    promised, held = number * dtype.itemsize, size - head.tell()
    if promised != held:
        raise ValueError(
            f"the header promises {promised:,} bytes of values, it holds {held:,}: it is damaged"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _names(names):
    return ", ".join(map(files.printable, names))


def _text(error):
    """What an error says, in one line that is safe to print."""
    text = error.reason if isinstance(error, files.BadFile) else str(error)
    return files.printable(text[:200]) or type(error).__name__


def _numbers(array):
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers are expected, received {array.dtype}")
    array = array.astype(np.float64)
    large = np.abs(array) > np.finfo(np.float32).max
    if (large & np.isfinite(array)).any():
        raise ValueError("a value is too large for float32")
    return array


def _stem(name):
    """A name without a picture's suffix, and without what systems disagree on."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    root, suffix = os.path.splitext(name)
    return root if suffix.lower() in SUFFIXES else name
