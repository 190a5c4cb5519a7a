"""What amortization costs: log p(x) - ELBO taken apart, per datum, the model held fixed.

For a datum x, a variational family Q and a guide q_phi in Q,

    log p(x) - L[q_phi]  =  { log p(x) - L[q*] }  +  { L[q*] - L[q_phi] },   q* = argmax_Q L[q]
                             approximation gap        amortization gap

the sum being KL(q_phi || p(z | x)) ("Inference Suboptimality in Variational Autoencoders", Cremer,
Li and Duvenaud, 2018).  L[q*] is found by gradient ascent on the datum's own lambda, so what is
reported is a lower estimate of it; log p(x) is importance-sampled from a mixture of every q at
hand, or annealed if that is asked for, a lower bound in expectation either way.  Which of the two
the gaps are taken from is settled beforehand and for all data: the larger of two noisy lower
bounds, datum by datum, would be none.  All estimates use fresh noise, so a difference may be
negative within its error.

A guide may have several latents of any continuous support: families act on them as one real
vector.  If the guide itself is a member of a family, the gap splits as above, and a few gradient
steps from the guide say how much of the amortization gap they close
(`bayesvae.optima.refinement`); if not, L[q*] - L[q_phi] is an improvement over the guide.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bayesvae.compiler import When
from bayesvae.core import trace
from bayesvae.core.coordinates import Coordinates
from bayesvae.core.dependence import refuse_unseen
from bayesvae.core.estimates import Estimate, concatenate, require_particles
from bayesvae.core.evaluation import conditioned, evaluating, first_batch, on_device, require_a
from bayesvae.core.memory import MEMORY, bytes_per_draw
from bayesvae.core.pair import Pair, require_pair
from bayesvae.core.programs import Program
from bayesvae.data import Loader, sequential
from bayesvae.evidence import Annealing, require_sound, sandwiched
from bayesvae.families import Family, MultivariateNormal, Normal
from bayesvae.gaps.batch_search import Compared, Comparer, Settings, route_of
from bayesvae.gaps.comparison import Comparison
from bayesvae.gaps.costs import Price, guide_price, optimum_prices, semi_price
from bayesvae.gaps.split_results import Split
from bayesvae.optima import DEFAULT_ASCENT, Ascent, Semi, joined


def compare(
    pair: Pair,
    data: Any,
    unseen: Any = None,
    *,
    families: Sequence[Callable[[int], Family]] = (Normal, MultivariateNormal),
    semi: Semi | None = None,
    annealing: Annealing | None = None,
    particles: int = 200,
    evidence_particles: int = 1000,
    ascent: Ascent = DEFAULT_ASCENT,
    training_seconds: float | None = None,
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
        semi: how many gradient steps to take from the guide in its own family, and how; None for
            none.
        annealing: how log p(x) is annealed; all gaps are then from its lower bound. It is run
            back from its own ends too, which tells how far to believe it and is no bound. None to
            do with importance sampling.
        particles: draws for each bound, fresh ones.
        evidence_particles: draws for log p(x), from a mixture of the guide and all optima.
        ascent: how the per-datapoint optimum is sought; a family that asks for more ``patience``
            gets it.
        training_seconds: what the training of the guide took, to tell from how many unseen data
            on it is the cheaper way; None if that is not known.
        batch_size: data optimised at once, fewer if memory asks for it.
        memory: budget, bytes.
        compile: "auto" to compile the search and the weights once that will pay, True at once,
            False not at all.
        progress: whether to show a bar.

    Returns:
        The comparison; print it, or see its splits.

    Raises:
        ValueError: if the pair is not sound, a guide with a row a datum gets unseen data, or
            annealing cannot start where it is to.

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
    _require_settings(semi, annealing, ascent, training_seconds)
    parts = {"train": data} if unseen is None else {"train": data, "unseen": unseen}
    with evaluating(pair):
        x, index = _first_data(pair, parts, training_seconds)
        model, guide, given = conditioned(pair, x, index)
        coordinates, left_out = _coordinates(model, guide, x, index, families, annealing)
        per_draw = bytes_per_draw(lambda: trace.log_terms(model, guide, x, index), len(x))
        settings = Settings(
            families, particles, evidence_particles, ascent, semi, memory, per_draw, compile
        )
        rows = settings.rows_at_once(batch_size)
        sources = {name: sequential(part, rows) for name, part in parts.items()}
        number = sum(len(source) for source in sources.values())
        comparer = Comparer(pair, (model, guide), coordinates, settings, number)
        found = _compared(comparer, pair, sources, progress)
        splits = {name: _split(batches, given) for name, batches in found.items()}
        if annealing is not None and coordinates is not None:
            options = {"memory": memory, "compile": compile, "progress": progress}
            for name, part in parts.items():
                both = sandwiched(pair, coordinates, part, annealing, given, **options)
                splits[name] = splits[name]._replace(annealed=both)
        batches = [batch for each in found.values() for batch in each]
        prices = _prices(pair, sources["train"], batches, comparer.working)
    if semi is not None:
        left_out += _without_steps(splits["train"])
    return Comparison(splits, prices, given, "\n".join(left_out), training_seconds)


def _require_settings(
    semi: Semi | None,
    annealing: Annealing | None,
    ascent: Ascent,
    training_seconds: float | None,
) -> None:
    if training_seconds is not None and not training_seconds >= 0:
        raise ValueError(
            f"training_seconds needs a time that has passed; got {training_seconds}. Pass None if "
            "it is not known."
        )
    require_a(Ascent, "Ascent(particles=8)", ascent=ascent)
    ascent.require()
    if semi is not None:
        require_a(Semi, "Semi(steps=(1, 5, 20))", semi=semi)
        semi.require()
    if annealing is not None:
        require_sound(annealing)


def _first_data(
    pair: Pair, parts: Mapping[str, Any], training_seconds: float | None
) -> tuple[Tensor, Tensor]:
    """A few training data, after a look at whether the pair serves what it is to serve.

    Raises:
        ValueError: if the pair is not sound, or a guide with a row a datum is to serve others.
    """
    x, index = first_batch(pair, parts["train"])
    if "unseen" in parts or training_seconds is not None:
        argument = "unseen" if "unseen" in parts else "training_seconds"
        parameters, size = list(pair.parameters()), sequential(parts["train"]).size
        refuse_unseen(pair.guide, parameters, x, index, size, argument)
    if "unseen" in parts:
        first_batch(pair, parts["unseen"])
    return x, index


def _coordinates(
    model: Program,
    guide: Program,
    x: Tensor,
    index: Tensor | None,
    families: Sequence[Callable[[int], Family]],
    annealing: Annealing | None,
) -> tuple[Coordinates | None, list[str]]:
    """The latents as one vector, or why they are none, with what is therefore not done.

    Raises:
        ValueError: if annealing cannot start at such a guide.
    """
    left_out = ["No families were fitted"] if families else []
    left_out += [] if annealing is None else ["Nothing was annealed"]
    if not left_out:
        return None, []
    try:
        coordinates = Coordinates(model, guide, x, index)
    except ValueError as error:
        return None, [f"{what}: {error}" for what in left_out]
    if annealing is not None:
        annealing.start.require(coordinates)
    return coordinates, []


def _without_steps(split: Split) -> list[str]:
    """Why no steps were taken from the guide, if none were."""
    if split.semi:
        return []
    why = "it is a member of none of the families fitted"
    if split.own is not None:
        why = f"{split.own} does not contain it in units of its own mean and deviation"
    return [f"No steps were taken from the guide: {why}."]


def _compared(
    comparer: Comparer, pair: Pair, sources: Mapping[str, Loader], progress: bool
) -> dict[str, list[Compared]]:
    """What every batch of every split adds."""
    found: dict[str, list[Compared]] = {name: [] for name in sources}
    total = sum(source.size for source in sources.values())
    with tqdm(total=total, unit="datum", disable=not progress, desc="compare") as bar:
        for name, source in sources.items():
            for x, index in on_device(pair, source):
                found[name].append(comparer(x, index))
                bar.update(len(x))
    return found


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


def _split(batches: Sequence[Compared], given: str) -> Split:
    sizes = torch.tensor([float(len(batch.guide.value)) for batch in batches])
    first = batches[0]

    def one(parts: list[Estimate]) -> Estimate:
        return concatenate(parts)._replace(given=given)

    def movement(name: str) -> float:
        moved = torch.tensor([batch.optima[name].movement for batch in batches])
        return (moved @ sizes / sizes.sum()).item()

    return Split(
        one([batch.guide for batch in batches]),
        one([batch.importance for batch in batches]),
        {name: one([batch.bounds[name] for batch in batches]) for name in first.bounds},
        {name: movement(name) for name in first.bounds},
        first.own,
        {k: one([batch.semi[k] for batch in batches]) for k in first.semi},
        posteriors=first.posteriors and joined([batch.posteriors for batch in batches]),
    )


def _prices(
    pair: Pair, source: Loader, batches: Sequence[Compared], working: Mapping[str, int]
) -> tuple[Price, ...]:
    """Of the guide on a batch of the source, of steps from it, and of every family's search."""
    guide = guide_price(pair, *next(on_device(pair, source)))
    count = sum(len(batch.guide.value) for batch in batches)
    semi = []
    for k in batches[0].refined:
        seconds = 1000 * sum(batch.refined[k].seconds for batch in batches) / count
        semi.append(semi_price(guide, route_of(k), seconds, working[route_of(k)]))
    return guide, *semi, *optimum_prices([batch.optima for batch in batches], working)
