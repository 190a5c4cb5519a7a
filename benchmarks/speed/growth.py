"""How the time of a step grows with the batch, the latents, the components and the data.

With a row of variational parameters a datum, the table grows with the data.  `bayesvae.fit` and
the hand-written loop move the rows of a batch alone (sparse gradients), Pyro's Adam moves all; the
time is that of an epoch, divided by its steps.
"""

from collections.abc import Sequence
from typing import Any

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

    def timed(case: Case) -> dict[str, Any]:
        takes = [name for name in FOLLOWED if name in names and CONTESTANTS[name].takes(case)]
        if not case.table:
            return steps.timed_alone(steps.make_set(case, x), takes, place, settings, tell)
        part = source._replace(train=source.train[: case.table])
        return epochs.timed_alone(case, part, takes, place, settings, tell)

    return {
        direction: {case.name: timed(case) for case in sizes} for direction, sizes in cases.items()
    }
