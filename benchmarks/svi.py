"""The same pair trained by `bayesvae.fit` and by `pyro.infer.SVI`, in turns, epoch by epoch.

MNIST, 784-400-20, dynamic binarisation, batch 128, Adam 1e-3.  Prints the test ELBO and the
training time of both, and the median over epochs of the ratio of their times.

    python -m benchmarks.svi --epochs 30 --data-root FOLDER
"""

import copy
import statistics
import time
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from bayesvae import Pair, data, families, fit, guides, likelihoods, networks, pairs, priors
from bayesvae.core.files import save_json
from bayesvae.evidence import elbo_per_datum, log_evidence
from benchmarks import command


def make_pair(x: torch.Tensor) -> Pair:
    """784-400-20 with ReLU."""
    event = x.shape[1:]
    decoder = networks.MLP(20, (400,), event, output_bias=networks.data_logits(x))
    encoder = networks.MLP(event, (400,), 40)
    return pairs.vae(
        priors.StandardNormal(20),
        likelihoods.Bernoulli(decoder),
        guides.Amortized(encoder, families.Normal(20)),
    )


def main(
    epochs: int = 30,
    data_root: str | None = None,
    seed: int = 0,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Trains both and prints what they reached and took.

    Args:
        epochs: passes over the 60,000 training images.
        data_root: folder of MNIST; else BAYESVAE_DATA, else the cache.
        seed: of all random numbers.
        out: folder for the JSON file.
    """
    splits = data.mnist(data_root)
    test = data.static_binarisation(splits.test, seed)
    torch.manual_seed(seed)
    ours = make_pair(splits.train)
    theirs = copy.deepcopy(ours)
    loader = data.Loader(splits.train, 128, shuffle=True, transform=torch.bernoulli)
    svi = SVI(theirs.model, theirs.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    pyro.enable_validation(False)
    seconds: dict[str, list[float]] = {"fit": [], "svi": []}
    adam = _Kept(partial(torch.optim.Adam, lr=1e-3, fused=True))
    for epoch in range(epochs):
        start = time.perf_counter()
        fit(ours, loader, Trace_ELBO(), epochs=1, optimizer=adam, progress=False)
        seconds["fit"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for x, index in loader:
            svi.step(x, index)
        seconds["svi"].append(time.perf_counter() - start)
        print(f"epoch {epoch + 1}: fit {seconds['fit'][-1]:.1f} s, SVI {seconds['svi'][-1]:.1f} s")
    figures = {"epochs": epochs, "seed": seed, "threads": torch.get_num_threads()}
    for name, pair in (("fit", ours), ("svi", theirs)):
        elbo, stderr = elbo_per_datum(pair, test, 50).mean()
        evidence, evidence_stderr = log_evidence(pair, test[:2000], 500).mean()
        figures[name] = {
            "test_elbo": elbo,
            "test_elbo_stderr": stderr,
            "test_log_evidence_of_2000": evidence,
            "test_log_evidence_of_2000_stderr": evidence_stderr,
            "median_seconds_per_epoch": statistics.median(seconds[name]),
        }
        print(f"{name}: test ELBO {elbo:.3f} +- {stderr:.3f}, log p(x) {evidence:.3f}")
    ratios = [a / b for a, b in zip(seconds["fit"], seconds["svi"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"time of fit / time of SVI, median over epochs: {ratio:.3f}")
    save_json(out / "svi.json", {**figures, "time_ratio": ratio})


class _Kept:
    """Makes one optimiser and hands it out again, so that its state outlives an epoch's `fit`."""

    def __init__(self, make: partial) -> None:
        self.make, self.made = make, None

    def __call__(self, parameters: list) -> torch.optim.Optimizer:
        self.made = self.made or self.make(parameters)
        return self.made


if __name__ == "__main__":
    command.run(main)
