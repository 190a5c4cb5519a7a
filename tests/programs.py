"""Small programs put together from parts, for the tests of `check_pair`."""

import pyro
import pyro.distributions as dist
import torch
from catalog import BATCH

from bayesvae.core.pair import Pair

D = 2  # features, and latents


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def data(x, **named):
    return pyro.plate("data", len(x), **named)


def pair_of(
    prior=lambda: normal(torch.zeros(D)),
    likelihood=normal,
    posterior=normal,
    opens_in_model=data,
    opens_in_guide=data,
):
    """A pair that is sound unless a part makes it otherwise."""

    def model(x):
        with opens_in_model(x):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with opens_in_guide(x):
            pyro.sample("z", posterior(x))

    return Pair(model, guide)


def scalars(likelihood):
    """A pair with one scalar latent a datum."""
    return pair_of(
        prior=lambda: dist.Normal(0.0, 1.0),
        posterior=lambda x: dist.Normal(x.reshape(len(x), -1).mean(1), 1.0),
        likelihood=likelihood,
    )


def supports(prior, posterior):
    """A pair with a scalar latent of the given prior and guide."""
    return pair_of(
        prior=lambda: prior,
        posterior=lambda x: posterior.expand([len(x)]),
        likelihood=lambda z: normal(z.to(torch.get_default_dtype()).unsqueeze(-1).expand(-1, D)),
    )


def without_plate(x):
    """Replaces the plate by something of no effect."""
    return pyro.poutine.scale(scale=1.0)


class FeaturesFirst:
    """A data plate to the left of another one."""

    def __init__(self, x):
        self.plates = data(x, dim=-2), pyro.plate("features", D, dim=-1)

    def __enter__(self):
        for plate in self.plates:
            plate.__enter__()

    def __exit__(self, *error):
        for plate in reversed(self.plates):
            plate.__exit__(*error)


def guide_of(*names):
    """A pair whose guide samples these sites."""

    def guide(x):
        with data(x):
            for name in names:
                pyro.sample(name, normal(x))

    return Pair(pair_of().model, guide)


def plate_of_the_data_alone():
    """The model draws one z a datum, but outside the plate."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), D), 1.0).to_event(2))
        with data(x):
            pyro.sample("x", normal(z), obs=x)

    return Pair(model, pair_of().guide)


def real(*event):
    return torch.randn(BATCH, *event)


def levels(value):
    """Zeros and one value among them."""
    x = torch.zeros(BATCH, D)
    x[2, 1] = value
    return x


def bernoulli(z):
    return dist.Bernoulli(logits=z).to_event(1)


def no_event(shape):
    """A pair that forgets that the features of a datum belong together."""
    return pair_of(
        prior=lambda: normal(torch.zeros(shape)), likelihood=lambda z: dist.Normal(z, 1.0)
    )
