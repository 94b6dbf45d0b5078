import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from helpers import run
from wsol_tf import evaluate
from wsol_tf.data import shapes
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation.stored_maps import StoredArrays, check_map, check_scores
from wsol_tf.evaluation.wsolevaluation import BoxAccuracy, resize_boxes, standard_map


def opened(path, num_classes=4):
    return StoredArrays(str(path), "score maps", lambda array: check_map(array, num_classes))


@pytest.fixture
def folder(tmp_path, rng):
    """A map for each of three ids: plain, with the suffix of the picture, in a folder inside."""
    maps = {"a": rng.random((5, 7)), "b.jpg": rng.random((3, 3)), "val/c": rng.random((4, 4))}
    (tmp_path / "maps" / "val").mkdir(parents=True)
    for name, array in maps.items():
        np.save(tmp_path / "maps" / f"{name}.npy", array)
    return tmp_path / "maps"


def test_ids_are_found_with_and_without_suffix(folder):
    stored = opened(folder)
    for image_id, name in (
        ("a", "a"), ("a.jpg", "a"), ("b", "b.jpg"), ("b.jpg", "b.jpg"), ("val/c.JPEG", "val/c")
    ):  # fmt: skip
        expected = np.load(folder / f"{name}.npy")
        np.testing.assert_array_equal(stored.read_map(image_id), expected)
    np.testing.assert_array_equal(stored.read_map("val/c.tiff"), np.load(folder / "val/c.npy"))
    assert stored.summary() == ""


def test_an_archive_is_read_like_a_folder(folder, tmp_path):
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("a", "b.jpg")}
    np.savez(tmp_path / "maps.npz", **arrays)
    for image_id in ("a", "b"):
        np.testing.assert_array_equal(
            opened(tmp_path / "maps.npz").read_map(image_id), opened(folder).read_map(image_id)
        )


def test_what_is_wrong_is_named_and_becomes_a_miss(folder):
    np.save(folder / "wide.npy", np.array([[-1.0, 0.5], [0.0, 3.0]]))
    np.save(folder / "text.npy", np.array([["x"]]))
    np.save(folder / "flat.npy", np.zeros(5))
    np.save(folder / "many.npy", np.zeros((2, 2, 3)))
    np.save(folder / "pickled.npy", np.array([{}], object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "a.npy").read_bytes()[:150])
    (folder / "empty.npy").touch()
    np.save(folder / "huge.npy", np.array([[1e39, 0.0]]))
    stored = opened(folder)
    for image_id in ("gone", "text", "flat", "many", "pickled", "cut", "empty", "huge"):
        assert np.isnan(stored.read_map(image_id)).all()
    stored.read_map("wide")
    findings = stored.findings()
    assert findings["missing"] == ["gone"]
    assert set(findings["unreadable"]) == {
        "text", "flat", "many", "pickled", "cut", "empty", "huge",
    }  # fmt: skip
    assert findings["unreadable"]["many"] == ("[h, w] or [h, w, 4] is expected, received (2, 2, 3)")
    assert findings["outside_0_1"] == ["wide"]
    assert findings["unused"] == ["a", "b.jpg", "val/c"]
    json.dumps(findings, allow_nan=False)
    summary = stored.summary()
    assert "1 picture without one, counted as missed: gone" in summary
    assert "flat ([h, w] or [h, w, 4] is expected, received (5,))" in summary


def test_a_damaged_archive_costs_its_damaged_maps_only(tmp_path, rng):
    maps = {name: rng.random((9, 9)) for name in "ab"}
    np.savez_compressed(tmp_path / "maps.npz", **maps)
    data = bytearray((tmp_path / "maps.npz").read_bytes())
    data[40:60] = b"\xff" * 20  # the packed header of the first array
    (tmp_path / "maps.npz").write_bytes(data)
    stored = opened(tmp_path / "maps.npz")
    assert np.isnan(stored.read_map("a")).all()
    np.testing.assert_array_equal(stored.read_map("b"), maps["b"])
    assert list(stored.findings()["unreadable"]) == ["a"]


def header(shape, descr="<f8", version=1):
    """The first bytes of a .npy file, with whatever shape."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def measured(read):
    """What a function returns, and the most bytes that it held at once."""
    tracemalloc.start()
    try:
        return read(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMBS = {
    "many values": (header((100000, 100000)), "at most 67,108,864 values are read, the header "
                    "promises (100000, 100000)"),
    "too short": (header((5000, 5000)), "the header promises 200,000,000 bytes of values, it holds "
                  "67,108,864: it is damaged"),
    "too long": (header((2, 2)), "the header promises 32 bytes of values, it holds 67,108,864"),
    "texts": (header((1,), "<U500000000"), "numbers are expected, received <U500000000"),
    "negative": (header((-1, 5)), "the header promises (-1, 5)"),
    "long header": (b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"), "EOF"),
    "nested header": (b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000, ""),
    "version": (header((2, 2), version=3), "version 3.0 of the format is not read"),
}  # fmt: skip


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "archive"])
def test_what_would_expand_is_named_and_not_expanded(archive, tmp_path):
    zeros = bytes(2**26)  # 64 MiB that an archive holds in 64 KiB
    path = tmp_path / "maps"
    if archive:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, (start, _) in BOMBS.items():
                file.writestr(f"{name}.npy", start + zeros)
            file.writestr("good.npy", header((2, 2)) + np.ones((2, 2)).tobytes())
    else:
        path.mkdir()
        for name, (start, _) in BOMBS.items():
            (path / f"{name}.npy").write_bytes(start + zeros)
        np.save(path / "good.npy", np.ones((2, 2)))
    stored = opened(path)
    for name, (_, reason) in BOMBS.items():
        found, peak = measured(lambda name=name: stored.read_map(name))
        assert np.isnan(found).all() and peak < 2**23, name
        assert reason in stored.findings()["unreadable"][name]
    np.testing.assert_array_equal(stored.read_map("good"), np.ones((2, 2)))
    assert "\n" not in stored.summary() and "good" not in stored.summary()


def test_an_archive_that_names_a_smaller_size_is_read_no_further(tmp_path):
    path = tmp_path / "maps.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", header((4000, 4000)) + bytes(4000 * 4000 * 8))
    data = bytearray(path.read_bytes())
    for at in (22, data.rfind(b"PK\x01\x02") + 24):
        data[at : at + 4] = (10**6).to_bytes(4, "little")
    path.write_bytes(data)
    stored = opened(path)
    found, peak = measured(lambda: stored.read_map("a"))
    assert np.isnan(found).all() and peak < 2**23
    assert "it holds 999," in stored.findings()["unreadable"]["a"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_numpy_does_not_write_are_refused(kind, tmp_path):
    with zipfile.ZipFile(tmp_path / "maps.npz", "w", kind) as file:
        file.writestr("a.npy", header((2, 2)) + bytes(2**24))
    stored = opened(tmp_path / "maps.npz")
    found, peak = measured(lambda: stored.read_map("a"))
    assert np.isnan(found).all() and peak < 2**23
    assert "savez" in stored.findings()["unreadable"]["a"]


def test_what_is_no_file_is_named(folder):
    os.mkfifo(folder / "pipe.npy")
    os.symlink("/dev/zero", folder / "zeros.npy")
    os.symlink(folder / "nowhere", folder / "broken.npy")
    (folder / "inside.npy").mkdir()
    np.save(folder / "inside.npy" / "d.npy", np.ones((2, 2)))
    stored = opened(folder)
    for name in ("pipe", "zeros", "broken", "inside"):
        assert np.isnan(stored.read_map(name)).all()
    assert stored.findings()["unreadable"] == {
        "pipe": "this is a pipe, not a file", "zeros": "this is a device, not a file",
        "broken": "this is a link to a file that is not there",
        "inside": "this is a folder, not a file",
    }  # fmt: skip
    np.testing.assert_array_equal(stored.read_map("inside.npy/d"), np.ones((2, 2)))


@pytest.mark.parametrize(
    "make, sentence",
    [
        (os.mkfifo, "this is a pipe, not a file"),
        (lambda path: os.symlink("/dev/zero", path), "this is a device, not a file"),
        (lambda path: os.symlink("nowhere", path), "this is a link to a file that is not there"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + b"\xff" * 18), "no .npz archive"),
    ],
)
def test_an_archive_that_is_no_file_is_refused(make, sentence, tmp_path):
    make(tmp_path / "maps.npz")
    with pytest.raises(ValueError, match=sentence) as caught:
        opened(tmp_path / "maps.npz")
    assert "maps.npz" in str(caught.value)


def test_names_are_found_however_a_system_writes_them(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    np.savez(tmp_path / "maps.npz", **{f"val\\{decomposed}": np.ones((2, 2))})
    stored = opened(tmp_path / "maps.npz")
    for image_id in (f"val/{composed}.jpg", f"val\\{decomposed}", f"val/{decomposed}.JPG"):
        np.testing.assert_array_equal(stored.read_map(image_id), np.ones((2, 2)))


def test_names_do_not_command_the_terminal(tmp_path):
    np.savez(tmp_path / "maps.npz", **{"a\x1b[31m": np.ones((2, 2)), "b": np.ones((2, 2))})
    stored = opened(tmp_path / "maps.npz")
    stored.read_map("c\x1b[31m")
    assert "\x1b" not in stored.summary() and r"a\x1b[31m" in stored.summary()
    with pytest.raises(ValueError) as caught:
        stored.check_ids(["d\x1b"])
    assert "\x1b" not in str(caught.value)


def test_shapes_that_are_one_map():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for shape in ((2, 3), (1, 2, 3), (2, 3, 1)):
        np.testing.assert_array_equal(check_map(array.reshape(shape), 4), array)
    assert check_map(np.zeros((2, 3, 4)), 4).shape == (2, 3, 4)
    assert check_map(array, 4).dtype == np.float64
    with pytest.raises(ValueError, match="received"):
        check_scores(np.zeros(3), 4)


@pytest.mark.parametrize(
    "name, sentence",
    [("gone", "does not exist"), ("text.npz", "is no .npz archive"), ("nothing", "there are none")],
)
def test_nothing_to_read_is_refused(name, sentence, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=sentence):
        opened(tmp_path / name)


# --- through the command -------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    shapes.write_voc(str(tmp_path / "voc"), 6, size=80, seed=0, split="val")
    return tmp_path / "voc"


def perfect_maps(voc, folder):
    """Writes each picture's true mask as its map, and scores that name its class."""
    source = open_dataset("voc_folder", str(voc), "val")
    (folder / "maps").mkdir()
    (folder / "scores").mkdir()
    for position, image_id in enumerate(source.image_ids):
        example = source.read_example(position)
        np.save(folder / "maps" / f"{image_id}.npy", (example.mask > 0).astype(np.float32))
        scores = np.zeros(len(source.classes))
        scores[example.labels[0]] = 9
        np.save(folder / "scores" / f"{image_id}.npy", scores)
    return source


def score(voc, out, *arguments):
    status = run(
        evaluate, "--dataset=voc_folder", f"--data_dir={voc}", f"--output_dir={out}", *arguments
    )
    figures = json.loads((out / "metrics.json").read_text()) if status == 0 else None
    return status, figures


def test_maps_of_any_program_are_scored(voc, tmp_path, capsys):
    perfect_maps(voc, tmp_path)
    maps = f"--score_maps={tmp_path / 'maps'}"
    status, figures = score(voc, tmp_path / "out", maps)
    assert status == 0
    assert (figures["map"], figures["view"], figures["threshold"]) == ("stored", "whole", "otsu")
    assert figures["gt_known_loc"] == figures["gt_known_loc_oracle"] == 1.0
    assert figures["miou_mask"] > 0.9
    assert figures["top1_loc"] is None and figures["top1_cls"] is None
    assert "Top-1 Cls -" in capsys.readouterr().out
    assert (tmp_path / "out" / "contact_sheet.png").is_file()

    _, figures = score(
        voc, tmp_path / "out", maps, f"--class_scores={tmp_path / 'scores'}", "--threshold=0.5"
    )
    assert figures["top1_loc"] == figures["top1_cls"] == figures["gt_known_loc"] == 1.0


def test_wrong_maps_are_misses_and_named(voc, tmp_path, capsys):
    source = perfect_maps(voc, tmp_path)
    first, second, third = source.image_ids[:3]
    (tmp_path / "maps" / f"{first}.npy").unlink()
    np.save(tmp_path / "maps" / f"{second}.npy", np.full((4, 4), np.nan))
    np.save(tmp_path / "maps" / f"{third}.npy", np.full((4, 4), 0.5))
    np.save(tmp_path / "maps" / "stranger.npy", np.zeros((4, 4)))
    _, figures = score(voc, tmp_path / "out", f"--score_maps={tmp_path / 'maps'}")
    assert figures["score_maps"]["missing"] == [first]
    assert figures["score_maps"]["unused"] == ["stranger"]
    assert figures["bad_maps"] == [first, second]
    assert figures["constant_maps"] == [third]
    assert figures["gt_known_loc"] <= 4 / 6  # the whole view may happen to be right for the third
    output = capsys.readouterr().out
    assert f"without one, counted as missed: {first}" in output and "stranger" in output


def test_maps_are_scored_with_all_their_digits(voc, tmp_path, rng):
    # Half of these values lie just below a gray level, where float32 would round them up to it.
    source = perfect_maps(voc, tmp_path)
    expected = BoxAccuracy(contours=["single"])
    for position, image_id in enumerate(source.image_ids):
        example = source.read_example(position)
        score_map = rng.integers(0, 256, (40, 40)) / 255
        score_map.flat[:2] = 0, 1
        score_map -= 1e-12 * (score_map > 0) * (score_map < 1)
        np.save(tmp_path / "maps" / f"{image_id}.npy", score_map)
        boxes = example.boxes.astype(int) - [0, 0, 1, 1]
        truth = resize_boxes(boxes, (80, 80), (40, 40))
        expected.add(image_id, standard_map(score_map, 40, 40), truth)
    _, figures = score(
        voc, tmp_path / "out", f"--score_maps={tmp_path / 'maps'}", "--input_size=40",
        "--metrics=max_box_acc",
    )  # fmt: skip
    assert figures["max_box_acc"] == expected.result()["max_box_acc"]


def test_maps_of_other_pictures_are_refused(voc, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "stranger.npy", np.zeros((4, 4)))
    assert score(voc, tmp_path / "out", f"--score_maps={tmp_path / 'maps'}")[0] == 1
    assert "belong to none of the pictures. Names there: stranger;" in capsys.readouterr().err


def test_a_map_per_class_is_taken_by_label(voc, tmp_path):
    source = perfect_maps(voc, tmp_path)
    for position, image_id in enumerate(source.image_ids):
        path = tmp_path / "maps" / f"{image_id}.npy"
        stack = np.zeros((80, 80, len(source.classes)), np.float32)
        stack[..., source.labels[position][0]] = np.load(path)
        np.save(path, stack)
    _, figures = score(voc, tmp_path / "out", f"--score_maps={tmp_path / 'maps'}")
    assert figures["gt_known_loc"] == 1.0


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "Name what is to be scored"),
        (["--score_maps={voc}", "--model=x.keras"], "Name what is to be scored"),
        (["--model=x.keras", "--class_scores={voc}"], "go with --score_maps"),
        (["--score_maps={voc}"], "there are none"),
        (["--score_maps={voc}", "--map=cam"], "scored as they are"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, sentence, voc, tmp_path, capsys):
    arguments = [argument.format(voc=voc) for argument in arguments]
    assert score(voc, tmp_path / "out", *arguments)[0] == 1
    assert sentence in capsys.readouterr().err
