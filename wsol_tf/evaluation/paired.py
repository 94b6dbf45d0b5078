"""Two things scored on the same pictures: is the difference more than chance?"""


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
