"""Which files are pictures, and the one place where they are opened."""

import contextlib
import os
import threading
from typing import IO, NamedTuple

from PIL import Image

from wsol_tf import files

Image.init()
# Pillow knows more, some of them by starting other programs: what is not named here is not read.
FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM")
    if name in Image.OPEN
)
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif"),
    *(".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
)
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
# These lie beside pictures by the million and are not opened to see whether they are pictures.
_OTHER_SUFFIXES = (".xml", ".json", ".txt", ".csv", ".tsv", ".npy", ".npz")
_PASSED_OVER = ("thumbs.db", "ehthumbs.db", "desktop.ini")
# What systems and programs keep in folders for themselves; all hidden ones besides.
JUNK_FOLDERS = (
    *("__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    "__pycache__",
)
MAX_BYTES = 1024 * files.MEBI

_HEIC = (
    "this is an HEIC picture, which is not read: convert it to JPEG (heif-convert IMG.HEIC "
    "IMG.jpg, or ImageMagick); phones save JPEG when their camera is set to 'Most Compatible'"
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_OTHER_KINDS = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript"),
    (b"8BPS", "a Photoshop"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
)

PathLike = str | os.PathLike

_PILLOW_LIMIT = threading.Lock()


def open_picture(file: PathLike | IO[bytes]) -> Image.Image:
    """Opens a picture of FORMATS as `PIL.Image.open` does, whatever its number of pixels.

    Only the header is read here: callers decide by the size that it names, before they decode.
    Pillow's own limit, a global, is back in place when this returns.
    """
    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_heic(start):
    """Whether a file begins as an HEIC picture; AVIF pictures begin alike, with other names."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and b"avif" not in start[8:64]


def what_is_no_picture(data: bytes) -> str:
    """Says what the bytes of a file are that no decoder knows."""
    start = data[:512].lstrip().lower()
    if _is_heic(data[:64]):
        return _HEIC
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "this is an AVIF picture, which is read with Pillow 11.3 or later"
    if b"<svg" in start:
        return "this is an SVG drawing, which is not read: save it as PNG"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page or XML, not a picture"
    if start.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the picture: run git lfs pull"
    kind = next((kind for head, kind in _OTHER_KINDS if data.startswith(head)), None)
    if kind:
        return f"this is {kind} file, which is not read: save it as JPEG or PNG"
    return "this is not a picture in a known format"


# --- in folders ----------------------------------------------------------------------------------


def is_picture(path: PathLike) -> bool:
    """Whether a file is taken for a picture by its name alone: a known suffix, and not hidden."""
    name = os.path.basename(path)
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


class Listing(NamedTuple):
    """What a folder holds. Hidden files, and those that systems write, count as not there.

    Attributes:
        pictures: paths of pictures, sorted.
        unreadable: path -> reason, of pictures that certainly can't be read.
        folders: paths of folders that were not looked into.
        others: path -> reason, of everything else.
    """

    pictures: list[str]
    unreadable: dict[str, str]
    folders: list[str]
    others: dict[str, str]


def list_pictures(folder: PathLike, *, deep: bool = False) -> Listing:
    """Lists the pictures in a folder.

    A file is a picture by its suffix, or if that is unknown, by what it holds. Links are followed.

    Args:
        folder: the folder.
        deep: look into the folders in it too, into each once.
    """
    found = Listing([], {}, [], {})
    waiting, seen = [os.fspath(folder)], set()
    while waiting:
        inside = waiting.pop()
        try:
            identity = os.stat(inside)
            entries = sorted(os.scandir(inside), key=lambda entry: entry.name)
        except OSError as error:
            found.others[inside] = f"the folder can't be read ({error.strerror})"
            continue
        if (key := (identity.st_dev, identity.st_ino)) in seen:
            found.others[inside] = "a link to a folder that is read already"
            continue
        seen.add(key)
        folders = [entry for entry in entries if _sort_in(entry, found)]
        if deep:  # links last, so that a picture has the name of the folder that it lies in
            waiting += sorted((x.path for x in folders if not x.is_symlink()), reverse=True)
            waiting[:0] = [x.path for x in folders if x.is_symlink()]
        else:
            found.folders.extend(entry.path for entry in folders)
    found.pictures.sort()
    return found


def _sort_in(entry, found):
    """Puts a file of a folder where it belongs in a Listing; whether it is a folder instead."""
    lower = entry.name.lower()
    if lower.startswith(".") or lower in _PASSED_OVER:
        return False
    with contextlib.suppress(OSError):
        if entry.is_dir():
            if lower in JUNK_FOLDERS:
                found.others[entry.path] = "a folder that a system keeps for itself"
                return False
            return True
    if lower.endswith(SUFFIXES):
        if reason := _no_file(entry):
            found.unreadable[entry.path] = reason
        else:
            found.pictures.append(entry.path)
    elif reason := _no_file(entry) or _no_picture(entry):
        meant = reason == _HEIC or lower.endswith(HEIC_SUFFIXES)
        (found.unreadable if meant else found.others)[entry.path] = reason
    else:
        found.pictures.append(entry.path)
    return False


def _no_file(entry):
    """Why an entry of a folder is no regular file; None where it is one."""
    with contextlib.suppress(OSError):
        if entry.is_file():
            return None
    try:
        files.open_binary(entry.path).close()
    except files.BadFile as error:
        return error.reason
    return None


def _no_picture(entry):
    """Why a file of unknown suffix is not taken for a picture; None where it is one."""
    if entry.name.lower().endswith(_OTHER_SUFFIXES):
        return "not a picture by its suffix"
    try:
        with files.open_binary(entry.path, MAX_BYTES) as file:
            start = file.read(64)
            if _is_heic(start):
                return _HEIC
            file.seek(0)
            open_picture(file).close()
    except files.BadFile as error:
        return error.reason
    except Exception:  # whatever the decoder says, it does not read it
        return "not a picture"
    return None
