"""A run folder, from which alone a run is rebuilt.

``fit`` writes ``config.yaml``, ``last.pt``, ``best.pt``, ``metrics.csv``, ``summary.json`` and
``figures/``; ``compare`` adds ``gaps.txt``, ``gaps.csv`` and ``figures/gaps.png``.
"""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from bayesvae import __version__, checkpoint
from bayesvae.cli.arguments import fit_parser

_MARKS = ("last.pt", "best.pt", "summary.json")
_PICTURES = ("samples", "reconstructions", "training_curve", "gaps")
_FILES = (*_MARKS, "config.yaml", "metrics.csv", "gaps.txt", "gaps.csv")


def claim(folder: str, overwrite: bool) -> Path:
    """A folder to write a run into; what an earlier run wrote there is removed.

    Raises:
        ValueError: if there is a run already and it may not be replaced, or a file of that name.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out needs a folder; {path} is a file. Choose another name.")
    if not overwrite and any((path / mark).exists() for mark in _MARKS):
        raise ValueError(
            f"--out needs a folder without a run; {path} holds one. Choose another name or add "
            "--overwrite true."
        )
    path.mkdir(parents=True, exist_ok=True)
    for stale in (*_FILES, *(f"figures/{picture}.png" for picture in _PICTURES)):
        (path / stale).unlink(missing_ok=True)
    return path


def write_config(run: Path, config: Namespace) -> None:
    """Writes the configuration, defaults included."""
    text = fit_parser().dump(config)
    checkpoint.write_aside(run / "config.yaml", lambda aside: aside.write_text(text))


def _foreign(content: Any) -> Iterator[str]:
    """Class paths in a configuration that are neither the package's nor torch's."""
    if isinstance(content, dict):
        path = content.get("class_path", "bayesvae")
        if path.split(".")[0] not in ("bayesvae", "torch"):
            yield path
        for value in content.values():
            yield from _foreign(value)


def read_config(run: Path, trust: bool = False) -> Namespace:
    """Reads a run's configuration.

    Args:
        run: the run folder.
        trust: whether classes outside the package may be imported, which runs their code.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if the configuration names such classes without being trusted, or is no YAML.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"A run is a folder with config.yaml; there is none in {run}. Make one with "
            "`bayesvae fit --out ...`."
        )
    try:
        foreign = sorted(set(_foreign(yaml.safe_load(path.read_text()))))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not readable YAML. Repair or remove it.") from error
    if foreign and not trust:
        raise ValueError(
            f"{path} names {', '.join(foreign)}, and importing it runs its code. Add --trust true "
            "if you trust it."
        )
    return fit_parser().parse_path(str(path))


def read_summary(run: Path) -> dict[str, Any]:
    """Reads ``summary.json``; empty if it is not there."""
    path = run / "summary.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not readable JSON ({error}). Repair or remove it.") from error


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("torch", "pyro-ppl")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"bayesvae": __version__, "python": platform.python_version(), **installed}


def write_summary(run: Path, entries: dict[str, Any]) -> None:
    """Adds entries to ``summary.json``; numbers that are not finite become null."""
    clean = {key: _plain(value) for key, value in {**read_summary(run), **entries}.items()}
    checkpoint.save_json(run / "summary.json", clean)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
