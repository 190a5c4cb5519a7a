"""``bayesvae fit``."""

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch.optim import Adam

from bayesvae import objectives
from bayesvae.cli import pictures, runs
from bayesvae.cli.arguments import COMPILE
from bayesvae.cli.build import build, serves_unseen
from bayesvae.cli.output import device_of, drawing, named, remarks, show
from bayesvae.cli.run_folder import identity, require_same
from bayesvae.cli.source import Prepared, prepare
from bayesvae.core.pair import Pair, on_device_of
from bayesvae.data import Loader
from bayesvae.evidence import elbo_per_datum, log_evidence
from bayesvae.training import History, RowAdam, check_pair, fit


def run_fit(config: Namespace) -> None:
    """Trains what the configuration describes and writes its run folder."""
    device, say = device_of(config.device), remarks(config.quiet)
    torch.manual_seed(config.seed)
    prepared = prepare(config, say)
    pair = build(config, prepared.facts, prepared.seen.x).to(device)
    batches = prepared.loader(config.batch_size)
    if config.epochs is None and config.steps is None:
        config.epochs = default_epochs(len(batches))
        say(f"  and --epochs {config.epochs}, {config.epochs * len(batches):,} steps")
    x, index = on_device_of(pair, *next(iter(batches)))
    check_pair(pair, (x, index), objectives.elbo)
    if not serves_unseen(pair, x, index, prepared.facts.size):
        prepared = prepared._replace(validation=None, test=None)
    with runs.claimed(config.out, config.overwrite) as run:
        runs.write(run, config, prepared.facts)
        figures = _made(pair, prepared, batches, config, run)
    compiled = ", compiled" if figures["compiled"] else ""
    print(f"Trained in {figures['seconds']:.1f} s{compiled};", end=" ")
    print(f"best epoch {figures['best_epoch']}.", end=" ")
    print("Nats per datum:")
    show(figures)
    print(f"Run folder: {run}")


def _made(
    pair: Pair, prepared: Prepared, batches: Loader, config: Namespace, run: Path
) -> dict[str, Any]:
    """Fills the run folder; returns what its summary says.

    Raises:
        KeyboardInterrupt: with words, if there was a checkpoint already.
    """
    start, known = time.perf_counter(), identity(run)
    try:
        history = _train(pair, batches, config, prepared.validation, run)
        record = _record(config, start) | {
            "best_epoch": history.best.epoch,
            "compiled": history.compiled,
        }
        pair.load_state_dict(history.best_state)
        record |= _evaluate(pair, prepared, config)
        require_same(run, known)
        runs.write_summary(run, record)
        with drawing():
            _draw(pair, prepared, history, run)
    except KeyboardInterrupt:
        if not (run / "best.pt").exists():
            raise
        runs.write_summary(run, _record(config, start) | {"interrupted": True})
        raise KeyboardInterrupt(f"{run} holds what training had reached") from None
    return record


def default_epochs(batches: int) -> int:
    """Passes for a pair that is not told for how long: enough steps, on large data not too many.

    Example:
        >>> [default_epochs(batches) for batches in (10, 469, 100_000)]
        [500, 20, 1]
    """
    few, enough, many = 20, 5_000, 50_000
    return max(math.ceil(enough / batches), min(few, many // batches), 1)


def _record(config: Namespace, start: float) -> dict[str, Any]:
    seconds = round(time.perf_counter() - start, 2)
    return {"seconds": seconds, "seed": config.seed, "versions": runs.versions()}


def _train(pair: Pair, batches: Loader, config: Namespace, validation: Any, run: Path) -> History:
    weight = config.kl_weight
    if config.warmup:
        weight = objectives.linear_warmup(config.warmup, weight)
    return fit(
        pair,
        batches,
        objectives.elbo,
        epochs=config.epochs or 1,
        steps=config.steps,
        optimizer=partial(Adam, lr=config.learning_rate, fused=True),
        kl_weight=weight,
        inner_steps=config.inner_steps,
        row_optimizer=partial(RowAdam, lr=config.row_learning_rate),
        clip_norm=config.clip_norm,
        validation=validation,
        compile=COMPILE[config.compile],
        networks=torch.bfloat16 if config.bf16 else None,
        out=run,
        progress=not config.quiet,
    )


def _draw(pair: Pair, prepared: Prepared, history: History, run: Path) -> None:
    """The pictures of a run; a guide with a row a datum knows only its training data."""
    figures = run / "figures"
    pictures.training(history.epochs, figures)
    look = pictures.Look(pair, prepared.facts, prepared.test or prepared.seen, figures)
    for name in pictures.possible(look):
        if name in ("draws", "reconstructions", "latent"):
            pictures.SHOWS[name](look)


def _evaluate(pair: Pair, prepared: Prepared, config: Namespace) -> dict[str, Any]:
    """The figures of the summary, those that ``bayesvae evaluate`` repeats to the last digit."""
    when = False if config.compile == "never" else "auto"
    options = {"progress": not config.quiet, "compile": when}
    figures: dict[str, Any] = {}
    for name, part in (("train", prepared.seen), ("test", prepared.test)):
        if part is None:
            continue
        x = part.first(config.evaluate)
        torch.manual_seed(config.seed)
        elbo = elbo_per_datum(pair, x, config.particles, **options)
        figures |= named(f"{name}_elbo", elbo.mean()) | {"evaluated_data": len(x[0])}
        if name == "test":
            evidence = log_evidence(pair, x, config.particles, **options)
            figures |= named("test_log_evidence", evidence.mean())
    return figures | {"particles": config.particles}
