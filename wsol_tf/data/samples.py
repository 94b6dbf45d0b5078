"""Samples of more than 8 bits: how they become bytes."""

import cv2
import numpy as np
from PIL import Image

RANGES = (8, 10, 12, 14)  # bits that cameras and scanners use of 16


def read_deep(data: bytes, picture: Image.Image) -> np.ndarray | None:
    """Reads a picture that has 16 or 32 bits a sample, as they are stored.

    Args:
        data: the file.
        picture: the same, loaded by Pillow, which has no mode for colours of more than 8 bits.

    Returns:
        uint16 [height, width] or [height, width, 3 or 4] (RGB, RGBA), not turned upright; None for
        all other pictures.
    """
    if picture.mode.startswith("I"):
        samples = np.asarray(picture)
        if samples.dtype == np.uint16:
            return samples
        return np.clip(samples, 0, 65535).astype(np.uint16)
    if picture.mode not in ("RGB", "RGBA", "LA") or _bits(data, picture) != 16:
        return None
    # Pillow has loaded it, so that nothing is missing in the file: this one would not say so.
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.shape[:2] != picture.size[::-1]:
        return None
    if stored.ndim == 2:
        return stored
    order = cv2.COLOR_BGRA2RGBA if stored.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(stored, order)


def _bits(data, picture):
    if picture.format == "PNG":
        return data[24]
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def to_bytes(samples: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Scales samples of 16 bits to 8 by the range that they use.

    That is the least of 8, 10, 12, 14 and 16 bits that holds the largest sample.

    Args:
        samples: uint16 [height, width] or [height, width, channels]; a fourth channel is opacity.

    Returns:
        (uint8 of the same shape, what to say about the range; None where it is 16 bits).
    """
    largest = int(samples[..., :3].max() if samples.ndim == 3 else samples.max())
    bits = next((bits for bits in RANGES if 0 < largest < 2**bits), 16)
    top = 2**bits - 1
    values = np.rint(np.arange(2**16) / (top / 255)).clip(0, 255).astype(np.uint8)
    scaled = values[samples]
    if samples.ndim == 3 and samples.shape[2] == 4 and samples[..., 3].max() > top:
        scaled[..., 3] = samples[..., 3] >> 8
    if bits == 16:
        return scaled, None
    return scaled, (
        f"16-bit samples of which none is above {top}: taken for samples of {bits} bits and scaled"
    )
