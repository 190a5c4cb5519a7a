"""What would silently train the wrong thing is refused in words; sound pairs pass untouched."""

import re

import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, CATALOG
from programs import (
    D,
    FeaturesFirst,
    bernoulli,
    guide_of,
    levels,
    no_event,
    normal,
    pair_of,
    plate_of_the_data_alone,
    real,
    scalars,
    supports,
    without_plate,
)
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from bayesvae.core.pair import Pair
from bayesvae.objectives import elbo
from bayesvae.training import check_pair

BAD = {
    "latent without a guide": (guide_of, lambda: real(D), "needs a guide; 'z' has none"),
    "latent of the guide alone": (
        lambda: guide_of("z", "u"),
        lambda: real(D),
        "'u' is not among ['z']",
    ),
    "guide of the data": (
        lambda: guide_of("z", "x"),
        lambda: real(D),
        "'x', which the model observes",
    ),
    "no data plate in the model": (
        lambda: pair_of(opens_in_model=without_plate),
        lambda: real(D),
        'The model needs `with pyro.plate("data"',
    ),
    "no data plate in the guide": (
        lambda: pair_of(opens_in_guide=without_plate),
        lambda: real(D),
        'The guide needs `with pyro.plate("data"',
    ),
    "latent outside the plate in the model alone": (
        plate_of_the_data_alone,
        lambda: real(D),
        "'z' is inside the data plate on one side only",
    ),
    "data plate that is not rightmost": (
        lambda: pair_of(
            prior=lambda: dist.Normal(0.0, 1.0),
            likelihood=lambda z: dist.Normal(z, 1.0),
            posterior=lambda x: dist.Normal(x, 1.0),
            opens_in_model=FeaturesFirst,
            opens_in_guide=FeaturesFirst,
        ),
        lambda: real(D),
        "must be the rightmost (dim=-1); at site 'z' of the guide it has dim=-2",
    ),
    "a network's column against a row of data": (
        lambda: scalars(lambda z: dist.Normal(z.unsqueeze(-1), 1.0)),
        real,
        f"has {BATCH} entries at dim -2, where the plates have 1",
    ),
    "a column of data against a network's row": (
        lambda: scalars(lambda z: dist.Normal(z, 1.0)),
        lambda: real(1),
        "has 6 entries at dim -2",
    ),
    "a column in the guide": (
        lambda: pair_of(
            prior=lambda: dist.Normal(0.0, 1.0),
            posterior=lambda x: dist.Normal(x.unsqueeze(-1), 1.0),
            likelihood=lambda z: dist.Normal(z, 1.0),
        ),
        real,
        f"Site 'z' of the guide: its batch shape ({BATCH}, {BATCH}) has {BATCH} entries at dim -2",
    ),
    "features without to_event, as many as data": (
        lambda: no_event(BATCH),
        lambda: real(BATCH),
        "Use .to_event(n) for axes of one datum",
    ),
    "features without to_event, fewer than data": (
        lambda: no_event(D),
        lambda: real(D),
        f"cannot be run on a batch of shape ({BATCH}, {D})",
    ),
    "one value a datum for an event of two": (
        lambda: pair_of(posterior=lambda x: normal(x.expand(-1, D))),
        lambda: real(1),
        "one value has shape (2,) under its distribution, but the data have shape (6, 1)",
    ),
    "one latent in the guide for two in the prior": (
        lambda: pair_of(
            posterior=lambda x: normal(x[:, :1]),
            likelihood=lambda z: normal(z.expand(-1, D)),
        ),
        lambda: real(D),
        "'z'",
    ),
    "grey levels under a Bernoulli": (
        lambda: pair_of(likelihood=bernoulli),
        lambda: levels(0.4),
        "These are grey levels: binarise them",
    ),
    "counts under a Bernoulli": (
        lambda: pair_of(likelihood=bernoulli),
        lambda: levels(3.0),
        "range over [0, 3]. Choose a likelihood whose support holds the data",
    ),
    "NaN in the data": (pair_of, lambda: levels(torch.nan), "8.3% of the data are not finite"),
    "infinite data": (pair_of, lambda: levels(torch.inf), "8.3% of the data are not finite"),
    "fractions under a Poisson": (
        lambda: pair_of(likelihood=lambda z: dist.Poisson(z.exp()).to_event(1)),
        lambda: levels(0.5),
        "outside the support of Poisson; they range over [0, 0.5]",
    ),
    "negative counts under a Poisson": (
        lambda: pair_of(likelihood=lambda z: dist.Poisson(z.exp()).to_event(1)),
        lambda: levels(-1.0),
        "outside the support of Poisson; they range over [-1, 0]",
    ),
    "a level too many under a Categorical": (
        lambda: pair_of(
            likelihood=lambda z: dist.Categorical(logits=torch.zeros(BATCH, D, 3)).to_event(1)
        ),
        lambda: levels(3.0),
        "outside the support of Categorical; they range over [0, 3]",
    ),
    "densities that underflow": (
        lambda: pair_of(likelihood=lambda z: normal(z, 1e-200)),
        lambda: real(D),
        "Site 'x' of the model: 100.0% of its log-densities are not finite",
    ),
    "Normal guide of a Gamma": (
        lambda: supports(dist.Gamma(2.0, 1.0), dist.Normal(9.0, 0.1)),
        lambda: real(D),
        "The guide of 'z' exceeds the prior's support",
    ),
    "Normal guide of a Beta": (
        lambda: supports(dist.Beta(2.0, 2.0), dist.Normal(0.5, 0.01)),
        lambda: real(D),
        "The guide of 'z' exceeds the prior's support",
    ),
    "wide guide of a Uniform": (
        lambda: supports(dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 1.001)),
        lambda: real(D),
        "The guide of 'z' exceeds the prior's support",
    ),
    "Beta guide of a Normal": (
        lambda: supports(dist.Normal(0.0, 1.0), dist.Beta(2.0, 2.0)),
        lambda: real(D),
        "The guide of 'z' does not cover the prior's support",
    ),
    "Exponential guide of a Normal": (
        lambda: supports(dist.Normal(0.0, 1.0), dist.Exponential(1.0)),
        lambda: real(D),
        "The guide of 'z' does not cover the prior's support",
    ),
    "Uniform guide of a Normal": (
        lambda: supports(dist.Normal(0.0, 1.0), dist.Uniform(-9.0, 9.0)),
        lambda: real(D),
        "The guide of 'z' does not cover the prior's support",
    ),
    "continuous guide of counts": (
        lambda: supports(dist.Poisson(1.0), dist.Gamma(1.0, 1.0)),
        lambda: real(D),
        "The guide of 'z' exceeds the prior's support",
    ),
    "continuous guide of a discrete latent": (
        lambda: supports(dist.Bernoulli(0.5), dist.Beta(1.0, 1.0)),
        lambda: real(D),
        "The guide of 'z' exceeds the prior's support",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_check_finds(name):
    build, draw, phrase = BAD[name]
    pair, x = build(), draw()
    with pytest.raises(ValueError, match=re.escape(phrase)):
        check_pair(pair, x)


def test_all_findings_are_told_at_once_with_the_table():
    pair = pair_of(opens_in_model=without_plate)
    with pytest.raises(ValueError, match="is not sound") as caught:
        check_pair(Pair(pair.model, lambda x: None), real(D))
    assert "'z' has none" in str(caught.value)
    assert "The model needs" in str(caught.value)
    assert "model    x     observed  none" in str(caught.value)


ACCEPTED_SUPPORTS = {
    "LogNormal for Gamma": (dist.Gamma(2.0, 1.0), dist.LogNormal(0.0, 1.0)),
    "Beta for Uniform": (dist.Uniform(0.0, 1.0), dist.Beta(2.0, 1.0)),
    "Student for Normal": (dist.Normal(0.0, 1.0), dist.StudentT(3.0)),
    "a point for Normal": (dist.Normal(0.0, 1.0), dist.Delta(torch.tensor(0.3))),
}


@pytest.mark.parametrize("name", ACCEPTED_SUPPORTS)
def test_check_accepts_a_guide_with_the_support_of_its_prior(name):
    check_pair(supports(*ACCEPTED_SUPPORTS[name]), real(D))


@pytest.mark.parametrize("objective", [elbo, Trace_ELBO(), TraceMeanField_ELBO(), None])
def test_check_passes_every_sound_pair_and_changes_nothing(case, objective):
    case.pair.find_parameters(case.x, case.index)
    before = {name: value.clone() for name, value in case.pair.state_dict().items()}
    stream, validated = torch.get_rng_state(), torch.distributions.Distribution._validate_args
    table = check_pair(case.pair, (case.x, case.index), objective)
    state = case.pair.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert torch.equal(stream, torch.get_rng_state())
    assert torch.distributions.Distribution._validate_args == validated
    assert all(parameter.grad is None for parameter in case.pair.parameters())
    sites = {tuple(row.split()[:3]) for row in table.splitlines()}
    assert {("program", "site", "kind")} < sites
    assert {site[2] for site in sites} == {"kind", "latent", "observed"}


def test_the_table_tells_plates_and_shapes_of_shared_and_local_sites():
    case = CATALOG["by hand, shared latent"]()
    rows = [" ".join(row.split()) for row in check_pair(case.pair, case.x).splitlines()]
    assert rows[1:] == [
        "guide w latent none () (2,) (2,) ()",
        "guide z latent data[6] (6,) (2,) (6, 2) (6,)",
        "model w latent none () (2,) (2,) ()",
        "model gauge observed none () () () ()",
        "model z latent data[6] (6,) (2,) (6, 2) (6,)",
        "model x observed data[6] (6,) (3,) (6, 3) (6,)",
    ]


def test_check_leaves_running_statistics_of_a_network_alone():
    encoder = nn.BatchNorm1d(D)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    check_pair(pair_of(posterior=lambda x: normal(encoder(x))), real(D))
    assert all(torch.equal(encoder.state_dict()[n], value) for n, value in before.items())
