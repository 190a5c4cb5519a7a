"""Whole epochs over MNIST: shuffling, reading, binarising and training, by each one's own means.

784-400-20, batches of 128 of 60,000 images, the last one short, drawn as bits afresh in each
batch.  Once all have trained equally long, the bound of their weights on the test images is
compared, as that of steps is.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import fairness, measure
from benchmarks.speed.cases import CASES, Case, first_weights
from benchmarks.speed.sources import Source, bits
from benchmarks.speed.steps import Settings, Tell, in_the_end, watched
from benchmarks.speed.workers import ContestantError, Place, Worker


def compare(
    source: Source, names: Sequence[str], place: Place, settings: Settings, tell: Tell
) -> dict[str, Any]:
    """Trains and times contestants for one epoch more than there are rounds.

    Args:
        source: grey levels.
        names: contestants.
        place: where they run.
        settings: how many rounds, each an epoch of every contestant.
        tell: hears what is going on.

    Returns:
        What the JSON file holds: ``ready`` (seconds until the first epoch could begin), ``first``
        (seconds of the first epoch, compilation included), ``rounds`` (seconds of each later one),
        and the rest as in `steps.compare`.
    """
    with ExitStack() as stack:
        report, workers = _timed(stack, CASES["mnist"], source, names, place, settings, tell)
        report["verdicts"] = _verdicts(source, workers, settings.tolerance, tell)
        return report


def timed_alone(
    case: Case,
    source: Source,
    names: Sequence[str],
    place: Place,
    settings: Settings,
    tell: Tell,
) -> dict[str, Any]:
    """As `compare`, of any case, ``rounds`` in seconds a step; nobody looks at the weights."""
    with ExitStack() as stack:
        report, _ = _timed(stack, case, source, names, place, settings, tell)
    steps = -(-len(source.train) // case.batch)
    rounds = [{name: took / steps for name, took in each.items()} for each in report["rounds"]]
    return report | {"rounds": rounds}


def _timed(
    stack: ExitStack,
    case: Case,
    source: Source,
    names: Sequence[str],
    place: Place,
    settings: Settings,
    tell: Tell,
) -> tuple[dict[str, Any], dict[str, Worker]]:
    start = place.file(".npz")
    np.savez(start, levels=source.train, **first_weights(case, bits(source.train[:1000])))
    workers, report = _started(stack, case, start, names, place, settings, tell)

    def rounds_of(rounds: int) -> Iterator[dict[str, float]]:
        for order in measure.turns(list(workers), rounds):
            yield {name: workers[name].run(1) for name in order}

    rounds, others = watched(rounds_of, settings, workers, tell)
    report |= {"rounds": rounds, "others": others} | in_the_end(workers)
    report |= {"title": case.title, "data": source.name, "made_up": source.made_up}
    return report, workers


def _started(
    stack: ExitStack,
    case: Case,
    start: Path,
    names: Sequence[str],
    place: Place,
    settings: Settings,
    tell: Tell,
) -> tuple[dict[str, Worker], dict[str, Any]]:
    """Contestants that have trained for their first epoch."""
    planned = settings.rounds + 2  # the last one is never asked for: `fit` does not close it
    workers: dict[str, Worker] = {}
    report: dict[str, Any] = {"ready": {}, "first": {}, "errors": {}}
    for name in names:
        tell(f"{case.name}: first epoch of {name}")
        try:
            worker = Worker(place, "epochs", name, case, start, planned=planned)
            stack.enter_context(closing(worker))
            report["first"][name] = worker.run(1)
        except ContestantError as error:
            report["errors"][name] = str(error)
        else:
            report["ready"][name], workers[name] = worker.ready["ready"], worker
    return workers, report


def _verdicts(
    source: Source, workers: dict[str, Worker], tolerance: float, tell: Tell
) -> dict[str, Any]:
    """Each one's bound on the test images, against the middle of all."""
    case = CASES["mnist"]
    x = bits(source.test)
    x = x[: len(x) // case.batch * case.batch].reshape(-1, case.batch, case.features)
    index = np.zeros(x.shape[:2], dtype=np.int64)
    bounds = {}
    for name, worker in workers.items():
        tell(f"epochs: test bound of {name}")
        bounds[name] = fairness.elbo(case, worker.weights(), x, index)
    middle = float(np.median(list(bounds.values()))) if bounds else 0.0
    verdicts = {n: fairness.Verdict(b, middle, tolerance * abs(middle)) for n, b in bounds.items()}
    return {name: verdict._asdict() | {"fair": verdict.fair} for name, verdict in verdicts.items()}
