"""One small instance of every component, and of every way in which a pair may be written.

Generic tests run over all of them, so a new component is one line in `CATALOG`.  Builders take no
arguments and draw from torch's generator: call them inside a test, where dtype and seed are set.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
import zuko
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from bayesvae import families, guides, likelihoods, networks, pairs, priors
from bayesvae.core.pair import Pair
from bayesvae.pairs import PPCA

SIZE, BATCH, FEATURES, LATENTS = 10, 6, 3, 2
IMAGE = (1, 4, 4)


class Case(NamedTuple):
    """A pair with a batch that it accepts, and what is known about it.

    Attributes:
        pair: the pair.
        x: the batch, ``(BATCH, *event)``.
        index: positions of its rows in a data set of `SIZE`; pairs may ignore it.
        nesting: how many dims the plates take.
        size: N as the pair's own data plate states it; None if it states the batch's size.
        same_order: whether the latents come in the same order in model and guide, which is when
            Pyro's TraceMeanField_ELBO is unbiased.
        shared: whether sites lie outside the data plate.
        statements: whether parameters are plain ``pyro.param`` tensors, which Pyro keys by name.
    """

    pair: Pair
    x: Tensor
    index: Tensor
    nesting: int = 1
    size: int | None = None
    same_order: bool = True
    shared: bool = False
    statements: bool = False


mlp = partial(networks.MLP, hidden=(5,), activation=nn.Tanh)


def positions() -> Tensor:
    return torch.tensor([7, 0, 3, 9, 5, 1])


def real() -> Tensor:
    return torch.randn(BATCH, FEATURES)


def binary(*event: int) -> Tensor:
    return torch.randint(2, (BATCH, *event)).to(torch.get_default_dtype())


def amortized(family: families.Family | None = None) -> guides.Amortized:
    family = families.Normal(LATENTS) if family is None else family
    return guides.Amortized(mlp(FEATURES, outputs=family.size), family)


def per_datapoint(family: families.Family) -> guides.PerDatapoint:
    guide = guides.PerDatapoint(SIZE, family)
    nn.init.normal_(guide.rows)  # so that it matters which row a datum gets
    return guide


def decoder(*event: int) -> nn.Module:
    return mlp(LATENTS, outputs=event or (FEATURES,))


def vae(prior=None, likelihood=None, guide=None, x=None) -> Case:
    """A textbook pair with one part of it exchanged."""
    pair = pairs.vae(
        priors.StandardNormal(LATENTS) if prior is None else prior,
        likelihoods.Normal(decoder(), scale=0.7) if likelihood is None else likelihood,
        amortized() if guide is None else guide,
    )
    return Case(pair, real() if x is None else x, positions())


def vamp() -> Case:
    guide, x = amortized(), real()
    return vae(prior=priors.Vamp(guide, x, components=3), guide=guide, x=x)


def convolutional() -> Case:
    family = families.Normal(LATENTS)
    encoder = networks.ConvEncoder(IMAGE, family.size, channels=(2, 3), activation=nn.Tanh)
    image = networks.ConvDecoder(LATENTS, IMAGE, channels=(3, 2), activation=nn.Tanh)
    guide = guides.Amortized(encoder, family)
    return vae(likelihood=likelihoods.Bernoulli(image), guide=guide, x=binary(*IMAGE))


def layered(widths: tuple[int, ...], with_vamp: bool = False) -> Case:
    """Latents of the given widths, lowest first; the guide climbs, the model descends."""
    x = real()
    posteriors = [
        guides.Amortized(mlp(below, outputs=2 * width), families.Normal(width))
        for below, width in zip((FEATURES, *widths), widths, strict=False)
    ]
    conditionals = [
        likelihoods.Normal(mlp(above, outputs=below), scale=mlp(above, outputs=below))
        for below, above in pairwise(widths)
    ]
    prior = priors.StandardNormal(widths[-1])
    if with_vamp:
        prior = priors.Vamp(pairs.BottomUp(posteriors), x, components=3)
    likelihood = likelihoods.Normal(mlp(widths[0], outputs=FEATURES))
    pair = pairs.hierarchical(prior, conditionals, likelihood, posteriors)
    return Case(pair, x, positions(), same_order=False)


def linear(guide=None) -> Case:
    model = PPCA(torch.randn(FEATURES, LATENTS), torch.randn(FEATURES), 0.5)
    return Case(pairs.ppca(model, guide), real(), positions())


# Pairs written by hand ----------------------------------------------------------------------


class TutorialVAE(nn.Module):
    """As in Pyro's own VAE tutorial: no index, x flattened inside, ``pyro.module`` statements."""

    def __init__(self) -> None:
        super().__init__()
        pixels = torch.Size(IMAGE).numel()
        self.encoder = nn.Sequential(nn.Linear(pixels, 5), nn.Softplus(), nn.Linear(5, 4))
        self.decoder = nn.Sequential(nn.Linear(LATENTS, 5), nn.Softplus(), nn.Linear(5, pixels))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc = x.new_zeros(x.shape[0], LATENTS)
            scale = x.new_ones(x.shape[0], LATENTS)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            probs = torch.sigmoid(self.decoder(z))
            pixels = x.reshape(-1, torch.Size(IMAGE).numel())
            pyro.sample("obs", dist.Bernoulli(probs).to_event(1), obs=pixels)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x.reshape(x.shape[0], -1)).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


def statement_model(x, index=None):
    weight = pyro.param("weight", lambda: torch.randn(LATENTS, FEATURES))
    noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, noise).to_event(1), obs=x)


def statement_guide(x):
    gain = pyro.param("gain", lambda: torch.randn(FEATURES, LATENTS))
    width = pyro.param("width", 0.3 * torch.ones(LATENTS), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ gain, width).to_event(1))


class PyroPrograms(PyroModule):
    """A model in Pyro's own module class, with a constrained parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PyroModule[nn.Linear](LATENTS, FEATURES)
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.network(z), self.noise).to_event(1), obs=x)


class ByHand(nn.Module):
    """An affine decoder and encoder for the pairs below."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENTS, FEATURES)
        self.encoder = nn.Linear(FEATURES, LATENTS)
        self.raw_width = nn.Parameter(torch.randn(LATENTS))

    def latents(self):
        return dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1)

    def likelihood(self, z):
        return dist.Normal(self.decoder(z), 0.7).to_event(1)

    def posterior(self, x):
        return dist.Normal(self.encoder(x), self.raw_width.exp()).to_event(1)


class Shared(ByHand):
    """A latent and an observation of the whole data set, outside the data plate."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(LATENTS))

    def model(self, x):
        w = pyro.sample("w", self.latents())
        pyro.sample("gauge", dist.Normal(w.sum(-1), 2.0), obs=torch.tensor(0.4))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.latents())
            pyro.sample("x", self.likelihood(z + w), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.shift, 0.4).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))


class ExtraPlate(nn.Module):
    """One scalar latent a feature, in a plate to the left of the data's."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.gain = (nn.Parameter(torch.randn(FEATURES, 1)) for _ in range(2))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("features", FEATURES, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.slope * z, 0.7), obs=x.T)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("features", FEATURES, dim=-2):
            pyro.sample("z", dist.Normal(self.gain * x.T, 0.4))


class Subsampled(ByHand):
    """The plate knows N, and subsamples the guide's parameter with a row a datum."""

    def model(self, x, index):
        with pyro.plate("data", SIZE, subsample=index):
            z = pyro.sample("z", self.latents())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x, index):
        with pyro.plate("data", SIZE, subsample=index):
            rows = pyro.param("rows", lambda: torch.randn(SIZE, LATENTS), event_dim=1)
            loc = rows + self.encoder(x)
            pyro.sample("z", dist.Normal(loc, self.raw_width.exp()).to_event(1))


class Masked(ByHand):
    """Only some of the data count, on both sides."""

    def model(self, x):
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            z = pyro.sample("z", self.latents())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("z", self.posterior(x))


class GammaPrior(nn.Module):
    """A user's own prior."""

    def __init__(self) -> None:
        super().__init__()
        self.raw_rate = nn.Parameter(torch.zeros(LATENTS))

    def forward(self):
        return dist.Gamma(2.0, self.raw_rate.exp()).to_event(1)


class LogNormalFamily:
    """A user's own family, with no more than a family has to offer."""

    size = 2 * LATENTS

    def __call__(self, rows):
        loc, raw = rows.chunk(2, -1)
        return dist.LogNormal(loc, families.positive(raw)).to_event(1)

    def rows(self, distribution):
        variance = torch.log1p(distribution.variance / distribution.mean**2)
        loc = distribution.mean.log() - variance / 2
        return torch.cat([loc, families.raw_of(variance.sqrt())], -1)

    def contains(self, distribution):
        return isinstance(getattr(distribution, "base_dist", None), dist.LogNormal)


def by_hand(programs: nn.Module, **facts) -> Case:
    return Case(Pair(programs.model, programs.guide), real(), positions(), **facts)


def full() -> families.Family:
    return families.MultivariateNormal(LATENTS)


def low_rank() -> families.Family:
    return families.LowRankNormal(LATENTS, rank=1)


def mixture() -> families.Family:
    return families.NormalMixture(LATENTS, components=2)


def flow() -> families.Family:
    return families.Flow(LATENTS, transforms=1, hidden=(3,), bins=2)


def semi_amortized(family: families.Family) -> Case:
    model = PPCA(torch.randn(FEATURES, LATENTS), torch.randn(FEATURES), 0.5)
    network = mlp(FEATURES, outputs=family.size)
    # With steps q itself is noisy: see tests/families/test_guides.py.
    guide = guides.SemiAmortized(network, family, model, steps=0)
    return Case(pairs.ppca(model, guide), real(), positions())


def levels() -> Tensor:
    return binary(FEATURES) + binary(FEATURES)


CATALOG: dict[str, Callable[[], Case]] = {
    "prior StandardNormal": vae,
    "prior Normal": lambda: vae(prior=priors.Normal(LATENTS)),
    "prior Mixture diagonal": lambda: vae(prior=priors.Mixture(LATENTS, 3)),
    "prior Mixture full": lambda: vae(
        prior=priors.Mixture(LATENTS, 3, families.MultivariateNormal)
    ),
    "prior Vamp": vamp,
    "prior zuko flow": lambda: vae(
        prior=zuko.flows.MAF(LATENTS, transforms=1, hidden_features=(4,), activation=nn.Tanh)
    ),
    "likelihood Bernoulli": lambda: vae(
        likelihood=likelihoods.Bernoulli(decoder()), x=binary(FEATURES)
    ),
    "likelihood Normal learned scale": lambda: vae(likelihood=likelihoods.Normal(decoder())),
    "likelihood Normal scale network": lambda: vae(
        likelihood=likelihoods.Normal(decoder(), scale=decoder())
    ),
    "likelihood Categorical": lambda: vae(
        likelihood=likelihoods.Categorical(decoder(FEATURES, 3)), x=levels()
    ),
    "likelihood Poisson": lambda: vae(likelihood=likelihoods.Poisson(decoder()), x=levels()),
    "networks Conv": convolutional,
    "guide Amortized full": lambda: vae(guide=amortized(full())),
    "guide Amortized low rank": lambda: vae(guide=amortized(low_rank())),
    "guide Amortized mixture": lambda: vae(guide=amortized(mixture())),
    "guide Amortized flow": lambda: vae(guide=amortized(flow())),
    "guide PerDatapoint flow": lambda: vae(guide=per_datapoint(flow())),
    "guide SemiAmortized, no steps": lambda: semi_amortized(flow()),
    "guide PerDatapoint diagonal": lambda: vae(guide=per_datapoint(families.Normal(LATENTS))),
    "guide PerDatapoint full": lambda: vae(guide=per_datapoint(full())),
    "hierarchical 2 layers": lambda: layered((3, 2)),
    "hierarchical 3 layers": lambda: layered((3, 2, 2)),
    "hierarchical 3 layers, Vamp": lambda: layered((3, 2, 2), with_vamp=True),
    "ppca exact guide": linear,
    "ppca amortized": lambda: linear(amortized()),
    "by hand, Pyro's tutorial": lambda: by_hand(TutorialVAE())._replace(x=binary(*IMAGE)),
    "by hand, pyro.param alone": lambda: Case(
        Pair(statement_model, statement_guide), real(), positions(), statements=True
    ),
    "by hand, PyroModule": lambda: Case(
        Pair(PyroPrograms(), amortized().forward), real(), positions()
    ),
    "by hand, shared latent": lambda: by_hand(Shared(), shared=True),
    "by hand, extra plate": lambda: by_hand(ExtraPlate(), nesting=2),
    "by hand, subsampling plate": lambda: by_hand(Subsampled(), size=SIZE, statements=True),
    "by hand, masks on both sides": lambda: by_hand(Masked()),
    "user's prior and family": lambda: vae(prior=GammaPrior(), guide=amortized(LogNormalFamily())),
}

JUMPING = {"guide Amortized mixture"}
"""Cases whose draws from one seed jump where parameters move, though their gradients are those of
the distribution (`tests/families/test_guides.py` holds them to that)."""
