"""The autoencoder pair is an autoencoder, and says what it cannot do."""

import math
from functools import partial

import pytest
import torch
from catalog import BATCH, FEATURES, LATENTS, binary, levels, mlp, real
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from sklearn.decomposition import PCA

from bayesvae import (
    baselines,
    check_pair,
    compare,
    fit,
    generate,
    likelihoods,
    log_evidence,
    networks,
    objectives,
)
from bayesvae.data import Loader

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SCALE = 0.3

LIKELIHOODS = {
    "Normal": (lambda: likelihoods.Normal(mlp(LATENTS, outputs=FEATURES), scale=SCALE), real),
    "Normal, learned": (lambda: likelihoods.Normal(mlp(LATENTS, outputs=FEATURES)), real),
    "Bernoulli": (
        lambda: likelihoods.Bernoulli(mlp(LATENTS, outputs=FEATURES)),
        lambda: binary(FEATURES),
    ),
    "Categorical": (
        lambda: likelihoods.Categorical(mlp(LATENTS, outputs=(FEATURES, 3))),
        levels,
    ),
    "Poisson": (lambda: likelihoods.Poisson(mlp(LATENTS, outputs=FEATURES)), levels),
}

OBJECTIVES = {
    "elbo": objectives.elbo,
    "elbo, several draws": partial(objectives.elbo, particles=3),
    "elbo, analytic KL": partial(objectives.elbo, analytic_kl=True),
    "Trace_ELBO": Trace_ELBO(),
    "TraceMeanField_ELBO": TraceMeanField_ELBO(),
}


@pytest.fixture(params=LIKELIHOODS)
def any_pair(request):
    """An autoencoder and data for it."""
    likelihood, data = LIKELIHOODS[request.param]
    return baselines.autoencoder(likelihood(), mlp(FEATURES, outputs=LATENTS), LATENTS), data()


def normal_pair():
    """An autoencoder with its parts: pair, encoder, decoder."""
    encoder, decoder = mlp(FEATURES, outputs=LATENTS), mlp(LATENTS, outputs=FEATURES)
    likelihood = likelihoods.Normal(decoder, scale=SCALE)
    return baselines.autoencoder(likelihood, encoder, LATENTS), encoder, decoder


def squared_error(encoder, decoder, x):
    """Of each datum's reconstruction, ``(B,)``."""
    return (x - decoder(encoder(x))).square().sum(-1)


# Squared error in other units ----------------------------------------------------------------


def test_a_normal_likelihood_of_fixed_scale_is_squared_error_up_to_a_constant():
    pair, encoder, decoder = normal_pair()
    x, likelihood = real(), pair.model_part_0.likelihood
    constant = FEATURES / 2 * math.log(2 * math.pi * SCALE**2)
    expected = squared_error(encoder, decoder, x) / (2 * SCALE**2) + constant
    torch.testing.assert_close(-likelihood(encoder(x)).log_prob(x), expected, **EXACT)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_bound_and_its_gradient_are_those_of_squared_error(objective):
    """Catches a prior or guide term that is not nil, in value or in gradient."""
    pair, encoder, decoder = normal_pair()
    x = real()
    bound = objectives.per_datum(objective, BATCH)(pair.model, pair.guide, x, torch.arange(BATCH))
    error = squared_error(encoder, decoder, x).mean()
    constant = FEATURES / 2 * math.log(2 * math.pi * SCALE**2)
    torch.testing.assert_close(-bound, error / (2 * SCALE**2) + constant, **EXACT)
    parameters = list(pair.parameters())
    ours = torch.autograd.grad(-bound, parameters)
    theirs = torch.autograd.grad(error, parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one * 2 * SCALE**2, other, **EXACT)


def test_fit_takes_the_steps_of_a_plain_autoencoder():
    x = torch.randn(20, FEATURES)
    pair, encoder, decoder = normal_pair()
    start = {name: value.clone() for name, value in pair.state_dict().items()}
    optimizer = partial(torch.optim.SGD, lr=1e-2)
    batches = Loader(x, batch_size=5)
    fit(pair, batches, epochs=3, optimizer=optimizer, progress=False)
    fitted = [p.detach().clone() for p in pair.parameters()]
    pair.load_state_dict(start)
    steps = optimizer(pair.parameters())
    for batch, _ in [batch for _ in range(3) for batch in batches]:
        (squared_error(encoder, decoder, batch).mean() / (2 * SCALE**2)).backward()
        steps.step()
        steps.zero_grad()
    for one, other in zip(fitted, pair.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), **EXACT)


def test_a_linear_autoencoder_finds_the_error_of_principal_components():
    x = torch.randn(200, 6) * torch.linspace(0.2, 1.5, 6)
    likelihood = likelihoods.Normal(networks.MLP(2, (), 6), scale=1.0)
    pair = baselines.autoencoder(likelihood, networks.MLP(6, (), 2), 2)
    fit(pair, x, steps=800, optimizer=partial(torch.optim.Adam, lr=1e-2), progress=False)
    pca = PCA(2).fit(x.numpy())
    best = (x.numpy() - pca.inverse_transform(pca.transform(x.numpy()))) ** 2
    error = (x - generate.reconstructions(pair, x)).square()
    assert best.mean() <= error.mean().item() < 1.02 * best.mean()


# What it can do, and what it cannot ----------------------------------------------------------


def test_the_pair_is_sound_and_trains(any_pair):
    pair, x = any_pair
    assert "latent" in check_pair(pair, x)
    history = fit(pair, x, epochs=60, progress=False)
    assert history.epochs[-1].objective > history.epochs[0].objective


def test_codes_are_the_encoders_output_whether_drawn_or_not(any_pair):
    pair, x = any_pair
    encoder, likelihood = pair.guide_part_1.network, pair.model_part_0.likelihood
    code = encoder(x).detach()
    for draw in (False, True):
        torch.testing.assert_close(generate.codes(pair, x, draw=draw)["z"], code, **EXACT)
    decoded = likelihood.mean(code).detach()
    torch.testing.assert_close(generate.reconstructions(pair, x), decoded, **EXACT)
    path = generate.interpolations(pair, x[:3], x[3:], steps=3)
    middle = likelihood.mean((code[:3] + code[3:]) / 2).detach()
    torch.testing.assert_close(path[:, 1], middle, **EXACT)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda pair, x: log_evidence(pair, x), "guide of 'z' is a point mass"),
        (lambda pair, x: compare(pair, x, progress=False), "guide of 'z' is a point mass"),
        (lambda pair, x: generate.samples(pair, 4, x.shape[1:]), "no way to sample"),
        (lambda pair, x: generate.traversals(pair, x), "no way to sample"),
    ],
    ids=["log_evidence", "compare", "samples", "traversals"],
)
def test_what_an_autoencoder_has_not_is_refused_in_words(any_pair, ask, words):
    """Catches pictures of nothing, and torch's own words about draws from NaN."""
    with pytest.raises(ValueError, match=words):
        ask(*any_pair)


def test_an_encoder_of_another_width_is_refused():
    likelihood = likelihoods.Normal(mlp(LATENTS, outputs=FEATURES))
    pair = baselines.autoencoder(likelihood, mlp(FEATURES, outputs=2 * LATENTS), LATENTS)
    with pytest.raises(ValueError, match=r"needs rows of 2 numbers; the network gives \(6, 4\)"):
        check_pair(pair, real())


def test_the_flat_prior_is_nil_everywhere_and_has_no_draws():
    prior, z = baselines.Flat(3)(), torch.randn(4, 5, 3)
    assert torch.equal(prior.log_prob(1e6 * z), torch.zeros(4, 5))
    assert prior.expand((5,)).sample((2,)).isnan().all()
    assert prior.expand((5,)).sample((2,)).shape == (2, 5, 3)
    assert baselines.Flat(3).state_dict() == {}


def test_point_masses_are_given_back_by_their_rows():
    family, rows = baselines.PointMass(3), torch.randn(4, 3)
    q = family(rows)
    assert family.size == 3
    assert torch.equal(family.rows(q), rows)
    assert family.contains(q)
    assert not family.contains(torch.distributions.Normal(rows, 1.0))
    assert not baselines.PointMass(2).contains(q)


# Paths -----------------------------------------------------------------------------------------


def path(*points):
    return torch.tensor([points], dtype=torch.float64)


PATHS = {
    "even and straight": (path([0.0, 0.0], [1.0, 1.0], [2.0, 2.0]), 1.0, 1.0),
    "round a corner": (path([0.0, 0.0], [0.0, 1.0], [1.0, 1.0]), math.sqrt(2), 1.0),
    "all at once": (path([0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0]), 1.0, 3.0),
    "there and half back": (path([0.0], [2.0], [1.0]), 3.0, 4 / 3),
}


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(("means", "detour", "jump"), PATHS.values(), ids=PATHS)
def test_path_changes_by_hand_in_any_unit(means, detour, jump, scale):
    changes = baselines.path_changes(scale * means)
    assert changes.detour.item() == pytest.approx(detour, rel=1e-12)
    assert changes.jump.item() == pytest.approx(jump, rel=1e-12)
    lengths = (scale * means).diff(dim=1).norm(dim=-1)
    torch.testing.assert_close(changes.steps, lengths, **EXACT)


def test_path_changes_are_of_each_path_over_its_whole_event():
    """Catches norms over rows of an image, and paths that share a length."""
    means = torch.randn(3, 7, 1, 4, 4)
    changes = baselines.path_changes(means)
    assert changes.steps.shape == (3, 6)
    for row, mean in enumerate(means):
        alone = baselines.path_changes(mean[None].reshape(1, 7, 16))
        for found, expected in zip(changes, alone, strict=True):
            torch.testing.assert_close(found[row], expected[0], **EXACT)
    assert (changes.detour >= 1).all()
    assert (changes.jump >= 1).all()
