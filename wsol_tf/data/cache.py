"""A cache of resized training pictures, in memory or in a file that goes with the process."""

import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from wsol_tf import config
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import resize_fast

MEMORY_BYTES = 4 * 2**30  # pictures that take more than this are not cached in memory


def cached_reader(
    source: Source,
    positions: Sequence[int],
    resize_size: int,
    cache: str = "memory",
    cache_dir: str | None = None,
) -> Callable[[int], np.ndarray]:
    """Returns a function position -> picture that keeps what it read, resized.

    Args:
        source: the data set.
        positions: the pictures that will be asked for.
        resize_size: side in pixels of the pictures in the cache.
        cache: `none`; `memory`, which is used only where all pictures take at most 4 GiB; or
            `disk`, a file without a name that goes with the process.
        cache_dir: folder of that file; by default that of temporary files.

    Returns:
        position -> uint8 [resize_size, resize_size, 3] or, without a cache, what the source reads.

    Raises:
        ValueError: an unknown cache, or too little room on the disk.
    """
    if cache not in config.choices("cache"):
        legal = ", ".join(config.choices("cache"))
        raise ValueError(f"Unknown cache '{cache}'. Legal: {legal}.")
    row_of = {int(position): row for row, position in enumerate(sorted(set(positions)))}
    shape = (len(row_of), resize_size, resize_size, 3)
    num_bytes = int(np.prod(shape, dtype=np.int64))
    if cache == "none" or (cache == "memory" and num_bytes > MEMORY_BYTES):
        return source.read_image
    if cache == "memory":
        pictures = np.empty(shape, np.uint8)  # takes memory only where it is written
    else:
        folder = cache_dir or tempfile.gettempdir()
        if num_bytes > shutil.disk_usage(folder)[2]:
            raise ValueError(
                f"The resized pictures of {source.name} take {num_bytes / 2**30:.1f} GiB, more "
                f"than is free in {folder}. Use `cache=none`, or another folder."
            )
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        pictures = np.memmap(file, np.uint8, shape=shape)
    known = np.zeros(len(row_of), bool)

    def read(position):
        row = row_of[position]
        if not known[row]:
            pictures[row] = resize_fast(source.read_image(position), resize_size)
            known[row] = True  # after the picture: other threads look here first
        return pictures[row]

    return read
