"""``bayesvae fit`` and ``bayesvae compare RUN``."""

import sys
import time
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch.optim import Adam

from bayesvae import checkpoint, objectives, plots
from bayesvae.check import check_pair
from bayesvae.cli import pictures, runs
from bayesvae.cli.arguments import compare_parser, fit_parser, with_full_names
from bayesvae.cli.build import Built, Prepared, build, first, prepare
from bayesvae.evidence import elbo_per_datum, log_evidence, mean_and_error
from bayesvae.fit import fit
from bayesvae.gaps import compare
from bayesvae.optimizers import RowAdam
from bayesvae.pair import Pair
from bayesvae.report import Comparison

USAGE = """usage: bayesvae COMMAND ...

Deep latent-variable models in Pyro, and what their inference costs.

commands:
  fit      train a model and its guide on a data set; write a run folder
  compare  take log p(x) - ELBO of a run apart

`bayesvae COMMAND --help` shows a command's arguments."""

MISTAKES = (ArgumentError, ValueError, TypeError, OSError, FloatingPointError, ImportError)
"""What a user's input can cause: told in one line, exit code 2."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        words: the command line without the program's name; the process's own if None.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    words = list(sys.argv[1:] if words is None else words)
    commands: dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace], None]]] = {
        "fit": (fit_parser, run_fit),
        "compare": (compare_parser, run_compare),
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        if words[0] not in commands:
            raise ValueError(f"A command is one of {', '.join(commands)}; got {words[0]!r}.")
        make_parser, command = commands[words[0]]
        parser = make_parser()
        parser.prog = f"bayesvae {words[0]}"
        command(parser.parse_args(with_full_names(words[1:])))
    except KeyboardInterrupt:
        print("bayesvae: interrupted; what was saved so far is in the run folder", file=sys.stderr)
        return 130
    except MISTAKES as mistake:
        hint = f" See `bayesvae {words[0]} --help`." if isinstance(mistake, ArgumentError) else ""
        print(f"bayesvae: {one_line(mistake)}{hint}", file=sys.stderr)
        return 2
    return 0


def one_line(mistake: Exception) -> str:
    """An error's words without its table, on one line."""
    return " ".join(str(mistake).split("\n\nprogram ")[0].split())


def run_fit(config: Namespace) -> None:
    """Trains what the configuration describes and writes its run folder."""
    device = _device(config.device)
    torch.manual_seed(config.seed)
    prepared = prepare(config)
    built = build(config, prepared)
    pair = built.pair.to(device)
    batches = prepared.loader(config.batch_size)
    check_pair(pair, tuple(part.to(device) for part in next(iter(batches))), objectives.elbo)
    run = runs.claim(config.out, config.overwrite)
    runs.write_config(run, config)
    start = time.perf_counter()
    history = fit(
        pair,
        batches,
        objectives.elbo,
        epochs=config.epochs,
        optimizer=partial(Adam, lr=config.learning_rate, fused=True),
        kl_weight=objectives.linear_warmup(config.warmup) if config.warmup else 1.0,
        inner_steps=config.inner_steps,
        row_optimizer=partial(RowAdam, lr=config.row_learning_rate),
        clip_norm=config.clip_norm,
        validation=prepared.validation if built.amortized else None,
        out=run,
        progress=not config.quiet,
    )
    seconds = time.perf_counter() - start
    pair.load_state_dict(history.best_state)
    pictures.training(history.epochs, run / "figures")
    pictures.model(built, prepared, run / "figures")
    figures = _evaluate(built, prepared, config)
    facts = {"seconds": round(seconds, 2), "best_epoch": history.best.epoch, "seed": config.seed}
    runs.write_summary(run, figures | facts | {"versions": runs.versions()})
    print(f"Trained in {seconds:.1f} s; best epoch {history.best.epoch}. Nats per datum:")
    _show(figures)
    print(f"Run folder: {run}")


def _evaluate(built: Built, prepared: Prepared, config: Namespace) -> dict[str, Any]:
    seen, test = (first(x, config.evaluate) for x in (prepared.seen, prepared.test))
    options = {"progress": not config.quiet}
    figures = _named("train_elbo", elbo_per_datum(built.pair, seen, **options).mean())
    if built.amortized:
        figures |= _named("test_elbo", elbo_per_datum(built.pair, test, **options).mean())
        evidence = log_evidence(built.pair, test, config.particles, **options)
        figures |= _named("test_log_evidence", evidence.mean())
    return figures | {"evaluated_data": len(test[0]), "evidence_particles": config.particles}


def _named(name: str, mean_and_error: tuple[float, float]) -> dict[str, float]:
    return {name: mean_and_error[0], f"{name}_stderr": mean_and_error[1]}


def _show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if f"{name}_stderr" in figures:
            print(f"  {name:24} {value:9.3f} +- {figures[name + '_stderr']:.3f}")


def _device(name: str) -> torch.device:
    """The device, tried out.

    Raises:
        ValueError: if torch does not know it or this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device needs one that this machine has; got {name}. {reason}"
        ) from error
    return device


def run_compare(options: Namespace) -> None:
    """Compares amortized with per-datapoint inference on a run, and adds to its folder."""
    run = Path(options.run)
    config = runs.read_config(run, options.trust)
    runs.read_summary(run)
    if options.data_root is not None:
        config.data_root = options.data_root
    torch.manual_seed(config.seed)
    prepared = prepare(config)
    built = build(config, prepared)
    _load(built.pair, run / "best.pt")
    built.pair.to(_device(options.device))
    torch.manual_seed(options.seed)
    comparison = compare(
        built.pair,
        first(prepared.seen, options.limit),
        first(prepared.test, options.limit) if built.amortized else None,
        particles=options.particles,
        evidence_particles=options.evidence_particles,
        progress=not options.quiet,
    )
    print(comparison)
    comparison.to_csv(run / "gaps.csv")
    checkpoint.write_aside(run / "gaps.txt", lambda aside: aside.write_text(f"{comparison}\n"))
    plots.save(comparison.figure(), run / "figures" / "gaps.png")
    runs.write_summary(run, _gap_figures(comparison))
    print(f"\nAdded gaps.txt, gaps.csv and figures/gaps.png to {run}")


def _load(pair: Pair, path: Path) -> None:
    """Loads a checkpoint into the pair that a configuration describes.

    Raises:
        ValueError: if they do not belong together.
    """
    try:
        pair.load_state_dict(checkpoint.load_state(path))
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds the state of another pair than its config.yaml describes: "
            f"{str(error).splitlines()[1].strip()} Put back the config.yaml that it was made with."
        ) from error


def _gap_figures(comparison: Comparison) -> dict[str, float]:
    """The gaps by name; unprefixed on unseen data, where there are any."""
    figures = {}
    for name, split in comparison.splits.items():
        prefix = "" if name == list(comparison.splits)[-1] else f"{name}_"
        gaps = {"inference_gap": split.inference_gap}
        if split.own is not None:
            gaps["approximation_gap"] = split.approximation_gap
            gaps["amortization_gap"] = split.amortization_gap
        for gap, values in gaps.items():
            figures |= _named(prefix + gap, mean_and_error(values))
    return figures
