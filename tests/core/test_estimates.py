"""The tail of importance weights tells whether an estimate can be believed."""

import math
import warnings
from functools import partial

import pytest
import torch
from linear_gaussian import drawn, guided, rotated, shifted
from pyro.ops.stats import fit_generalized_pareto
from torch.testing import assert_close

from bayesvae import log_evidence
from bayesvae.core.estimates import TRUSTED, k_hat, tail_length, weights
from bayesvae.evidence.proposals import GUIDE, PRIOR, mixture
from bayesvae.pairs import PPCA

SIZE = 4000


def pareto(shape, columns=1):
    """log-weights ``(SIZE, columns)`` with tails of a given shape."""
    return -shape * torch.rand(SIZE, columns).log()


def largest(log_weight):
    return log_weight.topk(tail_length(len(log_weight)) + 1, 0).values


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9, 2.0])
def test_the_shape_of_a_pareto_tail_is_found(shape):
    found = k_hat(largest(pareto(shape, 200)))
    count = tail_length(SIZE)
    shrunk = (count * shape + 5) / (count + 10)
    error = (1 + shape) / count**0.5  # of the maximum-likelihood estimate
    assert abs(found.mean() - shrunk) < 5 * error / 200**0.5 + 0.02
    assert 0.5 * error < found.std() < 1.5 * error


def test_light_tails_have_small_shapes():
    assert (k_hat(largest(torch.rand(SIZE, 20))) < 0.1).all()
    assert (k_hat(largest(0.3 * torch.randn(SIZE, 20))) < 0.5).all()


@pytest.mark.parametrize("shape", [0.2, 0.8])
def test_the_fit_is_pyros(shape):
    tail = largest(pareto(shape))
    weight = tail.exp()
    theirs, _ = fit_generalized_pareto((weight[:-1] - weight[-1:])[:, 0])
    assert k_hat(tail).item() == pytest.approx(theirs, abs=1e-3)


def test_data_do_not_share_their_tails():
    both = torch.cat([pareto(0.1), pareto(1.5)], 1)
    found = k_hat(largest(both))
    assert_close(found[:1], k_hat(largest(both[:, :1])))
    assert_close(found[1:], k_hat(largest(both[:, 1:])))


def test_weights_that_are_all_equal_are_no_tail():
    assert k_hat(torch.zeros(50, 3)).tolist() == [-torch.inf] * 3


def test_a_tail_gathered_in_chunks_is_the_tail_of_all():
    log_weight = pareto(0.6, 3)
    given = iter(log_weight.split(700))
    state = weights(lambda k: next(given), SIZE, 700)
    assert_close(state.log_evidence().k_hat, k_hat(largest(log_weight)))


def test_a_few_draws_say_nothing_of_the_tail():
    assert weights(lambda k: torch.zeros(k, 2), 50, 50).log_evidence().k_hat is None


# Where it matters --------------------------------------------------------------------------------


def in_twenty_dimensions():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 20, generator=generator)
    return PPCA(weight, torch.zeros(40), 0.3)


def test_naive_sampling_in_twenty_dimensions_fails_and_says_so():
    model = in_twenty_dimensions()
    x = drawn(model, 10)
    pair = guided(model, model.posterior)
    words = "k-hat is above 0.7 for 10 of 10 data: the prior misses .* size is [1-9] of 2000"
    with pytest.warns(UserWarning, match=words):
        naive = log_evidence(pair, x, 2000, proposal=PRIOR)
    assert (naive.value < model.log_evidence(x) - 10).all()
    assert not naive.trusted.any()


def test_the_exact_posterior_as_a_guide_raises_no_doubts():
    model = in_twenty_dimensions()
    x = drawn(model, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = log_evidence(guided(model, model.posterior), x, 500)
    assert found.trusted.all()
    assert_close(found.value, model.log_evidence(x), rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_a_guide_that_is_much_too_narrow_is_doubted_and_a_defensive_mixture_is_not():
    model = rotated()
    x = drawn(model, 40)
    pair = shifted(model, widen=0.3)
    narrow = log_evidence(pair, x, 2000)
    mixed = log_evidence(pair, x, 2000, proposal=mixture(GUIDE, PRIOR))
    assert (narrow.k_hat > TRUSTED).double().mean() > 0.8
    assert (mixed.k_hat < TRUSTED).double().mean() > 0.9
    apart = (mixed.value - model.log_evidence(x)) / mixed.stderr
    assert apart[mixed.trusted].abs().max() < 4.5


PROPOSALS = {
    "the guide": GUIDE,
    "the prior": PRIOR,
    "a mixture": mixture(GUIDE, PRIOR, shares=(0.8, 0.2)),
}


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_estimates_that_are_trusted_hold_the_truth(name):
    model = rotated()
    x = drawn(model, 60)
    found = log_evidence(shifted(model), x, 4000, proposal=PROPOSALS[name])
    apart, error = (
        (found.value - model.log_evidence(x))[found.trusted],
        found.stderr[found.trusted],
    )
    assert len(apart) > 48
    assert (apart / error).abs().max() < 4.5
    assert abs(apart.sum()) < 4 * error.square().sum().sqrt()


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 0.6), (1.5, -0.5)])
def test_shares_that_make_no_mixture_are_refused(shares):
    with pytest.raises(ValueError, match="one positive share a part"):
        mixture(GUIDE, PRIOR, shares=shares)


# Against another implementation ------------------------------------------------------------------


def even_but_for_a_few():
    """Log-weights ``(1000, 40)`` of scatter 0.03, three in a hundred up to 0.7 nats above."""
    few = torch.rand(1000, 40) < 0.03
    return torch.where(few, 0.7 * torch.rand(1000, 40), 0.03 * torch.randn(1000, 40))


@pytest.mark.parametrize(
    "draw", [even_but_for_a_few, partial(torch.randn, 1000, 40), partial(pareto, 0.8, 40)]
)
def test_the_shape_is_that_of_arviz(draw):
    with warnings.catch_warnings():  # its announcement of another release
        warnings.simplefilter("ignore", FutureWarning)
        arviz = pytest.importorskip("arviz", reason="needs ArviZ: pip install 'bayesvae[arviz]'")
    log_weight = draw()
    theirs = torch.as_tensor(arviz.psislw(log_weight.T.numpy())[1])
    assert_close(k_hat(largest(log_weight)), theirs, rtol=0.0, atol=1e-6)


def test_the_shape_of_a_tail_does_not_tell_its_size():
    log_weight = even_but_for_a_few()
    found = weights(lambda k: log_weight[:k], 1000, 1000).log_evidence()
    assert (found.effective_sample_size > 970).all()
    assert (found.k_hat > TRUSTED).double().mean() > 0.9
    truth = 0.97 * math.exp(0.03**2 / 2) + 0.03 * (math.exp(0.7) - 1) / 0.7
    assert ((found.value - math.log(truth)) / found.stderr).abs().max() < 4.5
