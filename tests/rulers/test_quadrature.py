"""Quadrature has the evidence and the posterior of pairs where they are known, and says if not."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import drawn, kl_to_posterior, rotated, shifted
from pyro import poutine
from torch.testing import assert_close

from bayesvae import families, guides, likelihoods, networks, pairs, priors
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.pair import Pair
from bayesvae.core.programs import given
from bayesvae.pairs import PPCA, ppca
from bayesvae.rulers import SharedMean, quadrature
from bayesvae.rulers.boxes import TAIL, Box, Frame, Values, covering

TO = {"rtol": 0.0, "atol": 1e-8}
EXACT = {"rtol": 0.0, "atol": 1e-12}


def pair_of(model, guide):
    """Programs of x alone as a pair."""
    return Pair(model, guide)


def normal_guide(site="z", loc=0.0, scale=1.0, dim=None):
    def guide(x):
        with pyro.plate("data", len(x)):
            q = dist.Normal(loc, scale)
            pyro.sample(site, q if dim is None else q.expand([dim]).to_event(1))

    return guide


# Known answers -----------------------------------------------------------------------------------

BESIDE = {
    "exact": {},
    "off by ten deviations": {"shift": 10.0},
    "a hundred times too narrow": {"widen": 0.01},
    "a hundred times too wide": {"widen": 100.0},
    "narrow and far off": {"shift": 30.0, "widen": 0.1},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("dim", [1, 2])
def test_linear_gaussian_is_exact_wherever_the_guide_looks(dim, beside):
    model = rotated(dim=dim)
    x = drawn(model, 4)
    found = quadrature(shifted(model, **BESIDE[beside]), x)
    posterior = model.posterior(x)
    assert_close(found.log_evidence, model.log_evidence(x).detach(), **TO)
    assert_close(found.mean(), posterior.mean.detach(), **TO)
    assert_close(found.covariance(), posterior.covariance_matrix.detach(), **TO)
    assert_close(found.log_posterior, posterior.log_prob(found.u).detach(), **TO)
    assert_close(found.mass.sum(0), torch.ones(4), **EXACT)
    assert found.error.max() < 1e-10


def test_an_all_but_singular_posterior_is_found_along_its_own_axes():
    """On a grid along the latents' axes the ridge would fall between the points."""
    model = PPCA(torch.tensor([[1.0, 1.0], [1.0, 1.0001]]), torch.zeros(2), 0.01)
    x = drawn(model, 3)
    covariance = model.posterior(x).covariance_matrix[0]
    assert (covariance[0, 1] / covariance[0, 0]).abs() > 0.9998
    found = quadrature(ppca(model), x)
    assert_close(found.log_evidence, model.log_evidence(x).detach(), **TO)
    assert found.error.max() < 1e-8


def gamma_poisson(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(SHAPE, 1.5))
        pyro.sample("x", dist.Poisson(rate), obs=x)


SHAPE = 0.5


def log_normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.LogNormal(0.0, 1.0))


def test_a_constrained_latent_with_a_heavy_tail_is_the_gamma_poisson():
    """log rate falls off like exp(u / 2) on one side, so no fixed number of deviations will do."""
    x = torch.tensor([0.0, 1.0, 4.0, 200.0])
    found = quadrature(pair_of(gamma_poisson, log_normal), x)
    assert_close(found.log_evidence, dist.GammaPoisson(SHAPE, 1.5).log_prob(x), **TO)
    rate = found.expectation(found.u.exp()).squeeze(-1)
    assert_close(rate, (SHAPE + x) / 2.5, rtol=1e-8, atol=0.0)


def test_two_sites_of_one_entry_each_are_one_plane():
    """x = a + b + noise, a in the real numbers and log b normal, against a sum over b alone."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.LogNormal(0.0, 0.5))
            pyro.sample("x", dist.Normal(a + b, 0.3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("b", dist.LogNormal(0.0, 1.0))

    x, u = torch.tensor([-2.0, 0.5, 5.0]), torch.linspace(-6, 6, 6001)[:, None]
    density = dist.Normal(0.0, 0.5).log_prob(u)
    density = density + dist.Normal(u.exp(), math.hypot(1.0, 0.3)).log_prob(x)
    expected = torch.trapezoid(density.exp(), u, dim=0).log()
    assert_close(quadrature(pair_of(model, guide), x).log_evidence, expected, **TO)


def bent(dim, noise=0.2):
    """A posterior along z_2 = x - z_1^2."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 1] + 2 * z[..., 0] ** 2, noise), obs=x)

    return pair_of(model, normal_guide(dim=dim))


def test_a_banana_agrees_with_a_much_finer_grid_and_with_a_line_integral():
    """Given z_1 the rest is normal, which leaves a sum over z_1 alone."""
    x = torch.tensor([0.0, 2.0, 6.0])
    found, finer = quadrature(bent(2), x), quadrature(bent(2), x, points=385)
    first = torch.linspace(-9, 9, 20001)[:, None]
    density = dist.Normal(0.0, 1.0).log_prob(first)
    density = density + dist.Normal(2 * first**2, math.hypot(1.0, 0.2)).log_prob(x)
    expected = torch.trapezoid(density.exp(), first, dim=0).log()
    assert_close(finer.log_evidence, expected, **TO)
    assert_close(found.log_evidence, expected, **TO)
    assert_close(found.mean(), finer.mean(), **TO)
    assert_close(found.covariance(), finer.covariance(), **TO)


def test_two_modes_are_both_counted():
    """x = z^2 + noise leaves the sign of z open."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z**2, 0.1), obs=x)

    x, z = torch.tensor([1.0, 4.0]), torch.linspace(-9, 9, 40001)[:, None]
    density = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.1).log_prob(x)
    expected = torch.trapezoid(density.exp(), z, dim=0).log()
    found = quadrature(pair_of(model, normal_guide()), x)
    assert_close(found.log_evidence, expected, **TO)
    assert_close(found.mean(), torch.zeros(2, 1), **TO)


def decoded():
    return pairs.vae(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(networks.MLP(2, (16,), 5, torch.nn.Tanh)),
        guides.Amortized(networks.MLP(5, (16,), 4, torch.nn.Tanh), families.Normal(2)),
    )


def test_a_neural_decoder_has_the_evidence_that_many_prior_draws_have():
    pair, x = decoded(), torch.randint(2, (3, 5)).double()
    z = torch.randn(200_000, 1, 2)
    weight = pair.get_submodule("model_part_0").likelihood(z).log_prob(x).exp()
    error = weight.std(0) / weight.mean(0) / len(z) ** 0.5
    found = quadrature(pair, x)
    difference = found.log_evidence - weight.mean(0).log()
    assert ((difference / error).abs() < 4.5).all()
    assert found.error.max() < 1e-8


# What it says of itself --------------------------------------------------------------------------


def test_the_error_shows_a_grid_that_is_too_coarse_and_overstates_a_small_one():
    x = torch.tensor([0.0, 2.0, 6.0])
    finer = quadrature(bent(2, noise=0.1), x, points=513)
    assert finer.error.max() < 1e-10
    for points in (33, 65, 97, 129, 193):
        found = quadrature(bent(2, noise=0.1), x, points=points)
        wrong, small = (found.log_evidence - finer.log_evidence).abs(), found.error < 1e-2
        assert (wrong[small] < found.error[small] / 10 + 1e-12).all()
        assert (found.error[wrong > 1e-4] > 1e-2).all()
        assert points > 33 or (wrong > 1e-2).any()
        assert points < 193 or small.all()


def test_the_grid_ends_where_the_density_has_died_down():
    """A coarser one has seen too little of it where it is thin."""
    x, n = torch.tensor([0.0, 2.0, 6.0]), 331
    found = quadrature(bent(2, noise=0.1), x, points=n)
    shaped = found.log_posterior.reshape(n, n, len(x))
    for across in (0, 1):
        profile = shaped.logsumexp(across)
        ends = profile[[0, -1]] - profile.amax(0)
        assert ends.max() < -TAIL
        assert ends.max() > -TAIL * 10, "and not far beyond"


def test_grids_too_coarse_to_see_their_density_come_to_an_end():
    """Rows of points step over a ridge by turns, so that faces might move in and out forever."""
    for _ in range(300):
        width, x, n = (
            10 ** (-3 * torch.rand(())),
            3 * torch.randn(()),
            2 * torch.randint(4, 33, ()),
        )

        def values(box, width=width, x=x):
            first, second = box.points().unbind(-1)
            ridge = ((x - second - 2 * first**2) / width) ** 2
            density = -0.5 * (first**2 + second**2 + ridge)
            return Values(density, density)

        tril = 0.9 * torch.randn(1, 2, 2).tril(-1) + (torch.rand(1, 2) + 0.05).diag_embed()
        start = Box.around(Frame(torch.randn(1, 2), tril), 10.0, int(n) + 1)
        box, found = covering(start, values)
        assert box.resized(found.log_density, crop=False)[1]


def test_memory_cuts_the_work_and_not_the_numbers(monkeypatch):
    pair, x = decoded(), torch.randint(2, (3, 5)).double()
    sizes, at = [], Coordinates.at

    def watched(self, u, *batch):
        sizes.append(len(u))
        return at(self, u, *batch)

    monkeypatch.setattr(Coordinates, "at", watched)
    found = []
    for memory in (2**28, 2**20):
        torch.manual_seed(1)
        found.append(quadrature(pair, x, points=33, memory=memory).log_evidence)
        largest, sizes = max(sizes), []
        assert (largest == 65**2) == (memory == 2**28)
    assert_close(*found, **EXACT)


def test_divergences_are_those_of_normals():
    model = rotated()
    x = drawn(model, 4)
    loc, covariance = model.posterior(x).mean.detach(), model.posterior(x).covariance_matrix[0]
    found = quadrature(ppca(model), x)
    for shift, scale in [(0.0, 1.0), (0.5, 1.0), (0.0, 0.6)]:
        tril = scale * torch.linalg.cholesky(covariance.detach())
        q = dist.MultivariateNormal(loc + shift, scale_tril=tril)
        assert_close(found.kl(q), kl_to_posterior(model, q, x).detach(), **TO)


def test_a_wide_approximation_is_covered_on_demand_and_refused_otherwise():
    """Its tails beyond the posterior's grid are most of its divergence."""
    model = rotated()
    x = drawn(model, 4)
    q = dist.Normal(model.posterior(x).mean.detach() + 1.0, 2.0).to_event(1)
    with pytest.raises(ValueError, match="cover=q"):
        quadrature(ppca(model), x).kl(q)
    found = quadrature(ppca(model), x, cover=q, points=257)
    assert_close(found.kl(q), kl_to_posterior(model, q, x).detach(), **TO)
    assert_close(found.log_evidence, model.log_evidence(x).detach(), **TO)


def test_nothing_of_the_pair_is_changed_and_no_gradient_kept():
    pair, x = decoded(), torch.randint(2, (3, 5)).double()
    pair.train()
    found = quadrature(pair, x, points=33)
    assert pair.training
    assert not found.log_evidence.requires_grad
    assert all(p.grad is None for p in pair.parameters())


# Refusals ----------------------------------------------------------------------------------------


def masked(x):
    with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def discrete(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def not_a_number(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(torch.nan * z, 1.0), obs=x)


def partly_not_a_number(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal((z + 1).sqrt(), 1.0), obs=x)


@pytest.mark.parametrize(
    ("pair", "options", "words"),
    [
        (lambda: bent(3), {}, r"\['z'\] have 3 entries"),
        (lambda: pair_of(masked, normal_guide()), {}, "still sat on an edge.*masked out"),
        (lambda: pair_of(discrete, discrete), {}, "'z' is Bernoulli"),
        (lambda: pair_of(not_a_number, normal_guide()), {}, "no density at all"),
        (lambda: pair_of(partly_not_a_number, normal_guide()), {}, "NaN or infinite"),
        (lambda: SharedMean().pair(), {}, r"\['mean'\] belong to all"),
        (lambda: bent(2), {"points": 64}, "odd number of points"),
        (lambda: bent(2), {"points": 7}, "9 or more"),
        (lambda: bent(2), {"width": 0.0}, "width > 0"),
    ],
)
def test_what_no_grid_can_do_is_refused_in_words(pair, options, words):
    with pytest.raises(ValueError, match=words):
        quadrature(pair(), torch.tensor([1.0, 0.0]), **options)


def test_shared_latents_can_be_fixed():
    ruler, x, values = SharedMean(), torch.randn(4), {"mean": torch.tensor(0.3)}
    pair = ruler.pair()
    found = quadrature(Pair(given(pair.model, values), given(pair.guide, values)), x)
    assert_close(found.log_evidence, ruler.log_evidence(x, values["mean"]).detach(), **TO)
