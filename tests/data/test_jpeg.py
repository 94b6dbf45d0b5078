import collections
import io
import struct

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data import jpeg
from wsol_tf.data.images import BadImage, read_image, read_image_and_size


def picture(height=90, width=130, channels=3, seed=0):
    """Smooth shapes with some noise, so that data is spread over all of a file."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / (9 + 4 * c)) + np.cos(columns / (5 + 3 * c)) for c in range(3)])
    noisy = 128 + 45 * waves.transpose(1, 2, 0) + rng.integers(-12, 13, (height, width, 3))
    image = noisy.clip(0, 255).astype(np.uint8)
    return image if channels == 3 else image[..., 0]


def encoded(image=None, quality=85, **options):
    buffer = io.BytesIO()
    image = picture() if image is None else image
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def start_of_data(data):
    at = data.index(b"\xff\xda") + 2
    return at + int.from_bytes(data[at : at + 2])


def check(data, reason="truncated"):
    with pytest.raises(BadImage, match=f"cannot be decoded .*{reason}"):
        read_image("x.jpg", data=data)
    with pytest.raises(BadImage, match=reason):  # and where it is reduced while it is decoded
        read_image("x.jpg", 20, data=data)


KINDS = {
    "baseline": {},
    "gray": {"image": picture(channels=1)},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.97])
def test_a_file_that_was_cut_off_and_ended_is_damaged(kind, share, capfd):
    data = encoded(**KINDS[kind])
    start = start_of_data(data)
    cut = data[: start + int(share * (len(data) - start))]
    check(cut + jpeg.END)
    check(cut, "no end")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_file_that_ends_in_zeros_is_damaged(kind, share, capfd):
    data = encoded(**KINDS[kind])
    start = start_of_data(data)
    cut = data[: start + int(share * (len(data) - start))]
    check(cut + bytes(len(data) - len(cut) - 2) + jpeg.END)
    check(cut + bytes(len(data) - len(cut)), "no end")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(kind):
    image = KINDS[kind].get("image", picture())
    data = encoded(**KINDS[kind])
    read = read_image("x.jpg", data=data).astype(int)
    expected = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    assert np.abs(read - expected).mean() < 12
    # Whatever stands behind the end: a second picture, what a camera adds, nothing at all.
    for more in (b"\0" * 300, b"trailer", data):
        np.testing.assert_array_equal(read_image("x.jpg", data=data + more), read)


def test_a_progressive_file_without_its_last_scans_is_damaged():
    data = encoded(progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) == 10  # libjpeg's own script
    for at in scans[1:]:
        check(data[:at] + jpeg.END, "last scans are missing")


def test_a_gray_corner_and_flat_pictures_are_no_damage():
    for image in (
        np.full((64, 64, 3), 128, np.uint8),
        np.zeros((640, 640, 3), np.uint8),
        np.full((640, 640), 255, np.uint8),
    ):
        for options in ({}, {"optimize": True}, {"progressive": True}):
            read = read_image("x.jpg", data=encoded(image, **options))
            assert read.shape[:2] == image.shape[:2] and np.abs(read - image.flat[0]).max() == 0


def test_zeros_in_the_data_of_a_whole_picture_are_no_damage():
    """With codes of its own, a flat picture is zeros from end to end but for the last byte."""
    image = np.zeros((800, 800), np.uint8)
    image[:8, :8] = 255
    data = encoded(image, optimize=True)
    assert bytes(64) in data[start_of_data(data) :]
    assert read_image("x.jpg", data=data)[400].max() == 0


def test_zeros_between_the_data_and_the_end_are_no_damage():
    data = encoded()
    padded = data[:-2] + bytes(200) + jpeg.END
    np.testing.assert_array_equal(read_image("x.jpg", data=padded), read_image("x.jpg", data=data))


def test_zeros_in_the_header_cost_nothing():
    for marker in (0xE1, 0xED, 0xFE):
        segment = struct.pack(">BBH", 0xFF, marker, 2002) + bytes(2000)
        data = encoded()
        data = data[:2] + segment + data[2:]
        assert jpeg.decode(data, jpeg.read_header(data)) is not None


def test_header_by_hand():
    data = encoded(picture(height=20, width=33))
    assert jpeg.read_header(data) == (20, 33, start_of_data(data), False)
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encoded(picture(height=20, width=33), exif=exif)
    assert jpeg.read_header(data) == (20, 33, start_of_data(data), True)


def test_what_pillow_has_to_read():
    several = io.BytesIO()
    Image.fromarray(picture()).save(
        several, "MPO", save_all=True, append_images=[Image.fromarray(picture(seed=1))]
    )
    cmyk = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(cmyk, "JPEG")
    whole = encoded()
    frame = whole.index(b"\xff\xc0")
    for data in (
        several.getvalue(),
        cmyk.getvalue(),
        encoded(progressive=True),
        whole + b"trailer",
        whole[:frame] + whole[frame : frame + 19] + whole[frame:],  # two frames
        whole[: frame + 4] + b"\x0c" + whole[frame + 5 :],  # 12 bits
        b"\x89PNG" + whole[4:],
        b"",
    ):
        assert jpeg.read_header(data) is None
    for end in range(start_of_data(whole)):
        assert jpeg.read_header(whole[:end] + jpeg.END) is None


def test_of_a_damaged_header_pillow_reads_nothing_else(monkeypatch, capfd):
    whole = encoded(picture(height=24, width=40))
    rng = np.random.default_rng(0)

    def read(data):
        try:
            image, size = read_image_and_size("x.jpg", 8, data=data)
            return image.shape, size
        except BadImage as error:
            return error.reason

    read_header, counts = jpeg.read_header, collections.Counter()
    for _ in range(150):
        at = int(rng.integers(2, start_of_data(whole)))
        data = whole[:at] + bytes([rng.integers(256)]) + whole[at + 1 :]
        monkeypatch.setattr(jpeg, "read_header", read_header)
        ours = read(data)
        monkeypatch.setattr(jpeg, "read_header", lambda data: None)
        expected = read(data)
        counts[isinstance(ours, str), isinstance(expected, str)] += 1
        if not isinstance(expected, str):
            assert ours == expected
    assert counts[False, False] > 10 and counts[True, True] > 10


def test_cmyk_and_several_pictures_in_a_file_are_checked_too(tmp_path):
    cmyk = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(cmyk, "JPEG", quality=90)
    pair = io.BytesIO()
    one, two = (Image.fromarray(picture(seed=seed)) for seed in (0, 1))
    one.save(pair, "MPO", save_all=True, append_images=[two])
    for data in (cmyk.getvalue(), pair.getvalue()):
        assert read_image("x.jpg", data=data).shape == (90, 130, 3)
    check(cmyk.getvalue()[:-400] + jpeg.END)


def test_orientation_and_reduction_do_not_hide_damage():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(exif=exif)
    assert read_image("x.jpg", data=data).shape == (130, 90, 3)
    check(data[:-600] + jpeg.END)
