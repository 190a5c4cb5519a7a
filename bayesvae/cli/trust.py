"""Files of options from others: what they may say without being trusted.

To name a class is to have it imported, which runs its module's code.  So what stands in a file is
not searched for what looks bad; it has to be plain throughout.  A part is a class of this package
or a network of torch's, with arguments that are numbers, words, lists of these, or such parts
again.  Anything else is left to ``--trust``.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bayesvae.cli.parts import PARTS, is_own

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


def refuse_foreign(path: Path, trust: bool) -> None:
    """Refuses a file of options that could have anything imported, unless it is trusted.

    Args:
        path: a YAML file.
        trust: whether the user said so.

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


def has_foreign(content: dict[str, Any]) -> bool:
    """Whether options name anything that has to be trusted."""
    return any(True for _ in _of_options(content))


def _of_options(content: dict[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if "." in key or key == "config":
            yield key
        elif key in PARTS:
            yield from _of_part(value)


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
