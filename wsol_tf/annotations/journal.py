"""The journal of an annotation: a line for each picture as soon as it is localized."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

from wsol_tf import files
from wsol_tf.annotations.record import Annotated, from_line, to_line

JOURNAL = "found.jsonl"


class Journal:
    """The lines of a folder, in a file that is only ever added to.

    Its first line has the settings that pictures were localized with. Reading it keeps a place in
    the file for each picture and nothing else, so that memory does not grow with what is in it.

    Args:
        output_dir: an existing folder.
        settings: what JSON can hold; those of a journal that is there must be the same.

    Attributes:
        path: the file.
        places: path of a picture -> where its line begins, and its uncertainty.
        names: path of a picture -> the name that it was given.

    Raises:
        ValueError: the journal that is there has other settings, is damaged, or is none.
    """

    def __init__(self, output_dir: str, settings: dict[str, Any]) -> None:
        self.path = os.path.join(output_dir, JOURNAL)
        self.places: dict[str, tuple[int, float]] = {}
        self.names: dict[str, str] = {}
        if os.path.lexists(self.path):
            files.open_binary(self.path, limit=2**63).close()  # refuses what is no file
            _check_settings(self.path, settings)
            self._read()
        else:
            files.write(self.path, json.dumps({"settings": settings}) + "\n")
        self._file: IO[bytes] = open(self.path, "r+b")  # noqa: SIM115 - see close
        self._file.seek(0, os.SEEK_END)

    def _read(self):
        """Finds the lines; what a process that was killed left half written is cut off."""
        with open(self.path, "rb") as file:
            end = len(file.readline())
            for line in file:
                try:
                    picture = from_line(line)
                except ValueError as error:
                    if file.read(1):  # not the end, which alone a killed process leaves behind
                        raise ValueError(
                            f"{files.printable(self.path)} is damaged at byte {end}, with "
                            "pictures after it. Name another folder, or remove this file to "
                            "begin anew."
                        ) from error
                    break
                if not line.endswith(b"\n"):
                    break
                self._note(picture, end)
                end += len(line)
        os.truncate(self.path, end)

    def _note(self, picture: Annotated, place: int) -> None:
        self.places[picture.path] = (place, picture.uncertainty)
        self.names[picture.path] = picture.name

    def add(self, picture: Annotated) -> None:
        """Adds a picture; after this it is kept, whatever ends the process."""
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(to_line(picture).encode() + b"\n")
        self._file.flush()
        self._note(picture, place)

    def get(self, path: str) -> Annotated | None:
        """Returns what is known of a picture, or None."""
        if path not in self.places:
            return None
        self._file.seek(self.places[path][0])
        return from_line(self._file.readline())

    def close(self) -> None:
        """Closes the file, forced to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


class Pictures:
    """Pictures of a journal, the doubtful first; read anew each time they are gone through.

    Args:
        journal: where they are.
        paths: which of them; those that the journal does not have are left out.
    """

    def __init__(self, journal: Journal, paths: Sequence[str]) -> None:
        self._file, self._places = journal.path, dict(journal.places)
        known = [path for path in paths if path in self._places]
        self.paths = sorted(known, key=lambda path: -self._places[path][1])  # equal ones stay

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Annotated]:
        with open(self._file, "rb") as file:
            for path in self.paths:
                file.seek(self._places[path][0])
                yield from_line(file.readline())


def _check_settings(path, settings):
    with open(path, "rb") as file:
        line = file.readline(files.MEBI)
    try:
        before = json.loads(line)["settings"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{files.printable(path)} is there and no journal of an annotation. Name another "
            "folder, or remove it."
        ) from None
    changed = [
        f"{name} {before.get(name)!r}, now {value!r}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"The pictures in {files.printable(path)} were localized with other settings: "
            f"{'; '.join(changed)}. Name another folder, or remove this file to begin anew."
        )
