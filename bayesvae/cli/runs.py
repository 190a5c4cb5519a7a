"""A run folder, from which alone a run is rebuilt.

``fit`` writes ``config.yaml``, ``data.json`` (what the pair depends on of the data), ``last.pt``,
``best.pt``, ``metrics.csv``, ``summary.json``, ``figures/``, and ``code/`` with the user's modules
that it used; ``compare`` adds ``gaps.txt``, ``gaps.csv`` and more ``figures/``, ``evaluate``
``evaluations/``, ``sample`` ``samples/``, ``bracket`` ``bracket/`` and ``calibrate``
``calibration/``.  `bayesvae.cli.run_folder` keeps the folder whole while they do.
"""

import importlib.metadata
import math
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import Namespace

from bayesvae import __version__
from bayesvae.cli.arguments import fit_parser
from bayesvae.cli.build import build
from bayesvae.cli.facts import FORMAT, Facts, read_facts, read_object
from bayesvae.cli.locks import locked
from bayesvae.cli.output import require_writable
from bayesvae.cli.parse import parse_file
from bayesvae.cli.parts import look_here
from bayesvae.cli.run_folder import (
    identity,
    is_begun,
    is_marked,
    is_unsettled,
    own_files,
    replacing,
    results,
    settle,
)
from bayesvae.cli.trust import has_foreign, refuse_foreign
from bayesvae.core import files
from bayesvae.core.pair import Pair

_FORMER = ("config.yaml", "data.json", "last.pt", "best.pt", "summary.json", "metrics.csv")
_FORMER += (
    "gaps.txt",
    "gaps.csv",
    "code",
    "evaluations",
    "samples",
    "bracket",
    "calibration",
    "figures",
)
"""What a run is made of, which a new one may not meet in a folder that is none."""


class Run(NamedTuple):
    """A run read back.

    Attributes:
        folder: where it lies.
        identity: what tells the folder from another of that name.
        config: the options of ``bayesvae fit`` that it was made with, settled.
        facts: what is known of its data.
        pair: its best state, on the device that was asked for.
    """

    folder: Path
    identity: tuple[int, int]
    config: Namespace
    facts: Facts
    pair: Pair


@contextmanager
def claimed(folder: str, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run into, for as long as it is written.

    An earlier run is set aside, and is gone once the new one has ended; files that no command
    wrote stay where they are.

    Raises:
        ValueError: if there is a run already and it may not be replaced, or something else, or
            another process writes there.
        OSError: if it cannot be written to.
    """
    if not folder or (Path(folder).exists() and not Path(folder).is_dir()):
        raise ValueError(f"--out needs a folder; got {folder or 'none'}. Choose another name.")
    path = Path(folder).resolve()
    require_writable(path)
    made = _made_parents(path)
    try:
        with locked(path):
            settle(path, _say)
            _require_claimable(path, folder, overwrite)
            with replacing(path, _say, Path(folder)):
                yield Path(folder)
    finally:
        for parent in made:
            with suppress(OSError):  # not empty
                parent.rmdir()


def _made_parents(path: Path) -> list[Path]:
    """Makes the folders above a path; those that were not there, the lowest first."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _say(text: str) -> None:
    print(f"bayesvae: {text}", file=sys.stderr)


def _require_claimable(path: Path, folder: str, overwrite: bool) -> None:
    if is_marked(path) and not is_begun(path):
        if not overwrite:
            raise ValueError(
                f"--out needs a folder without a run; {folder} holds one. Choose another name or "
                "add --overwrite."
            )
        own_files(path)  # of a format that is known
        if path == Path.cwd() or path in Path.cwd().parents:
            raise ValueError(
                f"--overwrite replaces a whole folder, and {folder} is the one you are in. Go to "
                "the folder above it first."
            )
    elif not is_marked(path) and (there := [n for n in _FORMER if (path / n).exists()]):
        raise ValueError(
            f"--out needs a new folder, or that of a run whose files are listed in its run.json; "
            f"{folder} is none and holds {', '.join(there)}. Choose another name."
        )


def write(run: Path, config: Namespace, facts: Facts) -> None:
    """Writes all that a run is rebuilt from but its state."""
    written = Namespace(**{k: v for k, v in vars(config).items() if k not in ("config", "trust")})
    text = fit_parser().dump(written)
    files.write_aside(run / "config.yaml", lambda aside: aside.write_text(text))
    files.save_json(run / "data.json", {"format": FORMAT} | facts._asdict())
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
            files.write_aside(copy, partial(shutil.copyfile, file))


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


@contextmanager
def adding(run: Run, out: Path) -> Iterator[Path]:
    """Where to write what is to be at ``out``; in the run it appears at the end, all or nothing.

    Raises:
        ValueError: if the run was replaced since it was read, or another process writes there.
    """
    folder, target = run.folder.resolve(), out.resolve()
    if folder == target or folder in target.parents:
        with results(folder, run.identity) as staged:
            yield staged / target.relative_to(folder)
    else:
        yield out


def finish_what_was_begun(folder: Path) -> None:
    """Puts a run in order that a process left half-way, unless another is at work there."""
    run = folder.resolve()
    if is_unsettled(run):
        with suppress(ValueError, OSError), locked(run):
            settle(run, _say)


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
    finish_what_was_begun(folder)
    if is_marked(folder):
        own_files(folder)  # of a format that is known
    known = identity(folder) if folder.is_dir() else (0, 0)
    config = read_config(folder, options.trust)
    read_summary(folder)
    facts = read_facts(folder / "data.json")
    pair = build(config, facts)
    _load(pair, folder / "best.pt", facts)
    return Run(folder, known, config, facts, pair.to(device))


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
    return read_object(path) if path.is_file() else {}


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("torch", "pyro-ppl")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"bayesvae": __version__, "python": platform.python_version(), **installed}


def write_summary(run: Path, entries: dict[str, Any], into: Path | None = None) -> None:
    """Adds entries to ``summary.json``; numbers that are not finite become null.

    Args:
        run: the run folder.
        entries: what to add.
        into: another folder to write the whole to.
    """
    clean = {key: _plain(value) for key, value in {**read_summary(run), **entries}.items()}
    files.save_json((into or run) / "summary.json", clean)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
