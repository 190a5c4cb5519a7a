"""One decoder trained by four routes, against the clock: amortized, semi-amortized, a row a datum.

    python -m benchmarks.routes --data-set digits --seconds 20
    python -m benchmarks.routes --data-set mnist --size 2000 --data-root FOLDER

Prints the table and saves it as CSV and as a figure.  Data are binarised once.
"""

import time
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from bayesvae import (
    compare,
    compare_training,
    data,
    families,
    fit,
    likelihoods,
    networks,
    plots,
    priors,
)
from bayesvae.pairs import LatentLayers
from bayesvae.training import RowAdam
from benchmarks import command


def main(
    data_set: Literal["digits", "mnist", "fashion-mnist"] = "digits",
    size: int = 2000,
    latent: int = 8,
    hidden: int = 200,
    seconds: float = 30.0,
    cpu_time: bool = False,
    moments: int = 7,
    examined: int = 200,
    row_rate: float = 0.05,
    compile: bool = False,
    seed: int = 0,
    data_root: str | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Trains by every route and prints the bounds along the way.

    Args:
        data_set: which data.
        size: training data used.
        latent: latents of a datum.
        hidden: units of the hidden layer of encoder and decoder.
        seconds: of training for each route.
        cpu_time: whether to count the processor's seconds, for a machine with other work to do.
        moments: how many are looked at, each twice as late as the one before.
        examined: training and unseen data that bounds are estimated on.
        row_rate: step size of rows; those of networks have 0.001.
        compile: whether to compile the steps at once, rather than never.
        seed: of all random numbers.
        data_root: folder of MNIST; else BAYESVAE_DATA, else the cache.
        out: folder for the files.
    """
    readers = {"mnist": data.mnist, "fashion-mnist": data.fashion_mnist}
    splits = data.digits() if data_set == "digits" else readers[data_set](data_root)
    x = data.static_binarisation(splits.train[:size], seed)
    unseen = data.static_binarisation(splits.test[:examined], seed)
    torch.manual_seed(seed)
    family, bias = families.Normal(latent), networks.data_logits(x)
    decoder = networks.MLP(latent, (hidden,), x.shape[1:], output_bias=bias)
    comparison = compare_training(
        LatentLayers(priors.StandardNormal(latent), (), likelihoods.Bernoulli(decoder)),
        networks.MLP(x.shape[1:], (hidden,), family.size),
        family,
        x,
        unseen,
        seconds=seconds,
        clock=time.process_time if cpu_time else time.perf_counter,
        moments=moments,
        examined=examined,
        train=partial(fit, row_optimizer=partial(RowAdam, lr=row_rate), compile=compile),
        judge=partial(compare, evidence_particles=500, compile=False),
    )
    print(comparison)
    name = f"routes-{data_set}-{seed}"
    comparison.to_csv(out / f"{name}.csv")
    plots.save(comparison.figure(), out / f"{name}.png")


if __name__ == "__main__":
    command.run(main)
