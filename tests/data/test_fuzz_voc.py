"""Damaged pictures and annotations: each is read or named, in bounded time and memory."""

import io
import random
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data.images import BadImage, read_image
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Report
from wsol_tf.data.voc_xml import BadAnnotation, read_annotation

MOST_BYTES = 200 * 2**20  # of memory that Python's and NumPy's allocations may take at a time
XML = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>5.5</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
</object></annotation>"""
WORDS = (b"<", b">", b"</object>", b"<object>", b"<name>", b"&amp;", b"&x;", b"\0", b"\xff", b"-1",
         b"1e999", b"nan", b"99999999999999999999", b"<!DOCTYPE a [<!ENTITY x 'y'>]>",
         b"<![CDATA[",
         b"]]>", b"<?xml", b"encoding='utf-16'", b"\xef\xbb\xbf", b"<" * 50, b"<a>" * 500,
         )  # fmt: skip


@pytest.fixture
def memory():
    """Fails a test that held too much memory at a time."""
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < MOST_BYTES


def mutated(data, rng, words=()):
    """A copy with a few changes: bits, bytes, pieces that are cut, doubled, swapped or put in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 30, 300))
        change = rng.randrange(6 if words else 5)
        if change == 0:
            data[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])
        elif change == 1:
            data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])
        elif change == 2:
            del data[at : at + length]
        elif change == 3:
            data[at:at] = data[at : at + length]
        elif change == 4:
            data[at : at + length] = bytes(len(data[at : at + length]))
        else:
            data[at:at] = rng.choice(words)
    return bytes(data)


def test_damaged_xml_is_read_or_named(tmp_path, memory):
    rng, path, named = random.Random(0), tmp_path / "a.xml", 0
    for _ in range(2000):
        path.write_bytes(mutated(XML, rng, WORDS))
        try:
            found = read_annotation(path, "a", ("cat", "dog"), Report())
        except BadAnnotation:
            named += 1
            continue
        assert set(found.labels) <= {0, 1} and len(found.labels)
        assert np.isfinite(found.boxes).all() and len(found.boxes) == len(found.box_labels)
        assert found.size is None or min(found.size) > 0
    assert 300 < named < 2000


def test_deep_and_wide_xml_ends(tmp_path, memory):
    for text in ("<a>" * 300_000, "<a>" * 100_000 + "</a>" * 100_000, "<a x='1'/>" * 50_000,
                 f"<annotation>{'<object/>' * 100_000}</annotation>"):  # fmt: skip
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(BadAnnotation):
            read_annotation(tmp_path / "a.xml", "a", ("cat",), Report())


def test_damaged_folders_are_opened_or_refused(tmp_path):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    rng = random.Random(1)
    for name in "abcdef":
        Image.new("RGB", (40, 30)).save(tmp_path / "JPEGImages" / f"{name}.png")
    opened = 0
    for _ in range(150):
        for name in "abcdef":
            xml = mutated(XML, rng, WORDS) if rng.random() < 0.5 else XML
            (tmp_path / "Annotations" / f"{name}.xml").write_bytes(xml)
        listed = mutated(
            b"a\nb\nc\nd\ne\nf\n", rng, (b"\0", b"\xff", b"../a", b"a b", b"\r\n", b"/")
        )
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(listed)
        try:
            source = open_dataset("voc_folder", tmp_path)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            continue
        opened += 1
        assert all(example.image.shape == (30, 40, 3) for example in source.read_examples())
    assert opened > 50


def samples():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(6, axis=0).repeat(6, axis=1)
    small, alpha = Image.fromarray(image), Image.fromarray(image).convert("RGBA")
    deep = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    for picture, kind, options in (
        (small, "JPEG", {}),
        (small, "JPEG", {"progressive": True, "restart_marker_blocks": 2}),
        (small.convert("CMYK"), "JPEG", {}),
        (small, "PNG", {}),
        (deep, "PNG", {}),
        (small.quantize(16), "PNG", {"transparency": 1}),
        (small, "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}),
        (small, "TIFF", {"compression": "jpeg"}),
        (small, "GIF", {}),
        (alpha, "WEBP", {}),
        (small, "BMP", {}),
        (small, "PPM", {}),
        (small, "AVIF", {}),
    ):
        if kind == "AVIF" and kind not in Image.SAVE:
            continue
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        yield pytest.param(buffer.getvalue(), id=f"{kind}-{picture.mode}-{len(options)}")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it passes over in headers
@pytest.mark.parametrize("data", list(samples()))
def test_damaged_pictures_are_read_or_named(data, memory, capfd):
    rng, named = random.Random(len(data)), 0
    for _ in range(120):
        changed = mutated(data, rng)
        try:
            image = read_image("x", rng.choice((None, 10)), data=changed)
        except BadImage as error:
            named += 1
            assert error.reason
            continue
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert min(image.shape[:2]) >= 8
    assert named > 5
