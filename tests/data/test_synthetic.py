"""Made data come from the density, and show the factors, that are said to be their truth."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as dist

from bayesvae import data
from bayesvae.data.synthetic import KINDS
from bayesvae.pairs import PPCA

MAKERS = {
    "curve": data.curve,
    "curve, much noise": lambda **options: data.curve(noise=1.5, **options),
    "mixture": data.mixture,
    "mixture, 3 of 7": lambda **options: data.mixture(components=3, dim=7, **options),
    "ppca": data.ppca,
    "ppca, square": lambda **options: data.ppca(dim=3, latents=3, **options),
    "shapes": lambda **options: data.shapes(**{"size": 50, **options}),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def equal(first, second):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b, name in (
            (first.splits, second.splits, "train"),
            (first.splits, second.splits, "test"),
            (first, second, "factors"),
            (first, second, "test_factors"),
        )
    )


def test_data_depend_on_the_seed_alone_and_spare_the_global_stream(make):
    state = torch.get_rng_state()
    made = make()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert equal(made, make())
    other = make(seed=1)
    assert not torch.equal(made.splits.train, other.splits.train)


def test_the_default_type_changes_how_data_are_kept_and_not_what_they_are(make):
    double = make()
    torch.set_default_dtype(torch.float32)
    single = make()
    assert single.splits.train.dtype == single.factors.dtype == torch.float32
    torch.testing.assert_close(single.splits.train, double.splits.train.float())
    if single.log_prob is not None:
        x = single.splits.test
        assert single.log_prob(x).dtype == torch.float32
        torch.testing.assert_close(
            single.log_prob(x).double(), double.log_prob(x.double()), rtol=1e-4, atol=1e-4
        )


def test_a_fifth_is_for_testing_and_every_datum_has_its_factors(make):
    made = make(size=53)
    splits = made.splits
    assert (len(splits.train), len(splits.test)) == (43, 10)
    assert made.factors.shape == (43, len(made.factor_names))
    assert made.test_factors.shape == (10, len(made.factor_names))
    if splits.train_labels is not None:
        assert torch.equal(splits.train_labels, made.factors[:, 0].long())
        assert torch.equal(splits.test_labels, made.test_factors[:, 0].long())


# Densities --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.03, 0.2, 1.0, 5.0])
def test_the_quadrature_of_the_curve_agrees_with_another_rule_also_far_from_it(noise):
    made = data.curve(size=50, noise=noise)
    x = torch.cat([made.splits.train, torch.tensor([[0.0, 3.0], [5.0, -1.0], [-2.5, 0.0]])])
    # Gauss and Legendre's rule on short intervals.
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(20))
    width = 0.01
    starts = torch.arange(-10, 10, width)
    z = (starts[:, None] + width * (nodes + 1) / 2).flatten()
    log_weight = (weights * width / 2).log().repeat(len(starts))
    means = torch.stack([z, (2 * z).sin()], -1)
    joint = dist.Normal(0.0, 1.0).log_prob(z) + sum(
        dist.Normal(means[:, i], noise).log_prob(x[:, i, None]) for i in (0, 1)
    )
    expected = torch.logsumexp(joint + log_weight, -1)
    torch.testing.assert_close(made.log_prob(x), expected, rtol=1e-10, atol=1e-8)


PLANE = {
    "curve": lambda: data.curve(size=5000, noise=0.2),
    "curve, much noise": lambda: data.curve(size=5000, noise=1.0),
    "mixture": lambda: data.mixture(size=5000),
    "ppca": lambda: data.ppca(size=5000, dim=2, latents=1),
}


@pytest.mark.parametrize("name", PLANE)
def test_densities_in_the_plane_integrate_to_one_and_are_those_of_the_draws(name):
    made, step = PLANE[name](), 0.05
    axis = torch.arange(-10, 10, step)
    log_prob = made.log_prob(torch.cartesian_prod(axis, axis))
    p = log_prob.exp() * step**2
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = made.log_prob(made.splits.train)
    error = drawn.mean() - (p * log_prob)[p > 0].sum()
    assert error.abs() < 4.5 * drawn.std() / len(drawn) ** 0.5
    cells = [p.reshape(len(axis), -1).sum(1), p.reshape(len(axis), -1).sum(0)]
    for column, marginal in zip(made.splits.train.T, cells, strict=True):
        loc = (axis * marginal).sum()
        scale = ((axis - loc).square() * marginal).sum().sqrt()
        assert (column.mean() - loc).abs() < 4.5 * scale / len(column) ** 0.5


def test_the_density_of_the_mixture_is_that_of_torch_and_its_labels_name_their_means():
    made = data.mixture(components=4, dim=3, scale=0.1)
    means, scale = made.parameters["means"], made.parameters["scale"]
    truth = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(4)),
        dist.Independent(dist.Normal(means, scale.expand(4, 3)), 1),
    )
    x, labels = made.splits.train, made.splits.train_labels
    torch.testing.assert_close(made.log_prob(x), truth.log_prob(x), rtol=1e-10, atol=1e-10)
    assert (x - means[labels]).std().item() == pytest.approx(0.1, rel=0.05)
    assert labels.bincount().min() > 300


@pytest.mark.parametrize("sizes", [(10, 2), (3, 3), (6, 1)])
def test_linear_gaussian_data_have_the_evidence_of_their_program(sizes):
    made = data.ppca(dim=sizes[0], latents=sizes[1])
    weight, loc, noise = (made.parameters[name] for name in ("weight", "loc", "noise"))
    x, z = made.splits.train, made.factors
    expected = PPCA(weight, loc, noise).log_evidence(x)
    torch.testing.assert_close(made.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    residual = x - z @ weight.T - loc
    assert residual.std().item() == pytest.approx(noise.item(), rel=0.05)
    gram = weight.T @ weight
    assert sizes[1] == 1 or (gram - gram.diag().diag()).abs().max() > 0.1


# Shapes -----------------------------------------------------------------------------------------

AREAS = {"rectangle": 0.85 * 0.5, "ellipse": math.pi * 0.5 / 4, "triangle": 0.6 * 1.8 / 4}
IMAGE = 48


@pytest.mark.parametrize("name", KINDS)
def test_the_factors_can_be_measured_in_the_pictures(name):
    made = data.shapes(2000, image=IMAGE)
    chosen = made.splits.train_labels == KINDS.index(name)
    pictures, factors = made.splits.train[chosen, 0].double(), made.factors[chosen]
    _, x, y, scale, rotation = factors.unbind(1)
    mass = pictures.sum((1, 2))
    torch.testing.assert_close(mass / IMAGE**2, AREAS[name] * scale**2, rtol=0.06, atol=0)
    axis = (torch.arange(IMAGE) + 0.5) / IMAGE
    right = (pictures.sum(1) * axis).sum(1) / mass
    down = (pictures.sum(2) * axis).sum(1) / mass
    # The apex of a triangle is farther from its centroid than its base.
    lag = -0.1 * scale if name == "triangle" else 0 * scale
    torch.testing.assert_close(right, x + lag * rotation.cos(), rtol=0, atol=0.004)
    torch.testing.assert_close(down, y + lag * rotation.sin(), rtol=0, atol=0.004)
    u, v = axis - right[:, None], axis - down[:, None]
    uu, vv = (pictures.sum(1) * u**2).sum(1), (pictures.sum(2) * v**2).sum(1)
    uv = torch.einsum("bij,bj,bi->b", pictures, u, v)
    turn = torch.atan2(2 * uv, uu - vv) / 2 - rotation
    assert turn.sub(torch.pi * (turn / torch.pi).round()).abs().max() < 0.07


def test_shapes_are_whole_and_smooth_and_their_factors_independent():
    made = data.shapes(5000)
    x, factors = made.splits.train, made.factors
    assert x.shape == (4000, 1, 28, 28)
    assert (x.min(), x.max()) == (0, 1)
    assert all(x.select(d, end).max() == 0 for d in (2, 3) for end in (0, -1))
    assert 0.01 < ((x > 0) & (x < 1)).double().mean() < 0.1
    assert made.splits.label_names == KINDS
    assert made.splits.train_labels.bincount().min() > 1200
    correlation = torch.corrcoef(factors.T) - torch.eye(5)
    assert correlation.abs().max() < 4.5 / len(x) ** 0.5


MISUSES = {
    "too few": (lambda: data.curve(4), "size >= 5, .* got 4"),
    "no noise": (lambda: data.curve(noise=0.0), "noise to be positive; got 0.0"),
    "no components": (lambda: data.mixture(components=0), "components to be positive; got 0"),
    "too many latents": (lambda: data.ppca(dim=2, latents=3), "latents as columns; got 3 and 2"),
    "tiny images": (lambda: data.shapes(image=7), "at least 8 x 8; got 7"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_answered_in_words(misuse):
    call, words = MISUSES[misuse]
    with pytest.raises(ValueError, match=words):
        call()
