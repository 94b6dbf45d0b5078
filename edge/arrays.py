"""What is done to arrays before and after the network, with numpy alone.

The numbers are those of `wsol_tf.data.transforms.resize_image`, `wsol_tf.model.score_maps` and
`wsol_tf.model.refinement`. The browser's arrays.js, Arrays.kt and Arrays.swift do the same.
"""

import functools

import numpy as np

# As in `wsol_tf.model.separation`.
GRID, STEP, STEPS, SHARE = 56, 0.03, 8, 0.25
# As in `wsol_tf.model.refinement`.
PIXELS = 4  # a position of the refined map is so many pixels of the network's input wide
RADIUS = 1 / 7  # of a window, as a share of the picture's side
EPSILON = 3e-4  # variance of colours in 0..1 below which a window counts as flat


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turns logits [classes] into probabilities, float64 [classes]."""
    exponents = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return exponents / exponents.sum()


def present_classes(
    probabilities: np.ndarray, presence: float, background: int | None = None
) -> list[int]:
    """Says which classes are in a picture: the most probable one, and all of at least `presence`.

    As `wsol_tf.model.finding.find` and `without_background` have them.

    Args:
        probabilities: [classes], see `softmax`.
        presence: 0..1.
        background: id of the class of pictures without any object, or None.

    Returns:
        Class ids, the most probable first, equal ones by their ids, without the background; none
        where that is the most probable.
    """
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    if ranked[0] == background:
        return []
    first, *others = (label for label in ranked if label != background)
    return [first, *(label for label in others if probabilities[label] >= presence)]


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [h, w, 3] to [height, width, 3]: bilinear, antialiased, aspect ignored.

    The bytes are those of Pillow 13's `resize(..., BILINEAR)`, by its arithmetic: one side, rounded
    to bytes, then the other; fixed-point weights of 22 bits. Other versions differ by 1 at most.
    """
    planes = image.transpose(2, 0, 1)
    # Pillow takes the side first that shrinks much more.
    rows_first = image.shape[0] - height > max(0, 2 * (image.shape[1] - width))
    for axis in (1, 2) if rows_first else (2, 1):
        planes = _resize_last(planes.swapaxes(axis, 2), (height, width)[axis - 1]).swapaxes(axis, 2)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _resize_last(values: np.ndarray, size: int) -> np.ndarray:
    """Resizes the last axis of uint8 [planes, lines, n] to `size`."""
    n = values.shape[-1]
    if n == size:
        return values
    lines = values.reshape(-1, n)
    resized = np.empty((len(lines), size), np.uint8)
    for start, left, band in _bands(n, size):
        # Products so small that BLAS keeps to one thread: more would wait for each other.
        height = max(1, 2**18 // band.size)
        for top in range(0, len(lines), height):
            block = slice(top, top + height)
            # Whole numbers below 2^31: exact.
            sums = lines[block, left : left + len(band)].astype(np.float64) @ band
            columns = slice(start, start + band.shape[1])
            resized[block, columns] = np.minimum(sums + 2**21, 2**30 - 1).astype(np.int32) >> 22
    return resized.reshape(*values.shape[:-1], size)


@functools.lru_cache(maxsize=16)
def _bands(n: int, size: int) -> list[tuple[int, int, np.ndarray]]:
    """The weights as (first output, first source position, [positions, outputs]) of 8 outputs each.

    They are a narrow band: most of a full matrix is zeros. Kept, as pictures often have few sizes.
    """
    first, weights = _triangle_weights(n, size)
    taps = np.arange(weights.shape[1])
    bands = []
    for start in range(0, size, 8):
        chunk = slice(start, start + 8)
        left, right = int(first[start]), min(int(first[chunk][-1]) + len(taps), n)
        band = np.zeros((right - left + len(taps), len(first[chunk])))
        band[(first[chunk, None] - left + taps).T, np.arange(band.shape[1])] = weights[chunk].T
        bands.append((start, left, band[: right - left]))  # of what lies beyond, all weights are 0
    return bands


def _triangle_weights(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First source position [size] of each output, and weights [size, taps] in 1/2^22."""
    scale = n / size
    support = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(int), 0)
    last = np.minimum((centers + support + 0.5).astype(int), n)
    positions = first[:, None] + np.arange((last - first).max())
    weights = np.maximum(1 - np.abs((positions - centers[:, None] + 0.5) / support), 0)
    weights[positions >= last[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    return first, np.floor(weights * 2**22 + 0.5)


def refine(score_map: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Moves the edges of a map to those of the picture, by a guided filter; see docs/method.md.

    Args:
        score_map: float [h, w], in any range.
        image: uint8 [height, width, 3], the network's input.

    Returns:
        float32 [height / 4, width / 4] in 0..1; a map without a stretch is returned as it is.
    """
    stretched = stretch(score_map)
    if not stretched.any():
        return np.asarray(score_map, np.float32)
    height, width = (side // PIXELS for side in image.shape[:2])
    values = resize_map(stretched, height, width).astype(np.float64)
    whole = image[: height * PIXELS, : width * PIXELS].astype(np.uint16)
    rows = functools.reduce(np.add, [whole[i::PIXELS] for i in range(PIXELS)])
    sums = functools.reduce(np.add, [rows[:, i::PIXELS] for i in range(PIXELS)])
    guide = sums / (PIXELS**2 * 255)
    return np.clip(_guided_filter(values, guide), 0, 1).astype(np.float32)


def _guided_filter(values: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Filters [height, width] by a guide [height, width, 3]: He et al., equations 19 to 21."""
    down, across = _window_means(guide.shape[0]), _window_means(guide.shape[1]).T

    def mean(plane):
        return down @ plane @ across

    red, green, blue = (guide[..., channel] for channel in range(3))
    r, g, b, v = (mean(plane) for plane in (red, green, blue, values))
    rv, gv, bv = (
        mean(red * values) - r * v,
        mean(green * values) - g * v,
        mean(blue * values) - b * v,
    )
    rr = mean(red * red) - r * r + EPSILON
    rg, rb = mean(red * green) - r * g, mean(red * blue) - r * b
    gg = mean(green * green) - g * g + EPSILON
    gb = mean(green * blue) - g * b
    bb = mean(blue * blue) - b * b + EPSILON
    # The inverse of each window's symmetric 3 x 3 matrix of covariances, by its cofactors.
    i_rr, i_rg, i_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    i_gg, i_gb, i_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * i_rr + rg * i_rg + rb * i_rb
    slope_r = (i_rr * rv + i_rg * gv + i_rb * bv) / determinant
    slope_g = (i_rg * rv + i_gg * gv + i_gb * bv) / determinant
    slope_b = (i_rb * rv + i_gb * gv + i_bb * bv) / determinant
    offset = v - slope_r * r - slope_g * g - slope_b * b
    return mean(slope_r) * red + mean(slope_g) * green + mean(slope_b) * blue + mean(offset)


@functools.cache
def _window_means(side: int) -> np.ndarray:
    """The matrix [side, side] that averages over windows along a side; the border is mirrored."""
    radius = max(1, round(RADIUS * side))
    inside = np.arange(side)[:, None] + np.arange(-radius, radius + 1)
    mirrored = np.mod(inside, 2 * side)  # ... 1 0 | 0 1 2 ... | 2 1 ...
    mirrored = np.minimum(mirrored, 2 * side - 1 - mirrored)
    means = np.zeros((side, side))
    np.add.at(means, (np.arange(side)[:, None], mirrored), 1 / inside.shape[1])
    return means


def localize(
    score_map: np.ndarray,
    height: int,
    width: int,
    threshold: float | str,
    *,
    min_area: float = 0.0,
    min_picture_area: float = 0.0,
    max_objects: int = 0,
    is_separated: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Goes from a map [h, w] to what `Found` has of a picture: map, mask, three of objects, box.

    The threshold is 0..1, or "otsu" for the map's own. A constant map gives an empty mask. See
    `components` for the next three. `is_separated`: whether objects that touch are cut apart. Where
    there are no objects the box is the whole picture, or None with a `min_picture_area`.
    """
    resized = resize_map(stretch(score_map), height, width)
    cut = otsu(resized) if isinstance(threshold, str) else threshold
    mask = resized > np.float32(cut)
    mask = separate(mask, resized, cut) if is_separated else mask
    limits = {"min_area": min_area, "min_picture_area": min_picture_area}
    objects = components(mask, resized, **limits, max_objects=max_objects)
    box = None if min_picture_area else np.array([0, 0, width, height], np.float32)
    return resized, mask, *objects, objects[0][0] if len(objects[0]) else box


def stretch(score_map: np.ndarray) -> np.ndarray:
    """Stretches a map by its minimum and maximum to float32 in 0..1; zeros where it has no span."""
    score_map = np.asarray(score_map, np.float32)
    low = score_map.min()
    with np.errstate(over="ignore", invalid="ignore"):
        span = score_map.max() - low
    if not np.isfinite(span) or span <= 0:
        return np.zeros_like(score_map)
    return (score_map - low) / span


def resize_map(score_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples float32 [h, w] to [height, width] as OpenCV's INTER_LINEAR does."""
    if score_map.shape == (height, width):
        return score_map
    left, right, share = _linear_weights(score_map.shape[1], width)
    rows = _mix(score_map[:, left], score_map[:, right], share)
    top, bottom, share = _linear_weights(score_map.shape[0], height)
    resized = np.empty((height, width), np.float32)
    for start in range(0, height, 64):  # in strips, which keeps a large picture's memory low
        strip = slice(start, start + 64)
        resized[strip] = _mix(rows[top[strip]], rows[bottom[strip]], share[strip, None])
    return resized


def _linear_weights(n: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions = (np.arange(size) + 0.5) * (n / size) - 0.5
    before = np.floor(positions)
    share = np.where((before < 0) | (before >= n - 1), 0, positions - before)
    before = np.clip(before.astype(int), 0, n - 1)
    return before, np.minimum(before + 1, n - 1), share.astype(np.float32)


def _mix(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    # Rounded once, as the fused multiply-add of OpenCV rounds.
    return (before + (after - before).astype(np.float64) * share).astype(np.float32)


def otsu(score_map: np.ndarray) -> float:
    """Finds Otsu's threshold of a map in [0, 1]; as `wsol_tf.model.score_maps.otsu`."""
    bins = np.clip((np.asarray(score_map, np.float64).ravel() * 256).astype(np.int64), 0, 255)
    counts = np.bincount(bins, minlength=256).astype(np.float64)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moments = np.cumsum(counts * np.arange(256))
    total, moments = moments[-1], moments[:-1]
    between = (moments * above - (total - moments) * below) ** 2 / np.maximum(below * above, 1)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((best[0] + best[-1] + 2) / 512)


def components(
    mask: np.ndarray,
    score_map: np.ndarray,
    *,
    min_area: float = 0.0,
    min_picture_area: float = 0.0,
    max_objects: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the 8-connected components of a bool mask [height, width] that count as objects.

    As `wsol_tf.model.score_maps.components`: (boxes, scores, areas), the most pixels first,
    equally many in the order of first pixels, row by row. boxes: float32 [N, 4], x0, y0, x1, y1
    edges in pixels, half-open; scores: float32 [N], the mean of the map inside; areas: int64 [N],
    pixels. Those with fewer pixels than the share `min_area` of the largest one's, or
    `min_picture_area` of the picture's, are left out; at most `max_objects` are kept, 0: all.
    """
    starts, ends, component = _runs(mask)  # the number of a component is its first run's
    if not len(starts):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    stride = mask.shape[1] + 1
    runs = np.argsort(component, kind="stable")  # those of a component side by side, row by row
    first = np.flatnonzero(np.diff(component[runs], prepend=-1))
    lengths, rows, left = (ends - starts)[runs], starts[runs] // stride, starts[runs] % stride
    x0, x1 = np.minimum.reduceat(left, first), np.maximum.reduceat(left + lengths, first)
    boxes = np.stack([x0, rows[first], x1, np.maximum.reduceat(rows, first) + 1], axis=1)
    areas = np.add.reduceat(lengths, first)
    of_runs = np.add.reduceat(
        score_map[mask], np.cumsum(ends - starts) - (ends - starts), dtype=float
    )
    scores = np.add.reduceat(of_runs[runs], first) / areas
    order = np.argsort(-areas, kind="stable")
    least = max(min_area * areas[order[0]], min_picture_area * mask.size)
    order = order[areas[order] >= least][: max_objects or None]
    return boxes[order].astype(np.float32), scores[order].astype(np.float32), areas[order]


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of True along the rows: where each begins and ends, and its component's first run.

    A column of False behind each row ends its last run, so that positions count width + 1 a row.
    """
    stride = mask.shape[1] + 1
    padded = np.zeros(1 + mask.shape[0] * stride, bool)  # one more in front, which begins no run
    padded[1:].reshape(-1, stride)[:, :-1] = mask
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    starts, ends = edges[::2], edges[1::2]
    # Runs of the row below that touch a run, corners included, stand side by side in the list.
    touching = np.searchsorted(ends, starts + stride, "left")
    counts = np.searchsorted(starts, ends + stride, "right") - touching
    above = np.repeat(np.arange(len(starts)), counts)
    below = np.arange(counts.sum()) + np.repeat(touching - np.cumsum(counts) + counts, counts)
    return starts, ends, _roots(len(starts), above, below)


def _labels(mask: np.ndarray) -> np.ndarray:
    """The component of each pixel, int32 [height, width], from 1 on by first pixels; 0: none."""
    starts, ends, component = _runs(mask)
    labels = np.zeros(mask.shape, np.int32)
    numbers = np.unique(component, return_inverse=True)[1]
    labels[mask] = 1 + np.repeat(numbers, ends - starts)
    return labels


def separate(mask: np.ndarray, score_map: np.ndarray, threshold: float) -> np.ndarray:
    """Cuts the components of a mask into objects, as `wsol_tf.model.separation.separate`.

    The mask is bool [height, width], where the float32 map lies above the threshold; it is returned
    without the pixels on one side of each cut. A component is looked at on a grid; where it comes
    apart at a higher threshold, each pixel is of the part that is nearest to its cell.
    """
    height, width = mask.shape
    seen = np.ix_(*(((np.arange(GRID) + 0.5) * n / GRID).astype(int) for n in mask.shape))
    cell_of = np.ix_(np.arange(height) * GRID // height, np.arange(width) * GRID // width)
    labels = _labels(mask)
    values, cells = score_map[seen], labels[seen]
    parts = np.zeros(mask.shape, np.int16)  # of each component by itself: no two of them touch
    for component in np.unique(cells[cells > 0]):
        part_of = _parts(values, cells == component, threshold)
        if part_of.any():
            own = labels == component
            parts[own] = 1 + part_of[cell_of][own]
    if not parts.any():  # nothing is cut
        return mask
    return mask & (_around(parts, np.maximum) == parts)


def _around(grid: np.ndarray, joined: np.ufunc) -> np.ndarray:
    """What a function of two makes of each position and its eight neighbours; 0 is outside."""
    # np.pad takes several times as long for a small grid.
    padded = np.zeros((grid.shape[0] + 2, grid.shape[1] + 2), grid.dtype)
    padded[1:-1, 1:-1] = grid
    rows = joined(joined(padded[:-2], padded[1:-1]), padded[2:])
    return joined(joined(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _parts(values: np.ndarray, inside: np.ndarray, threshold: float) -> np.ndarray:
    """Which part of a component each cell of the grid is nearest to, int16 [GRID, GRID], from 0."""
    part_of = np.zeros(inside.shape, np.int16)
    waiting = [(np.ones_like(inside), 1)]  # cells of a part, and the first step that may cut it
    count = 0
    while waiting:
        region, first = waiting.pop()
        own, seeds = region & inside, []
        for step in range(first, STEPS + 1):
            seeds = _seeds(own & (values > np.float32(threshold + step * STEP)), own.sum())
            if len(seeds) != 1:  # where there is none, there is none at a higher threshold
                break
        if len(seeds) > 1:
            nearest = np.argmin([_distances(seed) for seed in seeds], axis=0)
            parts = [region & (nearest == number) for number in range(len(seeds))]
            waiting += [(part, step + 1) for part in reversed(parts)]
        else:
            part_of[region] = count
            count += 1
    return part_of


def _seeds(cells: np.ndarray, area: int) -> list[np.ndarray]:
    """The parts of a bool grid that are thick and large enough, row by row of their first cell."""
    opened = _around(~_around(~cells, np.logical_or), np.logical_or)  # thinner than three cells
    labels = _labels(opened)
    sizes = np.bincount(labels.ravel())
    return [labels == label for label in range(1, len(sizes)) if sizes[label] >= SHARE * area]


def _distances(seed: np.ndarray) -> np.ndarray:
    """The squared distance of each cell to the nearest one of a part, in cells, int."""
    away = np.arange(GRID)[:, None] - np.arange(GRID)
    along = np.where(seed[:, None], away**2, 2 * GRID**2).min(-1)  # [row, column]: in its row
    return (along[None] + (away**2)[..., None]).min(1)


def _roots(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups the numbers 0..n-1 by pairs (first < second); returns each one's group's smallest."""
    root = np.arange(n)
    while len(first):
        np.minimum.at(root, second, first)
        while True:
            shorter = root[root]
            if np.array_equal(shorter, root):
                break
            root = shorter
        one, other = root[first], root[second]
        joined = one == other
        first, second = np.minimum(one, other)[~joined], np.maximum(one, other)[~joined]
    return root
