"""A run folder, from which alone a run is rebuilt.

``fit`` writes ``config.yaml``, ``data.json`` (what the pair depends on of the data), ``last.pt``,
``best.pt``, ``metrics.csv``, ``summary.json``, ``figures/``, and ``code/`` with the user's modules
that it used; ``compare`` adds ``gaps.txt``, ``gaps.csv`` and more ``figures/``, ``evaluate``
``evaluations/``, ``sample`` ``samples/``, ``bracket`` ``bracket/`` and ``calibrate``
``calibration/``.
"""

import importlib.metadata
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import Namespace

from bayesvae import __version__
from bayesvae.cli.arguments import fit_parser
from bayesvae.cli.build import build
from bayesvae.cli.facts import Facts, read_facts, read_object
from bayesvae.cli.output import require_writable
from bayesvae.cli.parse import parse_file
from bayesvae.cli.parts import look_here
from bayesvae.cli.trust import has_foreign, refuse_foreign
from bayesvae.core import files
from bayesvae.core.pair import Pair

_MARKS = ("config.yaml", "data.json")
"""What makes a folder a run."""
_FILES = (*_MARKS, "last.pt", "best.pt", "summary.json", "metrics.csv", "gaps.txt", "gaps.csv")
_FOLDERS = ("code", "evaluations", "samples", "bracket", "calibration", "figures")
_REPLACED = ".replaced"


class Run(NamedTuple):
    """A run read back.

    Attributes:
        folder: where it lies.
        config: the options of ``bayesvae fit`` that it was made with, settled.
        facts: what is known of its data.
        pair: its best state, on the device that was asked for.
    """

    folder: Path
    config: Namespace
    facts: Facts
    pair: Pair


@contextmanager
def claimed(folder: str, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run into, for as long as it is written.

    An earlier run is set aside and comes back if the new one ends before its first checkpoint;
    files that no run made are left alone.

    Raises:
        ValueError: if there is a run already and it may not be replaced, or something else.
        OSError: if it cannot be written to.
    """
    path = _claimable(folder, overwrite)
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    _move(path, path / _REPLACED)
    try:
        yield path
    finally:
        _settle(path)
        if not existed and not any(path.iterdir()):
            path.rmdir()


def _settle(path: Path) -> None:
    """Drops the earlier run if the new one has a checkpoint, else brings it back."""
    replaced = path / _REPLACED
    if not (path / "best.pt").exists():
        _remove(path)
        _move(replaced, path)
    shutil.rmtree(replaced, ignore_errors=True)


def _claimable(folder: str, overwrite: bool) -> Path:
    path = Path(folder)
    if (path / _REPLACED).is_dir():  # left by a process that was killed
        _settle(path)
    if not folder or (path.exists() and not path.is_dir()):
        raise ValueError(f"--out needs a folder; got {folder or 'none'}. Choose another name.")
    if all((path / mark).exists() for mark in _MARKS):
        if not overwrite:
            raise ValueError(
                f"--out needs a folder without a run; {path} holds one. Choose another name or "
                "add --overwrite."
            )
    elif in_the_way := [n for n in (*_FILES, *_FOLDERS) if (path / n).exists()]:
        raise ValueError(
            f"--out needs a new folder, or that of a run; {path} is none and holds "
            f"{', '.join(in_the_way)}. Choose another name."
        )
    require_writable(path)
    return path


def _move(source: Path, target: Path) -> None:
    """Moves what a run is made of."""
    for name in (*_FILES, *_FOLDERS):
        if (source / name).exists():
            target.mkdir(exist_ok=True)
            os.replace(source / name, target / name)


def _remove(folder: Path) -> None:
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def write(run: Path, config: Namespace, facts: Facts) -> None:
    """Writes all that a run is rebuilt from but its state."""
    written = Namespace(**{k: v for k, v in vars(config).items() if k not in ("config", "trust")})
    text = fit_parser().dump(written)
    files.write_aside(run / "config.yaml", lambda aside: aside.write_text(text))
    files.save_json(run / "data.json", facts._asdict())
    if has_foreign(yaml.safe_load(text)):
        _keep_code(run / "code")


def _keep_code(folder: Path) -> None:
    """Copies the user's modules that were imported from the current folder."""
    here, installed = Path.cwd(), Path(sys.prefix)
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        mine = here in file.parents and installed not in file.parents and file.suffix == ".py"
        if mine and name.split(".")[0] not in ("bayesvae", "__main__"):
            copy = folder / file.relative_to(here)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def read_config(run: Path, trust: bool = False) -> Namespace:
    """Reads a run's configuration.

    Args:
        run: the run folder.
        trust: whether classes outside the package may be imported, which runs their code; the
            copies that the run keeps come first, then the current folder.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if the configuration needs trust and has none, or is not sound.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"A run is a folder with config.yaml; there is none in {run}. Make one with "
            "`bayesvae fit --out ...`."
        )
    refuse_foreign(path, trust)
    if trust:
        sys.path[:0] = [str((run / "code").resolve())]
        look_here()
    return parse_file(fit_parser(), path)


def read(options: Namespace, device: torch.device) -> Run:
    """Rebuilds a run from its folder.

    Args:
        options: ``run`` and ``trust``.
        device: where the pair is put.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if its files do not belong together or are damaged.
    """
    folder = Path(options.run)
    config = read_config(folder, options.trust)
    read_summary(folder)
    facts = read_facts(folder / "data.json")
    pair = build(config, facts)
    _load(pair, folder / "best.pt", facts)
    return Run(folder, config, facts, pair.to(device))


def _load(pair: Pair, path: Path, facts: Facts) -> None:
    """Loads a checkpoint into the pair that a configuration describes.

    Raises:
        ValueError: if they do not belong together.
    """
    state = files.load_state(path)
    pair.find_parameters(facts.stand_in()[:2].clone(), torch.arange(min(2, facts.size)))
    try:
        pair.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds the state of another pair than its config.yaml describes: "
            f"{str(error).splitlines()[1].strip()} Put back the config.yaml that it was made with."
        ) from error


def read_summary(run: Path) -> dict[str, Any]:
    """Reads ``summary.json``; empty if it is not there."""
    path = run / "summary.json"
    return read_object(path) if path.exists() else {}


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("torch", "pyro-ppl")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"bayesvae": __version__, "python": platform.python_version(), **installed}


def write_summary(run: Path, entries: dict[str, Any]) -> None:
    """Adds entries to ``summary.json``; numbers that are not finite become null."""
    clean = {key: _plain(value) for key, value in {**read_summary(run), **entries}.items()}
    files.save_json(run / "summary.json", clean)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
