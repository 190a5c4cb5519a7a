"""How wide the bracket of log p(x) is for what budget, started at the guide and at the prior.

A 784-400-20 pair trained on MNIST, and images drawn from it, the same for every budget: so the
lower bounds of two budgets can be subtracted.  Beside them what importance sampling from the guide
says of the same images.  The trained pair is kept, so that a repeat is quick.

    python -m benchmarks.brackets --data-root FOLDER
"""

import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae import Annealing, bracket, data, fit, log_evidence, plots, proposals
from bayesvae.core import files
from bayesvae.core.estimates import mean_and_error
from bayesvae.core.pair import Pair
from benchmarks import command
from benchmarks.speed.machine import facts
from benchmarks.svi import make_pair

STARTS = {"guide": proposals.GUIDE, "prior": proposals.PRIOR}


class Rung(NamedTuple):
    """What one budget bought, nats per datum, each with its standard error over data.

    Attributes:
        start: where the path begins.
        temperatures: T.
        seconds: pilot, compiling and both ways together, on the clock.
        busy: of these, how long this process had a core; the rest went to others, compilers among
            them.
        lower: the bound from below.
        upper: the bound from above.
        width: their difference, paired.
        chains: standard error of the mean lower bound by chains alone, the data being the same.
    """

    start: str
    temperatures: int
    seconds: float
    busy: float
    lower: tuple[float, float]
    upper: tuple[float, float]
    width: tuple[float, float]
    chains: float


def trained(x: Tensor, epochs: int, seed: int, kept: Path) -> Pair:
    """The pair, read from a file if it was trained before.

    Args:
        x: grey images ``(N, 1, 28, 28)``, binarised afresh in each batch.
        epochs: passes over them.
        seed: of all random numbers.
        kept: the file.
    """
    torch.manual_seed(seed)
    pair = make_pair(x)
    if kept.is_file():
        pair.load_state_dict(files.load_state(kept))
        return pair
    loader = data.Loader(x, 128, shuffle=True, transform=torch.bernoulli)
    fit(pair, loader, epochs=epochs)
    files.save_state(kept, pair.state_dict())
    return pair


def climbed(
    pair: Pair, start: str, annealing: Annealing, count: int, seed: int
) -> tuple[Rung, Tensor]:
    """A rung, and the images ``(count, 1, 28, 28)``, which depend on the seed alone."""
    torch.manual_seed(seed)
    path, began = annealing._replace(start=STARTS[start]), time.process_time()
    found = bracket(pair, count, (1, 28, 28), path, progress=False)
    sides = (found.lower.value, found.upper.value, found.width)
    chains = found.lower.stderr.norm().item() / count
    times = (found.seconds, time.process_time() - began)
    rung = Rung(start, path.temperatures, *times, *map(mean_and_error, sides), chains)
    return rung, found.x


def sampled(pair: Pair, x: Tensor, particles: int) -> dict[str, Any]:
    """log p(x) by importance sampling from the guide."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="k-hat", category=UserWarning)
        found = log_evidence(pair, x, particles)
    mean, error = found.mean()
    return {
        "particles": particles,
        "log_evidence": mean,
        "log_evidence_stderr": error,
        "untrusted": (~found.trusted).double().mean().item(),
        "busy": time.process_time() - began,
    }


def needed(target: float, rungs: Sequence[Rung]) -> float:
    """How many temperatures reach a lower bound, between rungs by the logarithm of T.

    Example:
        >>> def rung(t, lower):
        ...     return Rung("prior", t, 1.0, 1.0, (lower, 0.0), (0.0, 0.0), (0.0, 0.0), 0.0)
        >>> rungs = [rung(10, -2.0), rung(1000, 0.0)]
        >>> round(needed(-1.0, rungs)), needed(1.0, rungs)
        (100, inf)
    """
    rungs = sorted(rungs, key=lambda rung: rung.temperatures)
    if rungs[0].lower[0] >= target:
        return rungs[0].temperatures
    for left, right in pairwise(rungs):
        if right.lower[0] >= target:
            share = (target - left.lower[0]) / (right.lower[0] - left.lower[0])
            return left.temperatures * (right.temperatures / left.temperatures) ** share
    return math.inf


def by_start(rungs: Sequence[Rung]) -> dict[str, list[Rung]]:
    """The rungs of each start."""
    return {start: [rung for rung in rungs if rung.start == start] for start in STARTS}


def table(rungs: Sequence[Rung], sample: Mapping[str, Any]) -> str:
    """The figures, a line each."""
    columns = "{:>6} {:>12} {:>19} {:>19} {:>16} {:>9} {:>9} {:>13}"
    head = (
        "start",
        "temperatures",
        "lower",
        "upper",
        "width",
        "seconds",
        "on a core",
        "prior needs",
    )
    lines, of = [columns.format(*head)], by_start(rungs)
    for rung in rungs:
        sides = [f"{mean:.3f} +- {error:.3f}" for mean, error in (rung.lower, rung.upper)]
        width = "{:.3f} +- {:.3f}".format(*rung.width)
        times = (f"{rung.seconds:.1f}", f"{rung.busy:.1f}")
        prior = in_words(needed(rung.lower[0], of["prior"]), of["prior"][-1].temperatures)
        more = prior if rung.start == "guide" else ""
        row = (rung.start, rung.temperatures, *sides, width, *times, more)
        lines.append(columns.format(*row).rstrip())
    lines.append(
        f"importance sampling, {sample['particles']:,} draws of the guide: "
        f"{sample['log_evidence']:.3f} +- {sample['log_evidence_stderr']:.3f}, k-hat above 0.7 "
        f"for {100 * sample['untrusted']:.0f} % of the images, {sample['busy']:.1f} s"
    )
    return "\n".join(lines)


def in_words(temperatures: float, most: int) -> str:
    """A number of temperatures, or that the longest path did not get there."""
    return f"more than {most}" if math.isinf(temperatures) else f"{temperatures:.0f}"


def curves(rungs: Sequence[Rung]) -> dict[str, plots.WidthCurve]:
    """Width and lower bound against the number of temperatures, for each start."""
    found = {}
    for start, each in by_start(rungs).items():
        if each:
            width, width_error = zip(*(rung.width for rung in each), strict=True)
            lower, chains = [rung.lower[0] for rung in each], [rung.chains for rung in each]
            budget = [rung.temperatures for rung in each]
            found[start] = plots.WidthCurve(budget, width, width_error, lower, chains)
    return found


def climb(
    pair: Pair, budgets: Mapping[str, Sequence[int]], annealing: Annealing, count: int, seed: int
) -> Iterator[tuple[Rung, Tensor]]:
    """Rung after rung, the short paths first, each with its images.

    Raises:
        RuntimeError: if two budgets were given different images.
    """
    first = None
    for number in sorted({t for each in budgets.values() for t in each}):
        for start in (start for start, each in budgets.items() if number in each):
            path = annealing._replace(temperatures=number)
            rung, x = climbed(pair, start, path, count, seed)
            first = x if first is None else first
            if not torch.equal(first, x):
                raise RuntimeError("Budgets need the same images; got others from one seed.")
            yield rung, x


def main(
    epochs: int = 8,
    temperatures: tuple[int, ...] = (10, 20, 50, 100, 200, 500),
    prior_temperatures: tuple[int, ...] = (10, 20, 50, 100, 200),
    leapfrogs: int = 10,
    chains: int = 8,
    count: int = 100,
    particles: int = 5000,
    data_root: str | None = None,
    seed: int = 0,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Brackets images of the pair's own with growing budgets, prints and draws the widths.

    Args:
        epochs: passes over the 60,000 training images.
        temperatures: budgets of paths that begin at the guide.
        prior_temperatures: of those that begin at the prior.
        leapfrogs: of each transition.
        chains: of each image.
        count: how many images are drawn.
        particles: draws of importance sampling.
        data_root: folder of MNIST; else BAYESVAE_DATA, else the cache.
        seed: of all random numbers.
        out: folder of figures, picture and pair.
    """
    kept = out / f"brackets-{epochs}-epochs-seed-{seed}.pt"
    pair = trained(data.mnist(data_root).train, epochs, seed, kept)
    budgets = {"guide": temperatures, "prior": prior_temperatures}
    annealing = Annealing(leapfrogs=leapfrogs, chains=chains)
    found: dict[str, Any] = {"epochs": epochs, "leapfrogs": leapfrogs, "chains": chains}
    found |= {"count": count, "seed": seed}
    found["machine"] = facts() | {"threads": os.environ.get("OMP_NUM_THREADS")}
    rungs: list[Rung] = []
    for rung, x in climb(pair, budgets, annealing, count, seed):
        if not rungs:
            found["importance_sampling"] = sampled(pair, x, particles)
        rungs.append(rung)
        print(f"{rung.start} {rung.temperatures}: {rung.width[0]:.3f} nats", flush=True)
        files.save_json(
            out / "brackets.json", found | {"rungs": [each._asdict() for each in rungs]}
        )
    print(table(rungs, found["importance_sampling"]))
    plots.save(plots.bracket_widths(curves(rungs)), out / "brackets.png")


if __name__ == "__main__":
    command.run(main)
