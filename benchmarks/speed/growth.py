"""How the time of a step grows with the batch, the latents, the components and the data.

With a row of variational parameters a datum, the table grows with the data.  `bayesvae.fit` and
the hand-written loop move the rows of a batch alone (sparse gradients), Pyro's Adam moves all; the
time is that of an epoch, divided by its steps.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed import epochs, steps
from benchmarks.speed.cases import GROWTH, Case
from benchmarks.speed.contestants import CONTESTANTS
from benchmarks.speed.sources import Source, bits
from benchmarks.speed.workers import Place

FOLLOWED = ("bayesvae", "hand", "pyro")


def compare(
    source: Source,
    names: Sequence[str],
    place: Place,
    settings: steps.Settings,
    tell: steps.Tell,
    cases: dict[str, list[Case]] = GROWTH,
) -> dict[str, dict[str, Any]]:
    """Times `FOLLOWED` in every case of every direction of growth.

    Args:
        source: grey levels.
        names: those of `FOLLOWED` that take part.
        place: where they run.
        settings: how long.
        tell: hears what is going on.
        cases: what grows, and its sizes.

    Returns:
        By direction and case, what `steps.timed` gives and the ``errors``.
    """
    x = bits(source.train[:6144])
    found: dict[str, dict[str, Any]] = {}
    for direction, sizes in cases.items():
        found[direction] = {}
        for case in sizes:
            takes = [n for n in FOLLOWED if n in names and CONTESTANTS[n].takes(case)]
            found[direction][case.name] = _timed(case, source, x, takes, place, settings, tell)
    return found


def _timed(
    case: Case,
    source: Source,
    x: np.ndarray,
    names: Sequence[str],
    place: Place,
    settings: steps.Settings,
    tell: steps.Tell,
) -> dict[str, Any]:
    if case.table:
        part = source._replace(train=source.train[: case.table])
        look = partial(epochs.timed_alone, case, part, names, place, settings, tell)
    else:
        given = steps.make_set(case, x)
        look = partial(steps.timed_alone, given, names, place, settings, tell)
    return steps.finished(case.title, look)
