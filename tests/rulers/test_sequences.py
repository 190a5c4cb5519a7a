"""Rulers with time against Pyro, dense normals, and sums over all paths."""

from itertools import pairwise, product

import pyro.distributions as dist
import pytest
import torch
from ruler_catalog import (
    EXACT,
    LATENTS,
    RULERS,
    STATES,
    STEPS,
    categorical_emission,
    chain,
    drawn,
    state_space,
)
from torch.testing import assert_close

from bayesvae.rulers import MarkovChain

CHAINS = [name for name in RULERS if name.startswith("HiddenMarkov")]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


# Linear-Gaussian ---------------------------------------------------------------------------------


def pyros(ruler):
    """Pyro's GaussianHMM, whose first state is one transition after its initial one."""
    cut = torch.zeros(LATENTS, LATENTS)
    spread = torch.stack([ruler.initial_scales] + [ruler.process_scales] * (STEPS - 1))
    loc = torch.stack([ruler.initial_loc] + [0 * ruler.initial_loc] * (STEPS - 1))
    return dist.GaussianHMM(
        dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1),
        torch.stack([cut] + [ruler.transition.T] * (STEPS - 1)),
        dist.Normal(loc, spread).to_event(1),
        ruler.emission.T,
        dist.Normal(ruler.loc, ruler.noise_scales).to_event(1),
    )


def by_hand(ruler, steps):
    """Mean and covariance of (z_1 ... z_T), by going through the equations one at a time."""
    a, q = ruler.transition, ruler.process_scales.square().diag()
    mean, blocks = [ruler.initial_loc], [[ruler.initial_scales.square().diag()]]
    for t in range(1, steps):
        mean.append(a @ mean[-1])
        row = [a @ block for block in blocks[-1]]
        blocks.append([*row, row[-1] @ a.T + q])
        for s in range(t):
            blocks[s].append(blocks[t][s].T)
    return torch.cat(mean), torch.cat([torch.cat(row, 1) for row in blocks])


def test_paths_have_the_moments_of_the_recursion():
    ruler = state_space()
    prior, (mean, covariance) = ruler.prior(STEPS), by_hand(ruler, STEPS)
    assert_close(prior.mean, mean, **EXACT)
    assert_close(prior.covariance_matrix, covariance, **EXACT)


def test_density_of_a_path_is_the_sum_over_its_steps():
    ruler, z = state_space(), torch.randn(3, STEPS, LATENTS)
    first = dist.Normal(ruler.initial_loc, ruler.initial_scales).log_prob(z[:, 0])
    steps = dist.Normal(z[:, :-1] @ ruler.transition.T, ruler.process_scales).log_prob(z[:, 1:])
    total = first.sum(-1) + steps.sum((-1, -2))
    assert_close(ruler.prior(STEPS).log_prob(z.flatten(1)), total, **EXACT)


def test_filter_has_the_evidence_of_pyro_and_of_the_dense_normal():
    ruler = state_space()
    x = drawn("StateSpace", ruler)
    mean, covariance = by_hand(ruler, STEPS)
    weight = torch.kron(torch.eye(STEPS), ruler.emission)
    noise = ruler.noise_scales.square().repeat(STEPS).diag()
    loc = weight @ mean + ruler.loc.repeat(STEPS)
    dense = dist.MultivariateNormal(loc, weight @ covariance @ weight.T + noise)
    assert_close(ruler.log_evidence(x), dense.log_prob(x.flatten(1)), **EXACT)
    assert_close(ruler.log_evidence(x), pyros(ruler).log_prob(x), **EXACT)


def test_joint_posterior_is_the_dense_normal_conditioned():
    ruler = state_space()
    x = drawn("StateSpace", ruler)
    mean, covariance = by_hand(ruler, STEPS)
    weight = torch.kron(torch.eye(STEPS), ruler.emission)
    noise = ruler.noise_scales.square().repeat(STEPS).diag()
    gain = covariance @ weight.T @ torch.linalg.inv(weight @ covariance @ weight.T + noise)
    residual = x.flatten(1) - weight @ mean - ruler.loc.repeat(STEPS)
    posterior = ruler.posterior(x)
    assert_close(posterior.mean, mean + residual @ gain.T, **EXACT)
    expected = (covariance - gain @ weight @ covariance).expand_as(posterior.covariance_matrix)
    assert_close(posterior.covariance_matrix, expected, **EXACT)


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_smoother_has_the_marginals_of_the_joint_posterior(steps):
    ruler = state_space()
    x = drawn("StateSpace", ruler)[:, :steps]
    joint, smoothed = ruler.posterior(x), ruler.marginals(x)
    assert_close(smoothed.mean.flatten(1), joint.mean, **EXACT)
    for t in range(steps):
        here = slice(t * LATENTS, (t + 1) * LATENTS)
        block = joint.covariance_matrix[:, here, here]
        assert_close(smoothed.covariance_matrix[:, t], block, **EXACT)


def test_filter_knows_the_last_step_as_well_as_the_smoother_and_the_first_less():
    ruler = state_space()
    x = drawn("StateSpace", ruler)
    updated, smoothed = ruler.filtered(x).updated, ruler.marginals(x)
    assert_close(updated[-1][0], smoothed.mean[:, -1], **EXACT)
    less = updated[0][1] - smoothed.covariance_matrix[0, 0]
    assert torch.linalg.eigvalsh(less).min() > -1e-12
    assert less.diagonal().max() > 1e-4


# Discrete ----------------------------------------------------------------------------------------


def paths(steps=STEPS):
    """All of them, ``(S^T, T)``."""
    return torch.tensor(list(product(range(STATES), repeat=steps)))


def log_joint(ruler, x):
    """log p(x, k) of every path, ``(S^T, B)``, step by step."""
    initial, transition = ruler.initial_logits.softmax(-1), ruler.transition_logits.softmax(-1)
    rows = []
    for path in paths(x.shape[1]):
        value = initial[path[0]].log()
        for before, after in pairwise(path):
            value = value + transition[before, after].log()
        each = [ruler.components(k).log_prob(x[:, t]) for t, k in enumerate(path)]
        rows.append(value + torch.stack(each).sum(0))
    return torch.stack(rows)


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("name", CHAINS)
def test_hidden_markov_is_the_sum_over_all_paths(name, steps):
    ruler = RULERS[name]()
    x = drawn(name, ruler)[:, :steps]
    joint, everything = log_joint(ruler, x), paths(steps)
    evidence = joint.logsumexp(0)
    assert_close(ruler.log_evidence(x), evidence, **EXACT)
    posterior = ruler.posterior(x).log_prob(everything.unsqueeze(1))
    assert_close(posterior, joint - evidence, **EXACT)
    probabilities = (joint - evidence).exp()
    for t in range(steps):
        chosen = [probabilities[everything[:, t] == k].sum(0) for k in range(STATES)]
        assert_close(ruler.marginals(x).probs[:, t], torch.stack(chosen, -1), **EXACT)


@pytest.mark.parametrize("name", CHAINS)
def test_hidden_markov_has_the_evidence_of_pyro(name):
    """Pyro's chain takes a step before the first observation; here it may not matter."""
    ruler = RULERS[name]()
    x = drawn(name, ruler)
    first = ruler.initial_logits.log_softmax(-1).expand(STATES, -1)
    rest = ruler.transition_logits.expand(STEPS - 1, -1, -1)
    theirs = dist.DiscreteHMM(
        torch.zeros(STATES),
        torch.cat([first.unsqueeze(0), rest]),
        ruler.components(torch.arange(STATES)),
    )
    assert_close(ruler.log_evidence(x), theirs.log_prob(x), **EXACT)


def test_long_sequences_stay_finite():
    """Probabilities of 2,000 steps multiplied outside of log space are zero."""
    ruler = chain(categorical_emission)
    x = torch.randint(4, (2, 2000))
    value = ruler.log_evidence(x)
    assert torch.isfinite(value).all()
    assert value.max() < -745, "below the smallest float64"
    assert_close(ruler.marginals(x).probs.sum(-1), torch.ones(2, 2000), **EXACT)


def test_states_that_cannot_follow_each_other_never_do():
    transition = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    path = MarkovChain(torch.zeros(2), transition.expand(5, 2, 2)).sample((200,))
    assert (path == path[:, :1]).all()
    assert path.unique().tolist() == [0, 1]


def test_chains_sum_to_one_and_draw_as_often_as_they_say():
    kernel = MarkovChain(torch.randn(2, STATES), torch.randn(2, STEPS - 1, STATES, STATES))
    everything = paths()
    probability = kernel.log_prob(everything.unsqueeze(1)).exp()
    assert_close(probability.sum(0), torch.ones(2), **EXACT)
    draws = kernel.sample((20_000,))
    place = (draws * STATES ** torch.arange(STEPS - 1, -1, -1)).sum(-1)
    for column in range(2):
        share = torch.bincount(place[:, column], minlength=len(everything)) / len(draws)
        expected = probability[:, column]
        error = (expected * (1 - expected) / len(draws)).sqrt()
        assert ((share - expected) / error).abs().max() < 4.5


def test_chains_broaden_and_refuse_states_that_they_do_not_have():
    kernel = MarkovChain(torch.randn(STATES), torch.randn(STEPS - 1, STATES, STATES))
    wide = kernel.expand(torch.Size([5, 2]))
    path = wide.sample()
    assert path.shape == (5, 2, STEPS)
    assert_close(wide.log_prob(path), kernel.log_prob(path), **EXACT)
    with pytest.raises(ValueError, match="within the support"):
        kernel.log_prob(torch.full((STEPS,), STATES))
