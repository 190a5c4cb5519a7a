"""What would silently train the wrong thing is refused in words; sound pairs pass untouched."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from catalog import BATCH, CATALOG
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from bayesvae.check import check_pair, non_finite
from bayesvae.objectives import elbo
from bayesvae.pair import Pair

D = 2  # features, and latents

# Programs from parts ------------------------------------------------------------------------


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def data(x, **named):
    return pyro.plate("data", len(x), **named)


def pair_of(
    prior=lambda: normal(torch.zeros(D)),
    likelihood=normal,
    posterior=normal,
    opens_in_model=data,
    opens_in_guide=data,
):
    """A pair that is sound unless a part makes it otherwise."""

    def model(x):
        with opens_in_model(x):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with opens_in_guide(x):
            pyro.sample("z", posterior(x))

    return Pair(model, guide)


def scalars(likelihood):
    """A pair with one scalar latent a datum."""
    return pair_of(
        prior=lambda: dist.Normal(0.0, 1.0),
        posterior=lambda x: dist.Normal(x.reshape(len(x), -1).mean(1), 1.0),
        likelihood=likelihood,
    )


def supports(prior, posterior):
    """A pair with a scalar latent of the given prior and guide."""
    return pair_of(
        prior=lambda: prior,
        posterior=lambda x: posterior.expand([len(x)]),
        likelihood=lambda z: normal(z.to(torch.get_default_dtype()).unsqueeze(-1).expand(-1, D)),
    )


def without_plate(x):
    """Replaces the plate by something of no effect."""
    return pyro.poutine.scale(scale=1.0)


class FeaturesFirst:
    """A data plate to the left of another one."""

    def __init__(self, x):
        self.plates = data(x, dim=-2), pyro.plate("features", D, dim=-1)

    def __enter__(self):
        for plate in self.plates:
            plate.__enter__()

    def __exit__(self, *error):
        for plate in reversed(self.plates):
            plate.__exit__(*error)


def guide_of(*names):
    """A pair whose guide samples these sites."""

    def guide(x):
        with data(x):
            for name in names:
                pyro.sample(name, normal(x))

    return Pair(pair_of().model, guide)


def plate_of_the_data_alone():
    """The model draws one z a datum, but outside the plate."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), D), 1.0).to_event(2))
        with data(x):
            pyro.sample("x", normal(z), obs=x)

    return Pair(model, pair_of().guide)


def real(*event):
    return torch.randn(BATCH, *event)


def levels(value):
    """Zeros and one value among them."""
    x = torch.zeros(BATCH, D)
    x[2, 1] = value
    return x


def bernoulli(z):
    return dist.Bernoulli(logits=z).to_event(1)


def no_event(shape):
    """A pair that forgets that the features of a datum belong together."""
    return pair_of(
        prior=lambda: normal(torch.zeros(shape)), likelihood=lambda z: dist.Normal(z, 1.0)
    )


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
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the phrases hold brackets)
        check_pair(pair, x)
    assert phrase in str(caught.value)


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


# Gradients ----------------------------------------------------------------------------------


class WithIdle(nn.Module):
    """A pair with a parameter that it does not use, and one that it does."""

    def __init__(self):
        super().__init__()
        self.idle, self.used = (nn.Parameter(torch.zeros(D)) for _ in range(2))

    def model(self, x):
        with data(x):
            z = pyro.sample("z", normal(torch.zeros(D)))
            pyro.sample("x", normal(z + self.used), obs=x)

    def guide(self, x):
        with data(x):
            pyro.sample("z", normal(x))


def test_a_parameter_outside_every_gradient_is_named_unless_it_is_frozen():
    programs, x = WithIdle(), real(D)
    pair = Pair(programs.model, programs.guide)
    for objective in (elbo, Trace_ELBO(), TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match=r"never train: \['model_part_0\.idle'\]"):
            check_pair(pair, x, objective)
    check_pair(pair, x, None)
    programs.idle.requires_grad_(False)
    check_pair(pair, x)


SCALE = nn.Parameter(torch.ones(()))


class Slotted:
    """Keeps its parameter where `vars` finds nothing."""

    __slots__ = ("scale",)

    def __init__(self):
        self.scale = SCALE

    def posterior(self, x):
        return normal(self.scale * x)


class Callable:
    """A program that is neither a function nor a module."""

    def __init__(self, guide):
        self.guide, self.scale = guide, SCALE

    def __call__(self, x):
        return self.guide(x, self.scale)


def sampled_with(x, scale):
    with data(x):
        pyro.sample("z", normal(scale * x))


UNSEEN = {
    "a global": lambda: lambda x: sampled_with(x, SCALE),
    "a list in a closure": lambda scales=(SCALE,): lambda x: sampled_with(x, scales[0]),
    "a callable object": lambda: Callable(sampled_with),
    "an object with slots": lambda: pair_of(posterior=Slotted().posterior).guide,
}


@pytest.mark.parametrize("place", UNSEEN)
def test_a_parameter_that_the_pair_cannot_see_is_refused_instead_of_left_untrained(place):
    pair = Pair(pair_of().model, UNSEEN[place]())
    if all(parameter is not SCALE for parameter in pair.parameters()):
        with pytest.raises(ValueError, match="gradient"):
            check_pair(pair, real(D))


def test_a_pair_whose_gradients_are_all_cut_is_refused():
    programs = WithIdle()
    cut = torch.no_grad()
    with pytest.raises(ValueError, match="No parameter of the pair has a gradient"):
        check_pair(Pair(cut(programs.model), programs.guide), real(D))


def test_gradients_are_checked_even_where_the_caller_switched_them_off():
    programs = WithIdle()
    with torch.no_grad(), pytest.raises(ValueError, match="never train"):
        check_pair(Pair(programs.model, programs.guide), real(D))


def test_latents_without_pathwise_gradient_need_an_objective_with_score_functions():
    pair = supports(dist.Bernoulli(0.5), dist.Bernoulli(0.3))
    for objective in (Trace_ELBO(), None):
        check_pair(pair, real(D), objective)
    for objective in (elbo, TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match=r"'z' \(Bernoulli\) has no reparameterised draws"):
            check_pair(pair, real(D), objective)


def test_every_objective_that_a_refusal_recommends_is_accepted():
    pair = supports(dist.Bernoulli(0.5), dist.Bernoulli(0.3))
    with pytest.raises(ValueError, match="has no reparameterised draws") as caught:
        check_pair(pair, real(D))
    recommended = set(re.findall(r"\w+_ELBO", str(caught.value)))
    assert "Trace_ELBO" in recommended
    for name in recommended:
        check_pair(pair, real(D), getattr(pyro.infer, name)())


# Sound pairs --------------------------------------------------------------------------------


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


# A loss that is not finite ------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_traced_to_the_parameter_or_the_site():
    programs = WithIdle()
    pair = Pair(programs.model, programs.guide)
    with pyro.validation_enabled(False):
        message = non_finite(pair, levels(torch.nan), None, 7, torch.nan)
    assert "it is nan at step 7" in message
    assert "Site 'x': 8.3% of the data are not finite" in message
    with torch.no_grad():
        programs.used[0] = torch.inf
    message = non_finite(pair, real(D), None, 8, torch.inf)
    assert "parameters ['model_part_0.used'] are not finite" in message
