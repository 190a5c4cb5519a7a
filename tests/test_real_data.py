"""On real images: training equals Pyro's own, and the bounds stand in the order of theory."""

import copy
from functools import partial
from itertools import pairwise

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from bayesvae import compare, data, families, fit, guides, likelihoods, networks, pairs, priors
from bayesvae.core.estimates import mean_and_error


@pytest.fixture(autouse=True)
def single_precision(_float64_and_seed):
    """Images are float32, as a user has them."""
    torch.set_default_dtype(torch.float32)


def make_pair(x, latent, hidden):
    event, family = x.shape[1:], families.Normal(latent)
    bias = networks.data_logits(x)
    return pairs.vae(
        priors.StandardNormal(latent),
        likelihoods.Bernoulli(networks.MLP(latent, (hidden,), event, output_bias=bias)),
        guides.Amortized(networks.MLP(event, (hidden,), family.size), family),
    )


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_fit_takes_the_steps_of_svi(loss):
    """Catches anything that fit does to the loss, the stream of noise or the optimiser.

    Float64, whole batches and a vanishing epsilon: Adam is then blind to the factor between the
    two losses.
    """
    x = data.digits().train[:1280].double()
    torch.set_default_dtype(torch.float64)
    adam = {"lr": 1e-3, "eps": 1e-30}
    ours = make_pair(x, 4, 32)
    theirs = copy.deepcopy(ours)
    batches = data.Loader(x, 128, shuffle=True, transform=torch.bernoulli)
    torch.manual_seed(1)
    make = partial(torch.optim.Adam, **adam)
    fit(ours, batches, loss(), epochs=2, optimizer=make, progress=False)
    torch.manual_seed(1)
    svi = SVI(theirs.model, theirs.guide, pyro.optim.Adam(adam), loss())
    for _ in range(2):
        for images, index in batches:
            svi.step(images, index)
    for (name, mine), yours in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            mine, yours, rtol=0, atol=1e-7, msg=lambda m, n=name: f"{n} {m}"
        )


def assert_ordered(comparison):
    """L[q_phi] <= L[q* diagonal] <= L[q* full] <= log p(x), within 4 paired standard errors."""
    for split in comparison.splits.values():
        ladder = [split.guide, *split.bounds.values(), split.log_evidence]
        for lower, upper in pairwise(ladder):
            mean, error = mean_and_error(upper.value - lower.value)
            assert mean > -4 * error
        gap, error = mean_and_error(split.amortization_gap)
        assert gap > 4 * error, "an encoder that costs nothing was not compared with its optimum"


def test_the_bounds_stand_in_order_on_digits():
    splits = data.digits()
    pair = make_pair(splits.train, 8, 64)
    batches = data.Loader(splits.train, 128, shuffle=True, transform=torch.bernoulli)
    fit(pair, batches, epochs=60, progress=False)
    bits = [data.static_binarisation(x[:100]) for x in (splits.train, splits.test)]
    assert_ordered(compare(pair, *bits, progress=False))


@pytest.mark.data
@pytest.mark.slow
def test_the_bounds_stand_in_order_on_mnist(need):
    need("MNIST/raw")
    splits = data.mnist()
    pair = make_pair(splits.train, 20, 200)
    batches = data.Loader(splits.train[:20000], 128, shuffle=True, transform=torch.bernoulli)
    fit(pair, batches, epochs=4, progress=False)
    bits = [data.static_binarisation(x[:60]) for x in (splits.train, splits.test)]
    assert_ordered(compare(pair, *bits, progress=False))
