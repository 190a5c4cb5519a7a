"""Fitting: stochastic gradient ascent on a bound, in nats per datum.

Model and guide climb one bound together.  With ``inner_steps`` the two take turns as in EM: a few
steps on the variational parameters (an approximate E-step), then one on the model's (an M-step);
"Stochastic Variational Inference" (Hoffman et al., 2013) does so with one row a datum.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.optim import LBFGS, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from bayesvae.compiler import Step, When, unvalidated
from bayesvae.core import programs, trace
from bayesvae.core.dependence import guide_parameters, refuse_unseen
from bayesvae.core.pair import Pair, evaluation_mode, on_device_of, require_pair
from bayesvae.core.precision import in_precision
from bayesvae.data import loader
from bayesvae.objectives import Objective, per_datum
from bayesvae.training.check import check_pair
from bayesvae.training.history import History, Record
from bayesvae.training.row_adam import RowAdam

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

ADAM = partial(Adam, lr=1e-3, fused=True)


def fit(
    pair: Pair,
    data: Any,
    objective: Objective | ELBO | None = None,
    *,
    epochs: int = 100,
    steps: int | None = None,
    batch_size: int = 128,
    optimizer: OptimizerFactory = ADAM,
    row_optimizer: OptimizerFactory = RowAdam,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    kl_weight: float | Callable[[int], float] = 1.0,
    inner_steps: int = 0,
    clip_norm: float | None = None,
    compile: When = "auto",
    networks: torch.dtype | None = None,
    validation: Any = None,
    out: Path | str | None = None,
    until: Callable[[int], bool] | None = None,
    progress: bool = True,
) -> History:
    """Trains a pair.  The pair ends in its last state; the best one is in the history.

    An interruption (Ctrl-C) closes the epoch with the steps that it has: with ``out``, its files
    are written before the interruption is passed on.

    Args:
        pair: the pair; `check_pair` looks at it on the first batch.
        data: a tensor ``(N, *event)``, a torch ``Dataset``, or a loader (which keeps its own batch
            size and order; tensors and data sets are shuffled).
        objective: a bound to maximise or a Pyro ``ELBO``; ``Trace_ELBO()`` if None.
        epochs: passes over the data.
        steps: if given, stop after so many optimisation steps instead.
        batch_size: B, for tensors and data sets.
        optimizer: makes a torch optimiser from parameters.
        row_optimizer: makes the one for parameters with a row a datum (`guides.PerDatapoint`); has
            a step size of its own.
        scheduler: makes a schedule from the optimiser, stepped at every step.
        kl_weight: weight of the latents' terms, a number or a function of the step (from 0), such
            as `objectives.linear_warmup`.
        inner_steps: steps on the guide's parameters before each step on the model's; 0 trains both
            at once.
        clip_norm: bound on the global norm of the gradient.
        compile: "auto" to trace and compile the step once it will pay over the steps that are
            left, True to do so at once (an error if it cannot be done), False not to.
        networks: ``torch.bfloat16`` to run the products of layers in half precision; densities,
            sums and optimiser stay in float32.
        validation: unseen data for the ELBO after each epoch.
        out: folder for ``last.pt``, ``best.pt`` and ``metrics.csv``, written after each epoch.
        until: asked after each step, with the number of steps so far, whether to stop there: by a
            clock, or for another reason. "auto" then expects as many steps again as there were.
        progress: whether to show a bar.

    Returns:
        The history.

    Raises:
        ValueError: if the pair is not sound, or the arguments are not.
        NonFiniteError: (a FloatingPointError) at the first loss that is not finite, with its step
            and sites, or after a step that leaves parameters so. The pair is then in its last
            finite state, that of an epoch's end or of the beginning; the error has the history.

    Example:
        >>> from bayesvae.pairs import PPCA, ppca
        >>> x = torch.randn(256, 5)
        >>> history = fit(ppca(PPCA.maximum_likelihood(x, 2)), x, epochs=2, progress=False)
        >>> len(history.epochs)
        2
    """
    require_pair(pair)
    batches = loader(data, batch_size, shuffle=True)
    limit = epochs * len(batches) if steps is None else steps
    _check_arguments(limit, inner_steps, optimizer, clip_norm, kl_weight)
    objective = Trace_ELBO() if objective is None else objective
    weight_at = kl_weight if callable(kl_weight) else lambda _: float(kl_weight)

    pair.train()
    with _sparse_rows(pair) as tables, unvalidated:
        with torch.random.fork_rng():
            x, index = on_device_of(pair, *next(iter(batches)))
        check_pair(pair, (x, index), objective)
        model, guide = (programs.sized(p, batches.size) for p in (pair.model, pair.guide))
        with evaluation_mode(pair):
            bound = per_datum(objective, trace.data_size(model, guide, x, index))
            turns = _turns(pair, x, index, inner_steps)
            if validation is not None:
                parameters = list(pair.parameters())
                refuse_unseen(pair.guide, parameters, x, index, batches.size, "validation")
        trained = [p for p in pair.parameters() if p.requires_grad]
        optimizers = _optimizers(trained, tables, optimizer, row_optimizer)
        schedules = [_schedule(scheduler, o) for o in optimizers] if scheduler else []
        record = Record(pair, validation, batch_size, batches.size, out, compile)

        constant = None if callable(kl_weight) else float(kl_weight)

        def loss(x: Tensor, index: Tensor, weight: float | Tensor | None = constant) -> Tensor:
            return -bound(*(programs.kl_weighted(p, weight) for p in (model, guide)), x, index)

        bar = tqdm(total=limit, unit="step", disable=not progress, desc="fit")
        planned = limit if until is None else None
        step_of = _steps(loss, turns, optimizers, pair, planned, compile, networks, clip_norm, bar)
        with bar, record.kept():
            for step, (x, index) in enumerate(_cycle(batches, limit)):
                x, index = on_device_of(pair, x, index)
                weight = weight_at(step)
                changing = (float(weight),) if constant is None else ()
                for take in step_of:
                    value = take(x, index, *changing)
                for schedule in schedules:
                    schedule.step()
                record.step(value, weight, x, index)
                bar.update()
                last = step + 1 == limit or (until is not None and until(step + 1))
                if last or (step + 1) % len(batches) == 0:
                    bar.set_postfix_str(record.epoch())
                if last:
                    break
    compiled = {take.compiled for take in step_of}
    return record.history(
        any(each.is_compiled for each in compiled), sum(each.compiling for each in compiled)
    )


def _check_arguments(
    limit: int, inner_steps: int, optimizer: Any, clip_norm: float | None, kl_weight: Any
) -> None:
    if not isinstance(limit, int) or limit < 1 or inner_steps < 0:
        raise ValueError(
            f"fit needs at least one step and inner_steps >= 0; got {limit} steps and "
            f"inner_steps={inner_steps}. Raise epochs or steps."
        )
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive; got {clip_norm}. Use None for no bound.")
    if not callable(kl_weight) and kl_weight < 0:
        raise ValueError(f"kl_weight must be at least 0; got {kl_weight}. 1 gives the ELBO.")
    if isinstance(optimizer, (Optimizer, PyroOptim)) or not callable(optimizer):
        raise TypeError(
            "fit needs a function from parameters to an optimiser, because some parameters are "
            f"only known after the first batch; got {type(optimizer).__name__}. Pass for example "
            "functools.partial(torch.optim.Adam, lr=1e-3)."
        )


def _cycle(batches: Iterable, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of as many passes as it takes to serve ``limit`` of them."""
    served = 0
    while served < limit:
        for batch in batches:
            yield batch
            served += 1
            if served == limit:
                return


@contextmanager
def _sparse_rows(pair: Pair) -> Iterator[list[nn.Parameter]]:
    """Sparse gradients for tables with a row a datum: modules with ``rows`` and ``sparse``."""
    tables = [m for m in pair.modules() if hasattr(m, "rows") and hasattr(m, "sparse")]
    before = [module.sparse for module in tables]
    embeddings = [m.weight for m in pair.modules() if isinstance(m, nn.Embedding) and m.sparse]
    try:
        for module in tables:
            module.sparse = True
        yield [module.rows for module in tables] + embeddings
    finally:
        for module, sparse in zip(tables, before, strict=True):
            module.sparse = sparse


def _optimizers(
    trained: list[nn.Parameter],
    tables: list[nn.Parameter],
    optimizer: OptimizerFactory,
    row_optimizer: OptimizerFactory,
) -> list[Optimizer]:
    in_tables = {id(table) for table in tables}
    dense = [p for p in trained if id(p) not in in_tables]
    rows = [p for p in trained if id(p) in in_tables]
    makers = ((optimizer, dense), (row_optimizer, rows))
    made = [make(parameters) for make, parameters in makers if parameters]
    for each in made:
        if not isinstance(each, Optimizer) or isinstance(each, LBFGS):
            raise TypeError(
                "fit needs a function that makes a torch optimiser with steps from gradients "
                f"alone; got {type(each).__name__}. Use for example torch.optim.Adam."
            )
    return made


def _schedule(scheduler: Callable[[Optimizer], Any], optimizer: Optimizer) -> LRScheduler:
    made = scheduler(optimizer)
    if isinstance(made, ReduceLROnPlateau):
        raise TypeError(
            "fit steps its scheduler without a metric, at every step; got ReduceLROnPlateau. Use "
            "another schedule, such as LambdaLR."
        )
    return made


def _turns(pair: Pair, x: Tensor, index: Tensor, inner_steps: int) -> list[list[nn.Parameter]]:
    """Which parameters each gradient step of one batch moves."""
    trained = [p for p in pair.parameters() if p.requires_grad]
    if inner_steps == 0:
        return [trained]
    inner = guide_parameters(pair.guide, trained, x, index)
    outer = [p for p in trained if all(p is not q for q in inner)]
    if not inner or not outer:
        raise ValueError(
            "inner_steps needs parameters of the guide and others of the model alone; got "
            f"{len(inner)} and {len(outer)}. Use inner_steps=0."
        )
    return [inner] * inner_steps + [outer]


def _steps(
    loss: Callable[..., Tensor],
    turns: list[list[nn.Parameter]],
    optimizers: list[Optimizer],
    pair: Pair,
    planned: int | None,
    compile: When,
    networks: torch.dtype | None,
    clip_norm: float | None,
    bar: tqdm,
) -> list[Step]:
    """One step for each turn of a batch; turns on the same parameters share it."""

    def announce(busy: bool) -> None:
        bar.set_description("fit (compiling)" if busy else "fit")

    made: dict[int, Step] = {}
    for turn in turns:
        made[id(turn)] = made.get(id(turn)) or Step(
            in_precision(loss, networks),
            turn,
            optimizers,
            [pair],
            clip=None if clip_norm is None else partial(_clip, bound=clip_norm),
            when=compile,
            calls=planned and planned * sum(turn is other for other in turns),
            announce=announce,
            name="The step of fit",
        )
    return [made[id(turn)] for turn in turns]


def _clip(parameters: list[nn.Parameter], bound: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    sizes = [(g.coalesce().values() if g.is_sparse else g).norm() for g in gradients]
    factor = (bound / (torch.stack(sizes).norm() + 1e-12)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(factor)
