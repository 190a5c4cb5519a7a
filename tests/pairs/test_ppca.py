"""The ruler is straight: PPCA against dense normals and scikit-learn."""

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import diagonal_optimum, drawn, orthogonal, rotated
from sklearn.decomposition import PCA

from bayesvae.pairs import PPCA

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def joint_covariance(model):
    """Of (z, x), from the generative equations."""
    weight, features = model.weight, model.weight.shape[0]
    top = torch.cat([torch.eye(weight.shape[1]), weight.T], 1)
    noise = model.scale**2 * torch.eye(features)
    return torch.cat([top, torch.cat([weight, weight @ weight.T + noise], 1)])


@pytest.mark.parametrize("dim", [1, 3])
def test_ppca_evidence_is_the_dense_normal_marginal(dim):
    model = rotated(5, dim)
    x = drawn(model, 6)
    marginal = dist.MultivariateNormal(model.loc, joint_covariance(model)[dim:, dim:])
    torch.testing.assert_close(model.log_evidence(x), marginal.log_prob(x), **EXACT)


@pytest.mark.parametrize("dim", [1, 3])
def test_ppca_posterior_is_bayes_rule_on_the_joint(dim):
    model = rotated(5, dim)
    x, joint = drawn(model, 6), joint_covariance(model)
    gain = joint[:dim, dim:] @ torch.linalg.inv(joint[dim:, dim:])
    q = model.posterior(x)
    torch.testing.assert_close(q.mean, (x - model.loc) @ gain.T, **EXACT)
    covariance = joint[:dim, :dim] - gain @ joint[dim:, :dim]
    torch.testing.assert_close(q.covariance_matrix, covariance.expand(6, dim, dim), **EXACT)


def test_ppca_maximum_likelihood_is_that_of_scikit_learn():
    x = drawn(rotated(6, 3), 200)
    model, theirs = PPCA.maximum_likelihood(x, 2), PCA(2, svd_solver="full").fit(x.numpy())
    # They divide variances by N - 1, maximum likelihood divides by N.
    theirs.explained_variance_ *= 199 / 200
    theirs.noise_variance_ *= 199 / 200
    torch.testing.assert_close(model.loc.data, torch.tensor(theirs.mean_), **EXACT)
    assert model.scale.item() ** 2 == pytest.approx(theirs.noise_variance_, rel=1e-10)
    excess = torch.tensor(theirs.explained_variance_ - theirs.noise_variance_)
    axes = torch.tensor(theirs.components_).T * excess.sqrt()
    torch.testing.assert_close((model.weight @ model.weight.T).detach(), axes @ axes.T, **EXACT)
    scores = torch.tensor(theirs.score_samples(x.numpy()))
    torch.testing.assert_close(model.log_evidence(x).detach(), scores, **EXACT)


def test_ppca_maximum_likelihood_is_a_stationary_point_above_the_truth():
    truth = rotated(6, 2)
    x = drawn(truth, 200)
    model = PPCA.maximum_likelihood(x, 2)
    value = model.log_evidence(x).mean()
    for slope in torch.autograd.grad(value, model.parameters()):
        torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)
    assert value > truth.log_evidence(x).mean()


def test_diagonal_gap_is_the_divergence_of_the_best_diagonal_normal():
    model = rotated()
    x = drawn(model, 4)
    loc = model.posterior(x).mean.detach().requires_grad_()
    scale = model.precision.diagonal().rsqrt().detach().requires_grad_()
    q = dist.MultivariateNormal(loc, scale_tril=scale.diag())
    divergence = torch.distributions.kl_divergence(q, model.posterior(x))
    torch.testing.assert_close(divergence, model.diagonal_gap().expand(4), **EXACT)
    for slope in torch.autograd.grad(divergence.sum(), (loc, scale)):
        torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)
    torch.testing.assert_close(diagonal_optimum(model, x).stddev, scale.expand(4, 2), **EXACT)
    assert divergence[0] > 0.1


def test_diagonal_gap_is_zero_if_and_only_if_the_columns_are_orthogonal():
    model = orthogonal()
    torch.testing.assert_close(model.diagonal_gap(), torch.zeros(()), **EXACT)
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5
    turned = PPCA(model.weight @ turn, model.loc, model.scale)
    x = drawn(model, 4)
    torch.testing.assert_close(turned.log_evidence(x), model.log_evidence(x), **EXACT)
    assert turned.diagonal_gap() > 0.05


@pytest.mark.parametrize(
    ("weight", "loc", "scale"),
    [
        (torch.zeros(3), torch.zeros(3), 1.0),
        (torch.zeros(3, 2), torch.zeros(2), 1.0),
        (torch.zeros(3, 2), torch.zeros(3), 0.0),
    ],
)
def test_ppca_refuses_shapes_and_scales_that_make_no_model(weight, loc, scale):
    with pytest.raises(ValueError, match=r"PPCA needs weight \(D, d\), loc \(D,\) and scale > 0"):
        PPCA(weight, loc, scale)


@pytest.mark.parametrize("dim", [0, 5])
def test_ppca_maximum_likelihood_needs_fewer_latents_than_features(dim):
    with pytest.raises(ValueError, match="0 < dim < D"):
        PPCA.maximum_likelihood(torch.randn(20, 5), dim)
