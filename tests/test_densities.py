"""The log joint and its gradient agree with the pair's own terms and with autograd."""

import pyro
import pytest
import torch
from catalog import CATALOG

from bayesvae import LogJoint
from bayesvae.pair import evaluation_mode
from bayesvae.trace import run

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
