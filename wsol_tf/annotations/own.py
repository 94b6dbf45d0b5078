"""Which files in a folder are annotate's own: it replaces and removes these and no others."""

import os
from collections.abc import Iterable, Iterator, Sequence

from wsol_tf import files

RECORD = "written.json"
# What each format writes; {name} and {stem} are a picture's.
LAYOUTS = {
    "coco": ("annotations/instances_train.json", "images/{name}"),
    "voc": (
        "classes.txt",
        "ImageSets/Main/train.txt",
        "JPEGImages/{name}",
        "Annotations/{stem}.xml",
    ),
    "yolo": ("data.yaml", "images/train/{name}", "labels/train/{stem}.txt"),
    "csv": ("train.csv", "images/{name}"),
    "labelme": ("labelme/{stem}.json",),
    "labelstudio": ("labelstudio.json", "labelstudio.xml"),
    "cvat": ("annotations.xml",),
}
LISTED = ("images/{name}",)  # COCO's and CSV's: what their lists don't name is in no set


class Own:
    """The files of a folder that annotate wrote, and has not seen changed since.

    A small record keeps, for each kind of file, when the last of its files was written. Which files
    there are, the names of pictures tell; so nothing is held of each.

    Args:
        output_dir: an existing folder.
        kinds: the kinds of files that this run writes, as in LAYOUTS.

    Raises:
        BadFile: the record is none.
    """

    def __init__(self, output_dir: str, kinds: Sequence[str]) -> None:
        self._folder, self._kinds = output_dir, kinds
        self._record = os.path.join(output_dir, RECORD)
        self._times: dict[str, int | None] = {}  # None: it was being written, and may be half
        if os.path.lexists(self._record):
            self._times = files.read_json(self._record)
            if not isinstance(self._times, dict):
                raise files.BadFile(self._record, "this is no record of what `annotate` wrote")

    def check(self, names: Iterable[str], before: Iterable[str]) -> None:
        """Refuses to replace what is not annotate's own.

        Args:
            names: of the pictures that are to be written.
            before: of those that were localized in earlier runs, whose files may be its own.

        Raises:
            ValueError: a file that is there was not written by annotate, or was changed since.
        """
        names, before = list(names), set(before)
        for kind in self._kinds:
            for place, name in self._places(kind, names):
                if not os.path.lexists(place):
                    continue
                if kind not in self._times or not (name is None or name in before):
                    problem = "was not written by `annotate`"
                elif self._changed(kind, place):
                    problem = "was changed since `annotate` wrote it"
                else:
                    continue
                raise ValueError(refusal(place, problem))

    def begin(self) -> None:
        """Notes that files are being written; call `check` before."""
        self._times.update(dict.fromkeys(self._kinds))
        files.write_json(self._record, self._times)

    def end(self, names: Iterable[str]) -> None:
        """Notes that all files of pictures of these names are written."""
        names = list(names)
        for kind in self._kinds:
            places = (place for place, _ in self._places(kind, names) if os.path.lexists(place))
            self._times[kind] = max(map(_time_of, places), default=0)
        files.write_json(self._record, self._times)

    def remove(self, names: Iterable[str]) -> list[str]:
        """Removes the files of pictures that a reader would take to be of the set.

        Args:
            names: of pictures that are no longer in it; call this between `check` and `begin`.

        Returns:
            Files that a person changed, which stay.
        """
        names, left = list(names), []
        for kind in self._kinds:
            if kind in LISTED or kind not in self._times:
                continue
            for place, name in self._places(kind, names):
                if name is None or not os.path.lexists(place):
                    continue
                if self._changed(kind, place):
                    left.append(place)
                else:
                    os.remove(place)
        return left

    def _places(self, kind: str, names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """Yields (file, name of its picture) of a kind; a file of no picture has None."""
        if "{" not in kind:
            yield os.path.join(self._folder, kind), None
            return
        for name in names:
            place = kind.format(name=name, stem=name.rpartition(".")[0])
            yield os.path.join(self._folder, place), name

    def _changed(self, kind, place):
        written = self._times[kind]
        return written is not None and _time_of(place) > written


def refusal(place: str, problem: str) -> str:
    """Says why a file, or a folder, is not replaced."""
    return (
        f"{files.printable(place)} {problem}, and is not replaced. Move it away, or name another "
        "`output_dir`."
    )


def _time_of(place):
    """When a file, or a link, was changed, in nanoseconds."""
    return os.lstat(place).st_mtime_ns
