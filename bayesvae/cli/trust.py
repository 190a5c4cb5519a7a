"""Files of options from others: what they may say without being trusted.

To name a class is to have it imported, which runs its module's code; to name a folder to write to,
or data to read, is to have that done.  So what stands in a file is not searched for what looks
bad: an option may stand there if it is in `PLAIN`, with numbers, texts, or lists of these; a part
if it is a class of this package or a network of torch's, with arguments that are numbers, words,
lists of these, or such parts again.  What is the user's own to say (`OWN`) is said on the command
line. Anything else is left to ``--trust``.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from bayesvae.cli.parts import PARTS, is_own

OWN = ("data", "data_root", "out", "overwrite")
"""What only the user says: which files are read, and where something is written."""
PLAIN = frozenset(
    [
        "array",
        "columns",
        "labels",
        "image_size",
        "grey",
        "divide",
        "standardise",
        "binarise",
        "levels",
        "test",
        "validation",
        "latent",
        "between",
        "epochs",
        "steps",
        "batch_size",
        "learning_rate",
        "row_learning_rate",
        "kl_weight",
        "warmup",
        "inner_steps",
        "clip_norm",
        "compile",
        "bf16",
        "particles",
        "evaluate",
        "seed",
        "device",
        "quiet",
        "limit",
        "semi_steps",
        "evidence_particles",
        "annealing",
        "temperatures",
        "leapfrogs",
        "chains",
        "split",
        "proposal",
        "data_count",
        "draws",
        "show",
        "count",
    ]
)
"""Options that name nothing to import, to read or to write."""
NAMES = frozenset({"families"})
"""Options that take names of the package's own parts, or import paths of others'."""

_WORD = re.compile(r"[\w -]*")


def read_yaml(path: Path) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        ValueError: if it is no YAML, or holds no options by name.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not readable YAML. Repair or remove it.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} needs options as `name: value`; it holds others. Repair it.")
    return content


def refuse_foreign(path: Path, trust: bool, own: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Refuses a file of options that could have anything imported, read or written without trust.

    Args:
        path: a YAML file.
        trust: whether the user said so.
        own: options of `OWN` that the user did not give, with their defaults, which the file may
            not set to anything else. A run's own file names its data, which are read again and
            never downloaded; where it was written is not looked at.

    Raises:
        ValueError: if it does, or is no such file.
    """
    content = read_yaml(path)
    if trust:
        return
    try:
        foreign = list(dict.fromkeys(_of_options(content)))
    except RecursionError as error:
        raise ValueError(f"{path} contains itself. Repair it.") from error
    if foreign:
        raise ValueError(
            f"{path} names {', '.join(foreign[:3])}, and importing it runs its code. Add --trust "
            "if you trust it."
        )
    if taken := [key for key, default in own.items() if content.get(key, default) != default]:
        options = " and ".join(f"--{key.replace('_', '-')}" for key in taken)
        raise ValueError(
            f"{path} sets {options}, which is yours to say: give {options} on the command line, "
            "or add --trust if you trust the file."
        )


def has_foreign(content: dict[str, Any]) -> bool:
    """Whether options name anything that has to be trusted."""
    return any(True for _ in _of_options(content))


def _of_options(content: dict[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if key in PARTS:
            yield from _of_part(value)
        elif key in NAMES:
            yield from _of_argument(value)
        elif key == "trust" and value is False:  # as `--print_config` writes it
            continue
        elif key not in PLAIN and key not in OWN:
            yield key
        elif not _is_plain(value):
            yield f"{key}: {value}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(each, list) for each in value) and all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _of_part(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and set(value) <= {"class_path", "init_args"}:
        path, arguments = value.get("class_path"), value.get("init_args") or {}
        if not isinstance(path, str) or not is_own(path):
            yield str(path)
        if not isinstance(arguments, dict):
            yield str(arguments)
        else:
            for argument in arguments.values():
                yield from _of_argument(argument)
    elif value is not None:
        yield str(value)


def _of_argument(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _of_argument(each)
    elif isinstance(value, dict):
        yield from _of_part(value)
    elif isinstance(value, str) and not (_WORD.fullmatch(value) or is_own(value)):
        yield value
