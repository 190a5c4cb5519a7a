"""Any log-density on the grid of a two-dimensional latent, beside the posterior and the guide."""

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import drawn, rotated

from bayesvae import generate
from bayesvae.pairs import ppca

EXACT = {"rtol": 0, "atol": 1e-10}


def test_other_densities_of_any_shape_are_put_on_the_grid_datum_by_datum():
    """Catches data or coordinates exchanged, and densities cut into parts in another order."""
    model = rotated()
    x = drawn(model, 3)
    first, second = torch.linspace(-6, 6, 121), torch.linspace(-7, 7, 141)
    loc = torch.randn(3, 2, 2)
    parts = dist.Normal(loc, torch.tensor([0.4, 0.8])).to_event(1)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.full((3, 2), 0.5)), parts)
    others = {"mixture": mixture.log_prob, "posterior": model.posterior(x).log_prob}
    found = generate.posterior_grid(ppca(model), x, first, second, others, at_once=1000)
    assert list(found.log_guides) == ["guide", "mixture", "posterior"]
    point = torch.stack([first[30], second[90]])
    expected = mixture.log_prob(point)
    torch.testing.assert_close(found.log_guides["mixture"][:, 90, 30], expected, **EXACT)
    same = found.log_guides["posterior"]
    torch.testing.assert_close(same, found.log_guides["guide"], **EXACT)
    evidence = (found.log_joint - same).flatten(1)
    torch.testing.assert_close(evidence, model.log_evidence(x)[:, None].expand_as(evidence))


def test_a_density_that_is_not_one_number_a_point_and_datum_is_refused():
    model, axis = rotated(), torch.zeros(2)
    x, others = drawn(model, 3), {"entries": dist.Normal(torch.zeros(3, 2), 1.0).log_prob}
    with pytest.raises(ValueError, match=r"'entries' .* got \(4, 3, 2\) for 4 points and 3 data"):
        generate.posterior_grid(ppca(model), x, axis, axis, others)
