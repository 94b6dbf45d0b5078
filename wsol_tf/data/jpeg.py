"""JPEG files, whole or not: decoders fill what a file lacks with gray, and say nothing of it."""

import io
import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

END = b"\xff\xd9"
# Second bytes of markers.
_END_OF_PICTURE = 0xD9
_START_OF_SCAN = 0xDA
_RESTART_INTERVAL = 0xDD
_FRAMES = tuple(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC})
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_BASELINE_FRAMES = (0xC0, 0xC1)
_APP1 = 0xE1
# Tables, the restart interval, comments, and what programs add for themselves.
_TABLES_AND_NOTES = frozenset((0xC4, 0xDB, _RESTART_INTERVAL, 0xFE, *range(0xE0, 0xF0)))
_SEGMENT = struct.Struct(">BBH")  # 255, the marker, the length from here on
_FRAME = struct.Struct(">BHHB")  # bits of a sample, height, width, components
_DECODE = {
    scale: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | reduced
    for scale, reduced in (
        (1, 0),
        # OpenCV's flags for "reduced" and gray; colour is in the first flag.
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    )
}
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# Bits that are no code. Put after compressed data they are used up by blocks that still lack
# some; a decoder that has all of its blocks passes over them.
_CANARY = b"\xff\x00"
_AHEAD = 12  # canaries that a decoder may want to look at before it ends the last block
# What a download that was broken off often leaves. Whole files hardly have so many in a row.
_ZEROS = bytes(64)


class CutOff(ValueError):
    """A JPEG file lacks a part of the picture's data."""


class Header(NamedTuple):
    """What the header of an ordinary JPEG says.

    Attributes:
        height, width: in pixels.
        start: where the compressed data begins.
        has_app1: whether there is a segment that may say which way is up.
    """

    height: int
    width: int
    start: int
    has_app1: bool


def read_header(data: bytes) -> Header | None:
    """Reads the header of an ordinary JPEG, in a tenth of the time that opening it takes.

    Args:
        data: the file.

    Returns:
        None for what Pillow has to read: other kinds of JPEG (progressive, CMYK, several pictures
        in a file, several scans), other formats, and files that have no end.
    """
    if not (data.startswith(b"\xff\xd8\xff") and data.endswith(END)):
        return None
    at, height, width, count, has_app1 = 2, 0, 0, 0, False
    while at + 10 < len(data):
        fill, marker, length = _SEGMENT.unpack_from(data, at)
        body, at = at + _SEGMENT.size, at + 2 + length
        if fill != 0xFF or length < 2:
            return None
        if marker in _BASELINE_FRAMES:
            if count:
                return None
            precision, height, width, count = _FRAME.unpack_from(data, body)
            if precision != 8 or count not in (1, 3):
                return None
        elif marker == _START_OF_SCAN:
            whole = count and data[body] == count and at <= len(data) - len(END)
            return Header(height, width, at, has_app1) if whole else None
        elif marker not in _TABLES_AND_NOTES or data.startswith(b"MPF\0", body):
            return None
        has_app1 |= marker == _APP1
    return None


def decode(data: bytes, header: Header, scale: int = 1) -> np.ndarray | None:
    """Decodes an ordinary JPEG, faster than Pillow to the same pixels.

    Args:
        data: the file.
        header: of the same.
        scale: 1, 2, 4 or 8: decode to that fraction of the sides, rounded up, as libjpeg does.

    Returns:
        uint8 [height, width, 3], not turned upright; None for what `load` has to look at: files
        that may lack a part.
    """
    if data.find(_ZEROS, header.start) >= 0:
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE[scale])
    if image is None:
        return None
    # Blocks without data become gray, and the last ones are the first to lack it. Of their colour
    # the neighbours may have a share, but not of their lightness.
    red, green, blue = image[-1, -1].tolist()
    lightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return None if abs(lightness - 128) < 1.5 else image


def load(data: bytes, picture: Image.Image) -> None:
    """Loads the pixels of a JPEG that Pillow opened, if the file has all of them.

    Pillow's own `load` takes a file that was cut off and then ended by a marker: libjpeg only
    warns, and nobody hears it.

    Args:
        data: the file.
        picture: the same, opened by Pillow and perhaps told to reduce it; it is loaded afterwards.

    Raises:
        CutOff: the file lacks data.
        OSError: it is damaged in another way.
    """
    segments = list(_segments(data))
    frame = next((segment for segment in segments if segment[0] in _FRAMES), None)
    if frame is None or frame[0] not in _HUFFMAN_FRAMES:  # arithmetic codes have no wrong bits
        picture.load()
        return
    if segments[-1][0] != _END_OF_PICTURE:
        raise CutOff("truncated: its data has no end")
    end = segments[-1][1] - len(END)
    scans = list(_scans(data, segments))
    if _lacks_scans(scans):
        raise CutOff("truncated: its last scans are missing")
    if _lacks_restarts(data, frame[1], segments):
        raise CutOff("truncated: parts of its data are missing")
    if not _decode_whole(data[:end], picture):
        raise CutOff("truncated: its data ends too early")
    zeros = data.find(_ZEROS, scans[0][0], end)
    if zeros >= 0 and not _is_padding(data, zeros, end):
        raise CutOff("truncated: a part of its data is zeros")


def _decode_whole(data, picture):
    """Loads a picture of a file without its end marker; whether all of its blocks have data."""
    name, extents, _, options = picture.tile[0]
    picture.load_prepare()
    decoder = Image._getdecoder(picture.mode, name, options, picture.decoderconfig)
    decoder.setimage(picture.im, extents)
    rest = data
    # A canary at a time: that one of them is used up by chance says nothing, that all are does.
    for part in (_CANARY * _AHEAD, *[_CANARY] * 8):
        used, error = decoder.decode(rest + part)
        if error < 0:
            raise OSError("broken data stream")
        if used < 0:  # it has all lines of the picture
            break
        rest = (rest + part)[used:]
        if rest:
            return False
    else:
        used, error = decoder.decode(END)
        if used >= 0 or error < 0:
            return False
    picture.tile = []  # nothing is left to load
    return True


def _is_padding(data, zeros, end):
    """Whether a picture with a run of zeros in its data is whole: they are padding, or belong."""
    without_them, without_the_last = data[: zeros + 4], data[: end - 16]
    return _has_all_blocks(without_them) or not _has_all_blocks(without_the_last)


def _has_all_blocks(data):
    with Image.open(io.BytesIO(data + END), formats=["JPEG"]) as picture:
        picture.draft(None, (picture.width // 8, picture.height // 8))
        try:
            return _decode_whole(data, picture)
        except OSError:  # it was cut within a header
            return False


# --- the parts of a file -------------------------------------------------------------------------


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, end) of each segment, up to the end of the first picture."""
    at = 2
    while (at := _next_marker(data, at)) >= 0:
        marker, start = data[at + 1], at + 2
        at = start
        if marker not in (0x01, _END_OF_PICTURE):  # all others have a length
            at += int.from_bytes(data[start : start + 2])
        yield marker, start, at
        if marker == _END_OF_PICTURE:
            return


def _next_marker(data, at):
    """Where the next marker is that is neither a stuffed zero nor a restart; -1: nowhere.

    After the header of a scan this is the end of its compressed data.
    """
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        second = data[at + 1]
        if second == 0 or 0xD0 <= second <= 0xD7:
            at += 2
        elif second == 0xFF:  # fills up
            at += 1
        else:
            return at
    return -1


def _scans(data, segments):
    """Yields (start of its data, ids of its components, (first, last, low bit)) of each scan."""
    for marker, start, end in segments:
        if marker == _START_OF_SCAN and end <= len(data) and end - start >= 6:
            count = data[start + 2]
            ids = data[start + 3 : start + 3 + 2 * count : 2]
            yield end, ids, (data[end - 3], data[end - 2], data[end - 1] & 15)


def _lacks_scans(scans):
    """Whether coefficients of a component never come, or not to the last bit.

    Of the first component all must come, of the others the means: a file may leave their details
    out, but none begins to send what it does not end.
    """
    low = {}  # component -> by coefficient the lowest bit that was sent, 16 where none was
    for _, ids, (first, last, bit) in scans:
        for component in ids:
            low.setdefault(component, np.full(64, 16))[first : min(last, 63) + 1] = bit
    begun = [bits[0] != 0 or ((bits > 0) & (bits < 16)).any() for bits in low.values()]
    return not low or any(begun) or (next(iter(low.values())) > 0).any()


def _lacks_restarts(data, frame, segments):
    """Whether a scan has fewer restart markers than its blocks need.

    Decoders take the data after such a marker for the next blocks, whatever is missing before it.
    """
    height, width, count = struct.unpack_from(">HHB", data, frame + 3)
    sampling = {
        data[at]: divmod(data[at + 1], 16) for at in range(frame + 8, frame + 8 + 3 * count, 3)
    }
    across, down = (max(sides) for sides in zip(*sampling.values(), strict=True))
    interval = 0
    for i, (marker, start, end) in enumerate(segments):
        if marker == _RESTART_INTERVAL:
            (interval,) = struct.unpack_from(">H", data, start + 2)
        if marker == _START_OF_SCAN and interval:
            # Several components share units of all their blocks; one alone comes block by block.
            one = sampling[data[start + 3]] if data[start + 2] == 1 else (1, 1)
            units = math.ceil(width * one[0] / across / 8) * math.ceil(height * one[1] / down / 8)
            found = _RESTART.findall(data, end, segments[i + 1][1])
            if len(found) < math.ceil(units / interval) - 1:
                return True
    return False
