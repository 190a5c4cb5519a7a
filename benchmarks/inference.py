"""What inference costs for a thousand MNIST images, the pair held fixed.

A 784-400-20 pair is trained once and kept.  Then, for the first test images binarised once:

    diagonal, full, flow    the per-datapoint optimum of a family: seconds, L[q*], last movement
    hmc                     Hamiltonian chains for all images at once, with `pyro.infer.NUTS` for
                            the first of them beside it: as many draws, and how far the posterior
                            means are apart, in standard errors

Prints a line a part and saves each as JSON, so that parts may be run one at a time.  Seconds are
those on the wall; beside them stand those that a core worked for it, and how many cores others
kept busy meanwhile: on a machine that is shared the former are upper bounds.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from bayesvae import Pair, chains, compare, data, families, fit, objectives
from bayesvae.core.estimates import mean_and_error
from bayesvae.core.files import load_state, save_json, save_state
from bayesvae.optima import Ascent
from benchmarks.speed import machine
from benchmarks.svi import make_pair

Figures = dict[str, Any]
Found = TypeVar("Found")


class Size(NamedTuple):
    """How much is done.

    Attributes:
        images: how many data.
        epochs: of the pair's training.
        train: training images, all if None.
        chains: of each datum.
        warmup: transitions before the draws.
        draws: of each chain.
        ascent: how optima are sought.
    """

    images: int = 1000
    epochs: int = 10
    train: int | None = None
    chains: int = 4
    warmup: int = 250
    draws: int = 250
    ascent: Ascent = Ascent()


QUICK = Size(20, 1, 2000, 2, 20, 20, Ascent(window=5, windows=2))
FAMILIES = {
    "diagonal": families.Normal,
    "full": families.MultivariateNormal,
    "flow": families.Flow,
}
PARTS = (*FAMILIES, "hmc")
BOUNDS = ("optimum", "guide", "gained")


def trained(x: Tensor, size: Size, folder: Path) -> Pair:
    """The pair, from its file if there is one."""
    torch.manual_seed(0)
    pair, path = make_pair(x), folder / f"inference-pair-{size.epochs}-{size.train or 'all'}.pt"
    if path.exists():
        pair.load_state_dict(load_state(path))
    else:
        loader = data.Loader(x[: size.train], 128, shuffle=True, transform=torch.bernoulli)
        objective = partial(objectives.elbo, analytic_kl=True)
        fit(pair, loader, objective, epochs=size.epochs, progress=False)
        save_state(path, pair.state_dict())
    return pair.requires_grad_(False)


def timed(work: Callable[[], Found]) -> tuple[Found, Figures]:
    """What some work found, and what it took."""
    before = machine.read([os.getpid()])
    found = work()
    after = machine.read([os.getpid()])
    return found, {
        "seconds": after.seconds - before.seconds,
        "seconds_of_a_core": (after.own - before.own) / os.sysconf("SC_CLK_TCK"),
        "cores_of_others": machine.others(before, after),
    }


def optimum(make: Callable[[int], families.Family], pair: Pair, x: Tensor, size: Size) -> Figures:
    """L[q*] of one family, started from the guide and from the prior."""
    settings = {"particles": 200, "evidence_particles": 200, "ascent": size.ascent}
    found, taken = timed(lambda: compare(pair, x, families=(make,), progress=False, **settings))
    split, search = found.splits["train"], found.prices[-1]
    ((name, bound),) = split.bounds.items()
    values = (bound.value, split.guide.value, bound.value - split.guide.value)
    taken |= {
        "family": name,
        "seconds_of_the_search": search.seconds * len(x) / 1000,
        "last_movement": split.movement[name],
    }
    for key, value in zip(BOUNDS, values, strict=True):
        taken[key], taken[f"{key}_stderr"] = mean_and_error(value)
    return taken


def hamiltonian(pair: Pair, x: Tensor, size: Size) -> Figures:
    """Chains of every datum, and Pyro's for the first."""
    lengths = {"chains": size.chains, "draws": size.draws, "warmup": size.warmup}
    found, ours = timed(lambda: chains.sample(pair, x, **lengths, progress=False))
    ours |= {
        "largest_r_hat": found.r_hat.max().item(),
        "median_r_hat": found.r_hat.median().item(),
        "share_below_1.01": (found.r_hat < 1.01).double().mean().item(),
        "data_with_divergences": int((found.divergences > 0).sum()),
        "median_effective_sample_size": found.effective_sample_size.median().item(),
    }
    first = found.draws["z"][:, :, 0].transpose(0, 1)
    theirs, pyros = timed(lambda: nuts(pair, x[:1], size))
    pyros |= beside(theirs, first)
    return lengths | {"chains_of_all": ours, "nuts_on_one": pyros}


def nuts(pair: Pair, x: Tensor, size: Size) -> Tensor:
    """Pyro's sampler on one datum ``(1, *event)``, chain after chain: draws ``(C, S, d)``."""
    draws = []
    for _ in range(size.chains):
        run = MCMC(NUTS(pair.model), size.draws, size.warmup, disable_progbar=True)
        run.run(x, torch.zeros(1, dtype=torch.long))
        draws.append(run.get_samples()["z"][:, 0])
    return torch.stack(draws)


def beside(theirs: Tensor, ours: Tensor) -> Figures:
    """How Pyro's draws of a posterior agree among themselves and with ours, ``(C, S, d)`` each."""
    apart = standardised(ours.double(), theirs.double()).abs()
    return {
        "largest_r_hat": split_gelman_rubin(theirs).max().item(),
        "smallest_effective_sample_size": effective_sample_size(theirs).min().item(),
        "means_apart": apart.square().mean().sqrt().item(),
        "largest_apart": apart.max().item(),
        "latents": len(apart),
    }


def standardised(first: Tensor, second: Tensor) -> Tensor:
    """Differences of the means of draws ``(C, S, d)`` in standard errors, ``(d,)``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> first, second = torch.randn(2, 4, 500, 3)
        >>> bool(standardised(first, second).abs().max() < 4)
        True
        >>> bool(standardised(first, second + 1).max() < -10)
        True
    """
    means, errors = [], []
    for draws in (first, second):
        means.append(draws.mean((0, 1)))
        errors.append(draws.flatten(0, 1).var(0) / effective_sample_size(draws))
    return (means[0] - means[1]) / sum(errors).sqrt()


def bounds_in_words(found: Figures) -> str:
    """A line of an optimum."""
    bounds = (f"{key} {found[key]:.3f} +- {found[f'{key}_stderr']:.3f}" for key in BOUNDS)
    return (
        f"{_time(found)}, search {found['seconds_of_the_search']:.1f} s; "
        f"{', '.join(bounds)} nats; last movement {found['last_movement']:+.4f}"
    )


def chains_in_words(found: Figures) -> str:
    """A line of the chains and one of Pyro's."""
    ours, pyros = found["chains_of_all"], found["nuts_on_one"]
    return (
        f"{_time(ours)}; R-hat at most {ours['largest_r_hat']:.3f}, "
        f"{ours['share_below_1.01']:.1%} below 1.01, "
        f"divergences at {ours['data_with_divergences']} data\n"
        f"NUTS on the first: {_time(pyros)}; R-hat at most {pyros['largest_r_hat']:.3f}; "
        f"means apart by {pyros['means_apart']:.2f} standard errors (root mean square), "
        f"at most {pyros['largest_apart']:.2f} of {pyros['latents']}"
    )


def _time(found: Figures) -> str:
    return (
        f"{found['seconds']:.1f} s ({found['seconds_of_a_core']:.1f} s of a core, others used "
        f"{found['cores_of_others']:.1f} cores)"
    )


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = made.add_argument, Size()
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="NAME",
        help=f"of {', '.join(PARTS)} (all)",
    )
    add("--images", type=int, default=default.images, help="data (%(default)s)")
    add("--epochs", type=int, default=default.epochs, help="of the training (%(default)s)")
    add("--data-root", help="folder of MNIST; else BAYESVAE_DATA, the cache, or the network")
    add("--out", type=Path, default=Path("runs/benchmarks"), help="folder of pair and figures")
    add("--quick", action="store_true", help="a minute, to see whether all runs")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts that are asked for."""
    options = parser().parse_args(arguments)
    size = QUICK if options.quick else Size(options.images, options.epochs)
    splits = data.mnist(options.data_root)
    x = data.static_binarisation(splits.test[: size.images])
    pair = trained(splits.train, size, options.out)
    facts = {"images": len(x), "epochs": size.epochs, "quick": options.quick}
    facts["machine"] = machine.facts() | {"threads": torch.get_num_threads()}
    for part in options.parts:
        torch.manual_seed(0)
        if part in FAMILIES:
            found = optimum(FAMILIES[part], pair, x, size)
            words = bounds_in_words(found)
        else:
            found = hamiltonian(pair, x, size)
            words = chains_in_words(found)
        print(f"{part}, {len(x)} images: {words}", flush=True)
        save_json(options.out / f"inference-{part}.json", facts | found)


if __name__ == "__main__":
    main()
