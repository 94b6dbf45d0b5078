"""What a model finds in pictures, as files: an overlay, a mask and a line of JSON for each."""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.data import images
from wsol_tf.report import pictures

LINES = "predictions.jsonl"
LONGEST = 180  # bytes of a picture's name that are kept in the names of its files
_ENDINGS = ("_overlay.png", "_mask.png")


def to_stderr(text: str) -> None:
    """Prints a line apart from what a program is asked for; names in it can't harm a terminal."""
    print("\n".join(map(files.printable, text.split("\n"))), file=sys.stderr)


def to_stdout(text: str) -> None:
    """Prints a line; names in it can't harm a terminal."""
    print("\n".join(map(files.printable, text.split("\n"))), flush=True)


def write_predictions(
    localize: Callable[[np.ndarray], Any],
    paths: Sequence[str],
    output_dir: str,
    *,
    kind: str,
    threshold: float | str,
    on_bad_image: str = "skip",
    log: Callable[[str], Any] = to_stdout,
    warn: Callable[[str], Any] = to_stderr,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Localizes pictures one at a time, for they can be very large, and writes what is found.

    For each picture NAME.* it writes NAME_overlay.png, NAME_mask.png (255 where the object is, at
    the picture's size) and a line of predictions.jsonl. Pictures with the same name get numbers,
    and very long names are cut. predictions.jsonl takes its place at the end, whatever the end is.

    Args:
        localize: function of a picture uint8 `[height, width, 3]` that returns a `Found` of
            `wsol_tf.model.score_maps` or of `edge.runtime`. FloatingPointError makes it a picture
            that can't be used.
        paths: picture files.
        output_dir: an existing folder.
        kind: kind of map, for predictions.jsonl.
        threshold: score-map threshold, for predictions.jsonl.
        on_bad_image: "skip" pictures that can't be used, or "fail" at the first.
        log: is told what was found in each picture.
        warn: is told which pictures are skipped, and why.

    Returns:
        (lines, skipped): a dict for each picture, as in predictions.jsonl, and path -> reason.

    Raises:
        ValueError: a picture can't be used and `on_bad_image` is "fail", or somebody removed
            `output_dir` meanwhile.
    """
    lines, skipped = [], {}
    taken = _names_in_use(paths, output_dir)
    try:
        with _lines_file(output_dir) as file:
            for path in paths:
                try:
                    image = images.read_image(path, note=functools.partial(_note, path, warn))
                    found = localize(image)
                except (images.BadImage, FloatingPointError) as error:
                    skipped[path] = getattr(error, "reason", str(error).rstrip("."))
                    _tell_of_bad(path, skipped[path], on_bad_image, warn)
                    continue
                name = _unique(_stem(path), taken)
                _draw(image, found, os.path.join(output_dir, name))
                lines.append(_line(path, image, found, name, kind=kind, threshold=threshold))
                print(json.dumps(lines[-1], allow_nan=False), file=file, flush=True)
                log(f"{path}: {_sentence(found, lines[-1])}")
    except BaseException as error:
        if not isinstance(error, ValueError):  # which is a sentence of its own
            done = len(lines) + len(skipped)
            warn(f"Ended after {done} of {files.counted(len(paths), 'picture')}.")
        raise
    return lines, skipped


def _tell_of_bad(path, reason, on_bad_image, warn):
    if on_bad_image == "fail":
        raise ValueError(
            f"{path}: {reason}. Repair or remove it, or have such pictures named and skipped: "
            "`on_bad_image=skip`."
        )
    warn(f"Skipped: {path}: {reason}.")


@contextlib.contextmanager
def _lines_file(output_dir):
    """The file of lines, which takes its place with what is in it, whatever ends the writing."""
    ended = None
    place = os.path.join(output_dir, LINES)
    try:
        with files.replacing(place) as unfinished, open(unfinished, "w") as file:
            try:
                yield file
            except BaseException as error:
                ended = error
    except OSError as error:
        if os.path.isdir(output_dir):
            raise
        raise ValueError(
            f"'{output_dir}' was removed or renamed while pictures were localized, and what was "
            "written is not there. Start again."
        ) from error
    if ended is not None:
        raise ended


def _stem(path):
    """A picture's name without its suffix, as much of it as the names of files have room for."""
    stem = os.path.splitext(os.path.basename(path))[0]
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return stem


def summary(lines: Sequence[dict], skipped: dict[str, str], output_dir: str) -> str:
    """Says how many pictures were localized, after `write_predictions`."""
    done = files.counted(len(lines), "picture")
    return f"{done} localized, {len(skipped)} skipped; see {output_dir}."


def _line(path, image, found, name, *, kind, threshold):
    """What predictions.jsonl says about a picture."""
    return {
        "image": path,
        "size": {"height": image.shape[0], "width": image.shape[1]},
        "class": found.class_name,
        "probability": found.probability,
        "box": None if found.box is None else [round(float(edge), 2) for edge in found.box],
        "objects": [_object(part, i) for part in _parts(found) for i in range(len(part.boxes))],
        "map": kind,
        "threshold": threshold,
        "mask": f"{name}_mask.png",
        "overlay": f"{name}_overlay.png",
    }


def _parts(found):
    """What was found of each class."""
    return (found, *found.others)


def _object(found, i):
    """What predictions.jsonl says about one of the objects."""
    return {
        "class": found.class_name,
        "probability": found.probability,
        "box": [round(float(edge), 2) for edge in found.boxes[i]],
        "score": round(float(found.scores[i]), 4),
        "area": int(found.areas[i]),
    }


def _caption(found):
    """Each class and its probability, or what of the two is known."""
    captions = []
    for part in _parts(found):
        probability = None if part.probability is None else f"{part.probability:.0%}"
        if probability == "0%":  # of a class that is present all the same
            probability = "<1%"
        captions.append(" ".join(filter(None, [part.class_name, probability])))
    return ", ".join(captions)


def _sentence(found, line):
    what = "nothing found" if line["box"] is None else f"box {line['box']}"
    if line["box"] is None and line["objects"]:  # of the other classes that are present
        what = files.counted(len(line["objects"]), "object")
    return ", ".join(filter(None, [_caption(found), what]))


def _draw(image, found, stem):
    parts = _parts(found)
    mask = np.any([part.mask for part in parts], axis=0)
    boxes = np.concatenate([part.boxes for part in parts])
    overlay = pictures.overlay(
        image,
        found.score_map,
        mask,
        boxes if len(boxes) else found.box,
        caption=_caption(found),
    )
    files.write(f"{stem}_overlay.png", pictures.as_png(overlay))
    files.write(f"{stem}_mask.png", pictures.as_png(mask.astype(np.uint8) * 255))


def _names_in_use(paths, output_dir):
    """Names whose files would replace pictures to read, which may lie in the output folder."""
    here = os.path.realpath(output_dir)
    inside = [path for path in paths if os.path.dirname(os.path.realpath(path)) == here]
    return {
        os.path.basename(path).removesuffix(ending)
        for path in inside
        for ending in _ENDINGS
        if path.endswith(ending)
    }


def _note(path, warn, remark):
    warn(f"{path}: {remark}.")


def _unique(name, taken):
    """A name that is not taken yet: pictures of different folders can share one."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
