import ast
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from edge import arrays, runtime
from edge_files import CELL, LABELS, SIDE, brightness
from wsol_tf.model import refinement, score_maps, separation

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small .tflite files by name."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "mean": brightness(folder / "mean.tflite"),
        "int8": brightness(folder / "int8.tflite", map_="predicted", format_="int8"),
        "predicted": brightness(folder / "predicted.tflite", map_="predicted"),
        "all": brightness(folder / "all.tflite", map_="all"),
        "refined": brightness(folder / "refined.tflite", refine="guided"),
        "separate": brightness(folder / "separate.tflite", separate=True, threshold=0.3),
        "present": brightness(folder / "present.tflite", map_="present", threshold="otsu"),
    }


def rectangle(height, width, box, colour=(255, 255, 255)):
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = colour
    return image


# --- the whole runtime ---------------------------------------------------------------------------


def test_mask_and_box_are_in_the_pixels_of_the_picture(files):
    localizer = runtime.LocalizerRuntime(files["mean"], num_threads=2)
    assert (localizer.threshold, localizer.input_size) == (0.5, (SIDE, SIDE))
    found = localizer.localize(rectangle(200, 300, (60, 40, 180, 120)))
    assert found.score_map.shape == found.mask.shape == (200, 300)
    # A position of the map is 37 x 25 pixels: the box is right within half of that.
    np.testing.assert_allclose(found.box, [60, 40, 180, 120], atol=19)
    np.testing.assert_array_equal(found.boxes, [found.box])
    assert (found.class_name, found.probability) == (None, None)


@pytest.mark.parametrize(("name", "tolerance"), [("predicted", 1e-4), ("int8", 0.06)])
def test_class_and_probability(files, name, tolerance):
    localizer = runtime.LocalizerRuntime(files[name])
    found = localizer.localize(np.full((50, 40, 3), (16, 48, 32), np.uint8))
    assert found.class_name == "green"
    logits = np.array([1, 3, 2])
    assert found.probability == pytest.approx(np.exp(3) / np.exp(logits).sum(), abs=tolerance)


def test_quantized_outputs_are_real_values(files):
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    outputs = runtime.LocalizerRuntime(files["int8"]).run(image)
    cells = image.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL, 3) / 255
    assert outputs["foreground_mask"].dtype == np.float32
    np.testing.assert_allclose(
        outputs["foreground_mask"][..., 0], cells.mean((1, 3, 4)), atol=3 / 255
    )


def test_a_file_of_all_maps_is_asked_by_class(files):
    localizer = runtime.LocalizerRuntime(files["all"])
    image = rectangle(64, 64, (0, 0, 32, 32), (255, 0, 0)) + rectangle(
        64, 64, (32, 32, 64, 64), (0, 0, 255)
    )
    np.testing.assert_allclose(
        localizer.localize(image, class_name="red").box, [0, 0, 32, 32], atol=4
    )
    found = localizer.localize(image, class_name="blue")
    np.testing.assert_allclose(found.box, [32, 32, 64, 64], atol=4)
    assert (found.class_name, found.probability) == ("blue", None)
    with pytest.raises(ValueError, match="name one of red, green, blue. Received: None"):
        localizer.localize(image)
    with pytest.raises(ValueError, match="Received: pink"):
        localizer.localize(image, class_name="pink")
    with pytest.raises(ValueError, match="no class can be chosen"):
        runtime.LocalizerRuntime(files["mean"]).localize(image, class_name="red")


def test_the_file_of_one_class_names_it(tmp_path):
    path = brightness(tmp_path / "one.tflite", map_="class:red", threshold="otsu")
    found = runtime.LocalizerRuntime(path).localize(rectangle(64, 64, (0, 0, 32, 64)))
    assert (found.class_name, found.probability) == ("red", None)
    np.testing.assert_allclose(found.box, [0, 0, 32, 64], atol=4)


def test_the_objects_of_every_class_that_is_present_are_found(files):
    localizer = runtime.LocalizerRuntime(files["present"])
    image = rectangle(SIDE, SIDE, (0, 0, 16, 16), (0, 0, 64)) + rectangle(
        SIDE, SIDE, (16, 16, 32, 32), (60, 4, 0)
    )
    found = localizer.localize(image)  # logits 0.94, 0.06, 1
    shares = np.exp([15 / 16, 1 / 16, 1]) / np.exp([15 / 16, 1 / 16, 1]).sum()
    (other,) = found.others
    assert (found.class_name, other.class_name) == ("blue", "red") and not other.others
    assert (found.probability, other.probability) == pytest.approx((shares[2], shares[0]), abs=1e-4)
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 16]], atol=2)
    np.testing.assert_allclose(other.boxes, [[16, 16, 32, 32]], atol=2)
    asked = localizer.localize(image, class_name="red")  # one class in place of all
    np.testing.assert_array_equal(asked.mask, other.mask)
    assert (asked.class_name, asked.probability, asked.others) == ("red", None, ())
    with pytest.raises(ValueError, match="name one of red, green, blue, or none. Received: pink"):
        localizer.localize(image, class_name="pink")


@pytest.mark.parametrize(("background", "names"), [("blue", []), ("red", []), ("green", ["red"])])
def test_the_background_class_is_none_of_those_present(background, names, tmp_path):
    path = brightness(tmp_path / "x.tflite", map_="present", background_class=background)
    found = runtime.LocalizerRuntime(path).localize(np.full((40, 40, 3), (30, 16, 32), np.uint8))
    assert found.class_name == "blue"
    assert (found.box is None) == (background == "blue")
    assert [part.class_name for part in found.others] == names


@pytest.mark.parametrize(("map_", "asked"), [("mean", None), ("predicted", None), ("all", "red")])
def test_nothing_is_found_where_the_background_class_is_predicted(map_, asked, tmp_path):
    path = brightness(tmp_path / "x.tflite", map_=map_, background_class="green")
    localizer = runtime.LocalizerRuntime(path)
    nothing = localizer.localize(rectangle(50, 40, (5, 5, 30, 30), (90, 200, 0)), class_name=asked)
    assert not nothing.mask.any() and not nothing.score_map.any()
    assert nothing.boxes.shape == (0, 4) and nothing.box is None
    assert nothing.class_name == "green" and nothing.probability > 0.5
    found = localizer.localize(rectangle(50, 40, (5, 5, 30, 30), (200, 90, 0)), class_name=asked)
    assert found.mask.any() and len(found.boxes) and found.class_name == "red"


def test_objects_are_limited_by_their_share_of_the_largest_and_of_the_picture(files):
    localizer = runtime.LocalizerRuntime(files["mean"])
    image = rectangle(200, 300, (20, 20, 150, 150)) + rectangle(200, 300, (215, 125, 280, 175))
    large, small = localizer.localize(image).areas / image[..., 0].size
    for limits, count in (
        ({"min_area": small / large}, 2),
        ({"min_area": 1.01 * small / large}, 1),
        ({"min_picture_area": small}, 2),
        ({"min_picture_area": (small + large) / 2}, 1),
        ({"min_picture_area": 1.01 * large}, 0),
        ({"max_objects": 1}, 1),
    ):
        found = localizer.localize(image, **limits)
        assert len(found.boxes) == len(found.areas) == len(found.scores) == count
        assert (found.box is None) == (count == 0) and found.mask.any()
    for limits in ({"min_area": 2}, {"min_picture_area": -1}, {"max_objects": -1}):
        with pytest.raises(ValueError, match="must be in 0..1, and `max_objects` at least 0"):
            localizer.localize(image, **limits)


def test_the_threshold_can_be_given(files):
    localizer = runtime.LocalizerRuntime(files["mean"])
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(64, axis=1)
    sizes = [localizer.localize(image, threshold=t).mask.mean() for t in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(sizes, [0.75, 0.5, 0.25], atol=0.08)
    assert localizer.localize(image).mask.mean() == sizes[1]
    for threshold in (50, -0.1, float("nan"), "stored"):  # per cent would give an empty mask
        with pytest.raises(ValueError, match="0..1 or 'otsu'. Received"):
            localizer.localize(image, threshold=threshold)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 1)])
def test_pictures_of_one_pixel_are_localized(files, size):
    found = runtime.LocalizerRuntime(files["mean"]).localize(np.full((*size, 3), 9, np.uint8))
    assert found.mask.shape == size and not found.mask.any()
    np.testing.assert_array_equal(found.box, [0, 0, size[1], size[0]])
    assert found.boxes.shape == (0, 4)


def test_a_picture_is_not_changed_and_asking_twice_gives_the_same(files):
    localizer = runtime.LocalizerRuntime(files["mean"])
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    before = image.copy()
    first = localizer.localize(image)
    first_mask = first.mask.copy()
    localizer.localize(255 - image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first.mask, first_mask)
    np.testing.assert_array_equal(localizer.localize(image).mask, first_mask)


def test_metadata_are_read(files):
    assert tuple(runtime.LocalizerRuntime(files["all"]).labels) == LABELS
    assert runtime.LocalizerRuntime(files["all"]).metadata["quantization"] == {}
    localizer = runtime.LocalizerRuntime(files["int8"])
    assert set(localizer.metadata["quantization"]) == {"foreground_mask", "class_scores"}
    for name, (scale, zero_point) in localizer.metadata["quantization"].items():
        assert localizer._quantization[name] == (pytest.approx(scale), zero_point)


def test_a_file_that_says_so_is_refined_by_what_the_network_saw(files):
    image = 100 + rectangle(200, 300, (60, 40, 180, 120)) // 64  # faint: as good as flat
    localizer = runtime.LocalizerRuntime(files["refined"])
    small = arrays.resize_image(image, SIDE, SIDE)
    score_map = localizer.run(small)["foreground_mask"][..., 0]
    expected = score_maps.localize(refinement.refine(score_map, small), 200, 300, 0.5)
    found = localizer.localize(image)
    np.testing.assert_allclose(found.score_map, expected[0], atol=1e-5)
    assert (localizer.refine, runtime.LocalizerRuntime(files["mean"]).refine) == ("guided", "none")
    plain = runtime.LocalizerRuntime(files["mean"]).localize(image)
    assert np.abs(plain.score_map - found.score_map).max() > 0.2


def test_a_file_that_says_so_takes_objects_apart(files):
    image = rectangle(224, 224, (0, 56, 224, 168), (128, 128, 128))  # between: half the brightness
    image[56:168, :84] = image[56:168, 140:] = 255
    apart = runtime.LocalizerRuntime(files["separate"])
    assert apart.separate and not runtime.LocalizerRuntime(files["mean"]).separate
    found = apart.localize(image)
    whole = runtime.LocalizerRuntime(files["mean"]).localize(image, threshold=0.3)
    assert len(found.boxes) == 2 and len(whole.boxes) == 1
    assert (found.mask <= whole.mask).all() and found.mask.sum() == found.areas.sum()
    expected = separation.separate(whole.mask, whole.score_map, 0.3)
    np.testing.assert_array_equal(found.mask, expected)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.zeros((9, 9, 3), np.float32), "float32 [9, 9, 3]"),
        (np.zeros((9, 9), np.uint8), "uint8 [9, 9]"),
        (np.zeros((9, 9, 4), np.uint8), "uint8 [9, 9, 4]"),
        (np.zeros((1, 9, 9, 3), np.uint8), "uint8 [1, 9, 9, 3]"),
        (np.zeros((0, 9, 3), np.uint8), "uint8 [0, 9, 3]"),
        ([[1]], "list"),
    ],
)
def test_what_is_no_picture_is_refused(files, image, received):
    localizer = runtime.LocalizerRuntime(files["mean"])
    with pytest.raises(ValueError) as caught:
        localizer.localize(image)
    assert str(caught.value).endswith(f"Received: {received}.")


def test_run_takes_the_networks_size_only(files):
    with pytest.raises(ValueError, match=r"32 x 32. Received: 31 x 32"):
        runtime.LocalizerRuntime(files["mean"]).run(np.zeros((31, 32, 3), np.uint8))


def test_files_that_are_not_ours_are_refused(files, tmp_path):
    whole = pathlib.Path(files["mean"]).read_bytes()
    with zipfile.ZipFile(files["mean"]) as archive:
        end_of_model = min(entry.header_offset for entry in archive.infolist())

    def refusal(data):
        path = tmp_path / "bad.tflite"
        path.write_bytes(data)
        with pytest.raises(ValueError) as caught:
            runtime.LocalizerRuntime(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "is not a .tflite file" in refusal(b"")
    assert "is not a .tflite file" in refusal(b"PK\x03\x04 a zip, not a model")
    for end in (9, 1000, end_of_model, len(whole) - 1):
        assert "no metadata of edge.export: it is cut off" in refusal(whole[:end])
    with pytest.raises(ValueError, match="No such file or directory"):
        runtime.LocalizerRuntime(tmp_path / "missing.tflite")
    with pytest.raises(ValueError, match="Is a directory"):
        runtime.LocalizerRuntime(tmp_path)
    with pytest.raises(ValueError, match="`num_threads` must be at least 1. Received: 0"):
        runtime.LocalizerRuntime(files["mean"], num_threads=0)


def test_metadata_of_another_kind_is_refused(files, tmp_path):
    model = pathlib.Path(files["mean"]).read_bytes()
    with zipfile.ZipFile(files["mean"]) as archive:
        model = model[: min(entry.header_offset for entry in archive.infolist())]
    for text, message in (
        ("{broken", "no metadata of edge.export"),
        ("[]", "lacks labels, map"),
        (json.dumps({"labels": [], "map": "mean", "threshold": 1}), "lacks input_size"),
    ):
        path = tmp_path / "other.tflite"
        path.write_bytes(model)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("wsol_tf.json", text)
        with pytest.raises(ValueError, match=message):
            runtime.LocalizerRuntime(path)


def without_metadata(path):
    """The flatbuffer of a file."""
    with zipfile.ZipFile(path) as archive:
        end = archive.infolist()[0].header_offset
    return pathlib.Path(path).read_bytes()[:end]


def with_metadata(path, text, **options):
    """Writes a file again with another wsol_tf.json."""
    path.write_bytes(without_metadata(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("wsol_tf.json", text, **options)
    return path


def refused(path):
    """The one sentence with which a file is refused; it names the file."""
    with pytest.raises(ValueError) as caught:
        runtime.LocalizerRuntime(path)
    assert repr(str(path)) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_digest_of_the_flatbuffer_stands_in_the_metadata(files):
    for path in files.values():
        digest = runtime.LocalizerRuntime(path).metadata["sha256"]
        assert digest == hashlib.sha256(without_metadata(path)).hexdigest()


def test_another_network_than_the_exported_one_is_never_run(files, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "Interpreter", None)  # it can end the process on damaged bytes
    path = tmp_path / "damaged.tflite"
    data = bytearray(pathlib.Path(files["int8"]).read_bytes())
    data[len(without_metadata(files["int8"])) // 2] ^= 1
    path.write_bytes(data)
    assert "is damaged: the network in it is not the one that was exported" in refused(path)


@pytest.mark.parametrize("digest", ["", "0" * 64, None, 7, ["a"], {}])
def test_a_digest_that_is_none_is_refused(digest, tmp_path):
    path = tmp_path / "x.tflite"
    brightness(path)
    metadata = runtime.LocalizerRuntime(path).metadata | {"sha256": digest}
    assert "is damaged" in refused(with_metadata(path, json.dumps(metadata)))


def test_a_file_of_before_there_were_digests_is_run_and_noted(files, tmp_path, caplog):
    path = tmp_path / "old.tflite"
    shutil.copy(files["mean"], path)
    metadata = runtime.LocalizerRuntime(path).metadata
    assert not caplog.records
    del metadata["sha256"]
    localizer = runtime.LocalizerRuntime(with_metadata(path, json.dumps(metadata)))
    assert localizer.metadata == metadata
    assert [record.getMessage() for record in caplog.records] == [
        f"{str(path)!r} has no digest: damage can't be seen."
    ]


@pytest.mark.parametrize(
    "key, value",
    [
        ("labels", []), ("labels", ["red", 5, "blue"]), ("labels", "red"), ("labels", None),
        ("labels", {"red": 0}), ("map", "true"), ("map", "class:pink"), ("map", 3),
        ("map", ["mean"]), ("map", None), ("threshold", 50), ("threshold", -0.1),
        ("threshold", float("nan")), ("threshold", float("inf")), ("threshold", "0.5"),
        ("refine", None), ("refine", "Guided"), ("refine", True), ("refine", ["guided"]),
        ("threshold", None), ("threshold", True), ("threshold", [0.5]), ("threshold", 10**400),
        ("input_size", [SIDE]), ("input_size", [SIDE, 2 * SIDE]), ("input_size", [32.0, 32.0]),
        ("input_size", SIDE), ("input_size", "3232"), ("input_size", ["32", "32"]),
        ("input_size", [-32, 32]), ("input_size", None), ("output_size", [9, 8]),
        ("output_size", 8), ("output_size", None), ("top_k", 0), ("top_k", 4), ("top_k", 1.5),
        ("top_k", "1"), ("normalization", None), ("normalization", {}),
        ("normalization", {"scale": "1", "offset": 0.0, "in_graph": True}),
        ("normalization", {"scale": 1.0, "offset": 0.0, "in_graph": False}),
        ("quantization", {"foreground_mask": [0.5, 0]}), ("quantization", []),
        ("presence_threshold", 2), ("presence_threshold", "0.2"), ("presence_threshold", True),
        ("format", 8), ("background_class", "none"), ("versions", "0.1.0"), ("versions", None),
    ],
)  # fmt: skip
def test_each_key_of_the_metadata_is_checked(key, value, tmp_path):
    path = tmp_path / "x.tflite"
    brightness(path)
    metadata = runtime.LocalizerRuntime(path).metadata
    with_metadata(path, json.dumps(metadata | {key: value}))
    assert f"has metadata that can't be right: {key} is " in refused(path)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("mean", {"map": "predicted"}),  # there are no class scores
        ("mean", {"map": "all"}),  # there is one map, not three
        ("all", {"map": "mean"}),
        ("all", {"labels": ["red", "green"]}),
        ("predicted", {"map": "mean"}),
        ("predicted", {"labels": ["red", "green"]}),
        ("mean", {"background_class": "red"}),  # there are no class scores
        ("all", {"map": "present", "presence_threshold": 0.2}),  # nor here
    ],
)
def test_metadata_of_another_network_are_refused(name, changes, files, tmp_path):
    path = tmp_path / "x.tflite"
    shutil.copy(files[name], path)
    metadata = runtime.LocalizerRuntime(path).metadata
    with_metadata(path, json.dumps(metadata | changes))
    assert "has other tensors than its labels and map tell" in refused(path)


def test_pipes_devices_and_huge_files_are_refused_before_a_byte_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.tflite")
    os.symlink("/dev/zero", tmp_path / "zeros.tflite")
    with open(tmp_path / "huge.tflite", "wb") as file:
        file.truncate(2**31 + 1)  # takes no room on the disk
    for name in ("pipe", "zeros", "huge"):
        assert "it is a pipe, a device or larger" in refused(tmp_path / f"{name}.tflite")


def lying(path, size):
    """Makes the size that a zip names for its last entry smaller than what it expands to."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.infolist()[-1]
    for at in (entry.header_offset + 22, data.rfind(b"PK\x01\x02") + 24):
        data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    "text, size",
    [("[" * 10**5, None), (" " * 2**26 + "{}", None), (" " * 2**26 + "{}", 100),
     ("{}" + " " * 2**22, None)],
    ids=("deep", "bomb", "lying bomb", "long"),
)  # fmt: skip
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_metadata_are_bounded_before_they_are_expanded(kind, text, size, tmp_path):
    path = tmp_path / "x.tflite"
    brightness(path)
    with_metadata(path, text, compress_type=kind)
    if size:
        lying(path, size)
    del text
    tracemalloc.start()
    try:
        assert "has no metadata of edge.export" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_names_of_files_do_not_command_the_terminal(tmp_path):
    path = tmp_path / "\x1b[31mred.tflite"
    path.write_text("no model")
    assert "\x1b" not in refused(path)


# --- what it needs -------------------------------------------------------------------------------

CHECK = """
import sys
import numpy as np
from {module} import LocalizerRuntime
image = np.zeros((48, 64, 3), np.uint8)
image[:, 32:] = 255
found = LocalizerRuntime(sys.argv[1]).localize(image)
assert found.mask[:, 40:].all() and not found.mask[:, :24].any(), found
heavy = {{"tensorflow", "keras", "wsol_tf", "cv2", "PIL", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
ALONE = ("runtime.py", "arrays.py")  # what docs/device.md says to copy


def run_check(python, folder, model, module="edge.runtime"):
    # Alone they must not find the package, wherever it is installed.
    start = "import sys; sys.modules['edge'] = None" if module == "runtime" else ""
    return subprocess.run(
        [python, "-c", start + CHECK.format(module=module), model], cwd=folder,
        capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "")},
    )  # fmt: skip


def test_nothing_heavy_is_imported(files):
    done = run_check(sys.executable, ROOT, files["mean"])
    assert done.returncode == 0, done.stderr


def test_copied_side_by_side_the_two_files_run_without_the_package(files, tmp_path):
    for name in ALONE:
        shutil.copy(ROOT / "edge" / name, tmp_path)
    done = run_check(sys.executable, tmp_path, files["refined"], "runtime")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "needed"),
    [("runtime.py", {"numpy", "ai_edge_litert", "edge", "arrays"}), ("arrays.py", {"numpy"})],
)
def test_the_files_name_only_numpy_litert_and_the_standard_library(name, needed):
    tree = ast.parse((ROOT / "edge" / name).read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - sys.stdlib_module_names == needed


def test_requirements_are_those_of_the_project():
    def pins(name):
        lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
        return {line for line in lines if line}

    assert pins("requirements-edge.txt") <= pins("requirements.txt")
    assert {pin.split("==")[0] for pin in pins("requirements-edge.txt")} == {
        "numpy", "ai-edge-litert",
    }  # fmt: skip


@pytest.mark.slow
def test_the_requirements_suffice_in_a_fresh_environment(files, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1",
         "-r", ROOT / "requirements-edge.txt"],
        capture_output=True, text=True,
    )  # fmt: skip
    if "connection" in installed.stderr.lower():
        pytest.skip("the package index can't be reached")
    assert installed.returncode == 0, installed.stderr
    for name in ALONE:
        shutil.copy(ROOT / "edge" / name, tmp_path)
    done = run_check(python, tmp_path, files["refined"], "runtime")
    assert done.returncode == 0, done.stderr
