"""From pictures to annotations for people to correct: localized once, then written in any format.

Nothing is held of a picture once it is localized but its place in the journal, so memory does not
grow with their number, and a run that was stopped goes on where it was.
"""

import contextlib
import csv
import dataclasses
import functools
import os
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsol_tf import files
from wsol_tf.annotations import formats, tools
from wsol_tf.annotations.crops import CROPS, remove_crops, write_crops
from wsol_tf.annotations.journal import Journal, Pictures
from wsol_tf.annotations.names import Namer, fit_text, relative_to
from wsol_tf.annotations.own import LAYOUTS, Own, refusal
from wsol_tf.annotations.polygons import component_in, polygon
from wsol_tf.annotations.record import Annotated, Object
from wsol_tf.annotations.uncertainty import doubts
from wsol_tf.data import images
from wsol_tf.report.review_page import write_review
from wsol_tf.report.templates import data_uri

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
NO_CLASS = "object"  # of a model that tells no classes
SILENCE = 10.0  # seconds between two lines of progress

# A function of a picture, uint8 [height, width, 3], that returns its Found, of
# wsol_tf.model.score_maps or of edge.runtime, and the mask of the class activation map, bool
# [height, width], or None. FloatingPointError makes it a picture that can't be used.
Localize = Callable[[np.ndarray], tuple[Any, np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class Looking:
    """How pictures are looked at; kept with what is found, which no other settings may join.

    Attributes:
        tolerance: pixels that a polygon may be from the edges of the mask.
        thumbnail: longer side of the thumbnails in the review page, in pixels.
        crops: whether to write a crop of each object.
        crop_margin: see `crops.crop_window`.
        crop_aspect: see `crops.crop_window`.
    """

    tolerance: float = 2.0
    thumbnail: int = 256
    crops: bool = False
    crop_margin: float = 0.1
    crop_aspect: float = 0.0


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
) -> tuple[Pictures, dict[str, str]]:
    """Localizes pictures, and writes what is found for people to correct.

    Args:
        localize: see Localize.
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

    Returns:
        (pictures, skipped): those that are annotated, and path -> reason.

    Raises:
        ValueError: a picture can't be used and `on_bad_image` is "fail"; the folder holds pictures
            that were localized with other settings, or files that are not annotate's own where it
            would write; another process annotates in it.
    """
    paths = _wanted(paths, output_dir, log)
    settings = {**model, "root": root, **dataclasses.asdict(looking)}
    own = Own(output_dir, (*LAYOUTS[format], DOUBTFUL, REVIEW, *([TO_CORRECT] if budget else [])))
    with _locked(output_dir, log):
        journal = Journal(output_dir, settings)
        try:
            names = _names(paths, journal, root)
            own.check(names.values(), journal.names.values())
            if looking.crops and not journal.names:
                _check_no_crops(os.path.join(output_dir, CROPS))
            skipped = _localize_all(
                localize, names, journal, output_dir, root, looking, on_bad_image, log, warn
            )
        finally:
            journal.close()
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


def _names(paths, journal, root):
    """Path -> the name that a picture has in the journal, or is given."""
    namer = Namer()
    for name in journal.names.values():
        namer.take(name)
    return {path: journal.names.get(path) or namer.name(relative_to(path, root)) for path in paths}


def _check_no_crops(place):
    """Refuses a folder of crops that is there before any picture was localized."""
    if os.path.lexists(place):
        raise ValueError(refusal(place, "was not written by `annotate`"))


def _replace(own, journal, pictures, warn):
    """Makes way for the annotations, among them those of pictures that are no longer named."""
    here = set(pictures.paths)
    gone = [name for path, name in journal.names.items() if path not in here]
    own.check((journal.names[path] for path in here), journal.names.values())
    for place in own.remove(gone):
        warn(f"{place}: it was changed by hand and stays, but its picture is not in the set.")
    own.begin()


def _wanted(paths, output_dir, log):
    """The pictures, absolute and each once, without those that lie in the output folder."""
    here = os.path.join(os.path.abspath(output_dir), "")
    wanted = dict.fromkeys(map(os.path.abspath, paths))
    kept = [path for path in wanted if not path.startswith(here)]
    if len(kept) < len(wanted):
        left_out = files.counted(len(wanted) - len(kept), "picture")
        log(f"{left_out} in `output_dir` left out: they are results.")
    return kept


def _localize_all(localize, names, journal, output_dir, root, looking, on_bad_image, log, warn):
    """Localizes the pictures that the journal does not have; returns path -> reason of bad ones."""
    skipped, known, found, began = {}, 0, 0, time.monotonic()
    for number, (path, name) in enumerate(names.items(), 1):
        try:
            version = _version(path)
            before = journal.get(path)
            if before is not None and before.version == version:
                known += 1
                continue
            image = images.read_image(path, note=functools.partial(_note, path, warn))
            picture = _look(localize, image, path, version, root, name, looking)
        except (images.BadImage, FloatingPointError) as error:
            skipped[path] = getattr(error, "reason", str(error).rstrip("."))
            if on_bad_image == "fail":
                raise ValueError(
                    f"{path}: {skipped[path]}. Repair or remove it, or have such pictures named "
                    "and skipped: `on_bad_image=skip`."
                ) from None
            warn(f"Skipped: {path}: {skipped[path]}.")
            continue
        if looking.crops:
            if before:  # it may have had more objects, or others
                remove_crops(output_dir, before)
            write_crops(
                output_dir, image, picture, margin=looking.crop_margin, aspect=looking.crop_aspect
            )
        journal.add(picture)
        found += 1
        if time.monotonic() - began > SILENCE:
            began = time.monotonic()
            log(f"{number} of {files.counted(len(names), 'picture')}.")
    if known:
        log(f"{files.counted(known, 'picture')} had been localized before.")
    log(f"{found} localized now, {len(skipped)} skipped.")
    return skipped


def _version(path):
    try:
        status = os.stat(path)
    except OSError as error:
        raise images.BadImage(path, "there is no such file") from error
    return status.st_size, status.st_mtime_ns


def _look(localize, image, path, version, root, name, looking):
    """Localizes a picture."""
    found, cam_mask = localize(image)
    return Annotated(
        path=path,
        version=version,
        relative=relative_to(path, root),
        name=name,
        height=image.shape[0],
        width=image.shape[1],
        probability=found.probability,
        doubts=doubts(
            found.score_map, found.mask, cam_mask=cam_mask, probability=found.probability
        ),
        objects=tuple(
            known for part in (found, *found.others) for known in _objects(part, looking.tolerance)
        ),
        thumbnail=_thumbnail(image, looking.thumbnail),
    )


def _objects(found, tolerance):
    """The objects of one class."""
    for box, score, area in zip(found.boxes, found.scores, found.areas, strict=True):
        ring = polygon(component_in(found.mask, box, int(area)), tolerance) + np.int32(box[:2])
        yield Object(
            found.class_name or NO_CLASS,
            round(float(score), 4),
            tuple(map(int, box)),
            int(area),
            ring.tolist(),
        )


def _thumbnail(image, side):
    scale = side / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in (image.shape[1], image.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return data_uri(Image.fromarray(image), "webp", quality=60)


def _note(path, warn, remark):
    warn(f"{path}: {remark}.")


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
