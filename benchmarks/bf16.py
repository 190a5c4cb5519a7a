"""What half precision in the networks costs in nats: the same pairs trained in float32 and bf16.

MNIST, 784-400-20, dynamic binarisation, batch 128, Adam 1e-3.  From each seed two pairs start with
equal weights, data and noise; both are judged in float32 on the test images.  The difference is
paired over images; between seeds it varies by more than that, because two trainings part ways on
rounding alone, so the standard error over seeds is the one to look at.

    python -m benchmarks.bf16 --epochs 20 --seeds 3 --data-root FOLDER
"""

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesvae import data, fit
from bayesvae.core.estimates import mean_and_error
from bayesvae.core.files import save_json
from bayesvae.evidence import elbo_per_datum
from benchmarks import command
from benchmarks.speed.machine import facts
from benchmarks.svi import make_pair

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def trained(
    x: Tensor, test: Tensor, epochs: int, particles: int, seed: int, networks: torch.dtype | None
) -> tuple[Tensor, float]:
    """Trains a pair; returns the ELBO of each test image ``(N,)`` and the seconds of an epoch."""
    torch.manual_seed(seed)
    pair = make_pair(x)
    loader = data.Loader(x, 128, shuffle=True, transform=torch.bernoulli)
    start = time.perf_counter()
    fit(pair, loader, epochs=epochs, compile=True, networks=networks, progress=False)
    seconds = (time.perf_counter() - start) / epochs
    torch.manual_seed(seed)
    return elbo_per_datum(pair, test, particles).value, seconds


def compared(bounds: dict[str, Tensor]) -> dict[str, float]:
    """Means and paired difference over images, nats, each with its standard error.

    Example:
        >>> one = torch.tensor([-100.0, -90.0])
        >>> compared({"float32": one, "bfloat16": one + 1})["difference"]
        1.0
    """
    row = {}
    values = {**bounds, "difference": bounds["bfloat16"] - bounds["float32"]}
    for name, value in values.items():
        row[name], row[f"{name}_stderr"] = mean_and_error(value)
    return row


def main(
    epochs: int = 20,
    seeds: int = 3,
    particles: int = 50,
    images: int | None = None,
    data_root: str | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Trains pairs in both precisions and prints what became of them.

    Args:
        epochs: passes over the training images.
        seeds: pairs a precision.
        particles: draws for the ELBO of a test image.
        images: how many training images to use, for a trial; all if not given.
        data_root: folder of MNIST; else BAYESVAE_DATA, else the cache.
        out: folder for the JSON file.
    """
    splits = data.mnist(data_root)
    test = data.static_binarisation(splits.test)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        bounds, seconds = {}, {}
        for name, networks in PRECISIONS.items():
            bounds[name], seconds[name] = trained(
                splits.train[:images], test, epochs, particles, seed, networks
            )
        rows.append({"seed": seed, "seconds_per_epoch": seconds, **compared(bounds)})
        print(in_words(rows[-1]), flush=True)
    found: dict[str, Any] = {"epochs": epochs, "images": images, "seeds": rows}
    found["machine"] = facts() | {"threads": os.environ.get("OMP_NUM_THREADS")}
    mean, stderr = mean_and_error(torch.tensor([row["difference"] for row in rows]))
    found |= {"difference": mean, "difference_stderr_over_seeds": stderr}
    print(f"bfloat16 - float32, over seeds: {mean:+.3f} +- {stderr:.3f} nats per image")
    save_json(out / "bf16.json", found)


def in_words(row: dict[str, Any]) -> str:
    """One line a seed."""
    bounds = ", ".join(f"{n} {row[n]:.3f} +- {row[f'{n}_stderr']:.3f}" for n in PRECISIONS)
    seconds = " and ".join(f"{row['seconds_per_epoch'][n]:.1f}" for n in PRECISIONS)
    return (
        f"seed {row['seed']}: test ELBO {bounds}; difference {row['difference']:+.3f} +- "
        f"{row['difference_stderr']:.3f} nats, paired over images; {seconds} s an epoch"
    )


if __name__ == "__main__":
    command.run(main)
