"""Random damage to COCO files and tables: a sentence that names the file, or sound examples."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data.registry import open_dataset

SIZE = (20, 12)  # width and height of the pictures
SQUARE = [[2, 2, 9, 2, 9, 9, 2, 9]]
COCO = {
    "images": [
        {"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in range(1, 5)
    ],
    "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 7, 7], "iscrowd": 0,
         "segmentation": SQUARE},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0.5, 1, 9, 9],
         "segmentation": {"size": [12, 20], "counts": [10, 30, 200]}},
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 1,
         "segmentation": {"size": [12, 20], "counts": ":`02g6"}},
        {"id": 4, "image_id": 3, "category_id": 2, "bbox": [1, 1, 5, 5], "segmentation": SQUARE},
        {"id": 5, "image_id": 4, "category_id": 1, "bbox": [3, 3, 4, 4]},
    ],
}  # fmt: skip
ODD = (
    *(None, True, False, 0, 1, 2, 3, -1, 0.5, 3.0, 1e30, 10**12, 2**70, 10**400),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "1", "2.0", "cat", "nan", "1e999", "0x1"),
    *([], [[]], [1], [1, 2], [1, 2, 3, 4], [[1, 2, 3]], SQUARE, [[1, 2], [5, 2], [5, 6]], ["a"]),
    *([[float("nan")] * 6], [[1e30] * 6], [None] * 4, {}, {"size": [12, 20]}, {"id": 1}),
    *({"size": [10**9, 10**9], "counts": [10**18]}, {"size": [12, 20], "counts": [0, 240]}),
    *({"size": [12, 20], "counts": "~~~~"}, {"size": [12, 20], "counts": [2**70, -5, 0.5]}),
    *("1.png", "./1.png", "x/1.png", "1.PNG", "..\\2.png", "a\0b", "\ud800", "x" * 300, "/", ".."),
)
TABLE = """filename,width,height,class,xmin,ymin,xmax,ymax,split
1.png,20,12,cat,2,2,9,9,train
1.png,20,12,dog,"1,5",3,8,8,train
./2.png,,,dog,,,,,train
x\\3.png,20,12,cat,0.5,1,19.5,11,train
4.png,20,12,"cat",1,1,2,2,val
"""
CELLS = (
    *(
        "",
        " ",
        '"',
        '""',
        ",",
        ";",
        "\t",
        "|",
        "\n",
        "\r",
        "\0",
        "\ufeff",
        "sep=;\n",
        "é",
        "\u2028",
    ),
    *("nan", "inf", "-1", "1e999", "0", "1,5", "1.5", "1,000", "9" * 400, "x" * 300, "../", "\\"),
    *("1.png", "x/1.png", "2.PNG", "cat", "CAT", "val", "xmin", "x", "y", "path", "label", "\x85"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(1, 5):
        Image.new("RGB", SIZE, (60 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def read_all(kind, file):
    """Opens and reads a data set, and checks that what it gives is sound; returns whether it is."""
    try:
        source = open_dataset(kind, file, "train")
    except ValueError as error:
        assert file.name in str(error)
        return False
    assert len(set(source.image_ids)) == len(source) <= 4  # never a picture twice
    assert all(np.diff(labels).min(initial=1) > 0 for labels in source.labels)
    colours = set()
    for example in source.read_examples():
        colours.add(int(example.image[0, 0, 0]))
        limit = [*SIZE, *SIZE]
        assert ((example.boxes >= 0) & (example.boxes <= limit)).all()
        assert (example.boxes[:, 2:] > example.boxes[:, :2]).all()
        assert set(example.box_labels) <= set(example.labels) <= set(range(len(source.classes)))
        assert example.mask.shape in ((0, 0), SIZE[::-1])
        assert set(np.unique(example.mask)) <= {0, 255, *range(1, len(source.classes) + 1)}
    assert len(colours) == len(source)
    source.report.summary().encode("utf-8", "backslashreplace")
    return True


def rounds(kind, file, damaged, count):
    """Reads so many damaged files in little memory; returns how many of them could be used."""
    tracemalloc.start()
    try:
        used = 0
        for seed in range(count):
            data = damaged(np.random.default_rng(seed))
            file.write_bytes(data)
            try:
                used += read_all(kind, file)
            except Exception as error:
                error.add_note(f"seed {seed}: {data[:3000]!r}")
                raise
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    return used


def pick(rng, values):
    return values[rng.integers(len(values))]


def places(value, path=()):
    """The paths to all values within a value of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def damaged_coco(rng):
    data = copy.deepcopy(COCO)
    for _ in range(rng.integers(1, 4)):
        *path, last = pick(rng, list(places(data)))
        holder = data
        for key in path:
            holder = holder[key]
        way = rng.integers(4)
        if way == 0:
            del holder[last]
        elif way == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[last] = copy.deepcopy(pick(rng, ODD))
        if not data:
            break
    return json.dumps(data).encode()


def damaged_bytes(text):
    def damaged(rng):
        data = bytearray(text.encode())
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(len(data))
            way = rng.integers(4)
            if way == 0:
                data[at] = rng.integers(256)
            elif way == 1:
                data[at] ^= 1 << rng.integers(8)
            elif way == 2:
                data[at:at] = data[at : at + rng.integers(40)]
            else:
                del data[at : at + rng.integers(1, 10)]
        return bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)

    return damaged


def damaged_table(rng):
    lines = TABLE.split("\n")
    for _ in range(rng.integers(1, 4)):
        i = rng.integers(len(lines) - 1)
        cells = lines[i].split(",")
        at = rng.integers(len(cells))
        way = rng.integers(5)
        if way == 0:
            cells[at] = pick(rng, CELLS)
        elif way == 1:
            cells[at] += pick(rng, CELLS)
        elif way == 2:
            cells.insert(at, pick(rng, CELLS))
        elif way == 3:
            del cells[at]
        lines[i] = (pick(rng, ",;\t|") if way == 4 else ",").join(cells)
    return "\n".join(lines).encode("utf-16" if rng.random() < 0.1 else "utf-8")


@pytest.mark.parametrize(
    ("kind", "name", "damaged", "count"),
    [
        ("coco", "train.json", damaged_coco, 700),
        ("coco", "bytes.json", damaged_bytes(json.dumps(COCO)), 400),
        ("csv", "train.csv", damaged_table, 500),
        ("csv", "bytes.csv", damaged_bytes(TABLE), 300),
    ],
    ids=["coco values", "coco bytes", "table cells", "table bytes"],
)
def test_damage_is_named_or_harmless(folder, kind, name, damaged, count):
    used = rounds(kind, folder / name, damaged, count)
    assert 0.02 * count < used < count  # neither was all of it refused, nor none of it


def test_what_is_damaged_is_sound_before(folder):
    (folder / "train.json").write_text(json.dumps(COCO))
    (folder / "train.csv").write_text(TABLE)
    assert read_all("coco", folder / "train.json") and read_all("csv", folder / "train.csv")
