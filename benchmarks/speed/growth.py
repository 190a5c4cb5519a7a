"""How the time of a step grows with the batch, the latents, the components and the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.speed import steps
from benchmarks.speed.cases import GROWTH, Case
from benchmarks.speed.contestants import CONTESTANTS
from benchmarks.speed.workers import Place

FOLLOWED = ("bayesvae", "hand", "pyro")


def compare(
    bits: np.ndarray,
    names: Sequence[str],
    place: Place,
    settings: steps.Settings,
    tell: steps.Tell,
    cases: dict[str, list[Case]] = GROWTH,
) -> dict[str, dict[str, Any]]:
    """Times `FOLLOWED` in every case of every direction of growth.

    Args:
        bits: binary data ``(N, D)``.
        names: those of `FOLLOWED` that take part.
        place: where they run.
        settings: how long.
        tell: hears what is going on.
        cases: what grows, and its sizes.

    Returns:
        By direction and case, what `steps.timed` gives and the ``errors``.
    """
    found: dict[str, dict[str, Any]] = {}
    for direction, sizes in cases.items():
        found[direction] = {}
        for case in sizes:
            takes = [name for name in FOLLOWED if name in names and CONTESTANTS[name].takes(case)]
            given = steps.make_set(case, bits)
            found[direction][case.name] = steps.timed_alone(given, takes, place, settings, tell)
    return found
