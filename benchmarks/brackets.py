"""How wide the bracket of log p(x) is for what budget, started at the guide and at the prior.

A 784-400-20 pair trained on MNIST, and images drawn from it, the same for every budget: so the
lower bounds of two budgets can be subtracted.  Beside them what importance sampling from the guide
says of the same images.  The trained pair is kept, so that a repeat is quick.

    python -m benchmarks.brackets --data_root FOLDER
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
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from torch import Tensor

from bayesvae import Annealing, bracket, checkpoint, data, fit, log_evidence, plots, proposals
from bayesvae.estimates import mean_and_error
from bayesvae.pair import Pair
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
        error: the root mean square of the standard errors of single lower bounds.
    """

    start: str
    temperatures: int
    seconds: float
    busy: float
    lower: tuple[float, float]
    upper: tuple[float, float]
    width: tuple[float, float]
    error: float


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
        pair.load_state_dict(checkpoint.load_state(kept))
        return pair
    loader = data.Loader(x, 128, shuffle=True, transform=torch.bernoulli)
    fit(pair, loader, epochs=epochs)
    checkpoint.save_state(kept, pair.state_dict())
    return pair


def climbed(pair: Pair, start: str, annealing: Annealing, count: int, seed: int) -> tuple:
    """A rung, and the images ``(count, 1, 28, 28)``, which depend on the seed alone."""
    torch.manual_seed(seed)
    path, began = annealing._replace(start=STARTS[start]), time.process_time()
    found = bracket(pair, count, (1, 28, 28), path, progress=False)
    sides = (found.lower.value, found.upper.value, found.width)
    error = found.lower.stderr.square().mean().sqrt().item()
    times = (found.seconds, time.process_time() - began)
    rung = Rung(start, path.temperatures, *times, *map(mean_and_error, sides), error)
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


def figure(rungs: Sequence[Rung], sample: Mapping[str, Any]) -> Figure:
    """Both bounds against the number of temperatures, below them the width."""
    best = max(rungs, key=lambda rung: rung.lower[0]).lower[0]
    drawn = Figure(figsize=(8.0, 6.0), layout="constrained")
    bounds, widths = drawn.subplots(2, 1, sharex=True)
    colours = dict(zip(STARTS, ("#0072B2", "#D55E00"), strict=True))
    for start, each in by_start(rungs).items():
        if not each:
            continue
        t, style = [rung.temperatures for rung in each], {"color": colours[start]}
        lower, upper = (
            [s[0] - best for s in side]
            for side in zip(*((r.lower, r.upper) for r in each), strict=True)
        )
        bounds.fill_between(t, lower, upper, alpha=0.2, linewidth=0, **style)
        bounds.plot(t, lower, "o-", label=f"started at the {start}", **style)
        bounds.plot(t, upper, "o--", **style)
        mean, error = zip(*(rung.width for rung in each), strict=True)
        widths.errorbar(t, mean, error, fmt="o-", **style)
    level = sample["log_evidence"] - best
    text = f"importance sampling, {sample['particles']:,} draws"
    bounds.axhline(level, color="#555555", linestyle=":", label=text)
    bounds.set_ylabel("bounds of log p(x), nats,\nagainst the best lower one")
    bounds.legend(frameon=False)
    widths.axhline(0.0, color="#555555", linewidth=0.8)
    widths.set(xscale="log", xlabel="temperatures", ylabel="width (nats)")
    widths.set_xticks(sorted({rung.temperatures for rung in rungs}))
    widths.xaxis.set_major_formatter("{x:.0f}")
    widths.minorticks_off()
    return drawn


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
    out: Path = Path("runs/benchmarks/brackets.json"),
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
        out: where the figures are saved; the picture goes beside them, the pair too.
    """
    kept = out.with_name(f"brackets-{epochs}-epochs-seed-{seed}.pt")
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
        checkpoint.save_json(out, found | {"rungs": [each._asdict() for each in rungs]})
    print(table(rungs, found["importance_sampling"]))
    plots.save(figure(rungs, found["importance_sampling"]), out.with_suffix(".png"))


if __name__ == "__main__":
    auto_cli(main)
