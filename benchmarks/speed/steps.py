"""Training steps: one case, all its contestants, in turns."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed import fairness, machine, measure
from benchmarks.speed.cases import Arrays, Case, batches, first_weights
from benchmarks.speed.contestants import CONTESTANTS
from benchmarks.speed.worker import WARM
from benchmarks.speed.workers import ContestantError, Place, Worker

SETTLED = 60
"""Steps after which `bayesvae` has tried what it compiled."""

KEEPING = ("bayesvae", "hand-step")
"""Those whose second start is looked at."""

Tell = Callable[[str], None]
"""Says what is going on, for the progress bar."""


class Settings(NamedTuple):
    """How long to look.

    Attributes:
        rounds: rounds a case.
        seconds: a slice of steps.
        fair_steps: steps after which weights are compared; a quarter with several particles.
        fair_runs: runs of the hand-written contestant, to know their noise.
        tolerance: share by which bounds may differ after epochs on data drawn afresh.
    """

    rounds: int = 9
    seconds: float = 0.3
    fair_steps: int = 600
    fair_runs: int = 5
    tolerance: float = 0.01


class Set(NamedTuple):
    """What every contestant of a case is handed."""

    case: Case
    weights: Arrays
    x: np.ndarray
    index: np.ndarray


def make_set(case: Case, bits: np.ndarray) -> Set:
    """First weights and batches of a case, from binary data ``(N, D)``."""
    return Set(case, first_weights(case, bits), *batches(case, bits))


def finished(title: str, look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a look at contestants finds, or whose process ended in the midst of it.

    Args:
        title: of the case.
        look: measures.
    """
    try:
        return look()
    except ContestantError as error:
        nothing = {"rounds": [], "others": [], "memory": {}, "verdicts": {}}
        return {"title": title, "errors": {error.contestant: str(error)}, **nothing}


def compare(
    given: Set, names: Sequence[str], place: Place, settings: Settings, tell: Tell
) -> dict[str, Any]:
    """Trains and times contestants of one case.

    Args:
        given: the case with its weights and batches.
        names: contestants; those without a counterpart of the case are left out.
        place: where they run.
        settings: how long.
        tell: hears what is going on.

    Returns:
        What the JSON file holds of this case: ``rounds`` (seconds a step by contestant), how many
        ``steps`` a slice had, what each said at its ``start`` and when started ``again`` with its
        compiled code at hand, ``memory``, ``verdicts`` on fairness, ``errors``, and how many cores
        ``others`` used in each round.
    """
    takes = [name for name in names if CONTESTANTS[name].takes(given.case)]
    with ExitStack() as stack:
        workers, errors = started(stack, given, takes, place, tell)
        report = {"case": given.case._asdict(), "title": given.case.title, "errors": errors}
        report["verdicts"] = _verdicts(given, workers, settings, tell)
        report |= timed(workers, settings, tell)
        report["again"] = _again(given, workers, place, tell)
        return report


def timed_alone(
    given: Set, names: Sequence[str], place: Place, settings: Settings, tell: Tell
) -> dict[str, Any]:
    """As `compare`, but the weights that are reached are not looked at."""
    with ExitStack() as stack:
        workers, errors = started(stack, given, names, place, tell)
        return {"errors": errors, "title": given.case.title} | timed(workers, settings, tell)


def started(
    stack: ExitStack, given: Set, names: Sequence[str], place: Place, tell: Tell
) -> tuple[dict[str, Worker], dict[str, str]]:
    """Contestants that are ready, and what kept others from it."""
    start = _start_file(given, place)
    workers: dict[str, Worker] = {}
    errors: dict[str, str] = {}
    for name in names:
        tell(f"{given.case.name}: {name} starts")
        try:
            worker = Worker(place, "steps", name, given.case, start)
        except ContestantError as error:
            errors[name] = str(error)
        else:
            workers[name] = stack.enter_context(closing(worker))
    return workers, errors


def _start_file(given: Set, place: Place) -> Path:
    path = place.file(".npz")
    np.savez(path, x=given.x, index=given.index, **given.weights)
    return path


def _again(
    given: Set, workers: dict[str, Worker], place: Place, tell: Tell
) -> dict[str, dict[str, float]]:
    """What is said at a second start, by those who keep compiled code on disk."""
    start, said = _start_file(given, place), {}
    for name in (name for name in KEEPING if name in workers):
        tell(f"{given.case.name}: {name} starts again")
        second = Worker(place, "steps", name, given.case, start, workers[name].cache)
        said[name] = second.ready
        second.close()
    return said


def timed(workers: dict[str, Worker], settings: Settings, tell: Tell) -> dict[str, Any]:
    """Rounds of slices, and what is known of each process in the end."""
    steps = {}
    for name, worker in workers.items():
        tell(f"calibrates {name}")
        worker.run(SETTLED)
        steps[name] = measure.calibrate(worker.run, settings.seconds)
    runs = {name: worker.run for name, worker in workers.items()}
    rounds, others = watched(partial(measure.interleaved, runs, steps), settings, workers, tell)
    start = {name: worker.ready for name, worker in workers.items()}
    report = {"rounds": rounds, "others": others, "steps": steps, "start": start}
    return report | in_the_end(workers)


def in_the_end(workers: dict[str, Worker]) -> dict[str, dict[str, float]]:
    """The most memory that each process has held, MB, and the most cores it has used."""
    return {
        "memory": {name: worker.ask(memory=True)["peak_mb"] for name, worker in workers.items()},
        "cores_used": {name: worker.cores_used for name, worker in workers.items()},
    }


def watched(
    rounds_of: Callable[[int], Any], settings: Settings, workers: dict[str, Worker], tell: Tell
) -> tuple[list[dict[str, float]], list[float]]:
    """Rounds, and how many cores others used in each of them."""
    processes = [os.getpid(), *(worker.process.pid for worker in workers.values())]
    rounds, others = [], []
    before = machine.read(processes)
    for each in rounds_of(settings.rounds):
        after = machine.read(processes)
        rounds.append(each)
        others.append(machine.others(before, after))
        tell(f"round {len(rounds)} of {settings.rounds}")
        before = after
    return rounds, others


def _verdicts(
    given: Set, workers: dict[str, Worker], settings: Settings, tell: Tell
) -> dict[str, Any]:
    """Who ended where the hand-written one ends; the KL sampled or analytic, each by its own."""
    steps = settings.fair_steps // (4 if given.case.particles > 1 else 1)
    reached: dict[bool, dict[str, float]] = {}
    for name, worker in workers.items():
        if not CONTESTANTS[name].trains:
            continue
        tell(f"{given.case.name}: {name} trains {steps} steps")
        worker.run(steps - WARM)
        kind = given.case.analytic_kl or CONTESTANTS[name].analytic_kl
        bound = fairness.elbo(given.case, worker.weights(), given.x, given.index)
        reached.setdefault(kind, {})[name] = bound
    verdicts = {}
    for kind, bounds in reached.items():
        case = given.case._replace(analytic_kl=kind)
        tell(f"{given.case.name}: noise of the bound")
        expected = fairness.reference(case, *given[1:], steps, settings.fair_runs)
        verdicts |= fairness.judged(bounds, expected)
    return {name: verdict._asdict() | {"fair": verdict.fair} for name, verdict in verdicts.items()}
