"""What amortization costs: log p(x) - ELBO taken apart, per datum, the model held fixed.

For a datum x, a variational family Q and a guide q_phi in Q,

    log p(x) - L[q_phi]  =  { log p(x) - L[q*] }  +  { L[q*] - L[q_phi] },   q* = argmax_Q L[q]
                             approximation gap        amortization gap

the sum being KL(q_phi || p(z | x)) ("Inference Suboptimality in Variational Autoencoders", Cremer,
Li and Duvenaud, 2018).  L[q*] is found by gradient ascent on the datum's own lambda, so what is
reported is a lower estimate of it; log p(x) is importance-sampled from a mixture of every q at
hand, a lower estimate too.  All estimates use fresh noise, so a difference may be negative
within its error.

Posteriors are handled in coordinates u = (z - m) / s, with m and s the guide's mean and standard
deviation of the datum, where they have about unit scale.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from bayesvae import trace
from bayesvae.ascent import (
    DEFAULT_ASCENT,
    LOOK,
    Ascender,
    Ascent,
    LogDensity,
    Optimum,
    draw_log_weight,
)
from bayesvae.compiled import Compiled, When
from bayesvae.data import sequential
from bayesvae.dependence import guide_parameters, refuse_unseen
from bayesvae.distributions import bare, pyro_ready, support_of, unwrapped
from bayesvae.estimates import Estimate, concatenate, require_particles, weights
from bayesvae.evaluation import conditioned, evaluating, first_batch, on_device
from bayesvae.families import Family, MultivariateNormal, Normal
from bayesvae.memory import MEMORY, bytes_per_draw
from bayesvae.pair import Pair, require_pair
from bayesvae.programs import Program
from bayesvae.report import Comparison, Price, Split

# One batch ---------------------------------------------------------------------------------------


class _Pooled:
    """A mixture of proposals with equal weights.

    What one of them covers of the posterior cannot be missed by all ("Safe and Effective
    Importance Sampling", Owen and Zhou, 2000).
    """

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = parts

    def log_weight(self, log_joint: LogDensity, particles: int) -> Tensor:
        draws = torch.stack([part.sample((particles,)) for part in self.parts])
        chosen = torch.randint(len(self.parts), draws.shape[1:-1], device=draws.device)
        u = draws.gather(0, chosen[None, ..., None].expand(1, *draws.shape[1:]))[0]
        densities = torch.stack([part.log_prob(u) for part in self.parts])
        pooled = densities.logsumexp(0) - torch.tensor(float(len(self.parts))).log().to(u)
        return log_joint(u) - pooled


class _Guide(NamedTuple):
    """The guide's posterior of one batch, where it is one distribution over one latent vector."""

    site: str
    shape: torch.Size
    q: Distribution
    loc: Tensor
    scale: Tensor
    mask: Tensor | bool | None

    def standardised(self) -> Distribution:
        """q in u, as the families can read it: mean zero, unit standard deviations."""
        zero = torch.zeros_like(self.loc)
        if isinstance(self.q, torch.distributions.MultivariateNormal):
            tril = self.q.scale_tril / self.scale.unsqueeze(-1)
            return dist.MultivariateNormal(zero, scale_tril=tril)
        return dist.Normal(zero, torch.ones_like(zero)).to_event(1)

    def exact(self) -> Distribution:
        """q in u, exactly."""
        to_u = torch.distributions.AffineTransform(-self.loc / self.scale, 1 / self.scale, 1)
        return _masked(dist.TransformedDistribution(self.q, [to_u]), self.mask)


def _masked(q: Distribution, mask: Tensor | bool | None) -> Distribution:
    """q with the log-densities of data masked out at zero, as in the pair's own terms."""
    return q if mask is None else pyro_ready(q).mask(mask)


def _one_latent(guide: Program, x: Tensor, index: Tensor | None) -> _Guide | None:
    """The guide as one distribution over one real latent vector a datum, or None."""
    local = [s for s in trace.draws(guide, x, index).values() if s.data_plate is not None]
    local = [site for site in local if not site.observed]
    if len(local) != 1:
        return None
    fn = unwrapped(local[0].distribution)
    if isinstance(fn, torch.distributions.Normal) and len(local[0].plates) == 1:
        fn = dist.Normal(fn.loc.unsqueeze(-1), fn.scale.unsqueeze(-1)).to_event(1)
    support = support_of(fn)
    if support is None or bare(support) is not torch.distributions.constraints.real:
        return None
    try:
        loc, scale = fn.mean, fn.stddev
    except NotImplementedError:  # torch's word for moments without a closed form
        return None
    one_vector = len(fn.event_shape) == 1 and len(local[0].plates) == 1
    usable = torch.isfinite(loc).all() and torch.isfinite(scale).all() and (scale > 0).all()
    if not one_vector or not fn.has_rsample or not usable:
        return None
    return _Guide(local[0].name, local[0].value[0].shape, fn, loc, scale, local[0].mask)


class _Batch(NamedTuple):
    """What one batch adds to a split."""

    guide: Estimate
    log_evidence: Estimate
    bounds: dict[str, Estimate]
    optima: dict[str, Optimum]
    own: str | None


class _Settings(NamedTuple):
    families: Sequence[Callable[[int], Family]]
    particles: int
    evidence_particles: int
    ascent: Ascent
    memory: int
    per_draw: int
    compile: When

    def at_once(self, rows: int) -> int:
        return max(1, self.memory // (self.per_draw * rows))


class _Comparer:
    """Compares batch after batch, so that what was compiled for one of them serves the others."""

    def __init__(
        self, pair: Pair, programs: tuple[Program, Program], settings: _Settings, batches: int
    ) -> None:
        self.pair, self.settings, self.batches = pair, settings, batches
        self.model, self.guide = programs
        self._ascenders: dict[str, Ascender] = {}
        self._guide_weight = Compiled(
            self._weight_under_guide,
            [pair],
            when=settings.compile,
            name="The guide's log-weight in compare",
        )

    def __call__(self, x: Tensor, index: Tensor | None) -> _Batch:
        """What one batch adds to a split."""
        settings, at_once = self.settings, self.settings.at_once(len(x))

        def guide_weight(k: int) -> Tensor:
            return self._guide_weight(x, index, k)[0]

        amortized = weights(guide_weight, settings.particles, at_once).elbo()
        latent = _one_latent(self.guide, x, index)
        if latent is None or not settings.families:
            proposal = weights(guide_weight, settings.evidence_particles, at_once)
            return _Batch(amortized, proposal.log_evidence(), {}, {}, None)
        context = (x, index, latent.loc, latent.scale, latent.mask)
        log_joint = self._log_joint(latent.site, latent.shape)

        def of_batch(u: Tensor) -> Tensor:
            return log_joint(u, *context)

        bounds, optima, own = {}, {}, None
        starts, proposals = [latent.standardised()], [latent.exact()]
        for make in settings.families:
            family = make(latent.loc.shape[-1])
            name = type(family).__name__
            candidates = torch.stack([family.rows(start) for start in starts])
            ascender = self._ascender(name, family, log_joint)
            start = ascender.better_start(candidates, *context)
            optima[name] = ascender(start, *context)
            q = _masked(family(optima[name].rows), latent.mask)
            bound = partial(draw_log_weight, of_batch, q, q)
            bounds[name] = weights(bound, settings.particles, at_once).elbo()
            own = name if own is None and family.contains(latent.q) else own
            starts.append(family(optima[name].rows))
            proposals.append(q)
        pooled = partial(_Pooled(proposals).log_weight, of_batch)
        proposal = weights(pooled, settings.evidence_particles, at_once)
        return _Batch(amortized, proposal.log_evidence(), bounds, optima, own)

    def _weight_under_guide(self, x: Tensor, index: Tensor | None, k: int) -> list[Tensor]:
        terms = trace.log_terms(self.model, self.guide, x, index, particles=k)
        return [terms.local.log_weight]

    def _log_joint(self, site: str, shape: torch.Size) -> LogDensity:
        """log p(x_n, u_n) in the guide's standardised coordinates."""

        def log_joint(
            u: Tensor,
            x: Tensor,
            index: Tensor | None,
            loc: Tensor,
            scale: Tensor,
            mask: Tensor | bool | None,
        ) -> Tensor:
            z = loc + scale * u
            values = {site: z.reshape(*z.shape[:-1], *shape)}
            density = trace.log_joint(self.model, values, x, index, particles=len(u))
            return density + scale_and_mask(scale.log().sum(-1), mask=mask)

        return log_joint

    def _ascender(self, name: str, family: Family, log_joint: LogDensity) -> Ascender:
        def q_of(rows: Tensor, *context: Any) -> Distribution:
            return _masked(family(rows), context[-1])

        if name not in self._ascenders:
            self._ascenders[name] = Ascender(
                log_joint,
                q_of,
                self.settings.ascent,
                [self.pair],
                compile=self.settings.compile,
                batches=self.batches,
            )
        return self._ascenders[name]


# All data ----------------------------------------------------------------------------------------


def compare(
    pair: Pair,
    data: Any,
    unseen: Any = None,
    *,
    families: Sequence[Callable[[int], Family]] = (Normal, MultivariateNormal),
    particles: int = 200,
    evidence_particles: int = 1000,
    ascent: Ascent = DEFAULT_ASCENT,
    batch_size: int = 250,
    memory: int = MEMORY,
    compile: When = "auto",
    progress: bool = True,
) -> Comparison:
    """Takes log p(x) - ELBO apart for every datum, the model held fixed.

    The pair may be any with a data plate.  If its guide samples one real latent vector a datum,
    the best member of each family is found for each datum, and where the guide belongs to a
    family the gap splits into amortization and approximation.  Other guides (several latents,
    discrete ones) get log p(x), L[q_phi] and their difference.  Shared latents are fixed at
    their guide's mean. Nothing of the pair is changed.

    Args:
        pair: the pair, trained.
        data: the training data, or a part: a tensor ``(N, *event)``, a ``Dataset`` or a loader.
        unseen: data that the pair was not trained on.
        families: makers of families from the number of latents, each next one wider (its
            ascent may start from the one before); fitted in the guide's standardised
            coordinates, which is the same thing for families that are closed under a scaling of
            each latent.
        particles: draws for each bound, fresh ones.
        evidence_particles: draws for log p(x), from a mixture of the guide and all optima.
        ascent: how the per-datapoint optimum is sought.
        batch_size: data optimised at once, fewer if memory asks for it.
        memory: budget, bytes.
        compile: "auto" to compile the search and the weights once that will pay, True at once,
            False not at all.
        progress: whether to show a bar.

    Returns:
        The comparison; print it, or see its splits.

    Raises:
        ValueError: if the pair is not sound, or a guide with a row a datum gets unseen data.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> comparison = compare(pair, torch.zeros(4, 3), particles=10, progress=False)
        >>> comparison.splits["train"].own
        'MultivariateNormal'
    """
    require_pair(pair)
    require_particles(particles=particles, evidence_particles=evidence_particles)
    families = _checked(families)
    sources = {"train": data} if unseen is None else {"train": data, "unseen": unseen}
    with evaluating(pair):
        x, index = first_batch(pair, data)
        if unseen is not None:
            parameters, size = list(pair.parameters()), sequential(data).size
            refuse_unseen(pair.guide, parameters, x, index, size, "unseen")
            first_batch(pair, unseen)
        model, guide, given = conditioned(pair, x, index)
        per_draw = bytes_per_draw(lambda: trace.log_terms(model, guide, x, index), len(x))
        at_once = max(1, min(batch_size, memory // (per_draw * max(ascent.particles, LOOK))))
        sources = {name: sequential(source, at_once) for name, source in sources.items()}
        settings = _Settings(
            families, particles, evidence_particles, ascent, memory, per_draw, compile
        )
        number = sum(len(source) for source in sources.values())
        compare_batch = _Comparer(pair, (model, guide), settings, number)
        splits, optima = {}, []
        total = sum(source.size for source in sources.values())
        with tqdm(total=total, unit="datum", disable=not progress, desc="compare") as bar:
            for name, source in sources.items():
                batches = []
                for x, index in on_device(pair, source):
                    batches.append(compare_batch(x, index))
                    bar.update(len(x))
                splits[name] = _split(batches, given)
                optima += [batch.optima for batch in batches]
        x, index = next(on_device(pair, sources["train"]))
        prices = (_guide_price(pair, x, index), *_optimum_prices(optima))
    return Comparison(splits, prices, given)


def _checked(families: Any) -> tuple[Callable[[int], Family], ...]:
    """The makers of families, tried on one latent.

    Raises:
        TypeError: if they are not a sequence of functions from a number to a family.
        ValueError: if two make families of one name.
    """
    rule = "families takes a sequence of makers, from a number of latents to a family"
    try:
        makers = tuple(families)
        names = [type(make(1)).__name__ for make in makers if make(1).size]
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"{rule}; got {families!r}. Use (families.Normal, families.MultivariateNormal)."
        ) from error
    if len(set(names)) < len(names):
        raise ValueError(f"{rule}, each of a class of its own; got {names}.")
    return makers


def _split(batches: list[_Batch], given: str) -> Split:
    names = list(batches[0].bounds)
    sizes = torch.tensor([float(len(batch.guide.value)) for batch in batches])

    def joined(parts: list[Estimate]) -> Estimate:
        return concatenate(parts)._replace(given=given)

    def movement(name: str) -> float:
        moved = torch.tensor([batch.optima[name].movement for batch in batches])
        return (moved @ sizes / sizes.sum()).item()

    return Split(
        joined([batch.guide for batch in batches]),
        joined([batch.log_evidence for batch in batches]),
        {name: joined([batch.bounds[name] for batch in batches]) for name in names},
        {name: movement(name) for name in names},
        batches[0].own,
    )


def _guide_price(pair: Pair, x: Tensor, index: Tensor | None) -> Price:
    """Time of the guide's program on a batch, and the parameters that its draws depend on."""
    start, runs = time.perf_counter(), 5
    for _ in range(runs):
        trace.draws(pair.guide, x, index)
    seconds = (time.perf_counter() - start) / runs
    with torch.enable_grad():
        parameters = guide_parameters(pair.guide, list(pair.parameters()), x, index)
    return Price("guide", 1000 * seconds / len(x), sum(p.numel() for p in parameters))


def _optimum_prices(optima: list[dict[str, Optimum]]) -> Iterator[Price]:
    data = {name: 0 for each in optima for name in each}
    for name in data:
        found = [each[name] for each in optima]
        rows = sum(len(o.rows) for o in found)
        seconds = sum(o.seconds for o in found)
        yield Price(name, 1000 * seconds / rows, 1000 * found[0].rows.shape[-1])
