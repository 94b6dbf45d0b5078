"""Times exported files in the browser, with the page's own code, beside ai_edge_litert.

    python benchmarks/browser.py --models=OUT/localizer_float32.tflite,OUT/localizer_int8.tflite

Headless Chromium and Python take turns on the golden picture, enlarged to --size, with one and with
two threads. `network` is the network alone, `localize` everything from the picture to its mask and
boxes; its `resize` and `mask` are JavaScript. Milliseconds are medians of --rounds calls, and then
over --turns; ratios are those to ai_edge_litert with as many threads in the same turn. LiteRT.js
comes as three builds that run without WebGPU: for browsers with relaxed SIMD, the same with
threads, and for browsers with the SIMD of 2021 alone; there is none without SIMD.
"""

import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags
from PIL import Image

import headless
import machine
from edge import benchmark, build_web, golden
from edge.runtime import LocalizerRuntime

HERE = pathlib.Path(__file__).parent
THREADS = (1, 2)
WARM_UP = 100  # calls in the browser that don't count: until then it compiles what is called often
PYTHON = "ai_edge_litert"
# What loads -> (path of wasm files, whether the page may have threads, numbers of threads).
BUILDS = {
    "relaxed SIMD": ("litert/wasm/", False, (1,)),
    "relaxed SIMD, threads": ("litert/wasm/", True, THREADS),
    "SIMD": ("litert/wasm/litert_wasm_compat_internal.js", False, (1,)),
}
PARTS = ("network", "localize", "resize", "mask")


def build(models, image, site):
    """Puts the page, the files and the picture into a folder."""
    build_web.build_site(models[0], str(site))
    for number, model in enumerate(models):
        shutil.copy(model, site / f"{number}.tflite")
    shutil.copy(HERE / "browser.html", site)
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    (site / "picture.rgba").write_bytes(np.concatenate([image, opaque], axis=-1).tobytes())


def in_python(models, rounds, image):
    """(file, what ran, threads) -> part -> milliseconds, of ai_edge_litert."""
    localizers = {
        (model, PYTHON, threads): LocalizerRuntime(model, threads)
        for model in models
        for threads in THREADS
    }
    seconds = {key: ([], []) for key in localizers}
    for i in range(-2, rounds):
        for key, localizer in localizers.items():
            height, width = localizer.input_size
            pixels = image.ravel()[: height * width * 3].reshape(height, width, 3)
            asked = localizer.labels[0] if localizer.metadata["map"] == "all" else None
            start = time.perf_counter()
            localizer.run(pixels)
            ran = time.perf_counter()
            localizer.localize(image, class_name=asked)
            if i >= 0:
                seconds[key][0].append(ran - start)
                seconds[key][1].append(time.perf_counter() - ran)
    return {
        key: {part: statistics.median(all_) * 1000 for part, all_ in zip(PARTS, both, strict=False)}
        for key, both in seconds.items()
    }


def in_browser(models, rounds, image, site):
    """The same of every build of LiteRT.js, each in a browser of its own."""
    found = {}
    for name, (wasm, isolated, threads) in BUILDS.items():
        query = [("file", f"{number}.tflite") for number in range(len(models))]
        query += [("threads", number) for number in threads]
        query += [("wasm", f"/{wasm}"), ("rounds", rounds), ("warm_up", WARM_UP)]
        query += [("height", image.shape[0]), ("width", image.shape[1])]
        page = f"browser.html?{urllib.parse.urlencode(query)}"
        with tempfile.TemporaryDirectory() as profile:
            results = headless.browse(site, page, profile, isolated=isolated)
        if isinstance(results, str):
            raise ValueError(f"The page of LiteRT.js's build '{name}' failed: {results}")
        cases = [(model, number) for model in models for number in threads]
        for (model, number), result in zip(cases, results, strict=True):
            assert result["numThreads"] == number, "the page had no threads"
            found[model, name, number] = result
    return found


def to_markdown(turns):
    """Renders the turns, each what `in_python` and `in_browser` return, put together."""
    lines = ["| file | runtime | threads | network | ratio | localize | ratio | resize | mask |",
             f"|{'---|' * 9}"]  # fmt: skip
    for key in sorted(turns[0], key=lambda key: key[0]):
        model, name, threads = key
        cells = [os.path.basename(model), name, str(threads)]
        for part in PARTS:
            if part not in turns[0][key]:
                cells.append("")
                continue
            cells.append(f"{statistics.median(turn[key][part] for turn in turns):.1f} ms")
            if part in ("network", "localize"):
                ratios = [turn[key][part] / turn[model, PYTHON, threads][part] for turn in turns]
                cells.append(f"{statistics.median(ratios):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def idle():
    """A sentence about what others do on the machine while this program does nothing."""
    others = machine.Others()
    time.sleep(2)
    return others.line()


def main(_):
    values = flags.FLAGS
    if not headless.CHROMIUM:
        sys.exit("Error: Chromium is missing: install chromium or google-chrome.")
    size = benchmark.parse_size(values.size)
    with tempfile.TemporaryDirectory() as place:
        site = pathlib.Path(values.site or place)
        image = np.asarray(Image.fromarray(golden.picture()).resize(size))
        build(values.models, image, site)
        print(f"{machine.processor()}\nBefore: {idle()}")
        turns = [
            in_python(values.models, values.rounds, image)
            | in_browser(values.models, values.rounds, image, site)
            for _ in range(values.turns)
        ]
        print(f"After: {idle()}")
    print(f"LiteRT.js {build_web.LITERT_VERSION}, {values.turns} turns of {values.rounds} rounds, "
          f"picture of {values.size}; medians.\n\n{to_markdown(turns)}")  # fmt: skip


if __name__ == "__main__":
    flags.DEFINE_list("models", None, "The .tflite files, of edge.export.", required=True)
    flags.DEFINE_integer("rounds", 30, "Calls of each in a turn, after those that don't count.")
    flags.DEFINE_integer("turns", 3, "Turns of Python and the browser.", lower_bound=1)
    flags.DEFINE_string("size", "640x480", "Width and height in pixels of the picture.")
    flags.DEFINE_string("site", None, "Folder for the page: one that is kept saves the download.")
    app.run(main)
