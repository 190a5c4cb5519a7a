"""Whether a pair's programs are what was meant, told from the sites of one run of both.

Most mistakes in a Pyro pair raise nothing: a log-density broadcast to (B, B), grey levels under a
Bernoulli, a guide wider than its prior's support.  Each has a look of its own here, and all look
at the same `Sites`.  What only training can get wrong is looked for in `bayesvae.training.check`.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from bayesvae.compiler import one_thread, unvalidated
from bayesvae.core.distributions import bare, support_of
from bayesvae.core.pair import Pair, evaluation_mode, require_pair
from bayesvae.core.programs import DATA_PLATE, PARTICLE_PLATE
from bayesvae.core.sites import Site, Sites
from bayesvae.core.tables import aligned
from bayesvae.core.trace import run

Batch = Tensor | tuple[Tensor, Tensor | None]


def require_sound(
    pair: Pair, batch: Batch, further: Callable[[Sites], Iterable[str]] = lambda sites: ()
) -> str:
    """Refuses a pair that cannot be what was meant, on one batch.

    Args:
        pair: the pair.
        batch: ``x`` of shape ``(B, *event)``, or ``(x, index)``.
        further: what else is wrong with a pair whose sites are sound, in sentences.

    Returns:
        A table of sites and shapes.

    Raises:
        ValueError: with every finding and the table, if something is wrong.
    """
    require_pair(pair)
    x, index = batch if isinstance(batch, (tuple, list)) else (batch, None)
    with one_thread, torch.random.fork_rng(), unvalidated, evaluation_mode(pair):
        try:
            pair.find_parameters(x, index)
            sites = run(pair.model, pair.guide, x, index)
        except (ValueError, RuntimeError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(
                f"The pair cannot be run on a batch of shape {tuple(x.shape)} and type {x.dtype} "
                f"{_other_type(pair, x)}: {str(error).split(chr(10))[0]}"
            ) from error
        findings = [*_structure(sites), *_rows(sites, len(x)), *_values(sites)]
        findings = findings or [*_densities(sites), *_supports(sites)]
        findings = findings or list(further(sites))
        table = site_table(sites)
    if findings:
        raise ValueError("The pair is not sound.\n- " + "\n- ".join(findings) + "\n\n" + table)
    return table


def not_finite(sites: Sites) -> list[str]:
    """Sites whose values or log-densities are not finite, or outside of a support, in words."""
    return [*_values(sites), *_densities(sites)]


def _other_type(pair: Pair, x: Tensor) -> str:
    types = {p.dtype for p in pair.parameters()} - {x.dtype}
    if not types:
        return "as it stands"
    return f"under parameters of {types.pop()} (convert one with .to(dtype))"


def site_table(sites: Sites) -> str:
    """One line a site: program, kind, plates and shapes."""
    rows = [("program", "site", "kind", "plates", "batch", "event", "value", "log-density")]
    for program, group in (("guide", sites.guide), ("model", sites.model)):
        for site in group.values():
            plates = " ".join(f"{f.name}[{f.size}]" for f in site.plates) or "none"
            kind = "observed" if site.observed else "latent"
            fn = site.distribution
            shapes = (fn.batch_shape, fn.event_shape, site.value.shape, _density_shape(site))
            rows.append((program, site.name, kind, plates, *(str(tuple(s)) for s in shapes)))
    return aligned(rows)


def _density_shape(site: Site) -> torch.Size:
    try:
        return site.log_density().shape
    except (ValueError, RuntimeError):
        return torch.Size()


def _structure(sites: Sites) -> Iterator[str]:
    latents = {name: site for name, site in sites.model.items() if not site.observed}
    for name in latents.keys() - sites.guide.keys():
        yield (
            f"Every latent of the model needs a guide; '{name}' has none. Sample it in the guide."
        )
    for name, site in sites.guide.items():
        if site.observed:
            continue
        if name in sites.model and sites.model[name].observed:
            yield f"The guide samples '{name}', which the model observes. Remove it there."
        elif name not in sites.model and not site.auxiliary:
            yield (
                f"Every latent of the guide must be one of the model; '{name}' is not among "
                f"{sorted(latents)}. Rename it, or mark it infer={{'is_auxiliary': True}}."
            )
    for program, group in (("model", sites.model), ("guide", sites.guide)):
        local = [s for s in group.values() if s.data_plate is not None]
        if not local and (program == "model" or any(_is_local(sites, n) for n in group)):
            yield (
                f'The {program} needs `with pyro.plate("{DATA_PLATE}", len(x))` around the sites '
                f"of one datum; its sites {sorted(group)} are all outside. Add the plate."
            )
        yield from (
            f"The data plate must be the rightmost (dim=-1); at site '{s.name}' of the {program} "
            f"it has dim={s.data_plate.dim}. Open it first."
            for s in local
            if s.data_plate.dim != -1
        )
    for name, site in sites.guide.items():
        if name in sites.model and _is_local(sites, name) != (site.data_plate is not None):
            yield f"'{name}' is inside the data plate on one side only. Put it inside on both."


def _rows(sites: Sites, rows: int) -> Iterator[str]:
    for _, site in _named(sites):
        frame = site.data_plate
        if frame is not None and frame.size not in (-1, rows):
            yield (
                f"The data plate must hold the {rows} rows of the batch; at site '{site.name}' it "
                f"holds {frame.size}, as when a plate draws a subsample of its own. Use "
                f'pyro.plate("{DATA_PLATE}", N, subsample=index), or leave N to `fit`.'
            )
            return


def _is_local(sites: Sites, name: str) -> bool:
    return name in sites.model and sites.model[name].data_plate is not None


def _named(sites: Sites) -> Iterator[tuple[str, Site]]:
    yield from (("guide", site) for site in sites.guide.values())
    yield from (("model", site) for site in sites.model.values())


def _values(sites: Sites) -> Iterator[str]:
    """Shapes and observed values, before any density is formed."""
    yield from _one_event(sites)
    for program, site in _named(sites):
        if (problem := _shape_problem(site)) is not None:
            yield f"Site '{site.name}' of the {program}: {problem}"
        elif site.observed and (problem := _outside_support(site)) is not None:
            yield f"Site '{site.name}': {problem}"


def _one_event(sites: Sites) -> Iterator[str]:
    for name in sites.guide.keys() & sites.model.keys():
        here, there = (tuple(group[name].distribution.event_shape) for group in sites)
        if here != there:
            yield (
                f"'{name}' has event shape {there} in the guide and {here} in the model; one "
                "would be broadcast to the other. Give both as many latents and one .to_event(n)."
            )


def _shape_problem(site: Site) -> str | None:
    expected = {f.dim: f.size for f in site.plates if f.vectorized and f.name != PARTICLE_PLATE}
    batch, event = site.distribution.batch_shape, site.distribution.event_shape
    value_batch = site.value.shape[: site.value.dim() - len(event)]
    if site.observed and site.value.shape[site.value.dim() - len(event) :] != event:
        return (
            f"one value has shape {tuple(event)} under its distribution, but the data have shape "
            f"{tuple(site.value.shape)}. Make the network's output match one datum, and use "
            ".to_event(n) so that its n axes belong to the event."
        )
    for shape in (batch, value_batch):
        for dim in range(-len(shape), 0):
            if shape[dim] not in (1, expected.get(dim, 1)):
                return (
                    f"its batch shape {tuple(shape)} has {shape[dim]} entries at dim {dim}, where "
                    f"the plates have {expected.get(dim, 1)}; the log-density would be broadcast "
                    "over unrelated data. Use .to_event(n) for axes of one datum, squeeze or "
                    "unsqueeze a network's output, or open a plate for the axis."
                )
    return None


def _outside_support(site: Site) -> str | None:
    support = support_of(site.distribution)
    if not torch.isfinite(site.value).all():
        share = (~torch.isfinite(site.value)).float().mean().item()
        return f"{share:.1%} of the data are not finite. Remove them, or replace and mask them."
    if support is None or (inside := support.check(site.value)).all():
        return None
    name = type(site.base).__name__
    share = (~inside).float().mean().item()
    low, high = site.value.min().item(), site.value.max().item()
    remedy = "Choose a likelihood whose support holds the data."
    if isinstance(site.base, torch.distributions.Bernoulli):
        if low >= 0 and high <= 1:
            remedy = (
                "These are grey levels: binarise them (data.static_binarisation, or "
                "data.Loader(..., transform=data.dynamic_binarisation)) or use likelihoods.Normal."
            )
    elif support.is_discrete and low >= 0:
        remedy = (
            "It takes whole numbers from 0: round grey levels, as in (x * 16).round() (on the "
            "command line --levels 17 --binarise none), or use likelihoods.Normal."
        )
    return (
        f"{share:.1%} of the data's rows or entries lie outside the support of {name}; they range "
        f"over [{low:.4g}, {high:.4g}]. {remedy}"
    )


def _densities(sites: Sites) -> Iterator[str]:
    for program, site in _named(sites):
        try:
            finite = torch.isfinite(site.log_density())
        except (ValueError, RuntimeError) as error:
            yield f"Site '{site.name}' of the {program} has no log-density: {error}"
            continue
        if not finite.all():
            share = (~finite).float().mean().item()
            yield (
                f"Site '{site.name}' of the {program}: {share:.1%} of its log-densities are not "
                "finite. Check the range of the data, scales that underflow, and supports."
            )


def _interval(support: constraints.Constraint) -> tuple[Tensor, Tensor] | None:
    """Ends of an interval-like support, None for any other."""
    if support is constraints.real:
        ends = (-inf, inf)
    elif any(hasattr(support, end) for end in ("lower_bound", "upper_bound")):
        ends = (getattr(support, "lower_bound", -inf), getattr(support, "upper_bound", inf))
    else:
        return None
    return torch.as_tensor(ends[0]), torch.as_tensor(ends[1])


def _supports(sites: Sites) -> Iterator[str]:
    for name in sites.guide.keys() & sites.model.keys():
        guide, model = sites.guide[name], sites.model[name]
        pair = (support_of(guide.distribution), support_of(model.distribution))
        if None in pair or isinstance(guide.base, dist.Delta):
            continue
        exceeds, covers = _exceeds_and_covers(guide, model, bare(pair[0]), bare(pair[1]))
        supports = f"guide {bare(pair[0])}, prior {bare(pair[1])}"
        if exceeds:
            yield (
                f"The guide of '{name}' exceeds the prior's support ({supports}): draws outside "
                "it have density zero under the model. Transform it onto the prior's support."
            )
        if not covers:
            yield (
                f"The guide of '{name}' does not cover the prior's support ({supports}), so "
                "importance weights are no estimate of log p(x). Use a guide on the whole support."
            )


def _exceeds_and_covers(
    guide: Site, model: Site, q: constraints.Constraint, p: constraints.Constraint
) -> tuple[bool, bool]:
    """Whether the guide's support exceeds, and whether it covers, the prior's."""
    if q.is_discrete != p.is_discrete:
        return True, False
    ends = _interval(q), _interval(p)
    if None not in ends:
        (q_low, q_high), (p_low, p_high) = ends
        exceeds = bool((q_low < p_low).any() or (q_high > p_high).any())
        covers = bool((q_low <= p_low).all() and (q_high >= p_high).all())
        return exceeds, covers
    if type(q) is type(p):
        return False, True
    exceeds = not bool(support_of(model.distribution).check(guide.value).all())
    covers = bool(support_of(guide.distribution).check(model.distribution.sample()).all())
    return exceeds, covers
