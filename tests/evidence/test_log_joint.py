"""The log joint and its gradient agree with the pair's own terms and with autograd."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import CATALOG

from bayesvae import LogJoint, Pair
from bayesvae.core.pair import evaluation_mode
from bayesvae.core.trace import run

CONTINUOUS = [
    "prior Mixture full",
    "hierarchical 2 layers",
    "by hand, Pyro's tutorial",
    "by hand, shared latent",
    "by hand, extra plate",
    "by hand, masks on both sides",
    "user's prior and family",
]


def case_and_latents(name, particles):
    """A pair, and latents drawn from its guide: ``(K, B, *event)``, shared ones ``event``."""
    case = CATALOG[name]()
    case.pair.find_parameters(case.x, case.index)
    values = {}
    for _ in range(particles):
        sites = run(case.pair.model, case.pair.guide, case.x, case.index).guide
        for site in sites.values():
            values.setdefault(site.name, []).append(site)
    stacked = {}
    for site_name, drawn in values.items():
        local = drawn[0].data_plate is not None
        draws = [site.value.detach() for site in drawn]
        stacked[site_name] = torch.stack(draws) if local else draws[0]
    return case, stacked


@pytest.mark.parametrize("name", CONTINUOUS)
def test_log_joint_is_the_sum_of_what_pyro_gives_each_local_site(name):
    case, values = case_and_latents(name, 1)
    value = LogJoint(case.pair)(values, case.x, case.index)
    shared = {"w", "gauge"}
    data = {k: v if k in shared else v[0] for k, v in values.items()}
    model = pyro.poutine.condition(case.pair.model, data=data)
    trace = pyro.poutine.trace(model).get_trace(case.x, case.index)
    trace.compute_log_prob()
    sites = [n for n in trace.nodes.values() if n["type"] == "sample" and n["name"] not in shared]
    terms = [n["log_prob"].reshape(-1, len(case.x)).sum(0) for n in sites if n["log_prob"].dim()]
    torch.testing.assert_close(value[0], torch.stack(terms).sum(0))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradient_is_that_of_each_datum_by_itself(name):
    case, values = case_and_latents(name, 3)
    log_joint = LogJoint(case.pair, 3)
    value, gradients = log_joint.gradient(values, case.x, case.index)
    torch.testing.assert_close(value, log_joint(values, case.x, case.index))
    generator = torch.Generator().manual_seed(1)
    for site, gradient in gradients.items():
        direction, step = torch.randn(values[site].shape, generator=generator), 1e-6
        ahead, behind = (
            log_joint(values | {site: values[site] + sign * step * direction}, case.x, case.index)
            for sign in (1, -1)
        )
        slope, product = (ahead - behind) / (2 * step), gradient * direction
        if site == "w":  # shared by all particles and data
            slope, product = slope.sum(), product.sum()
        elif name == "by hand, extra plate":
            product = product.sum(1)
        else:
            product = product.sum(-1)
        torch.testing.assert_close(product, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUOUS)
def test_compiled_gradient_equals_the_program_written(name):
    case, values = case_and_latents(name, 3)
    with evaluation_mode(case.pair):
        compiled, written = (LogJoint(case.pair, 3, compile=c) for c in (True, False))
        for k in range(5):
            moved = {site: value * (1 + 0.1 * k) for site, value in values.items()}
            ours, theirs = (f.gradient(moved, case.x, case.index) for f in (compiled, written))
            torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
            for site, gradient in theirs[1].items():
                torch.testing.assert_close(ours[1][site], gradient, rtol=1e-10, atol=1e-10)
    assert compiled._gradient.is_compiled


def test_a_missing_latent_is_named():
    case, values = case_and_latents("hierarchical 2 layers", 2)
    values.pop("z1")
    with pytest.raises(ValueError, match="z1"):
        LogJoint(case.pair, 2)(values, case.x, case.index)


def test_latents_of_another_number_of_sets_or_another_name_are_refused():
    case, values = case_and_latents("hierarchical 2 layers", 3)
    with pytest.raises(ValueError, match=r"'z1' needs the shape \(2, .* got \(3, "):
        LogJoint(case.pair, 2)(values, case.x, case.index)
    with pytest.raises(ValueError, match="no site 'zz'; its latents are"):
        LogJoint(case.pair, 3)(values | {"zz": values["z1"]}, case.x, case.index)


def test_a_gradient_in_a_discrete_latent_is_refused():
    case, values = case_and_latents("by hand, Pyro's tutorial", 3)
    whole = {name: value.long() for name, value in values.items()}
    with pytest.raises(TypeError, match="real latents"):
        LogJoint(case.pair, 3).gradient(whole, case.x, case.index)


def test_latents_in_fewer_plates_than_others_are_laid_out_by_themselves():
    """Sets are told from plates by the sites, whatever their numbers."""
    x = torch.randn(2, 2)

    def model(x, index=None):
        plate = pyro.plate("data", 2, dim=-1)
        with plate:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("time", 2, dim=-2), plate:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, index=None):
        with pyro.plate("data", 2, dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    z = torch.randn(2, 2)
    value = LogJoint(Pair(model, guide), 2)({"z": z}, x)
    normal = dist.Normal(0.0, 1.0)
    exact = normal.log_prob(z) + torch.stack([normal.log_prob(x - row).sum(0) for row in z])
    torch.testing.assert_close(value, exact)
