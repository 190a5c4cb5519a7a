"""``bayesvae bracket`` and ``calibrate``: what is known of log p(x) and of the guide of a run."""

import math
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from bayesvae import plots
from bayesvae.cli import runs
from bayesvae.cli.arguments import COMPILE
from bayesvae.cli.estimators import PROPOSALS, annealing_of, path_entries, path_in_words
from bayesvae.cli.examine import opened
from bayesvae.cli.output import drawing, named, unused, write_csv
from bayesvae.core import files
from bayesvae.core.estimates import TRUSTED, mean_and_error
from bayesvae.diagnose import LEVELS, Calibration, calibrate
from bayesvae.evidence import Bracket, bracket


def run_bracket(options: Namespace) -> None:
    """Brackets log p(x) of data that a run's model makes."""
    run = opened(options)
    folder = unused(Path(options.out or run.folder / "bracket"), options.overwrite)
    path = annealing_of(options)
    event, how = run.facts.event, _how(options)
    found = bracket(run.pair, options.data_count, event, path, **how)
    print(found)
    print(f"by {path_in_words(path)}, from {PROPOSALS[options.proposal].name}")
    columns = _bracket_columns(found)
    sides = {"lower": found.lower.value, "upper": found.upper.value, "width": found.width}
    figures = {k: v for name, values in sides.items() for k, v in _mean(name, values).items()}
    entries = _entries(options) | {"proposal": options.proposal} | path_entries(path) | figures
    more = {"seconds": round(found.seconds, 2), "given": found.lower.given}
    stderr = torch.hypot(found.lower.stderr, found.upper.stderr)
    with runs.adding(run, folder) as at:
        write_csv(at / "bracket.csv", columns)
        files.save_json(at / "bracket.json", entries | more)
        with drawing():
            axes = plots.bracketed(found.lower.value, found.width, stderr)
            plots.save(axes.figure, at / "bracket.png")
    print(f"Written to {folder}: bracket.csv, bracket.json, bracket.png")


def run_calibrate(options: Namespace) -> None:
    """Ranks known latents among draws of a run's guide."""
    run = opened(options)
    folder = unused(Path(options.out or run.folder / "calibration"), options.overwrite)
    event, how = run.facts.event, _how(options)
    found = calibrate(run.pair, options.data_count, event, draws=options.draws, **how)
    print(found)
    text = f"{found}\n"
    with runs.adding(run, folder) as at:
        files.write_aside(at / "calibration.txt", lambda aside: aside.write_text(text))
        found.to_csv(at / "ranks.csv")
        files.save_json(at / "calibration.json", _entries(options) | _findings(found))
        with drawing():
            plots.save(found.figure(), at / "calibration.png")
    names = ("calibration.txt", "ranks.csv", "calibration.json", "calibration.png")
    print(f"\nWritten to {folder}: {', '.join(names)}")


def _how(options: Namespace) -> dict[str, Any]:
    return {"progress": not options.quiet, "compile": COMPILE[options.compile]}


def _entries(options: Namespace) -> dict[str, Any]:
    """What both commands put down."""
    count, seed = options.data_count, options.seed
    return {"data_count": count, "seed": seed, "versions": runs.versions()}


def _mean(name: str, values: torch.Tensor) -> dict[str, float | None]:
    """A mean with its standard error; null where a single datum has none."""
    figures = named(name, mean_and_error(values))
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}


def _bracket_columns(found: Bracket) -> dict[str, torch.Tensor]:
    return {
        "position": torch.arange(len(found.width)),
        "lower": found.lower.value,
        "lower_stderr": found.lower.stderr,
        "upper": found.upper.value,
        "upper_stderr": found.upper.stderr,
        "width": found.width,
    }


def _findings(found: Calibration) -> dict[str, Any]:
    """Verdicts and coverage by name."""
    coverage = {name: inside.tolist() for name, inside in found.coverage().items()}
    return {
        "draws": found.draws,
        "given": found.given,
        "p_value": found.p_value,
        "verdicts": {each.name: each.verdict for each in found.findings},
        "p_values": {each.name: each.p_value for each in found.findings},
        "levels": list(LEVELS),
        "coverage": coverage,
        "share_with_k_hat_above_threshold": (found.k_hat > TRUSTED).double().mean().item(),
        "k_hat_threshold": TRUSTED,
        "seconds": round(found.seconds, 2),
    }
