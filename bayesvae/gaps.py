"""What amortization costs: log p(x) - ELBO taken apart, per datum, the model held fixed.

For a datum x, a variational family Q and a guide q_phi in Q,

    log p(x) - L[q_phi]  =  { log p(x) - L[q*] }  +  { L[q*] - L[q_phi] },   q* = argmax_Q L[q]
                             approximation gap        amortization gap

the sum being KL(q_phi || p(z | x)) ("Inference Suboptimality in Variational Autoencoders", Cremer,
Li and Duvenaud, 2018).  L[q*] is found by gradient ascent on the datum's own lambda, so what is
reported is a lower estimate of it; log p(x) is importance-sampled from a mixture of every q at
hand, a lower estimate too.  All estimates use fresh noise, so a difference may be negative
within its error.

A guide may have several latents of any continuous support: families act on them as one real
vector.  If the guide itself is a member of a family, the gap splits as above; if not, L[q*] -
L[q_phi] is an improvement over the guide.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bayesvae import trace
from bayesvae.ascent import DEFAULT_ASCENT, LOOK, Ascent, Optimum
from bayesvae.compiled import When
from bayesvae.data import sequential
from bayesvae.dependence import guide_parameters, refuse_unseen
from bayesvae.estimates import Estimate, concatenate, require_particles
from bayesvae.evaluation import conditioned, evaluating, first_batch, on_device
from bayesvae.families import Family, MultivariateNormal, Normal
from bayesvae.latents import Coordinates
from bayesvae.memory import MEMORY, bytes_per_draw
from bayesvae.optima import Compared, Comparer, Settings
from bayesvae.pair import Pair, require_pair
from bayesvae.programs import Program
from bayesvae.report import Comparison, Price, Split


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

    The pair may be any with a data plate.  The best member of each family is found for each datum,
    and where the guide belongs to a family the gap splits into amortization and approximation.
    Pairs with discrete latents get log p(x), L[q_phi] and their difference, and the result says
    so.  Shared latents are fixed at their guide's mean. Nothing of the pair is changed.

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
        settings = Settings(
            families, particles, evidence_particles, ascent, memory, per_draw, compile
        )
        number = sum(len(source) for source in sources.values())
        coordinates, left_out = _coordinates(model, guide, x, index, families)
        compare_batch = Comparer(pair, (model, guide), coordinates, settings, number)
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
    return Comparison(splits, prices, given, left_out)


def _coordinates(
    model: Program,
    guide: Program,
    x: Tensor,
    index: Tensor | None,
    families: Sequence[Callable[[int], Family]],
) -> tuple[Coordinates | None, str]:
    """The latents as one vector, or why they are none and no families are fitted."""
    if not families:
        return None, ""
    try:
        return Coordinates(model, guide, x, index), ""
    except ValueError as error:
        return None, f"No families were fitted: {error}"


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


def _split(batches: list[Compared], given: str) -> Split:
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
