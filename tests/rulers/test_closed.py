"""Rulers without time against scikit-learn and dense normals."""

import pyro.distributions as dist
import pytest
import sklearn.decomposition
import sklearn.mixture
import torch
from ruler_catalog import EXACT, FEATURES, LATENTS, STATES, factors, mixture, tril
from torch.testing import assert_close

from bayesvae.core import trace
from bayesvae.pairs import PPCA
from bayesvae.rulers import CategoricalComponents, FactorAnalysis, NormalComponents, SharedMean


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_factor_analysis_is_that_of_scikit_learn():
    ruler, x = factors(), torch.randn(6, FEATURES)
    theirs = sklearn.decomposition.FactorAnalysis(LATENTS)
    theirs.components_ = ruler.weight.T.numpy()
    theirs.mean_, theirs.noise_variance_ = ruler.loc.numpy(), ruler.scales.square().numpy()
    assert_close(ruler.log_evidence(x), torch.tensor(theirs.score_samples(x.numpy())), **EXACT)
    means = torch.tensor(theirs.transform(x.numpy()))
    assert_close(ruler.posterior(x).mean, means, **EXACT)


def test_factor_analysis_with_one_scale_is_probabilistic_pca():
    """scikit-learn has no posterior covariance to compare with."""
    weight, loc, x = torch.randn(5, 3), torch.randn(5), torch.randn(6, 5)
    ruler, ppca = FactorAnalysis(weight, loc, torch.full((5,), 0.7)), PPCA(weight, loc, 0.7)
    ours, theirs = ruler.posterior(x), ppca.posterior(x)
    assert_close(ruler.log_evidence(x), ppca.log_evidence(x), **EXACT)
    assert_close(ours.mean, theirs.mean, **EXACT)
    assert_close(ours.covariance_matrix, theirs.covariance_matrix, **EXACT)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_normal_mixture_is_that_of_scikit_learn(kind):
    ruler = mixture(tril) if kind == "full" else mixture()
    components = ruler.components(torch.arange(STATES))
    theirs = sklearn.mixture.GaussianMixture(STATES, covariance_type=kind)
    theirs.weights_, theirs.means_ = ruler.logits.softmax(-1).numpy(), components.mean.numpy()
    if kind == "full":
        # Their factor U has precision U U', so it is the inverse of ours transposed.
        factor = torch.linalg.inv(components.scale_tril).mT
    else:
        factor = 1 / components.stddev
    theirs.precisions_cholesky_ = factor.numpy()
    x = torch.randn(6, FEATURES)
    assert_close(ruler.log_evidence(x), torch.tensor(theirs.score_samples(x.numpy())), **EXACT)
    probabilities = torch.tensor(theirs.predict_proba(x.numpy()))
    assert_close(ruler.posterior(x).probs, probabilities, **EXACT)


def test_components_are_what_they_were_given_as():
    locs, factors, k = torch.randn(STATES, 4), tril(STATES, 4), torch.tensor([[2, 0], [1, 2]])
    full, diagonal = NormalComponents(locs, factors)(k), NormalComponents(locs, locs.exp())(k)
    assert_close(full.mean, locs[k], **EXACT)
    assert_close(full.scale_tril, factors[k], **EXACT)
    assert_close(diagonal.mean, locs[k], **EXACT)
    assert_close(diagonal.stddev, locs[k].exp(), **EXACT)
    assert_close(CategoricalComponents(locs)(k).probs, locs.softmax(-1)[k], **EXACT)


# The shared mean -------------------------------------------------------------------------------


def joint(ruler, size):
    """Of (mean, z_1 ... z_N, x_1 ... x_N), from the generative equations."""
    s, a, b = ruler.scales
    one, eye = torch.ones(size, 1), torch.eye(size)
    mean = torch.cat([s.reshape(1, 1), torch.zeros(1, 2 * size)], 1)
    z = torch.cat([s * one, a * eye, 0 * eye], 1)
    x = torch.cat([s * one, a * eye, b * eye], 1)
    sources = torch.cat([mean, z, x])
    return sources @ sources.T


def given(covariance, x, wanted):
    """Mean and covariance of the wanted entries given that the last ones are x."""
    size = len(x)
    gain = covariance[wanted, -size:] @ torch.linalg.inv(covariance[-size:, -size:])
    rest = covariance[wanted][:, wanted] - gain @ covariance[-size:, wanted]
    return gain @ x, rest


def test_shared_mean_has_the_evidence_and_the_posterior_of_the_joint_normal():
    ruler, x = SharedMean(1.3, 0.8, 0.4), torch.randn(5)
    covariance = joint(ruler, 5)
    marginal = dist.MultivariateNormal(torch.zeros(5), covariance[-5:, -5:])
    assert_close(ruler.log_evidence_of_set(x), marginal.log_prob(x), **EXACT)
    loc, variance = given(covariance, x, [0])
    posterior = ruler.posterior_of_mean(x)
    assert_close(posterior.mean, loc[0], **EXACT)
    assert_close(posterior.variance, variance[0, 0], **EXACT)


def test_shared_mean_has_the_local_posterior_of_the_joint_normal():
    """Averaged over p(mean | x) it is the marginal of z_n given the whole set."""
    ruler, x = SharedMean(1.3, 0.8, 0.4), torch.randn(5)
    loc, variance = given(joint(ruler, 5), x, [1, 2, 3, 4, 5])
    shared = ruler.posterior_of_mean(x)
    local = ruler.posterior(x, shared.mean)
    assert_close(local.mean, loc, **EXACT)
    slope = ruler.posterior(x, shared.mean + 1).mean - local.mean
    assert_close(local.variance + slope**2 * shared.variance, variance.diagonal(), **EXACT)


def test_shared_mean_evidence_given_the_mean_multiplies_up_to_that_of_the_set():
    """log p(x) = log p(mean) + sum_n log p(x_n | mean) - log p(mean | x) at any mean."""
    ruler, x = SharedMean(1.3, 0.8, 0.4), torch.randn(5)
    for mean in torch.randn(3):
        prior = dist.Normal(0.0, ruler.scales[0]).log_prob(mean)
        rest = ruler.log_evidence(x, mean).sum() - ruler.posterior_of_mean(x).log_prob(mean)
        assert_close(prior + rest, ruler.log_evidence_of_set(x), **EXACT)


@pytest.mark.parametrize("particles", [1, 3])
def test_shared_mean_joint_over_posterior_is_the_evidence_of_the_set(particles):
    ruler, x = SharedMean(1.3, 0.8, 0.4), torch.randn(5)
    pair = ruler.pair()
    terms = trace.log_terms(pair.model, pair.guide, x, particles=particles)
    weight = terms.local.log_weight.sum(-1) + terms.shared.log_weight
    assert_close(weight, ruler.log_evidence_of_set(x).expand(particles), **EXACT)
