"""Two things scored on the same pictures: is the difference more than chance?"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much a second thing is better than a first one, on the same pictures.

    Attributes:
        mean: the difference.
        low, high: ends of its 95 % interval.
        gained, lost: pictures that the second hits more often, and less often.
        p: of McNemar's exact test; None where no hits are compared.
        by_seed: the difference of each seed that both have.
    """

    mean: float
    low: float
    high: float
    gained: int | None
    lost: int | None
    p: float | None
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Says in words what is shown: better, worse, or no difference.

        A difference is shown where the interval leaves out 0, McNemar's test agrees (the interval
        alone is too sure where few pictures differ) and no seed says otherwise.
        """
        sign = 1 if self.mean > 0 else -1
        shown = self.low > 0 or self.high < 0
        if (
            not shown
            or (self.p is not None and self.p >= SIGNIFICANT)
            or any(value * sign < 0 for value in self.by_seed)
        ):
            return "no difference shown"
        return "better" if sign > 0 else "worse"


def exact_mcnemar(gained: int, lost: int, one_sided: bool = False) -> float:
    """Returns the p-value of McNemar's exact test: the sign test on the pictures that differ.

    Where the second does no better and no worse than the first, each picture that only one of them
    hits is gained or lost with probability 1/2. Pictures that both hit or both miss say nothing.

    Args:
        gained: pictures that only the second hits.
        lost: pictures that only the first hits.
        one_sided: whether the question is if the second is worse, so that many gained pictures are
            no surprise; False asks for a difference in either direction.

    Returns:
        The probability, 0..1, of at least so many lost pictures (two-sided: of so large a
        difference in either direction) by chance; 1 where no picture differs.

    Raises:
        ValueError: a count is below 0.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"Counts of pictures are at least 0. Received: {gained}, {lost}.")
    number = gained + lost
    if one_sided:
        return _tail(number, gained)  # at most `gained` heads of `number` is at least `lost` tails
    return min(1.0, 2 * _tail(number, min(gained, lost)))


def _tail(number: int, most: int) -> float:
    """Probability of at most so many heads in a number of throws of a coin."""
    ways = total = 1  # whole numbers, so that nothing is rounded before the end
    for heads in range(1, most + 1):
        ways = ways * (number - heads + 1) // heads
        total += ways
    return total / 2**number


def bootstrap_mean(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = 0.95,
    samples: int | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Computes a mean over pictures and its bootstrap interval: pictures are drawn again and again.

    Args:
        values: `[num]`, or `[seeds, num]`, which is averaged over the seeds first; NaN: missing.
        groups: `[num]`, the picture of each value; a picture's values are drawn together. None:
            each is a picture of its own.
        level: probability that the interval is to hold the true mean, were other pictures drawn.
        samples: how often the pictures are drawn; None: 5,000 times, less often where there are
            more than 4,000 of them, and 1,000 times at least.
        seed: of these draws.

    Returns:
        (mean, low, high); all NaN without a value. The interval is that of the percentiles.
    """
    values = mean_of_seeds(values)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    known = ~np.isnan(values)
    if not known.any():
        return np.nan, np.nan, np.nan
    _, index = np.unique(groups[known], return_inverse=True)
    sums, counts = np.bincount(index, values[known]), np.bincount(index)
    rng, number = np.random.default_rng(seed), len(sums)
    samples = samples or max(1_000, min(5_000, 2 * 10**7 // number))
    means = np.empty(samples)
    step = max(1, 2 * 10**6 // number)  # so many draws at a time fit in memory
    for start in range(0, samples, step):
        drawn = rng.integers(number, size=(min(step, samples - start), number))
        means[start : start + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = 0.95,
    samples: int | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Computes by how much a second thing is better on the same pictures, with an interval.

    Each is averaged over its seeds, then the pictures are drawn again and again, each with what
    both reached on it. The interval is for other pictures; that other seeds would give the same is
    for the seeds themselves to show.

    Args:
        first: `[num]` or `[seeds, num]`; NaN: missing. A picture that one of the two lacks is left
            out.
        second: the same pictures in the same order; the number of seeds may differ.
        groups: see `bootstrap_mean`, as are level, samples and seed.
        level: see `bootstrap_mean`.
        samples: see `bootstrap_mean`.
        seed: see `bootstrap_mean`.

    Returns:
        (difference, low, high): second minus first, above 0 where the second is larger.

    Raises:
        ValueError: the two are not of the same number of pictures.
    """
    first, second = mean_of_seeds(first), mean_of_seeds(second)
    if len(first) != len(second):
        raise ValueError(
            f"Only the same pictures can be compared. Received: {len(first)} and {len(second)}."
        )
    return bootstrap_mean(second - first, groups, level=level, samples=samples, seed=seed)


def gained_and_lost(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None
) -> tuple[int, int]:
    """Counts the pictures on which the second is better than the first, and those it is worse on.

    With one seed and one class in a picture these are the pictures that only one of them hits, the
    counts of `exact_mcnemar`. Otherwise a picture counts for the one that hits it more often.

    Args:
        first: hits `[num]` or `[seeds, num]`, 1 or 0; NaN: missing.
        second: the same pictures in the same order.
        groups: see `bootstrap_mean`.
    """
    difference = mean_of_seeds(second) - mean_of_seeds(first)
    groups = np.arange(len(difference)) if groups is None else np.asarray(groups)
    known = ~np.isnan(difference)
    _, index = np.unique(groups[known], return_inverse=True)
    sums = np.round(np.bincount(index, difference[known]), 9)  # 1/3 + 2/3 - 1 is no difference
    return int((sums > 0).sum()), int((sums < 0).sum())


def mean_of_seeds(values: ArrayLike) -> np.ndarray:
    """Averages `[seeds, num]` over the seeds that have a value; `[num]` stays as it is."""
    values = np.asarray(values, np.float64)
    if values.ndim == 1:
        return values
    known = ~np.isnan(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def difference_of(
    first: np.ndarray, second: np.ndarray, images: np.ndarray, are_hits: bool, in_pairs: bool = True
) -> Difference | None:
    """Computes by how much a second thing is better on the pictures that both have.

    Args:
        first: `[seeds, pairs]`; NaN: missing.
        second: the same of the second.
        images: `[pairs]`, the picture of each column.
        are_hits: the values are hits, 1 or 0, and can be counted.
        in_pairs: the seeds of both are the same, in the same order.

    Returns:
        The Difference; None where there is no such picture.
    """
    if in_pairs:
        missing = np.isnan(first) | np.isnan(second)
        first, second = (np.where(missing, np.nan, values) for values in (first, second))
    mean, low, high = bootstrap_difference(first, second, images)
    if np.isnan(mean):
        return None
    gained = lost = p = None
    if are_hits:
        gained, lost = gained_and_lost(first, second, images)
        p = exact_mcnemar(gained, lost)
    changes = [c[~np.isnan(c)] for c in second - first] if in_pairs else []
    by_seed = tuple(float(change.mean()) for change in changes if len(change))
    return Difference(mean, low, high, gained, lost, p, by_seed)
