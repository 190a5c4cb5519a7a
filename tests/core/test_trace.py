"""The trace turns any pair into per-datum terms and mixes up no data, particles or scales."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, CATALOG, FEATURES, LATENTS, SIZE, ByHand, Case, Masked, linear
from pyro import poutine
from torch.testing import assert_close

from bayesvae.core.dependence import guide_parameters
from bayesvae.core.programs import given, kl_weighted, sampled, sized
from bayesvae.core.trace import draws, log_joint, log_terms, run

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def of_seed(seed, function, *args, **named):
    torch.manual_seed(seed)
    return function(*args, **named)


def programs(case: Case):
    case.pair.find_parameters(case.x, case.index)
    return case.pair.model, case.pair.guide


# Truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [1, 3])
def test_every_log_weight_under_an_exact_posterior_is_the_log_evidence(particles):
    pair, x, *_ = linear()
    terms = log_terms(pair.model, pair.guide, x, particles=particles)
    exact = pair.get_submodule("model_part_0").log_evidence(x)
    assert_close(terms.local.log_weight, exact.expand(particles, BATCH), **EXACT)
    assert_close(terms.shared.log_weight, torch.zeros(particles), **EXACT)


def test_sampled_draws_observations_from_the_marginal_and_reads_none():
    model = linear().pair.get_submodule("model_part_0")
    x = torch.full((40_000, FEATURES), torch.nan)
    y = sampled(model)(x)
    exact = model.weight @ model.weight.T + model.scale**2 * torch.eye(FEATURES)
    # The fourth moment of a normal gives the standard error of a sample covariance.
    variances = exact.diagonal()
    error = ((variances.outer(variances) + exact**2) / len(y)).sqrt()
    assert ((y.T.cov() - exact).abs() < 5 * error).all()
    assert ((y.mean(0) - model.loc).abs() < 5 * (variances / len(y)).sqrt()).all()


# Shapes and sums, for every pair ------------------------------------------------------------


@pytest.mark.parametrize("particles", [1, 3])
def test_local_terms_are_per_particle_and_datum_and_shared_ones_per_particle(case, particles):
    terms = log_terms(*programs(case), case.x, case.index, particles=particles)
    assert all(term.shape == (particles, BATCH) for term in terms.local)
    assert all(term.shape == (particles,) for term in terms.shared)
    assert terms.size == (case.size or BATCH)
    assert any(term.any() for term in terms.shared) == case.shared
    assert terms.local.log_likelihood.any(0).sum() > 1


def test_terms_times_the_plates_factor_add_up_to_pyros_log_densities(case):
    model, guide = programs(case)
    terms = of_seed(1, log_terms, model, guide, case.x, case.index)
    guide_trace = of_seed(1, poutine.trace(guide).get_trace, case.x, case.index)
    replayed = poutine.trace(poutine.replay(model, trace=guide_trace))
    log_model = replayed.get_trace(case.x, case.index).log_prob_sum()
    total = terms.local.log_weight.sum() * terms.size / BATCH + terms.shared.log_weight.sum()
    assert_close(total, log_model - guide_trace.log_prob_sum(), **EXACT)


def test_a_term_of_one_datum_does_not_depend_on_the_other_data(case):
    model, guide = programs(case)
    sites = run(model, guide, case.x, case.index).guide

    def densities_of(rows):
        values, batch = {}, (case.x[rows], case.index[rows])
        for name, site in sites.items():
            dim = -1 - site.distribution.event_dim
            local = site.data_plate is not None
            values[name] = site.value.index_select(dim, rows) if local else site.value
        log_model = log_joint(model, values, *batch, particles=1)
        # The guide's own density, got from the same function.
        return torch.cat([log_model, log_joint(guide, values, *batch, particles=1)])

    apart = torch.cat([densities_of(torch.tensor([n])) for n in range(BATCH)], -1)
    assert_close(densities_of(torch.arange(BATCH)), apart, **EXACT)


@pytest.mark.parametrize("particles", [1, 3])
def test_log_joint_of_the_guides_draws_is_likelihood_plus_prior_of_the_terms(case, particles):
    batch = (*programs(case), case.x, case.index)
    terms = of_seed(2, log_terms, *batch, particles=particles)
    sites = of_seed(2, run, *batch, particles=particles).guide
    values = {name: site.value for name, site in sites.items()}
    model, _, *inputs = batch
    joint = log_joint(model, values, *inputs, particles=particles)
    assert_close(joint, terms.local.log_likelihood + terms.local.log_prior, **EXACT)


def test_a_term_of_one_particle_does_not_depend_on_the_others(case):
    model, guide = programs(case)
    sites = run(model, guide, case.x, case.index, particles=3).guide

    def joint_of(particle):
        values = {}
        for name, site in sites.items():
            local = site.data_plate is not None
            shape = site.value.shape[1:] if local else site.distribution.event_shape
            values[name] = site.value[particle].reshape(shape)
        return log_joint(model, values, case.x, case.index, particles=1)

    together = log_joint(
        model, {n: s.value for n, s in sites.items()}, case.x, case.index, particles=3
    )
    assert_close(together, torch.cat([joint_of(particle) for particle in range(3)]), **EXACT)


def test_log_joint_names_the_latents_that_it_was_not_given():
    case = CATALOG["hierarchical 2 layers"]()
    with pytest.raises(ValueError, match=r"missing \['z1'\]"):
        log_joint(case.pair.model, {"z2": torch.zeros(BATCH, 2)}, case.x, particles=1)


# Scales and masks ---------------------------------------------------------------------------


class Weighted(ByHand):
    """Scales of 3 on the likelihood, of 0.5 on the latent of both sides."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=0.5):
                z = pyro.sample("z", self.latents())
            with poutine.scale(scale=3.0):
                pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)), poutine.scale(scale=0.5):
            pyro.sample("z", self.posterior(x))


def test_weights_multiply_the_terms_only_when_asked_for():
    programs, x = Weighted(), torch.randn(BATCH, FEATURES)
    terms = of_seed(3, log_terms, programs.model, programs.guide, x, weighted=True).local
    z = of_seed(3, draws, programs.guide, x)["z"].value
    log_likelihood = programs.likelihood(z).log_prob(x)
    assert_close(terms.log_likelihood[0], 3.0 * log_likelihood, **EXACT)
    assert_close(terms.log_prior[0], 0.5 * programs.latents().log_prob(z), **EXACT)
    assert_close(terms.log_guide[0], 0.5 * programs.posterior(x).log_prob(z), **EXACT)
    with pytest.raises(ValueError, match=r"log p\(x\) has no scales, but site 'z' has one of 0.5"):
        log_terms(programs.model, programs.guide, x)


def scale_of_a_model(model, guide):
    return poutine.scale(model, scale=0.3), guide


def scale_of_a_guide(model, guide):
    return model, poutine.scale(guide, scale=0.3)


def annealed_latents(model, guide):
    return kl_weighted(model, torch.tensor(0.3)), kl_weighted(guide, torch.tensor(0.3))


@pytest.mark.parametrize("change", [scale_of_a_model, scale_of_a_guide, annealed_latents])
@pytest.mark.parametrize("name", ["prior StandardNormal", "by hand, subsampling plate"])
def test_a_scale_that_would_bias_the_evidence_raises(change, name):
    case = CATALOG[name]()
    weighted = change(*programs(case))
    with pytest.raises(ValueError, match="besides the data plate's"):
        log_terms(*weighted, case.x, case.index)
    log_terms(*weighted, case.x, case.index, weighted=True)


def test_a_subsampled_plate_other_than_the_datas_raises_in_the_evidence():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", FEATURES, subsample_size=2, dim=-2) as pixels:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, pixels].T)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    x = torch.randn(BATCH, FEATURES)
    with pytest.raises(ValueError, match=r"site 'x' has one of 1\.5"):
        log_terms(model, guide, x)


def test_masked_data_have_terms_of_zero_and_the_others_keep_theirs():
    programs, x = Masked(), torch.tensor([[1.0], [-1.0], [2.0]]).expand(3, FEATURES)
    terms = of_seed(4, log_terms, programs.model, programs.guide, x).local
    z = of_seed(4, draws, programs.guide, x)["z"].value
    keep = torch.tensor([1.0, 0.0, 1.0])
    assert_close(terms.log_likelihood[0], keep * programs.likelihood(z).log_prob(x), **EXACT)
    assert_close(terms.log_prior[0], keep * programs.latents().log_prob(z), **EXACT)
    assert_close(terms.log_guide[0], keep * programs.posterior(x).log_prob(z), **EXACT)


# The size of the data set -------------------------------------------------------------------


def test_sized_tells_a_plate_that_states_no_size_and_leaves_one_that_does():
    silent, stated = CATALOG["by hand, shared latent"](), CATALOG["by hand, subsampling plate"]()
    for case, expected in ((silent, 50), (stated, SIZE)):
        model, guide = (sized(program, 50) for program in programs(case))
        sites = run(model, guide, case.x, case.index)
        assert sites.data_plate.full_size == expected
        for site in (*sites.model.values(), *sites.guide.values()):
            local = site.data_plate is not None
            assert site.scale == pytest.approx(expected / BATCH if local else 1.0)
        assert log_terms(model, guide, case.x, case.index).size == expected


# The data plate -----------------------------------------------------------------------------


def test_a_pair_without_a_data_plate_raises_instead_of_summing_over_data():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r'pyro\.plate\("data", \.\.\.\)'):
        log_terms(model, guide, torch.zeros(BATCH))


def test_a_data_plate_that_is_not_rightmost_raises_instead_of_mixing_axes():
    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("features", FEATURES, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("features", FEATURES, dim=-1):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match=r"rightmost, dim=-1; at site .* dim=-2"):
        log_terms(model, guide, torch.zeros(BATCH, FEATURES))


# Running ------------------------------------------------------------------------------------


class TwoShapes(ByHand):
    """One object with a plain model and one that opens another plate."""

    def flat(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.latents())
            pyro.sample("x", self.likelihood(z), obs=x)

    def flat_guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def nested(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.latents())
            with pyro.plate("views", 2, dim=-2):
                pyro.sample("x", self.likelihood(z), obs=x)


def test_particles_do_not_collide_with_plates_of_another_model_of_the_same_object():
    programs, x = TwoShapes(), torch.randn(BATCH, FEATURES)
    for model in (programs.flat, programs.nested):
        terms = log_terms(model, programs.flat_guide, x, particles=3)
        assert terms.local.log_likelihood.shape == (3, BATCH)


def test_particles_do_not_collide_with_plates_of_the_guide_after_a_log_joint():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            with pyro.plate("views", 2, dim=-2):
                hints = pyro.sample("hint", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(hints.mean(-2, keepdim=True), 1.0))

    x = torch.randn(BATCH)
    log_joint(model, {"z": torch.zeros(3, BATCH)}, x, particles=3)
    assert log_terms(model, guide, x, particles=3).local.kl.shape == (3, BATCH)


def test_wrong_values_are_reported_with_the_name_of_their_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("counts", dist.Poisson(z.exp(), validate_args=True), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match="Site 'counts'"):
        log_terms(model, guide, torch.full((BATCH,), -1.0))


def test_guide_parameters_are_those_that_change_the_guides_draws_or_densities(case):
    _, guide = programs(case)

    def footprint():
        sites = of_seed(5, draws, guide, case.x, case.index).values()
        return torch.stack([site.value.sum() + site.log_density().sum() for site in sites])

    found = {id(p) for p in guide_parameters(guide, [*case.pair.parameters()], case.x, case.index)}
    before = footprint()
    for name, parameter in case.pair.named_parameters():
        kept = parameter.data.clone()
        parameter.data += 0.1 * torch.randn_like(kept)
        assert (id(parameter) in found) == (not torch.equal(before, footprint())), name
        parameter.data.copy_(kept)


def test_frozen_parameters_are_none_of_the_guides_to_move():
    case = CATALOG["prior StandardNormal"]()
    frozen, *others = case.pair.get_submodule("guide_part_1").parameters()
    frozen.requires_grad_(False)
    found = guide_parameters(case.pair.guide, [*case.pair.parameters()], case.x)
    assert {id(p) for p in found} == {id(p) for p in others}


def test_guide_parameters_leave_random_stream_and_gradients_alone():
    case = CATALOG["prior Vamp"]()
    before = torch.get_rng_state()
    with torch.no_grad():
        assert guide_parameters(case.pair.guide, [*case.pair.parameters()], case.x)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in case.pair.parameters())


def test_given_fixes_the_named_site_and_draws_the_others():
    case = CATALOG["hierarchical 2 layers"]()
    fixed = torch.randn(BATCH, LATENTS)
    sites = draws(given(case.pair.model, {"z2": fixed}), case.x)
    assert sites["z2"].observed
    assert sites["z2"].value is fixed
    assert not sites["z1"].observed
