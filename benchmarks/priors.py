"""log p(x) on unseen data for several priors: same decoder, same guide's network, same budget.

    python -m benchmarks.priors --data-set digits
    python -m benchmarks.priors --data-set mnist --data-root FOLDER

Prints a table and saves it as JSON.  Data are binarised afresh in each batch; the test set once.
"""

import time
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bayesvae import (
    Pair,
    data,
    families,
    fit,
    guides,
    likelihoods,
    log_evidence,
    networks,
    objectives,
    pairs,
    priors,
)
from bayesvae.core.files import save_json
from bayesvae.evidence import elbo_per_datum
from benchmarks import command


def make_pairs(x: Tensor, latent: int, hidden: int) -> dict[str, Pair]:
    """One pair a prior; ``x`` gives shapes, output biases and Vamp's first pseudo-inputs."""
    event, bits = x.shape[1:], data.static_binarisation(x)
    family = families.Normal(latent)

    def likelihood() -> likelihoods.Bernoulli:
        bias = networks.data_logits(x)
        return likelihoods.Bernoulli(networks.MLP(latent, (hidden,), event, output_bias=bias))

    def guide() -> guides.Amortized:
        return guides.Amortized(networks.MLP(event, (hidden,), family.size), family)

    encoder = guide()
    half = latent // 2
    between = likelihoods.Normal(
        networks.MLP(half, (100,), latent), networks.MLP(half, (100,), latent)
    )
    upper = guides.Amortized(networks.MLP(latent, (100,), 2 * half), families.Normal(half))
    return {
        "StandardNormal": pairs.vae(priors.StandardNormal(latent), likelihood(), guide()),
        "Normal (full covariance)": pairs.vae(priors.Normal(latent), likelihood(), guide()),
        "Mixture (20, diagonal)": pairs.vae(priors.Mixture(latent, 20), likelihood(), guide()),
        "Vamp (100)": pairs.vae(priors.Vamp(encoder, bits, 100), likelihood(), encoder),
        f"two layers ({latent}, {half})": pairs.hierarchical(
            priors.StandardNormal(half), [between], likelihood(), [guide(), upper]
        ),
    }


def main(
    data_set: Literal["digits", "mnist", "fashion-mnist"] = "digits",
    latent: int = 20,
    hidden: int = 400,
    epochs: int = 30,
    warmup: float = 0.2,
    particles: int = 1000,
    evaluate: int = 2000,
    seed: int = 0,
    data_root: str | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Trains a pair a prior and prints log p(x) of unseen data.

    Args:
        data_set: which data.
        latent: latents next to the data.
        hidden: units of the hidden layer of encoder and decoder.
        epochs: passes over the training data.
        warmup: share of the steps over which the KL weight grows from 0 to 1.
        particles: draws for log p(x).
        evaluate: unseen data used.
        seed: of all random numbers.
        data_root: folder of MNIST; else BAYESVAE_DATA, else the cache.
        out: folder for the JSON file.
    """
    readers = {"mnist": data.mnist, "fashion-mnist": data.fashion_mnist}
    splits = data.digits() if data_set == "digits" else readers[data_set](data_root)
    test = data.static_binarisation(splits.test, seed)[:evaluate]
    loader = data.Loader(splits.train, 128, shuffle=True, transform=torch.bernoulli)
    rows = {}
    print("| prior | ELBO | log p(x) | seconds |\n| --- | --- | --- | --- |")
    torch.manual_seed(seed)
    for name, pair in make_pairs(splits.train, latent, hidden).items():
        torch.manual_seed(seed)
        start = time.perf_counter()
        fit(
            pair,
            loader,
            partial(objectives.elbo, analytic_kl=True),
            epochs=epochs,
            kl_weight=objectives.linear_warmup(max(1, int(warmup * epochs * len(loader)))),
            progress=False,
        )
        seconds = time.perf_counter() - start
        elbo, elbo_stderr = elbo_per_datum(pair, test, 100).mean()
        value, stderr = log_evidence(pair, test, particles).mean()
        rows[name] = {
            "elbo": elbo,
            "elbo_stderr": elbo_stderr,
            "log_evidence": value,
            "log_evidence_stderr": stderr,
            "seconds": seconds,
        }
        bounds = f"{elbo:.2f} +- {elbo_stderr:.2f} | {value:.2f} +- {stderr:.2f}"
        print(f"| {name} | {bounds} | {seconds:.0f} |", flush=True)
    facts = {"epochs": epochs, "particles": particles, "test_data": len(test), "seed": seed}
    save_json(out / f"priors-{data_set}-{seed}.json", {**facts, "priors": rows})


if __name__ == "__main__":
    command.run(main)
