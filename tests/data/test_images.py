import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data import images
from wsol_tf.data.images import BadImage, read_image, read_image_and_size
from wsol_tf.data.registry import open_dataset


def save(tmp_path, array, name="picture.png", mode=None, **options):
    path = tmp_path / name
    Image.fromarray(array, mode).save(path, **options)
    return path


def halves(left, right, height=10, width=20):
    """A picture of two colours side by side."""
    image = np.zeros((height, width, len(left)), np.uint8)
    image[:, : width // 2] = left
    image[:, width // 2 :] = right
    return image


def test_rgb_png_is_read_as_it_is(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    read = read_image(save(tmp_path, image))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)


def test_alpha_is_laid_on_white(tmp_path):
    image = halves((200, 100, 0, 255), (200, 100, 0, 0))
    image[0, 0, 3] = 51  # a fifth opaque: 200 * .2 + 255 * .8 = 244
    read = read_image(save(tmp_path, image))
    np.testing.assert_array_equal(read[5, 5], (200, 100, 0))
    np.testing.assert_array_equal(read[5, 15], (255, 255, 255))
    np.testing.assert_allclose(read[0, 0], (244, 224, 204), atol=1)


def test_gray_with_alpha_is_laid_on_white(tmp_path):
    read = read_image(save(tmp_path, halves((30, 255), (30, 0))))
    np.testing.assert_array_equal(read[5, 5], (30, 30, 30))
    np.testing.assert_array_equal(read[5, 15], (255, 255, 255))


def test_transparent_palette_entry_is_white(tmp_path):
    picture = Image.fromarray(halves((0,), (1,))[:, :, 0], "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "p.png", transparency=1)
    read = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(read[5, 5], (10, 20, 30))
    np.testing.assert_array_equal(read[5, 15], (255, 255, 255))


def test_gray_has_three_equal_channels(tmp_path):
    gray = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(
        read_image(save(tmp_path, gray)), np.repeat(gray[:, :, None], 3, axis=2)
    )


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path, name):
    gray = np.full((10, 20), 257 * 100, np.uint16)
    gray[0, :3] = 0, 65535, 300
    read = read_image(save(tmp_path, gray, name))
    assert read[5, 5].tolist() == [100, 100, 100]
    assert read[0, :3, 0].tolist() == [0, 255, 1]


def test_cmyk_jpeg_keeps_its_colour(tmp_path):
    red = Image.new("RGB", (20, 10), (220, 30, 40)).convert("CMYK")
    red.save(tmp_path / "cmyk.jpg", quality=95)
    np.testing.assert_allclose(
        read_image(tmp_path / "cmyk.jpg").mean(axis=(0, 1)), (220, 30, 40), atol=6
    )


@pytest.mark.parametrize(
    ("orientation", "red_corner", "shape"),
    [
        (1, (0, 0), (10, 20)),
        (2, (0, -1), (10, 20)),
        (3, (-1, -1), (10, 20)),
        (6, (0, -1), (20, 10)),
        (8, (-1, 0), (20, 10)),
    ],
)
def test_exif_rotation_is_applied(tmp_path, orientation, red_corner, shape):
    image = np.zeros((10, 20, 3), np.uint8)
    image[0, 0] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    read, size = read_image_and_size(save(tmp_path, image, exif=exif))
    assert read.shape[:2] == shape == size
    np.testing.assert_array_equal(read[red_corner], (255, 0, 0))


def test_large_jpeg_is_reduced_on_request(tmp_path):
    path = save(tmp_path, halves((250, 0, 0), (0, 0, 250), 2500, 5000), "large.jpg")
    image, size = read_image_and_size(path, min_side=150)
    assert size == (2500, 5000)
    # 2500 // 150 = 16, of which the decoder does 8: 313 // 150 = 2.
    assert image.shape == (157, 313, 3)
    np.testing.assert_allclose(image[30, 50], (250, 0, 0), atol=8)
    np.testing.assert_allclose(image[30, 250], (0, 0, 250), atol=8)
    assert read_image(path).shape == (2500, 5000, 3)


def test_reduction_knows_rotation_and_other_formats(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, halves((250, 0, 0), (0, 0, 250), 40, 400), exif=exif)
    image, size = read_image_and_size(path, min_side=10)
    assert size == (400, 40)
    assert image.shape == (100, 10, 3)


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
def test_picture_below_twice_the_side_is_not_reduced(tmp_path, name):
    path = save(tmp_path, np.zeros((30, 500, 3), np.uint8), name)
    assert read_image(path, min_side=16).shape == (30, 500, 3)
    assert read_image(path, min_side=15).shape == (15, 250, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [
    {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True},
    {"restart_marker_blocks": 5}, {"keep_rgb": True}, {"exif": Image.Exif()},
])  # fmt: skip
def test_both_jpeg_decoders_give_the_same_pixels(monkeypatch, channels, options):
    """OpenCV reads most files, Pillow the rest: it must not matter which, whatever the side."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 67, channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.squeeze()).save(file, "JPEG", **options)
    sides = [None, *range(1, 46)]
    fast = [read_image_and_size("p.jpg", side, file.getvalue()) for side in sides]
    monkeypatch.setattr(images.jpeg, "read_header", lambda data: None)
    for side, (image, size) in zip(sides, fast, strict=True):
        expected, expected_size = read_image_and_size("p.jpg", side, file.getvalue())
        np.testing.assert_array_equal(image, expected)
        assert size == expected_size == (45, 67)
    assert fast[0][0].std() > 10


def truncated_jpeg():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def huge_png_header():
    """A PNG that says it is 20,000 x 20,000, without data."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"nonsense" * 20, "not a picture"),
        (truncated_jpeg(), "cannot be decoded"),
        (huge_png_header(), "more than 200 million"),
    ],
)
def test_bad_files_are_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert str(path) not in caught.value.reason


def test_pillows_own_limit_stays_as_it_is(tmp_path, monkeypatch):
    """Pictures of up to 200 million pixels are read, whatever limit the rest of a program has."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_image(save(tmp_path, np.zeros((20, 20, 3), np.uint8))).shape == (20, 20, 3)
    (tmp_path / "bad.png").write_bytes(b"nonsense" * 20)
    with pytest.raises(BadImage, match="not a picture"):
        read_image(tmp_path / "bad.png")
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "picture.png")


def test_every_cut_of_a_picture_is_bad_image_or_a_picture(tmp_path):
    """Whatever a damaged file makes the decoder raise, callers see BadImage only."""
    good = save(tmp_path, halves((9, 9, 9, 255), (1, 2, 3, 4)), "good.png").read_bytes()
    bad = 0
    for cut in range(0, len(good), 3):
        (tmp_path / "cut.png").write_bytes(good[:cut])
        try:
            assert read_image(tmp_path / "cut.png").shape == (10, 20, 3)
        except BadImage:
            bad += 1
    assert bad > 10


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(BadImage, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(BadImage, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 100), (100, 7)])
def test_tiny_pictures_are_refused(tmp_path, height, width):
    with pytest.raises(BadImage, match=f"{width} x {height} pixels"):
        read_image(save(tmp_path, np.zeros((height, width, 3), np.uint8)))


def test_float_samples_are_refused(tmp_path):
    with pytest.raises(BadImage, match="unknown range"):
        read_image(save(tmp_path, np.ones((10, 10), np.float32), "float.tif"))


# --- more than 8 bits ----------------------------------------------------------------------------


def deep_tiff(samples, orientation=1, order="<"):
    """An uncompressed TIFF in colour of 8 or 16 bits; Pillow writes none of 16, and none turned."""
    height, width, channels = samples.shape
    body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = 8 * samples.itemsize
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None),
            (274, orientation), (277, channels), (278, height), (279, len(body))]  # fmt: skip
    bits_at = 8 + 2 + 12 * len(tags) + 4
    values = {258: bits_at, 273: bits_at + 2 * channels}
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, value in tags:
        count = channels if tag == 258 else 1
        if value is not None and value < 2**16:
            out += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        else:
            kind = 3 if tag == 258 else 4
            out += struct.pack(f"{order}HHII", tag, kind, count, values.get(tag, value))
    return out + bytes(4) + struct.pack(f"{order}{channels}H", *[bits] * channels) + body


def deep_png(samples):
    """A PNG of 16 bits a sample, in gray, colour, or colour and opacity."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = samples.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ):
        out += struct.pack(">I", len(body)) + name + body
        out += struct.pack(">I", zlib.crc32(name + body))
    return out


def written(samples, kind):
    if kind == "png":
        return deep_png(samples)
    if samples.ndim == 3:
        return deep_tiff(samples, order="<" if kind == "tif" else ">")
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "tif", "big-endian tif"])
@pytest.mark.parametrize("shape", [(10, 20), (10, 20, 3)])
@pytest.mark.parametrize(("bits", "noted"), [(16, False), (14, True), (12, True), (10, True)])
def test_samples_are_scaled_by_the_range_that_they_use(kind, shape, bits, noted):
    top = 2**bits - 1
    samples = np.full(shape, round(top * 0.6), np.uint16)
    samples[0, 0], samples[0, 1], samples[0, 2] = 0, top, round(top * 0.2)
    if len(shape) == 3:
        samples[5, 5] = top, 0, round(top * 0.2)
    notes = []
    read = read_image("x", data=written(samples, kind), note=notes.append)
    # 0.6 and 0.2 of 255.
    assert [read[at].tolist() for at in ((9, 9), (0, 0), (0, 1), (0, 2))] == [
        [153] * 3, [0] * 3, [255] * 3, [51] * 3,
    ]  # fmt: skip
    if len(shape) == 3:
        assert read[5, 5].tolist() == [255, 0, 51]
    assert len(notes) == noted
    assert not noted or f"{bits} bits" in notes[0]


def test_black_stays_black_and_dark_pictures_are_noted():
    notes = []
    black = read_image("x", data=deep_png(np.zeros((10, 20), np.uint16)), note=notes.append)
    assert black.max() == 0 and not notes
    dark = np.zeros((10, 20), np.uint16)
    dark[0, 0] = 4096  # a bit more than 12 hold
    read_image("x", data=deep_png(dark), note=notes.append)
    assert "14 bits" in notes[0]


def test_opacity_has_a_range_of_its_own():
    samples = np.full((10, 20, 4), 4095, np.uint16)
    samples[..., 3] = 65535
    samples[0, 0] = 0
    read = read_image("x", data=deep_png(samples))
    assert read[5, 5].tolist() == [255] * 3 and read[0, 0].tolist() == [255] * 3


TURNED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiffs_are_turned_once(dtype, orientation):
    image = np.zeros((10, 20, 3), np.uint8)
    image[0, 0], image[0, -1], image[-1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = image if dtype == "uint8" else image.astype(np.uint16) * 257
    read, size = read_image_and_size("x", data=deep_tiff(stored, orientation))
    np.testing.assert_array_equal(read, TURNED[orientation](image))
    assert size == read.shape[:2]


def test_a_deep_picture_that_is_cut_off_is_named():
    data = deep_png(np.random.default_rng(0).integers(0, 65536, (30, 40, 3), np.uint16))
    for cut in (data[: len(data) // 2], data[:-200]):
        with pytest.raises(BadImage, match="cannot be decoded"):
            read_image("x.png", data=cut)


def test_notes_reach_the_report_of_a_data_set(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(deep_png(np.full((10, 20), 4000, np.uint16)))
    source = open_dataset("image_folder", tmp_path)
    assert len(list(source.read_examples())) == 2
    assert source.read_image(0)[0, 0].tolist() == [249] * 3  # 4000 / 4095 * 255
    assert sorted(source.report.noted) == ["cat/a.png", "dog/a.png"]
    assert "2 x 16-bit samples of which none is above 4095" in source.report.summary()
