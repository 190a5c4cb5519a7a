"""From a Pyro pair and a batch to per-datum terms: the only door to Pyro's internals.

A pair is a model p(x, z) and a guide q(z | x).  Running the guide, then the model on the guide's
draws, gives every sample site its distribution and its value.  A site inside
``pyro.plate("data")`` belongs to one datum and is *local*; any other site is *shared* by the
whole data set.  Summed over sites of the same kind, the log-densities give

    log p(x_n | z_n),   log p(z_n),   log q(z_n | x_n)        local,  shape (K, B)
    log p(x | w),       log p(w),     log q(w)                shared, shape (K,)

for K particles and the B data of a batch: unscaled, masks applied.  Their combination
log p(x, z) - log q(z | x), the log-weight, is what every bound and estimator downstream is made
of.

Training objectives may weigh sites (subsampling, KL annealing); evidence may not.  So a site also
carries its *weight*: Pyro's scale divided by the data plate's own factor N / B.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from bayesvae.compiler import decided, one_thread, unvalidated
from bayesvae.core.programs import PARTICLE_PLATE, Program, given, within
from bayesvae.core.sites import Site, Sites


class Part(NamedTuple):
    """Log-densities summed over the sites of one kind: local ``(K, B)`` or shared ``(K,)``; nats.

    Attributes:
        log_likelihood: of the observed sites.
        log_prior: of the latent sites under the model.
        log_guide: of the latent sites under the guide.
        kl: ``log_guide - log_prior``, or the analytic KL where it was asked for and exists.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor
    kl: Tensor

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x), same shape."""
        return self.log_likelihood + self.log_prior - self.log_guide

    @property
    def elbo(self) -> Tensor:
        """log p(x | z) - KL, same shape."""
        return self.log_likelihood - self.kl


class Terms(NamedTuple):
    """The terms of a pair on a batch.

    Attributes:
        local: sites inside the data plate, ``(K, B)``.
        shared: sites outside it, ``(K,)``.
        size: N, the size of the data set that the batch stands for.
    """

    local: Part
    shared: Part
    size: int


# Running programs ---------------------------------------------------------------------------

_NESTING: WeakKeyDictionary[Any, WeakKeyDictionary] = WeakKeyDictionary()


def _owner_and_function(program: Program) -> tuple[Any, Any]:
    program = inspect.unwrap(program)
    return getattr(program, "__self__", program), getattr(program, "__func__", None)


def nesting(model: Program, guide: Program, *batch: Any) -> int:
    """How many dims the plates of a pair take, found on one dry run and remembered."""
    (generator, first), (inferrer, second) = map(_owner_and_function, (model, guide))
    known = _NESTING.setdefault(generator, WeakKeyDictionary()).setdefault(inferrer, {})
    if (first, second) not in known:
        with one_thread, torch.no_grad(), torch.random.fork_rng(), unvalidated:
            sites = run(model, guide, *batch)
        frames = [f for s in (*sites.model.values(), *sites.guide.values()) for f in s.plates]
        known[first, second] = max((-f.dim for f in frames if f.vectorized), default=1)
    return known[first, second]


def _sites(trace: poutine.Trace) -> dict[str, Site]:
    return {
        name: Site(
            name,
            node["fn"],
            node["value"],
            node["is_observed"],
            node["cond_indep_stack"],
            node["scale"],
            node["mask"],
            bool(node["infer"].get("is_auxiliary")),
        )
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }


def run(
    model: Program, guide: Program, *batch: Any, particles: int = 1, dims: int | None = None
) -> Sites:
    """Runs the guide, then the model on the guide's draws.

    Args:
        model: the generative program.
        guide: the guide.
        *batch: what both take, usually ``x`` of shape ``(B, *event)`` and ``index`` ``(B,)``.
        particles: K; above 1 both run once under an outer plate, vectorised.
        dims: how many dims the plates below it take, if not as many as in these programs.

    Returns:
        The sites of both programs.
    """
    with one_thread:
        if particles > 1:
            dim = -1 - (dims or nesting(model, guide, *batch))
            model = within(model, pyro.plate(PARTICLE_PLATE, particles, dim=dim))
            guide = within(guide, pyro.plate(PARTICLE_PLATE, particles, dim=dim))
        guide_trace = poutine.trace(guide).get_trace(*batch)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*batch)
    return Sites(_sites(model_trace), _sites(guide_trace))


def draws(program: Program, *batch: Any) -> dict[str, Site]:
    """The sites of one run of one program, by name."""
    with one_thread:
        return _sites(poutine.trace(program).get_trace(*batch))


def data_size(model: Program, guide: Program, *batch: Any) -> int:
    """N, the size of the data set that a batch stands for according to the data plate."""
    with torch.no_grad(), torch.random.fork_rng():
        return run(model, guide, *batch).size


def silent(*_: Any, **__: Any) -> None:
    """A guide without sites."""


def log_joint(
    model: Program,
    values: Mapping[str, Tensor],
    *batch: Any,
    particles: int,
    dims: int | None = None,
) -> Tensor:
    """log p(x_n, z_n) per particle and datum, with every latent given.

    Args:
        model: the generative program.
        values: the latents by site name: local ones ``(K, B, *event)``, shared ones ``event``.
        *batch: what the model takes.
        particles: K.
        dims: how many dims the plates take, if not as many as in this program alone.

    Returns:
        ``(K, B)``, nats; the densities of shared sites are left out.

    Raises:
        ValueError: if a latent of the model is not among ``values``.
    """
    sites = run(given(model, values), silent, *batch, particles=particles, dims=dims)
    missing = [name for name, site in sites.model.items() if not site.observed]
    if missing:
        raise ValueError(
            f"log_joint needs a value for every latent; missing {missing}. Add them to `values`."
        )
    return _part(sites, True, particles, False, set()).log_likelihood


# From sites to terms ------------------------------------------------------------------------


def per_datum(log_density: Tensor, particles: int, batch: int) -> Tensor:
    """Sums out the plates between the particles and the data: ``(K, B)``."""
    rows = log_density.shape[-1] if log_density.dim() else 1
    return log_density.reshape(particles, -1, rows).sum(1).expand(particles, batch)


def _shared(log_density: Tensor, particles: int) -> Tensor:
    """Sums out every plate but the particles: ``(K,)``."""
    return log_density.reshape(particles, -1).sum(1)


def _weight(site: Site, weighted: bool) -> Tensor | float:
    weight = site.weight
    one = not isinstance(weight, Tensor) and abs(weight - 1) < 1e-9
    if one or weighted:
        return 1.0 if one else weight
    raise ValueError(
        f"log p(x) has no scales, but site '{site.name}' has one of {weight:.6g} besides the data "
        "plate's. Move poutine.scale into the objective, and subsample only the data plate."
    )


def _same(first: Tensor | float | None, second: Tensor | float | None) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first is second or decided(lambda: torch.equal(first, second))
    return first is second or (type(first) is type(second) is float and first == second)


def _analytic_sites(sites: Sites) -> set[str]:
    """Latents whose KL may be taken analytically.

    Their parents in the model come before them in the guide too, so that given the guide's draws
    so far both densities are fixed, and their masks and weights agree.
    """
    before_in_guide = {name: set(list(sites.guide)[:i]) for i, name in enumerate(sites.guide)}
    latents = [name for name, site in sites.model.items() if name in sites.guide]
    return {
        name
        for position, name in enumerate(latents)
        if set(latents[:position]) <= before_in_guide[name]
        and _same(sites.model[name].mask, sites.guide[name].mask)
        and _same(sites.model[name].weight, sites.guide[name].weight)
    }


def _analytic_kl(guide: Site, model: Site, weight: Tensor | float) -> Tensor | None:
    try:
        kl = kl_divergence(guide.distribution, model.distribution)
    except NotImplementedError:
        return None
    return scale_and_mask(kl.expand(guide.distribution.batch_shape), weight, guide.mask)


def _part(sites: Sites, local: bool, particles: int, weighted: bool, analytic: set[str]) -> Part:
    batch = sites.data_plate.size
    zero = next(iter(sites.model.values())).value.new_zeros(
        (particles, batch) if local else particles, dtype=torch.get_default_dtype()
    )
    likelihood, prior, guide, kl = zero, zero, zero, zero

    def collapse(log_density: Tensor) -> Tensor:
        if local:
            return per_datum(log_density, particles, batch)
        return _shared(log_density, particles)

    def of_kind(group: dict[str, Site]) -> Iterator[tuple[str, Site, Tensor]]:
        for name, site in group.items():
            if (site.data_plate is not None) == local:
                yield name, site, collapse(site.log_density(_weight(site, weighted)))

    for name, site, term in of_kind(sites.guide):
        exact = None
        if name in analytic:
            exact = _analytic_kl(site, sites.model[name], _weight(site, weighted))
        guide = guide + term
        kl = kl + (term if exact is None else collapse(exact))
        analytic = analytic if exact is not None else analytic - {name}
    for name, site, term in of_kind(sites.model):
        if site.observed:
            likelihood = likelihood + term
        else:
            prior = prior + term
            kl = kl if name in analytic else kl - term
    return Part(likelihood, prior, guide, kl)


def log_terms(
    model: Program,
    guide: Program,
    *batch: Any,
    particles: int = 1,
    weighted: bool = False,
    analytic_kl: bool = False,
    dims: int | None = None,
) -> Terms:
    """The per-datum terms of a pair on a batch.

    Args:
        model: the generative program.
        guide: the guide.
        *batch: what both take, usually ``x`` ``(B, *event)`` and ``index`` ``(B,)``.
        particles: K draws of the guide, vectorised under an outer plate.
        weighted: keep weights other than the data plate's subsampling factor (annealing, a user's
            ``poutine.scale``), as a training objective does; otherwise such a weight is an error,
            because log p(x) has none.
        analytic_kl: put the analytic KL in ``kl`` at sites where one is registered and valid.
        dims: how many dims the plates take, if not as many as in these programs.

    Returns:
        The terms, nats.

    Raises:
        ValueError: without a data plate at dim -1, or for a weight where none may be.
    """
    sites = run(model, guide, *batch, particles=particles, dims=dims)
    analytic = _analytic_sites(sites) if analytic_kl else set()
    local = _part(sites, True, particles, weighted, analytic)
    shared = _part(sites, False, particles, weighted, analytic)
    return Terms(local, shared, sites.size)
