"""A run folder, from which alone a run is rebuilt.

``fit`` writes ``config.yaml``, ``data.json`` (what the pair depends on of the data), ``last.pt``,
``best.pt``, ``metrics.csv``, ``summary.json``, ``figures/``, and ``code/`` with the user's modules
that it used; ``compare`` adds ``gaps.txt``, ``gaps.csv`` and ``figures/gaps.png``, ``evaluate``
``evaluations/`` and ``sample`` ``samples/``.
"""

import importlib.metadata
import json
import math
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import Namespace

from bayesvae import __version__, checkpoint
from bayesvae.cli.arguments import fit_parser
from bayesvae.cli.build import build
from bayesvae.cli.parts import PARTS, is_foreign, look_here
from bayesvae.cli.source import Facts
from bayesvae.pair import Pair

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MARKS = ("last.pt", "best.pt", "summary.json")
_FILES = (*_MARKS, "config.yaml", "data.json", "metrics.csv", "gaps.txt", "gaps.csv")
_FOLDERS = ("code", "evaluations", "samples")
_PICTURES = ("samples", "reconstructions", "training_curve", "gaps", "latent_space", "columns")


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


def claim(folder: str, overwrite: bool) -> Path:
    """A folder to write a run into; what an earlier run wrote there is removed.

    Raises:
        ValueError: if there is a run already and it may not be replaced, or a file of that name.
        OSError: if it cannot be written to.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out needs a folder; {path} is a file. Choose another name.")
    if not overwrite and any((path / mark).exists() for mark in _MARKS):
        raise ValueError(
            f"--out needs a folder without a run; {path} holds one. Choose another name or add "
            "--overwrite."
        )
    path.mkdir(parents=True, exist_ok=True)
    for stale in (*_FILES, *(f"figures/{picture}.png" for picture in _PICTURES)):
        (path / stale).unlink(missing_ok=True)
    for stale in _FOLDERS:
        shutil.rmtree(path / stale, ignore_errors=True)
    return path


def write(run: Path, config: Namespace, facts: Facts) -> None:
    """Writes all that a run is rebuilt from but its state."""
    written = Namespace(**{k: v for k, v in vars(config).items() if k not in ("config", "trust")})
    text = fit_parser().dump(written)
    checkpoint.write_aside(run / "config.yaml", lambda aside: aside.write_text(text))
    checkpoint.save_json(run / "data.json", facts._asdict())
    if any(True for _ in _foreign(yaml.safe_load(text))):
        _keep_code(run / "code")


def _keep_code(folder: Path) -> None:
    """Copies the user's modules that were imported from the current folder."""
    here, installed = Path.cwd(), Path(sys.prefix)
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        mine = here in file.parents and installed not in file.parents
        if mine and file.suffix == ".py" and is_foreign(f"{name}.") and name != "__main__":
            copy = folder / file.relative_to(here)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _foreign(content: Any) -> Iterator[str]:
    """Import paths in a configuration's parts that lead outside the package and torch."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key in PARTS or key in ("class_path", "init_args") or isinstance(value, dict):
                yield from _paths(value)


def _paths(content: Any) -> Iterator[str]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _paths(value)
    elif isinstance(content, str) and _IMPORT_PATH.fullmatch(content) and is_foreign(content):
        yield content


def read_yaml(path: Path) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        ValueError: if it is no YAML, or holds no options.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML. Repair or remove it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} needs options as `name: value`; it holds none. Repair it.")
    return content


def refuse_foreign(path: Path, trust: bool) -> None:
    """Refuses a YAML file that names classes of others, unless it is trusted.

    Raises:
        ValueError: if it does; importing a class runs code.
    """
    foreign = sorted(set(_foreign(read_yaml(path))))
    if foreign and not trust:
        raise ValueError(
            f"{path} names {', '.join(foreign)}, and importing it runs its code. Add --trust if "
            "you trust it."
        )


def read_config(run: Path, trust: bool = False) -> Namespace:
    """Reads a run's configuration.

    Args:
        run: the run folder.
        trust: whether classes outside the package may be imported, which runs their code; the
            copies that the run keeps come first, then the current folder.

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
    refuse_foreign(path, trust)
    if trust:
        sys.path[:0] = [str((run / "code").resolve())]
        look_here()
    return fit_parser().parse_path(str(path))


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
    facts = _facts(folder / "data.json")
    pair = build(config, facts)
    _load(pair, folder / "best.pt", facts)
    return Run(folder, config, facts, pair.to(device))


def _facts(path: Path) -> Facts:
    content = _read_json(path)
    missing = sorted(set(Facts._fields) - set(content))
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}. Put back the file that `bayesvae fit` wrote."
        )
    known = {key: content[key] for key in Facts._fields}
    lists = {key: tuple(known[key]) for key in ("event", "names", "label_names")}
    return Facts(**(known | lists))


def _load(pair: Pair, path: Path, facts: Facts) -> None:
    """Loads a checkpoint into the pair that a configuration describes.

    Raises:
        ValueError: if they do not belong together.
    """
    state = checkpoint.load_state(path)
    pair.find_parameters(facts.stand_in()[:2].clone(), torch.arange(min(2, facts.size)))
    try:
        pair.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds the state of another pair than its config.yaml describes: "
            f"{str(error).splitlines()[1].strip()} Put back the config.yaml that it was made with."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}). Repair or remove it.") from error


def read_summary(run: Path) -> dict[str, Any]:
    """Reads ``summary.json``; empty if it is not there."""
    return _read_json(run / "summary.json")


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
