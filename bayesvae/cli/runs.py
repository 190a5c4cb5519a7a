"""A run folder, from which alone a run is rebuilt.

``fit`` writes ``config.yaml``, ``last.pt``, ``best.pt``, ``metrics.csv``, ``summary.json`` and
``figures/``; ``compare`` adds ``gaps.txt``, ``gaps.csv`` and ``figures/gaps.png``.
"""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

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


def read_config(run: Path) -> Namespace:
    """Reads a run's configuration.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if the configuration names classes outside the package: importing them would
            run their code.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"A run is a folder with config.yaml; there is none in {run}. Make one with "
            "`bayesvae fit --out ...`."
        )
    return fit_parser().parse_path(str(path))


def read_summary(run: Path) -> dict[str, Any]:
    """Reads ``summary.json``; empty if it is not there."""
    path = run / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


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
    return None if isinstance(value, float) and value != value else value
