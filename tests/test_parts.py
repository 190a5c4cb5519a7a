"""The parts that pairs are made of: families, networks, priors, likelihoods, guides, PPCA."""

import math

import pyro.distributions as dist
import pytest
import torch
from rulers import diagonal_optimum, drawn, orthogonal, rotated
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import constraints

from bayesvae import families, guides, likelihoods, networks, priors
from bayesvae.pairs import PPCA, BottomUp

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def z_scores(draws, mean):
    """Of the mean of ``(S, *)`` draws against the true mean, in standard errors."""
    return (draws.mean(0) - mean) / (draws.std(0) / len(draws) ** 0.5)


# Families ----------------------------------------------------------------------------------------

FAMILIES = {"Normal": families.Normal, "MultivariateNormal": families.MultivariateNormal}
LEADING = [(), (4,), (2, 3)]


def diagonal(scale):
    return dist.Normal(torch.randn_like(scale), scale).to_event(1)


def full(scale):
    tril = torch.randn(*scale.shape, scale.shape[-1]).tril(-1) * scale.min()
    return dist.MultivariateNormal(torch.randn_like(scale), scale_tril=tril + scale.diag_embed())


MEMBERS = {"Normal": diagonal, "MultivariateNormal": full}


def covariance(q):
    if isinstance(q, torch.distributions.MultivariateNormal):
        return q.covariance_matrix
    return q.variance.diag_embed()


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_give_a_member_back_with_scales_from_tiny_to_huge(name, leading):
    scale = torch.tensor([1e-4, 0.3, 50.0]).expand(*leading, 3)
    family, q = FAMILIES[name](3), MEMBERS[name](scale)
    rows = family.rows(q)
    assert rows.shape == (*leading, family.size)
    torch.testing.assert_close(family(rows).mean, q.mean, **EXACT)
    relative = covariance(family(rows)) / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    expected = covariance(q) / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    torch.testing.assert_close(relative, expected, **EXACT)


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("name", FAMILIES)
def test_distributions_give_their_rows_back(name, leading):
    family = FAMILIES[name](3)
    rows = torch.randn(*leading, family.size)
    assert family(rows).batch_shape == leading
    assert family(rows).event_shape == (3,)
    torch.testing.assert_close(family.rows(family(rows)), rows, **EXACT)


def test_full_covariance_takes_a_diagonal_normal_over_exactly():
    q = diagonal(torch.rand(4, 3) + 0.1)
    taken = families.MultivariateNormal(3)
    torch.testing.assert_close(covariance(taken(taken.rows(q))), covariance(q), **EXACT)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_another_distribution_match_its_mean_and_variances(name):
    family = FAMILIES[name](2)
    for q in (full(torch.tensor([0.5, 2.0])), dist.Gamma(torch.tensor([2.0, 3.0]), 4.0)):
        q = q if q.event_shape else q.to_event(1)
        taken = family(family.rows(q))
        torch.testing.assert_close(taken.mean, q.mean, **EXACT)
        torch.testing.assert_close(taken.variance, q.variance, **EXACT)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_cholesky_factor_is_scales_times_unit_triangle_filled_by_rows(dim):
    family = families.MultivariateNormal(dim)
    rows = torch.randn(3, family.size)
    for row, tril in zip(rows, family(rows).scale_tril, strict=True):
        scale, below = families.positive(row[dim : 2 * dim]), iter(row[2 * dim :])
        for i in range(dim):
            entries = [scale[i] * next(below) for _ in range(i)] + [scale[i]]
            torch.testing.assert_close(tril[i, : i + 1], torch.stack(entries), **EXACT)
            assert not tril[i, i + 1 :].any()
        assert next(below, None) is None
    assert (torch.linalg.eigvalsh(family(rows).covariance_matrix) > 0).all()


@pytest.mark.parametrize(
    ("name", "sizes"), [("Normal", (2, 4, 6)), ("MultivariateNormal", (2, 5, 9))]
)
def test_size_counts_the_numbers_of_a_row(name, sizes):
    assert tuple(FAMILIES[name](dim).size for dim in (1, 2, 3)) == sizes


def test_families_contain_their_own_kind_and_no_other_dim():
    loc, one = torch.zeros(5, 2), torch.ones(5, 2)
    plain = torch.distributions.Independent(torch.distributions.Normal(loc, one), 1)
    normal, full_covariance = families.Normal(2), families.MultivariateNormal(2)
    assert normal.contains(plain)
    assert normal.contains(dist.Normal(loc, one).to_event(1))
    assert not normal.contains(dist.Normal(loc, one))
    assert not normal.contains(dist.Normal(loc, one).to_event(2))
    assert not normal.contains(dist.LogNormal(loc, one).to_event(1))
    assert not normal.contains(dist.StudentT(5.0, loc, one).to_event(1))
    assert not families.Normal(3).contains(plain)
    assert full_covariance.contains(full(one))
    assert not full_covariance.contains(plain)
    assert not normal.contains(full(one))
    assert not families.MultivariateNormal(3).contains(full(one))


@pytest.mark.parametrize("name", FAMILIES)
def test_no_entry_of_a_row_is_without_gradient(name):
    family = FAMILIES[name](3)
    rows = torch.randn(2, family.size, requires_grad=True)
    (density,) = torch.autograd.grad(family(rows).log_prob(torch.randn(3)).sum(), rows)
    (path,) = torch.autograd.grad(family(rows).rsample().square().sum(), rows)
    assert (density != 0).all()
    assert (path != 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_keep_their_dtype_and_not_the_default_one(name):
    family = FAMILIES[name](3)
    q = family(torch.randn(2, family.size, dtype=torch.float32))
    assert q.rsample().dtype == torch.float32
    assert family.rows(q).dtype == torch.float32


def test_scales_invert_and_stay_above_their_floor():
    scale = torch.logspace(-5, 3, 50)
    torch.testing.assert_close(
        families.positive(families.raw_of(scale)), scale, rtol=1e-10, atol=0
    )
    assert (families.positive(torch.tensor([-1e4, -40.0])) >= families.SCALE_FLOOR).all()
    assert torch.isfinite(families.raw_of(torch.tensor([0.0, families.SCALE_FLOOR]))).all()


def test_pyro_ready_wraps_plain_torch_and_leaves_pyro_alone():
    plain = torch.distributions.Normal(torch.zeros(3), 1.0)
    ready = families.pyro_ready(plain)
    torch.testing.assert_close(ready.log_prob(torch.ones(3)), plain.log_prob(torch.ones(3)))
    assert hasattr(ready, "mask")
    pyros = dist.Normal(0.0, 1.0)
    assert families.pyro_ready(pyros) is pyros


# Networks ----------------------------------------------------------------------------------------

NETWORKS = {
    "MLP": (lambda: networks.MLP(4, (8, 8), 3), (4,), (3,)),
    "MLP, affine, shapes": (lambda: networks.MLP((2, 3), (), (3, 2, 2)), (2, 3), (3, 2, 2)),
    "ConvEncoder": (lambda: networks.ConvEncoder((2, 8, 8), 6, (4, 5)), (2, 8, 8), (6,)),
    "ConvEncoder 5x7": (lambda: networks.ConvEncoder((1, 5, 7), (2, 3)), (1, 5, 7), (2, 3)),
    "ConvEncoder 28x28": (lambda: networks.ConvEncoder((1, 28, 28), 6), (1, 28, 28), (6,)),
    "ConvDecoder": (lambda: networks.ConvDecoder(3, (2, 8, 8), (5, 4)), (3,), (2, 8, 8)),
    "ConvDecoder 5x7": (lambda: networks.ConvDecoder(3, (1, 5, 7)), (3,), (1, 5, 7)),
    "ConvDecoder 7x7": (lambda: networks.ConvDecoder((3, 1), (1, 7, 7)), (3, 1), (1, 7, 7)),
    "ConvDecoder 28x28": (lambda: networks.ConvDecoder(3, (1, 28, 28)), (3,), (1, 28, 28)),
    "ConvDecoder 1x1": (lambda: networks.ConvDecoder(3, (2, 1, 1)), (3,), (2, 1, 1)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, inputs, outputs = NETWORKS[request.param]
    return make(), inputs, outputs


@pytest.mark.parametrize("leading", [(), (3,), (2, 1, 3)])
def test_leading_dims_do_not_change_what_a_network_says_of_a_row(network, leading):
    net, inputs, outputs = network
    x = torch.randn(*leading, *inputs)
    alone = torch.stack([net(row) for row in x.reshape(-1, *inputs)])
    torch.testing.assert_close(net(x), alone.reshape(*leading, *outputs), **EXACT)


def test_rows_of_a_batch_do_not_influence_each_other(network):
    net, inputs, _ = network
    x = torch.randn(3, *inputs, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[1].square().sum(), x)
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


def test_every_parameter_of_a_network_matters(network):
    net, inputs, _ = network
    gradients = torch.autograd.grad(net(torch.randn(8, *inputs)).square().sum(), net.parameters())
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (lambda: networks.MLP(4, (), 2), (3, 5), r"MLP takes .* \(\*, 4\); got \(3, 5\)"),
        (lambda: networks.MLP((2, 3), (), 2), (3,), r"MLP takes .* \(\*, 2, 3\); got \(3,\)"),
        (lambda: networks.MLP((2, 3), (), 2), (4, 6), r"MLP takes .* got \(4, 6\)"),
        (lambda: networks.ConvEncoder((1, 8, 8), 2), (4, 8, 8), r"ConvEncoder .*got \(4, 8, 8\)"),
        (lambda: networks.ConvEncoder((1, 8, 8), 2), (4, 64), r"ConvEncoder .*got \(4, 64\)"),
        (lambda: networks.ConvDecoder(3, (1, 8, 8)), (4, 2), r"ConvDecoder .*got \(4, 2\)"),
    ],
)
def test_another_event_shape_is_refused_and_named(net, given, message):
    with pytest.raises(ValueError, match=message):
        net()(torch.zeros(given))


def test_data_logits_are_the_logits_of_the_mean_and_finite_where_no_pixel_ever_lights():
    x = torch.bernoulli(torch.full((200, 1, 3, 3), 0.3))
    x[:, 0, 0, 0], x[:, 0, 2, 2] = 0.0, 1.0
    logits = networks.data_logits(x)
    torch.testing.assert_close(logits.sigmoid(), x.mean(0).clamp(1e-3, 1 - 1e-3), **EXACT)


@pytest.mark.parametrize("make", [networks.MLP, networks.ConvDecoder])
def test_output_bias_starts_where_it_is_told(make):
    bias = torch.randn(2, 5, 5)
    args = (3, (4,), (2, 5, 5)) if make is networks.MLP else (3, (2, 5, 5), (4,))
    torch.manual_seed(1)
    with_bias = make(*args, output_bias=bias)
    torch.manual_seed(1)
    without = make(*args)
    last = without.layers[-1] if make is networks.MLP else without
    with torch.no_grad():
        last.bias.zero_()
    z = torch.randn(4, 3)
    torch.testing.assert_close(with_bias(z) - without(z), bias.expand(4, 2, 5, 5), **EXACT)


# Priors ------------------------------------------------------------------------------------------


def encoder(inputs=4, dim=2, family=families.Normal):
    family = family(dim)
    return guides.Amortized(networks.MLP(inputs, (6,), family.size, nn.Tanh), family)


def scattered(prior):
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prior


PRIORS = {
    "StandardNormal": lambda: priors.StandardNormal(2),
    "Normal": lambda: priors.Normal(2),
    "Mixture": lambda: priors.Mixture(2, 3),
    "Mixture, full": lambda: priors.Mixture(2, 3, families.MultivariateNormal),
    "Vamp": lambda: priors.Vamp(encoder(), torch.rand(20, 4), 3),
    "Vamp, full": lambda: priors.Vamp(
        encoder(family=families.MultivariateNormal), torch.randn(20, 4), 3
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_samples_of_a_prior_have_the_moments_that_it_states(name):
    p = scattered(PRIORS[name]())()
    assert (p.batch_shape, p.event_shape) == ((), (2,))
    draws = p.sample((20_000,))
    assert z_scores(draws, p.mean).abs().max() < 4.5
    assert z_scores((draws - p.mean).square(), p.variance).abs().max() < 4.5


@pytest.mark.parametrize("name", PRIORS)
def test_density_of_a_prior_is_that_of_its_samples(name):
    # E_p[f / p] = integral of f = 1 for a normalised density f, here wider than p.
    p = scattered(PRIORS[name]())()
    f = dist.Normal(p.mean, 2 * p.stddev).to_event(1)
    z = f.sample((20_000,))
    assert z_scores((p.log_prob(z) - f.log_prob(z)).exp(), torch.ones(())).abs() < 4.5


@pytest.mark.parametrize("name", PRIORS)
def test_every_parameter_of_a_prior_is_reached_by_its_density(name):
    prior = scattered(PRIORS[name]())
    parameters = list(prior.parameters())
    if parameters:
        density = prior().log_prob(torch.randn(7, 2)).sum()
        assert all(g.any() for g in torch.autograd.grad(density, parameters))
    assert bool(parameters) == (name != "StandardNormal")


def test_normal_priors_start_at_the_standard_normal():
    for prior in (priors.Normal(3), priors.StandardNormal(3)):
        torch.testing.assert_close(prior().mean, torch.zeros(3), **EXACT)
        torch.testing.assert_close(covariance(prior()), torch.eye(3), **EXACT)


@pytest.mark.parametrize("family", [families.Normal, families.MultivariateNormal])
def test_mixture_is_the_log_sum_of_weighted_components_by_hand(family):
    prior = scattered(priors.Mixture(2, 4, family))
    z, total = prior().sample((9,)), torch.zeros(9)
    for logit, row in zip(prior.logits, prior.rows, strict=True):
        total = total + (logit + family(2)(row).log_prob(z)).exp()
    expected = total.log() - prior.logits.exp().sum().log()
    torch.testing.assert_close(prior().log_prob(z), expected, **EXACT)


def test_mixture_starts_with_equal_weights_and_unit_variances_at_different_means():
    prior = priors.Mixture(2, 5)
    components = prior().component_distribution
    torch.testing.assert_close(components.variance, torch.ones(5, 2), **EXACT)
    torch.testing.assert_close(prior().mixture_distribution.probs, torch.full((5,), 0.2), **EXACT)
    assert torch.pdist(components.mean).min() > 0


@pytest.mark.parametrize("name", ["Vamp", "Vamp, full"])
def test_vamp_is_the_mean_of_the_encoders_posteriors_at_its_pseudo_inputs(name):
    prior = scattered(PRIORS[name]())
    z = prior().sample((9,))
    densities = [prior.encoder.posterior(u).log_prob(z).exp() for u in prior.pseudo_inputs]
    torch.testing.assert_close(prior().log_prob(z), (sum(densities) / 3).log(), **EXACT)


def test_vamp_takes_the_top_posterior_of_a_layered_guide():
    layers = BottomUp([encoder(4, 3), encoder(3, 2)])
    prior = priors.Vamp(layers, torch.rand(20, 4), 5)
    middle = layers.posteriors[0].posterior(prior.pseudo_inputs).mean
    expected = layers.posteriors[1].posterior(middle).mean.mean(0)
    torch.testing.assert_close(prior().mean, expected, **EXACT)


def test_pseudo_inputs_of_images_never_leave_the_unit_interval():
    data = torch.cat([torch.zeros(5, 4), torch.ones(5, 4)])
    prior = priors.Vamp(encoder(), data, 10)
    torch.testing.assert_close(prior.pseudo_inputs, data.clamp(0.05, 0.95), **EXACT)
    with torch.no_grad():
        prior.raw_inputs.mul_(1e6)
    assert ((prior.pseudo_inputs >= 0) & (prior.pseudo_inputs <= 1)).all()


def test_pseudo_inputs_of_real_data_start_at_data_and_are_free():
    data = 3 * torch.randn(9, 4)
    prior = priors.Vamp(encoder(), data, 3)
    torch.testing.assert_close(prior.pseudo_inputs, data[[0, 4, 8]], **EXACT)
    unit = priors.Vamp(encoder(), torch.rand(9, 4), 3, constraint=constraints.real)
    torch.testing.assert_close(unit.pseudo_inputs, unit.raw_inputs, rtol=0, atol=0)


@pytest.mark.parametrize("components", [0, 21])
def test_vamp_refuses_no_components_and_more_than_data(components):
    with pytest.raises(ValueError, match=f"components={components} for 20 data"):
        priors.Vamp(encoder(), torch.rand(20, 4), components)


def test_priors_refuse_what_they_cannot_use():
    with pytest.raises(TypeError, match=r"needs an encoder with `posterior\(x\)`; got Linear"):
        priors.Vamp(nn.Linear(4, 4), torch.rand(20, 4), 3)
    with pytest.raises(ValueError, match="components >= 1; got 0"):
        priors.Mixture(2, 0)


# Likelihoods -------------------------------------------------------------------------------------


def decoder(*outputs):
    return networks.MLP(2, (8,), outputs, nn.Tanh)


LIKELIHOODS = {
    "Bernoulli": lambda: likelihoods.Bernoulli(decoder(3, 2)),
    "Normal, given": lambda: likelihoods.Normal(decoder(3, 2), scale=0.3),
    "Normal, learned": lambda: likelihoods.Normal(decoder(3, 2)),
    "Normal, predicted": lambda: likelihoods.Normal(decoder(3, 2), scale=decoder(3, 2)),
    "Categorical": lambda: likelihoods.Categorical(decoder(3, 2, 5)),
    "Poisson": lambda: likelihoods.Poisson(decoder(3, 2)),
}


def density_by_hand(name, likelihood, z, x):
    """log p(x | z) from its formula, summed over the event's entries."""
    out = likelihood.network(z)
    if name == "Bernoulli":
        terms = x * out - torch.log1p(out.exp())
    elif name == "Categorical":
        terms = torch.gather(out, -1, x.long().unsqueeze(-1)).squeeze(-1) - out.logsumexp(-1)
    elif name == "Poisson":
        rate = torch.log1p(out.exp()) + 1e-6
        terms = x * rate.log() - rate - torch.lgamma(x + 1)
    else:
        scale = likelihood.scale(z)
        terms = -0.5 * ((x - out) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    return terms.sum((-1, -2))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("leading", [(4,), (3, 4)])
def test_density_sums_over_the_event_alone_and_is_the_formula(name, leading):
    likelihood, z = LIKELIHOODS[name](), torch.randn(*leading, 2)
    p = likelihood(z)
    assert (p.batch_shape, p.event_shape) == (leading, (3, 2))
    x = p.sample()
    torch.testing.assert_close(p.log_prob(x), density_by_hand(name, likelihood, z, x), **EXACT)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_mean_is_the_mean_of_draws(name):
    likelihood, z = LIKELIHOODS[name](), torch.randn(4, 2)
    draws = likelihood(z).sample((20_000,)).double()
    assert likelihood.mean(z).shape == (4, 3, 2)
    assert z_scores(draws, likelihood.mean(z)).abs().max() < 4.5


def test_categorical_mean_is_in_levels_and_not_a_class_or_a_probability():
    likelihood = likelihoods.Categorical(nn.Identity())
    certain = torch.full((1, 1, 5), -1e3)
    certain[..., 3] = 0.0
    torch.testing.assert_close(likelihood.mean(certain), torch.full((1, 1), 3.0), **EXACT)
    torch.testing.assert_close(likelihood.mean(torch.zeros(1, 5)), torch.full((1,), 2.0), **EXACT)


def test_given_scale_is_saved_but_not_trained_and_a_learned_one_is():
    given, learned = LIKELIHOODS["Normal, given"](), LIKELIHOODS["Normal, learned"]()
    assert all("scale" not in name for name, _ in given.named_parameters())
    assert given.state_dict()["fixed_scale"] == 0.3
    assert "raw_scale" in dict(learned.named_parameters())
    torch.testing.assert_close(learned.scale(torch.zeros(1, 2)), torch.tensor(1.0), **EXACT)


def test_learned_scale_is_stationary_at_the_root_mean_squared_error():
    likelihood, z, x = LIKELIHOODS["Normal, learned"](), torch.randn(9, 2), torch.randn(9, 3, 2)
    error = (x - likelihood.mean(z)).square().mean().sqrt()
    with torch.no_grad():
        likelihood.raw_scale.copy_(families.raw_of(error))
    (slope,) = torch.autograd.grad(likelihood(z).log_prob(x).mean(), likelihood.raw_scale)
    torch.testing.assert_close(slope, torch.zeros(()), **EXACT)


def test_predicted_scale_follows_z_and_trains_its_network():
    likelihood, z = LIKELIHOODS["Normal, predicted"](), torch.randn(4, 2)
    assert likelihood.scale(z).shape == (4, 3, 2)
    assert not torch.equal(likelihood.scale(z)[0], likelihood.scale(z)[1])
    density = likelihood(z).log_prob(torch.randn(4, 3, 2)).sum()
    assert all(g.any() for g in torch.autograd.grad(density, likelihood.parameters()))


def test_normal_of_given_scale_is_squared_error_up_to_a_constant():
    likelihood = LIKELIHOODS["Normal, given"]()
    z, x = torch.randn(2, 4, 2), torch.randn(4, 3, 2)
    density = likelihood(z).log_prob(x)
    squares = (x - likelihood.mean(z)).square().sum((-1, -2))
    expected = -(squares[0] - squares[1]) / (2 * 0.3**2)
    torch.testing.assert_close(density[0] - density[1], expected, **EXACT)


@pytest.mark.parametrize("scale", [0, -0.1])
def test_scales_that_are_not_positive_are_refused(scale):
    with pytest.raises(ValueError, match="scale > 0; got"):
        likelihoods.Normal(nn.Linear(2, 3), scale=scale)


# Guides ------------------------------------------------------------------------------------------


def test_amortized_rows_are_the_networks_output():
    guide, x = encoder(), torch.randn(7, 4)
    torch.testing.assert_close(guide.family.rows(guide.posterior(x)), guide.network(x), **EXACT)


def test_amortized_refuses_a_network_of_another_width():
    guide = guides.Amortized(networks.MLP(4, (), 3), families.Normal(2))
    with pytest.raises(ValueError, match=r"rows of 4 numbers; the network gives \(7, 3\)"):
        guide.posterior(torch.zeros(7, 4))


@pytest.mark.parametrize("sparse", [False, True])
def test_per_datapoint_looks_rows_up_by_index_and_gives_no_gradient_to_others(sparse):
    guide = guides.PerDatapoint(6, families.Normal(2))
    guide.sparse = sparse
    torch.nn.init.normal_(guide.rows)
    index = torch.tensor([4, 1])
    q = guide.posterior(None, index)
    torch.testing.assert_close(guide.family.rows(q), guide.rows[index], **EXACT)
    (gradient,) = torch.autograd.grad(q.log_prob(torch.zeros(2)).sum(), guide.rows)
    assert gradient.is_sparse == sparse
    assert gradient.to_dense().any(1).nonzero().flatten().tolist() == [1, 4]


@pytest.mark.parametrize("index", [[0, 6], [-1, 2]])
def test_per_datapoint_refuses_positions_that_it_has_no_row_for(index):
    guide = guides.PerDatapoint(6, families.Normal(2))
    with pytest.raises(ValueError, match=f"rows for 6 data; got positions from {index[0]} to"):
        guide.posterior(None, torch.tensor(index))


def test_per_datapoint_asks_for_its_index():
    with pytest.raises(ValueError, match="needs `index`, the data's positions; got None"):
        guides.PerDatapoint(6, families.Normal(2)).posterior(torch.zeros(3, 4))


# Probabilistic PCA, the ruler --------------------------------------------------------------------


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
