"""What is trained: sizes, priors and guides, first weights and batches.

All cases are variational autoencoders x ~ Bernoulli(decoder(z)) with networks of one hidden layer.
First weights and batches are made once, by NumPy, and handed to every contestant in a file.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class Case(NamedTuple):
    """One model and objective.

    Attributes:
        name: what ``--cases`` calls it.
        features: D, binary entries of a datum.
        hidden: units of the hidden layer of encoder and decoder.
        latent: d.
        prior: ``standard``, ``mixture`` (diagonal components, all trained) or ``vamp``.
        components: C of a mixture or Vamp prior.
        full: whether the guide has a full covariance rather than a diagonal one.
        particles: K draws of the guide a step, vectorised.
        analytic_kl: whether KL(q || p) is taken in closed form rather than sampled.
        table: N, if each datum has variational parameters of its own instead of an encoder.
        batch: B.
    """

    name: str
    features: int = 784
    hidden: int = 400
    latent: int = 20
    prior: str = "standard"
    components: int = 0
    full: bool = False
    particles: int = 1
    analytic_kl: bool = False
    table: int = 0
    batch: int = 128

    @property
    def rows(self) -> int:
        """How many variational parameters a datum has."""
        below = self.latent * (self.latent - 1) // 2
        return 2 * self.latent + (below if self.full else 0)

    @property
    def noise(self) -> tuple[int, ...]:
        """The shape of a step's standard normal draws."""
        shape = (self.batch, self.latent)
        return shape if self.particles == 1 else (self.particles, *shape)

    @property
    def title(self) -> str:
        """The sizes in words."""
        words = [f"{self.features}-{self.hidden}-{self.latent}"]
        words += [f"{self.prior} prior ({self.components})"] * (self.prior != "standard")
        words += ["full covariance"] * self.full + ["analytic KL"] * self.analytic_kl
        words += [f"{self.particles} particles"] * (self.particles > 1)
        words += [f"{self.table:,} rows"] * (self.table > 0)
        return ", ".join(words)


CASES = {
    case.name: case
    for case in (
        Case("digits", features=64, hidden=128, latent=8),
        Case("mnist"),
        Case("mnist-analytic", analytic_kl=True),
        Case("mixture", prior="mixture", components=20),
        Case("vamp", prior="vamp", components=100),
        Case("particles", particles=16),
        Case("full", full=True),
    )
}

GROWTH = {
    "batch size": [Case(f"batch {n}", batch=n) for n in (32, 128, 512, 2048)],
    "latents": [Case(f"latents {n}", latent=n) for n in (2, 20, 100, 200)],
    "components": [
        Case(f"components {n}", prior="mixture", components=n) for n in (2, 20, 100, 500)
    ],
    "data, a row each": [Case(f"rows {n}", table=n) for n in (1_000, 10_000, 60_000)],
}


def first_weights(case: Case, x: np.ndarray, seed: int = 0) -> Arrays:
    """What every contestant starts from, by name; torch's default range for affine maps.

    Args:
        case: the model.
        x: binary data ``(N, D)``, from which pseudo-inputs start.
        seed: of NumPy's generator.

    Returns:
        Weights ``(out, in)`` and biases of the networks, and the prior's parameters.

    Example:
        >>> first_weights(Case("tiny", 4, 3, 2), np.zeros((5, 4)))["encoder.0.weight"].shape
        (3, 4)
    """
    draw = np.random.default_rng(seed)
    made: Arrays = {}
    widths = {"decoder": (case.latent, case.hidden, case.features)}
    if not case.table:
        widths["encoder"] = (case.features, case.hidden, case.rows)
    for network, sizes in widths.items():
        for layer, (before, after) in enumerate(pairwise(sizes)):
            bound = 1 / math.sqrt(before)
            made[f"{network}.{layer}.weight"] = draw.uniform(-bound, bound, (after, before))
            made[f"{network}.{layer}.bias"] = draw.uniform(-bound, bound, after)
    if case.table:
        made["table"] = np.zeros((case.table, case.rows))
    return {k: v.astype(np.float32) for k, v in (made | _first_prior(case, x, draw)).items()}


def _first_prior(case: Case, x: np.ndarray, draw: np.random.Generator) -> Arrays:
    if case.prior == "mixture":
        raw = np.full((case.components, case.latent), math.log(math.expm1(1.0)))
        loc = draw.standard_normal((case.components, case.latent))
        return {"prior.logits": np.zeros(case.components), "prior.rows": np.hstack([loc, raw])}
    if case.prior == "vamp":
        chosen = x[np.linspace(0, len(x) - 1, case.components).astype(int)].clip(0.05, 0.95)
        return {"prior.raw_inputs": np.log(chosen / (1 - chosen))}
    return {}


def batches(case: Case, x: np.ndarray, limit: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Batches that stay in memory, ``(M, B, D)``, and the rows' positions ``(M, B)``.

    Args:
        case: the model.
        x: binary data ``(N, D)``; repeated where they are fewer than two batches.
        limit: the largest M.

    Example:
        >>> x, index = batches(Case("tiny", 4, 3, 2, batch=2), np.eye(4))
        >>> x.shape, index.tolist()
        ((2, 2, 4), [[0, 1], [2, 3]])
    """
    size = case.table or len(x)
    count = min(limit, max(2, size // case.batch))
    index = np.arange(count * case.batch).reshape(count, case.batch) % size
    return x[index % len(x)].astype(np.float32), index.astype(np.int64)
