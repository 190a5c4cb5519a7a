"""The ELBO is Pyro's, per datum, in value and every gradient; where it is not, Pyro is biased."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, CATALOG, FEATURES, JUMPING, ByHand, by_hand
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.testing import assert_close

from bayesvae.core.programs import kl_weighted, sized
from bayesvae.core.trace import log_terms
from bayesvae.objectives import elbo, is_pathwise, linear_warmup, per_datum

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def value_and_gradients(seed, bound, parameters):
    """A bound on one draw, and its gradient for each parameter (zeros where it has none)."""
    torch.manual_seed(seed)
    value = bound()
    gradients = torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)
    return [value, *gradients]


def ours_and_pyros(case, loss, change=lambda model, guide: (model, guide), particles=1, size=None):
    """The two bounds with their gradients, nats per datum, under one seed."""
    case.pair.find_parameters(case.x, case.index)
    model, guide = change(case.pair.model, case.pair.guide)
    batch, parameters = (case.x, case.index), [*case.pair.parameters()]
    pyros = loss(
        num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=case.nesting
    )
    analytic = loss is TraceMeanField_ELBO
    size = size or case.size or BATCH

    def our_bound():
        return elbo(model, guide, *batch, particles=particles, analytic_kl=analytic)

    def pyros_bound():
        with pyro.validation_enabled(False):
            return -pyros.differentiable_loss(model, guide, *batch) / size

    return [value_and_gradients(6, bound, parameters) for bound in (our_bound, pyros_bound)]


# Identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [1, 3])
def test_elbo_equals_pyros_trace_elbo_in_value_and_every_gradient(case, particles):
    ours, pyros = ours_and_pyros(case, Trace_ELBO, particles=particles)
    assert_close(ours, pyros, **EXACT)


@pytest.mark.parametrize("particles", [1, 3])
def test_analytic_elbo_equals_pyros_mean_field_where_the_orders_agree_and_only_there(
    case, particles
):
    ours, pyros = ours_and_pyros(case, TraceMeanField_ELBO, particles=particles)
    if case.same_order:
        assert_close(ours, pyros, **EXACT)
    else:
        assert abs(ours[0] - pyros[0]) > 1e-6


def model_scaled(model, guide):
    return poutine.scale(model, scale=0.7), guide


def both_scaled(model, guide):
    return poutine.scale(model, scale=0.7), poutine.scale(guide, scale=0.7)


def annealed(model, guide):
    return kl_weighted(model, 0.3), kl_weighted(guide, 0.3)


def test_a_kl_weight_multiplies_the_terms_of_the_latents_alone(case):
    case.pair.find_parameters(case.x, case.index)
    programs = case.pair.model, case.pair.guide
    torch.manual_seed(5)
    terms = log_terms(*programs, case.x, case.index)
    torch.manual_seed(5)
    bound = elbo(*annealed(*programs), case.x, case.index)
    local, shared = (p.log_likelihood - 0.3 * p.kl for p in (terms.local, terms.shared))
    assert_close(bound, local.mean() + shared.mean() / terms.size, **EXACT)


def of_fifty(model, guide):
    return sized(model, 50), sized(guide, 50)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize(
    ("change", "loss", "size"),
    [
        (model_scaled, Trace_ELBO, None),
        (both_scaled, Trace_ELBO, None),
        (both_scaled, TraceMeanField_ELBO, None),
        (annealed, Trace_ELBO, None),
        (annealed, TraceMeanField_ELBO, None),
        (of_fifty, Trace_ELBO, 50),
        (of_fifty, TraceMeanField_ELBO, 50),
    ],
)
@pytest.mark.parametrize("name", ["prior Normal", "by hand, shared latent"])
def test_elbo_weighs_scaled_sites_as_pyro_does(name, change, loss, size, particles):
    case = CATALOG[name]()
    assert_close(*ours_and_pyros(case, loss, change, particles, size), **EXACT)


class Tempered(ByHand):
    """A scale inside the model, on the likelihood alone."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.latents())
            with poutine.scale(scale=3.0):
                pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))


class WithFactor(Tempered):
    """A guide whose density has a factor of its own."""

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.posterior(x))
            pyro.factor("volume", -z.sum(-1), has_rsample=True)


class Auxiliary(Tempered):
    """A guide with a latent that the model does not have."""

    def guide(self, x):
        with pyro.plate("data", len(x)):
            hint = dist.Normal(torch.zeros(FEATURES), 1.0).to_event(1)
            shift = pyro.sample("hint", hint, infer={"is_auxiliary": True})
            pyro.sample("z", self.posterior(x + shift))


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("programs", [Tempered, WithFactor, Auxiliary])
def test_elbo_equals_pyros_with(programs, loss):
    assert_close(*ours_and_pyros(by_hand(programs()), loss), **EXACT)


@pytest.mark.parametrize("build", [n for n in CATALOG if n not in JUMPING], indirect=True)
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_gradients_are_the_derivative_of_the_bound_with_nothing_detached(case, analytic_kl):
    case.pair.find_parameters(case.x, case.index)
    parameters = [*case.pair.parameters()]
    direction = [torch.randn_like(parameter) for parameter in parameters]

    def bound():
        batch = case.x, case.index
        return elbo(case.pair.model, case.pair.guide, *batch, analytic_kl=analytic_kl)

    _, *gradients = value_and_gradients(9, bound, parameters)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    step, values = 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, along in zip(parameters, direction, strict=True):
                parameter.add_(sign * step * along)
        values.append(value_and_gradients(9, bound, parameters)[0].detach())
    assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-5, atol=1e-6)


# Where Pyro's analytic KL is biased ---------------------------------------------------------


class Chain(nn.Module):
    """z2 ~ N(0, 1), z1 ~ N(a z2, s), x ~ N(z1, r), and a guide that climbs from x to z2.

    Args:
        keep: weights of the data's terms in the model.
        handler: what gives the model these weights.
    """

    def __init__(self, keep=1.0, handler=lambda model: model):
        super().__init__()
        self.keep, self.handler = keep, handler
        self.a, self.b, self.c = (nn.Parameter(torch.tensor(v)) for v in (1.5, 0.6, 0.4))
        self.scales = nn.Parameter(torch.tensor([0.8, 0.9, 0.5, 0.6]))

    def model(self, x):
        self.handler(self.joint)(x)

    def joint(self, x):
        s, r, *_ = self.scales
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.a * z2, s))
            pyro.sample("x", dist.Normal(z1, r), obs=x)

    def guide(self, x):
        *_, t1, t2 = self.scales
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.b * x, t1))
            pyro.sample("z2", dist.Normal(self.c * z1, t2))

    def exact(self, x):
        """The ELBO per datum in closed form."""
        s, r, t1, t2 = self.scales
        a, b, c = self.a, self.b, self.c

        def expected(mean, variance, scale):
            """E log N(e; 0, scale) for an e of the given mean and variance."""
            log_normaliser = torch.log(scale) + math.log(2 * math.pi) / 2
            return -(mean**2 + variance) / (2 * scale**2) - log_normaliser

        log_x = expected((1 - b) * x, t1**2, r)
        log_z1 = expected((1 - a * c) * b * x, (1 - a * c) ** 2 * t1**2 + a**2 * t2**2, s)
        log_z2 = expected(c * b * x, c**2 * t1**2 + t2**2, torch.ones(()))
        entropy = torch.log(t1 * t2) + math.log(2 * math.pi) + 1
        return (self.keep * (log_x + log_z1 + log_z2) + entropy).mean()


def masked_chain():
    keep = torch.arange(BATCH) % 2 == 0
    return Chain(keep.double(), lambda model: poutine.mask(model, mask=keep))


def scaled_chain():
    return Chain(0.5, lambda model: poutine.scale(model, scale=0.5))


BIASED = {
    "an order that model and guide do not share": Chain,
    "a mask on the model alone": masked_chain,
    "a scale on the model alone": scaled_chain,
}


@pytest.mark.parametrize("analytic_kl", [False, True])
@pytest.mark.parametrize("bias", BIASED)
def test_elbo_and_its_gradient_are_unbiased_under(bias, analytic_kl):
    programs, x = BIASED[bias](), torch.randn(BATCH)
    parameters, repeats, particles = [*programs.parameters()], 50, 400

    def ours():
        return elbo(
            programs.model, programs.guide, x, particles=particles, analytic_kl=analytic_kl
        )

    runs = [value_and_gradients(seed, ours, parameters) for seed in range(repeats)]
    runs = torch.stack([torch.cat([part.reshape(-1) for part in run]) for run in runs]).detach()
    exact = value_and_gradients(0, lambda: programs.exact(x), parameters)
    exact = torch.cat([part.reshape(-1) for part in exact]).detach()
    error = runs.std(0) / math.sqrt(repeats)
    assert error.max() < 0.02
    assert ((runs.mean(0) - exact).abs() < 5 * error + 1e-12).all()


@pytest.mark.parametrize("bias", BIASED)
def test_pyros_mean_field_elbo_is_biased_under(bias):
    """So that the test above would notice if ours did the same."""
    programs, x = BIASED[bias](), torch.randn(BATCH)
    loss = TraceMeanField_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    with pyro.validation_enabled(False), torch.no_grad():
        pyros = -loss.differentiable_loss(programs.model, programs.guide, x) / BATCH
    assert abs(pyros - programs.exact(x)) > 0.1


def test_an_analytic_kl_has_less_noise_than_a_sampled_one():
    case = CATALOG["by hand, shared latent"]()
    parameters = [*case.pair.parameters()]

    def spread(analytic_kl):
        def bound():
            return elbo(case.pair.model, case.pair.guide, case.x, analytic_kl=analytic_kl)

        return torch.stack([value_and_gradients(s, bound, parameters)[0] for s in range(50)]).std()

    assert spread(analytic_kl=True) < 0.9 * spread(analytic_kl=False)


# The size of the data set -------------------------------------------------------------------


def test_shared_terms_weigh_one_in_n_of_the_size_that_training_tells_the_plate():
    case = CATALOG["by hand, shared latent"]()
    for size in (BATCH, 50):
        torch.manual_seed(7)
        terms = log_terms(case.pair.model, case.pair.guide, case.x)
        torch.manual_seed(7)
        bound = elbo(sized(case.pair.model, size), sized(case.pair.guide, size), case.x)
        expected = terms.local.elbo.mean() + terms.shared.elbo.mean() / size
        assert_close(bound, expected, **EXACT)


def test_a_plate_that_states_its_size_wins_over_the_size_that_training_tells():
    class SharedAndSubsampled(ByHand):
        def model(self, x, index):
            w = pyro.sample("w", self.latents())
            with pyro.plate("data", 10, subsample=index):
                z = pyro.sample("z", self.latents())
                pyro.sample("x", self.likelihood(z + w), obs=x)

        def guide(self, x, index):
            pyro.sample("w", self.posterior(torch.ones(FEATURES)))
            with pyro.plate("data", 10, subsample=index):
                pyro.sample("z", self.posterior(x))

    case = by_hand(SharedAndSubsampled(), size=10)
    assert_close(*ours_and_pyros(case, Trace_ELBO, of_fifty), **EXACT)


# Objectives as such -------------------------------------------------------------------------


def test_per_datum_turns_pyros_losses_into_bounds_and_leaves_functions_alone():
    case = CATALOG["by hand, subsampling plate"]()
    batch = (case.pair.model, case.pair.guide, case.x, case.index)
    case.pair.find_parameters(case.x, case.index)
    for objective in (Trace_ELBO(), elbo):
        torch.manual_seed(8)
        value = per_datum(objective, case.size)(*batch)
        torch.manual_seed(8)
        assert_close(value, elbo(*batch), **EXACT)
    assert per_datum(elbo, 3) is elbo


@pytest.mark.parametrize(
    ("objective", "phrase"),
    [(RenyiELBO(num_particles=2), "RenyiELBO has no differentiable_loss"), ("elbo", "got str")],
)
def test_an_objective_without_a_gradient_is_refused_by_name(objective, phrase):
    with pytest.raises(TypeError, match=phrase):
        per_datum(objective, 10)


def test_pathwise_objectives_are_told_from_those_with_score_functions():
    def scored(model, guide, *batch):
        return model

    assert is_pathwise(elbo)
    assert is_pathwise(scored)
    assert is_pathwise(TraceMeanField_ELBO())
    assert not is_pathwise(Trace_ELBO())
    assert not is_pathwise(TraceGraph_ELBO())
    scored.pathwise = False
    assert not is_pathwise(scored)


def test_a_warm_up_reaches_its_final_weight_and_stays_there():
    weight = linear_warmup(10, final=2.0)
    assert [weight(step) for step in (0, 5, 10, 1000)] == [0.0, 1.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="steps >= 1; got 0"):
        linear_warmup(0)
