"""Pairs run forwards whose latents are discrete, or whose data have no known mean."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesvae import Pair, generate


class Switched(torch.nn.Module):
    """A latent that picks a row of a table: a number between two rows would pick none."""

    def __init__(self, likelihood):
        super().__init__()
        self.table, self.likelihood = torch.nn.Parameter(torch.randn(3, 2)), likelihood

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.sample("x", self.likelihood(self.table[z]), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.3, 0.4]).expand(len(x), 3)))


def test_a_discrete_latent_has_draws_for_codes_and_no_mean_between_its_values():
    switched = Switched(lambda loc: dist.Normal(loc, 1.0).to_event(1))
    pair = Pair(switched.model, switched.guide)
    x = torch.randn(40, 2)
    z = generate.codes(pair, x)["z"]
    assert set(z.tolist()) == {0, 1, 2}
    assert torch.equal(generate.means(pair, {"z": z}, (2,)), switched.table.detach()[z])


def test_a_likelihood_without_a_known_mean_is_told_in_words():
    exp = dist.transforms.ExpTransform()
    switched = Switched(
        lambda loc: dist.TransformedDistribution(dist.Normal(loc, 1.0).to_event(1), [exp])
    )
    pair = Pair(switched.model, switched.guide)
    with pytest.raises(ValueError, match="which 'x' has not"):
        generate.means(pair, {"z": torch.zeros(4).long()}, (2,))
