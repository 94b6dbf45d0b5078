"""The Swift and Kotlin files do what wsol_tf does, where there is a compiler.

Swift: Xcode has one; on Debian 13 it is `apt install swiftlang`. Kotlin: the compiler in
`pip install kotlin-jupyter-kernel`, and Java.
"""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import present_classes
import separated_objects
from edge import arrays
from edge_files import LABELS, brightness
from helpers import ROOT

HERE = ROOT / "tests" / "edge" / "phones"
NAMES = ("Arrays", "ScoreMap", "Separation")
SWIFTC, JAVA = shutil.which("swiftc"), shutil.which("java")
KERNEL = importlib.util.find_spec("run_kotlin_kernel")


def call(folder, *command):
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def swift(folder):
    """Compiles the files of iOS; returns the command that answers cases."""
    compiler = [SWIFTC, "-O", "-I", folder]
    linked = []
    if sys.platform != "darwin":
        library = ("-parse-as-library", "-emit-module", "-emit-library", "-static")
        call(folder, *compiler, *library, "-module-name", "CryptoKit", HERE / "CryptoKit.swift")
        linked = [folder / "libCryptoKit.a"]
    files = [ROOT / "edge" / "ios" / f"{name}.swift" for name in NAMES]
    files = ["-warnings-as-errors", *files, HERE / "main.swift"]
    call(folder, *compiler, *files, *linked, "-o", folder / "cases")
    return [folder / "cases"]


def kotlin(folder):
    """As `swift`, of Android's."""
    (jars,) = (pathlib.Path(path) / "jars" for path in KERNEL.submodule_search_locations)
    libraries = ":".join(str(jar) for jar in jars.glob("*.jar"))
    compiler = [JAVA, "-cp", libraries, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    files = [ROOT / "edge" / "android" / f"{name}.kt" for name in NAMES]
    files = [*files, HERE / "Main.kt"]
    options = ["-no-stdlib", "-no-reflect", "-cp", libraries, "-d", folder / "classes"]
    call(folder, *compiler, *options, *files)
    return [JAVA, "-cp", f"{folder / 'classes'}:{libraries}", "localizer.MainKt"]


needs_swift = pytest.mark.skipif(not SWIFTC, reason="needs swiftc")
needs_kotlin = pytest.mark.skipif(
    not (JAVA and KERNEL), reason="needs java and kotlin-jupyter-kernel"
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(swift, id="swift", marks=needs_swift),
        pytest.param(kotlin, id="kotlin", marks=needs_kotlin),
    ],
)
def phone(request, tmp_path_factory):
    """Compiles the files of a phone; returns what answers lists of cases by their names."""
    folder = tmp_path_factory.mktemp("phone")
    command = request.param(folder)

    def ask(**cases):
        (folder / "cases.json").write_text(json.dumps(cases))
        return json.loads(call(folder, *command, folder / "cases.json"))

    return ask


def map_case(values, height, width, **settings):
    """A map [h, w] to be localized, or refined, in a picture of height x width."""
    sides = {"width": values.shape[1], "height": values.shape[0]}
    to = {"toWidth": int(width), "toHeight": int(height)}
    return {"values": np.float32(values).ravel().tolist(), **sides, **to, **settings}


def test_pictures_are_resized_to_the_byte(phone):
    rng = np.random.default_rng(0)
    sizes = [(300, 200, 64, 64), (64, 64, 64, 64), (31, 500, 96, 96), (1, 1, 32, 32)]
    sizes += rng.integers(1, 150, (30, 4)).tolist()
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w, _, _ in sizes]
    cases = [
        {"rgb": image.ravel().tolist(), "width": w, "height": h, "toWidth": to_w, "toHeight": to_h}
        for image, (h, w, to_h, to_w) in zip(images, sizes, strict=True)
    ]
    found = phone(resized=cases)["resized"]
    for image, (_, _, to_h, to_w), rgb in zip(images, sizes, found, strict=True):
        right = arrays.resize_image(image, to_h, to_w)
        np.testing.assert_array_equal(np.uint8(rgb).reshape(to_h, to_w, 3), right)


def test_masks_and_objects_are_those_of_python(phone):
    rng = np.random.default_rng(1)
    asked = []
    for trial in range(80):
        values = separated_objects.bumps(rng, *rng.integers(4, 57, 2)) * rng.uniform(0.1, 30) - 2
        height, width = rng.integers(8, 150, 2)
        cut = "otsu" if trial % 4 == 3 else float(np.round(rng.uniform(0.05, 0.7), 2 + trial % 4))
        least = 0.9 if trial % 29 == 3 else 0.05 * (trial % 7 == 3)
        limits = {"min_area": 0.3 * (trial % 5 == 1), "max_objects": 2 * (trial % 10 == 2)}
        limits |= {"min_picture_area": least, "is_separated": bool(trial % 3)}
        asked.append((values, height, width, cut, limits))
    for height, width in [(1, 60), (60, 1), (2, 2), *rng.integers(2, 80, (20, 2)).tolist()]:
        noise = rng.uniform(size=(height, width))  # components that wind about one another
        asked.append((noise, height, width, float(np.round(rng.uniform(0.3, 0.7), 2)), {}))
    flat = np.full((9, 7), 3.0)
    asked += [(flat, 20, 30, cut, {"is_separated": True}) for cut in (0.2, "otsu")]
    asked.append((flat, 20, 30, 0.2, {"min_picture_area": 0.01}))
    cases = [
        map_case(
            values,
            height,
            width,
            threshold=None if cut == "otsu" else cut,
            minArea=limits.get("min_area", 0),
            minPictureArea=limits.get("min_picture_area", 0),
            maxObjects=limits.get("max_objects", 0),
            isSeparated=limits.get("is_separated", False),
        )
        for values, height, width, cut, limits in asked
    ]
    for (*given, limits), found in zip(asked, phone(localized=cases)["localized"], strict=True):
        _, mask, boxes, scores, areas, box = arrays.localize(*given, **limits)
        assert found["mask"] == np.flatnonzero(mask).tolist()
        assert (found["boxes"], found["areas"]) == (boxes.tolist(), areas.tolist())
        np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
        assert found["box"] == (None if box is None else box.tolist())


def test_objects_are_cut_apart_as_by_the_model(phone):
    # `localize` stretches a map first, which leaves those as they are that fill 0..1.
    cases = [
        case
        for case in separated_objects.cases()
        if (min(case["values"]), max(case["values"])) == (0, 1)
    ]
    assert len(cases) > 60
    asked = [{**case, "toWidth": case["width"], "toHeight": case["height"]} for case in cases]
    whole, apart = (
        phone(localized=[{**case, "isSeparated": is_separated} for case in asked])["localized"]
        for is_separated in (False, True)
    )
    for case, before, found in zip(cases, whole, apart, strict=True):
        assert sorted(set(before["mask"]) - set(found["mask"])) == case["cut"]
        assert (found["boxes"], found["areas"]) == (case["boxes"], case["areas"])
        np.testing.assert_allclose(found["scores"], case["scores"], atol=1e-6)


def test_maps_are_refined_as_by_python(phone):
    rng = np.random.default_rng(2)
    asked = []
    for height, width in [(224, 224), (64, 96), (100, 64), (65, 67)]:
        rows, columns = np.indices((height, width))
        waves = [np.sin(rows / rng.uniform(3, 30)) + np.cos(columns / 9) for _ in range(3)]
        image = np.uint8(np.stack(waves, axis=-1) * 60 + 125)
        asked.append((separated_objects.bumps(rng, 28, 20), image))
    asked.append((np.full((8, 8), 0.5), image))
    cases = [map_case(m, *image.shape[:2], rgb=image.ravel().tolist()) for m, image in asked]
    for (values, image), found in zip(asked, phone(refined=cases)["refined"], strict=True):
        right = arrays.refine(values, image)
        assert (found["height"], found["width"]) == right.shape
        np.testing.assert_allclose(found["values"], right.ravel(), atol=1e-6)


def test_present_classes_are_those_of_the_model(phone):
    cases = present_classes.cases()
    for case, found in zip(cases, phone(present=cases)["present"], strict=True):
        assert found["present"] == case["present"]
        np.testing.assert_allclose(found["probabilities"], case["probabilities"], atol=1e-6)


def test_metadata_are_read_and_damaged_files_refused(phone, tmp_path):
    path = brightness(tmp_path / "whole.tflite", refine="guided")
    data = bytearray((tmp_path / "whole.tflite").read_bytes())
    (tmp_path / "cut.tflite").write_bytes(data[: len(data) // 2])
    data[1000] ^= 4  # in the network
    (tmp_path / "changed.tflite").write_bytes(data)
    paths = [path, str(tmp_path / "cut.tflite"), str(tmp_path / "changed.tflite")]
    whole, cut, changed = phone(metadata=paths)["metadata"]
    assert (whole["labels"], whole["refine"], whole["input_size"]) == (
        list(LABELS),
        "guided",
        [32, 32],
    )
    assert "is cut off or damaged" in cut and "is damaged: its network" in changed
