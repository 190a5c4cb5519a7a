"""Measuring in turns.

The time of a slice of steps, divided by their number, is one figure; a round collects one of every
contestant.  Speeds of machines drift, so a ratio is formed within a round and the median is taken
over rounds: it is not the ratio of the medians.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

Timed = Callable[[int], float]
"""Takes a number of steps; returns the seconds that they took."""


def calibrate(run: Timed, seconds: float, most: int = 100_000) -> int:
    """How many steps take about so long.

    Args:
        run: takes steps.
        seconds: how long they are to take.
        most: no more than these.

    Returns:
        At least 1.

    Example:
        >>> calibrate(lambda steps: 0.002 * steps, 0.3)
        150
    """
    steps = 1
    while (took := run(steps)) < seconds / 8 and steps < most:
        steps = min(most, 2 * steps)
    return max(1, min(most, round(steps * seconds / max(took, 1e-9))))


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The order of each round: there and back, then shifted by one.

    So nobody always comes first, or after the same one.

    Example:
        >>> list(turns("abc", 3))
        [['a', 'b', 'c'], ['c', 'b', 'a'], ['b', 'c', 'a']]
    """
    for number in range(rounds if names else 0):
        shift = number // 2 % len(names)
        order = [*names[shift:], *names[:shift]]
        yield order[::-1] if number % 2 else order


def interleaved(
    runs: Mapping[str, Timed], steps: Mapping[str, int], rounds: int
) -> Iterator[dict[str, float]]:
    """Seconds a step of every contestant, round by round.

    Args:
        runs: takes steps, by contestant.
        steps: how many a slice has, by contestant.
        rounds: how many rounds.
    """
    for order in turns(list(runs), rounds):
        yield {name: runs[name](steps[name]) / steps[name] for name in order}


def median(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """The median over rounds of one contestant's figure."""
    return statistics.median(each[name] for each in rounds)


def spread(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(rounds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles([each[name] for each in rounds], n=4)
    return (high - low) / 2 / middle


def ratio(rounds: Sequence[Mapping[str, float]], name: str, other: str) -> float:
    """The median over rounds of one contestant's figure divided by another's of the same round.

    Example:
        >>> ratio([{"a": 1, "b": 2}, {"a": 9, "b": 3}, {"a": 4, "b": 4}], "a", "b")
        1.0
    """
    return statistics.median(each[name] / each[other] for each in rounds)
