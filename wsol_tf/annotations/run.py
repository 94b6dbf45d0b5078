"""From pictures to annotations for people to correct: localized once, then written in any format.

Nothing is held of a picture once it is localized but its place in the journal, so memory does not
grow with their number, and a run that was stopped goes on where it was.
"""

import collections
import contextlib
import csv
import dataclasses
import functools
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wsol_tf import files
from wsol_tf.annotations import formats, tools
from wsol_tf.annotations.crops import CROPS, remove_crops
from wsol_tf.annotations.journal import JOURNAL, Journal, Pictures
from wsol_tf.annotations.look import Localize, Looking, Outcome, Wanted, look, version_of
from wsol_tf.annotations.names import Namer, fit_text, relative_to
from wsol_tf.annotations.own import LAYOUTS, Own, refusal
from wsol_tf.report.review_page import write_review

WRITERS: dict[str, Callable[..., list[str]]] = {
    "coco": formats.write_coco,
    "voc": formats.write_voc,
    "yolo": formats.write_yolo,
    "labelme": tools.write_labelme,
    "labelstudio": tools.write_labelstudio,
    "cvat": tools.write_cvat,
    "csv": formats.write_csv,
}
DOUBTFUL, REVIEW, TO_CORRECT = "doubtful.csv", "review.html", "to_correct.txt"
LOCK = ".lock"
WAITING = ".beam"  # folder of what was found elsewhere and is not in the journal yet
SILENCE = 10.0  # seconds between two lines of progress

# What `annotate` may be given to have pictures localized elsewhere: a function of those that are
# wanted, which yields what became of each, in their order.
Elsewhere = Callable[[Iterable[Wanted]], Iterable[Outcome]]


def annotate(
    localize: Localize,
    paths: Sequence[str],
    output_dir: str,
    *,
    root: str,
    format: str,
    options: formats.Options,
    looking: Looking,
    model: dict[str, Any],
    budget: int = 0,
    on_bad_image: str = "skip",
    log: Callable[[str], Any],
    warn: Callable[[str], Any],
    elsewhere: Elsewhere | None = None,
) -> tuple[Pictures, dict[str, str]]:
    """Localizes pictures, and writes what is found for people to correct.

    Args:
        localize: see `look.Localize`; not called where pictures are localized elsewhere.
        paths: picture files; those in `output_dir` are left out.
        output_dir: an existing folder.
        root: the folder that they all lie in, see `names.root_of`.
        format: one of WRITERS.
        options: what the format is written with.
        looking: how pictures are looked at.
        model: what says which model finds what, for the journal; JSON can hold it.
        budget: so many pictures, the most doubtful, are named in to_correct.txt; 0: no such file.
        on_bad_image: "skip" pictures that can't be used, or "fail" at the first.
        log: is told how far it is, and notes.
        warn: is told which pictures are skipped, and why.
        elsewhere: has pictures localized elsewhere, see Elsewhere; None: here, one by one.

    Returns:
        (pictures, skipped): those that are annotated, and path -> reason.

    Raises:
        ValueError: a picture can't be used and `on_bad_image` is "fail"; the folder holds pictures
            that were localized with other settings, or files that are not annotate's own where it
            would write; another process annotates in it.
    """
    paths = _outside(paths, output_dir, log)
    settings = {**model, "root": root, **dataclasses.asdict(looking)}
    own = Own(output_dir, (*LAYOUTS[format], DOUBTFUL, REVIEW, *([TO_CORRECT] if budget else [])))
    here: dict[str, Any] = {"output_dir": output_dir, "root": root, "looking": looking}
    look_here = functools.partial(map, functools.partial(look, localize=localize, **here))
    with _locked(output_dir, log):
        with _journal_of(output_dir, settings) as journal:
            names = _names(paths, journal, root)
            own.check(names.values(), journal.names.values())
            if looking.crops and not journal.names:
                _check_no_crops(output_dir)
            counts: collections.Counter = collections.Counter(total=len(names))
            wanted = _still_wanted(names, journal, looking.crops and output_dir, counts)
            outcomes = (elsewhere or look_here)(wanted)
            skipped = _keep(outcomes, journal, counts, on_bad_image, log, warn)
        pictures = Pictures(journal, [path for path in paths if path not in skipped])
        _replace(own, journal, pictures, warn)
        key = f"{os.path.abspath(output_dir)} {settings}"
        _write(output_dir, pictures, format, options, budget, key, log)
        own.end(journal.names[path] for path in pictures.paths)
    return pictures, skipped


@contextlib.contextmanager
def _locked(output_dir, log):
    """Keeps other processes from annotating in the folder."""
    path = os.path.join(output_dir, LOCK)

    def tell(error):
        log(f"'{path}' can't be locked ({error.strerror}): start only one process per folder.")

    file = files.take_lock(path, unlockable=tell)
    if file is None:
        raise ValueError(
            f"Another process is annotating in '{files.printable(output_dir)}' "
            f"({files.lock_holder(path)}). Wait for it, end it, or name another `output_dir`."
        )
    with file:
        yield


def _journal_of(output_dir, settings):
    """The folder's journal, for a while; what workers found for one that was removed goes too."""
    if not os.path.lexists(os.path.join(output_dir, JOURNAL)):
        shutil.rmtree(os.path.join(output_dir, WAITING), ignore_errors=True)
    return contextlib.closing(Journal(output_dir, settings))


def _names(paths, journal, root):
    """Path -> the name that a picture has in the journal, or is given."""
    namer = Namer()
    for name in journal.names.values():
        namer.take(name)
    return {path: journal.names.get(path) or namer.name(relative_to(path, root)) for path in paths}


def _check_no_crops(output_dir):
    """Refuses a folder of crops that is there before any picture was localized."""
    place = os.path.join(output_dir, CROPS)
    if os.path.lexists(place) and not os.path.lexists(os.path.join(output_dir, WAITING)):
        raise ValueError(refusal(place, "was not written by `annotate`"))


def _replace(own, journal, pictures, warn):
    """Makes way for the annotations, among them those of pictures that are no longer named."""
    here = set(pictures.paths)
    gone = [name for path, name in journal.names.items() if path not in here]
    own.check((journal.names[path] for path in here), journal.names.values())
    for place in own.remove(gone):
        warn(f"{place}: it was changed by hand and stays, but its picture is not in the set.")
    own.begin()


def _outside(paths, output_dir, log):
    """The pictures, absolute and each once, without those that lie in the output folder."""
    here = os.path.join(os.path.abspath(output_dir), "")
    wanted = dict.fromkeys(map(os.path.abspath, paths))
    kept = [path for path in wanted if not path.startswith(here)]
    if len(kept) < len(wanted):
        left_out = files.counted(len(wanted) - len(kept), "picture")
        log(f"{left_out} in `output_dir` left out: they are results.")
    return kept


def _still_wanted(names, journal, crops_dir, counts):
    """Yields the pictures that the journal does not have as they are now."""
    for path, name in names.items():
        version, before = version_of(path), journal.get(path)
        if before is not None and version == before.version:
            counts["known"] += 1
            continue
        if before is not None and version and crops_dir:  # it may have had more objects, or others
            remove_crops(crops_dir, before)
        yield Wanted(path, name, version)


def _keep(outcomes, journal, counts, on_bad_image, log, warn):
    """Adds pictures to the journal as they come; returns path -> reason of bad ones."""
    skipped, began = {}, 0.0
    for outcome in outcomes:
        began = began or time.monotonic()
        for remark in outcome.notes:
            warn(f"{outcome.path}: {remark}.")
        if outcome.picture is None:
            skipped[outcome.path] = outcome.reason
            if on_bad_image == "fail":
                raise ValueError(
                    f"{outcome.path}: {outcome.reason}. Repair or remove it, or have such pictures "
                    "named and skipped: `on_bad_image=skip`."
                )
            warn(f"Skipped: {outcome.path}: {outcome.reason}.")
            continue
        journal.add(outcome.picture)
        counts["found"] += 1
        if time.monotonic() - began > SILENCE:
            began = time.monotonic()
            done = counts["known"] + counts["found"] + len(skipped)
            log(f"{done} of {files.counted(counts['total'], 'picture')}.")
    if counts["known"]:
        log(f"{files.counted(counts['known'], 'picture')} had been localized before.")
    log(f"{counts['found']} localized now, {len(skipped)} skipped.")
    return skipped


def _write(output_dir, pictures, format, options, budget, key, log):
    """Writes the annotations and the page, under whose key the browser keeps decisions."""
    log(f"Writing {format}, {DOUBTFUL} and {REVIEW}.")
    for note in WRITERS[format](output_dir, pictures, options):
        log(f"Note: {note}")
    _write_doubtful(os.path.join(output_dir, DOUBTFUL), pictures)
    shown = (_shown(picture, output_dir) for picture in pictures)
    place = os.path.join(output_dir, REVIEW)
    write_review(place, shown, options.classes, total=len(pictures), key=key)
    if budget:
        text = "".join(f"{fit_text(path)}\n" for path in pictures.paths[:budget])
        files.write(os.path.join(output_dir, TO_CORRECT), text)


def _write_doubtful(place, pictures):
    """Writes a row for each picture, the most doubtful first."""
    kinds = ("entropy", "disagreement", "class")
    with (
        files.replacing(place) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(
            ["picture", "uncertainty", *(f"{kind}_doubt" for kind in kinds), "objects", "classes"]
        )
        for picture in pictures:
            parts = [picture.doubts.get(kind) for kind in kinds]
            classes = sorted({fit_text(known.class_name) for known in picture.objects})
            rows.writerow(
                [
                    fit_text(picture.relative),
                    f"{picture.uncertainty:.4f}",
                    *("" if part is None else f"{part:.4f}" for part in parts),
                    len(picture.objects),
                    ";".join(classes),
                ]
            )


def _shown(picture, output_dir):
    """What the review page knows of a picture."""
    path = os.fsencode(relative_to(picture.path, os.path.abspath(output_dir)))
    return {
        "name": picture.name,
        "version": "-".join(map(str, picture.version)),
        "path": fit_text(picture.relative),
        "file": urllib.parse.quote(path),
        "width": picture.width,
        "height": picture.height,
        "uncertainty": round(picture.uncertainty, 4),
        "doubts": {name: round(value, 3) for name, value in picture.doubts.items()},
        "thumbnail": picture.thumbnail,
        "objects": [
            {
                "label": known.class_name,
                "score": known.score,
                "box": known.box,
                "area": known.area,
                "polygon": [edge for point in known.polygon for edge in point],
            }
            for known in picture.objects
        ],
    }
