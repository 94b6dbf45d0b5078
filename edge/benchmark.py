"""Prints how long exported files take for one picture on this machine.

    python -m edge.benchmark --models=OUT/localizer_float32.tflite,OUT/localizer_int8.tflite

Files and numbers of threads take turns, so that other load on the machine hits all alike; the table
has medians, and ratios to the first file with the same threads. `network` is the network alone,
`localize` everything from a photograph of --size to its mask and boxes. Runs wherever numpy,
ai_edge_litert and absl-py do: TensorFlow is not needed.
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from edge.runtime import LocalizerRuntime

Times = dict[tuple[str, int], tuple[list[float], list[float]]]


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_list("models", None, "The .tflite files, of edge.export.", required=True)
    flags.DEFINE_list("threads", ["1", "2", "4"], "Numbers of threads.")
    flags.DEFINE_integer("rounds", 30, "Calls of each, after two that don't count.", lower_bound=1)
    flags.DEFINE_string("size", "640x480", "Width and height in pixels of the photograph.")


def measure(
    models: Sequence[str], threads: Sequence[int], rounds: int, size: tuple[int, int]
) -> Times:
    """Times files on a picture of noise.

    Args:
        models: paths of .tflite files.
        threads: numbers of threads.
        rounds: calls of each, after two that don't count.
        size: (width, height) of the picture in pixels.

    Returns:
        dict (path, threads) -> (network, localize), lists of seconds in the order of the rounds.
    """
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    calls = {}
    times: Times = {}
    for path in models:
        for number in threads:
            localizer = LocalizerRuntime(path, number)
            small = rng.integers(0, 256, (*localizer.input_size, 3), dtype=np.uint8)
            asked = localizer.labels[0] if localizer.metadata["map"] == "all" else None
            calls[path, number] = (
                lambda localizer=localizer, small=small: localizer.run(small),
                lambda localizer=localizer, asked=asked: localizer.localize(
                    photograph, class_name=asked
                ),
            )
            times[path, number] = ([], [])
    for i in range(rounds + 2):
        for key, pair in calls.items():
            for call, kept in zip(pair, times[key], strict=True):
                start = time.perf_counter()
                call()
                if i >= 2:
                    kept.append(time.perf_counter() - start)
    return times


def to_markdown(times: Times) -> str:
    """Renders what `measure` returns as Markdown."""
    paths = list(dict.fromkeys(path for path, _ in times))
    threads = list(dict.fromkeys(number for _, number in times))
    head = ["file", "MB"]
    for number in threads:
        head += [f"network, {number} thread{'s' * (number > 1)}", "to the first"]
    head += [f"localize, {threads[0]} thread{'s' * (threads[0] > 1)}"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for path in paths:
        cells = [path, f"{os.path.getsize(path) / 1e6:.2f}"]
        for number in threads:
            own, first = times[path, number][0], times[paths[0], number][0]
            ratio = statistics.median(a / b for a, b in zip(own, first, strict=True))
            cells += [f"{statistics.median(own) * 1000:.1f} ms", f"{ratio:.2f}"]
        cells.append(f"{statistics.median(times[path, threads[0]][1]) * 1000:.1f} ms")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_size(text: str) -> tuple[int, int]:
    """Reads --size, WIDTHxHEIGHT, as (width, height)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"--size must be WIDTHxHEIGHT, such as 640x480. Received: '{text}'.")
    return int(width), int(height)


def parse_threads(texts: Sequence[str]) -> list[int]:
    """Reads --threads: whole numbers from 1 on."""
    if not texts or not all(text.isdigit() and int(text) for text in texts):
        raise ValueError(
            f"--threads must be whole numbers from 1 on. Received: '{','.join(texts)}'."
        )
    return [int(text) for text in dict.fromkeys(texts)]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    values = flags.FLAGS
    try:  # not programs.main, which may not be there
        if not values.models:
            raise ValueError("--models is empty: name .tflite files, with commas between them.")
        threads = parse_threads(values.threads)
        models = [os.path.expandvars(os.path.expanduser(path)) for path in values.models]
        times = measure(models, threads, values.rounds, parse_size(values.size))
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
    print(
        f"{os.cpu_count()} cores, {values.rounds} rounds, photograph of {values.size}; medians.\n"
    )
    print(to_markdown(times))


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # this file runs where wsol_tf is not installed
        from wsol_tf import quiet

        quiet.hush()
    define_flags()
    app.run(main)
