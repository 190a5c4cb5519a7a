"""``--help``: every option with its default, and every part with its own arguments."""

import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from bayesvae.cli.parts import PARTS, own_arguments, summary

WIDTH, INDENT = 96, 28


class Parser(ArgumentParser):
    """A parser whose help is written for a reader who has not seen the source.

    Attributes:
        named: a user's classes on the command line, by part; they are shown among the others.
        trust: whether files of options may name classes of others.
    """

    def __init__(self, **named: Any) -> None:
        super().__init__(**{"exit_on_error": False, "allow_abbrev": False, **named})
        self.named: Mapping[str, type] = {}
        self.trust = False

    def format_help(self, *_: Any, **__: Any) -> str:
        """The help as text."""
        positionals = [a.metavar or a.dest for a in self._actions if not a.option_strings]
        lines = [" ".join(["usage:", self.prog, *positionals, "[options]"]), ""]
        lines += [*textwrap.wrap(self.description, WIDTH), ""]
        shown = False
        for group in self._action_groups:
            actions = [a for a in group._group_actions if _is_shown(a)]
            parts = [a for a in actions if a.dest in PARTS]
            if parts and not shown:
                shown = True
                lines += [*self._parts(), ""]
            others = [a for a in actions if a.dest not in PARTS]
            if others:
                lines += [f"{group.title}:", *(row for a in others for row in _option(a)), ""]
        return "\n".join([*lines, *_paragraphs(self.epilog or "")]) + "\n"

    def _parts(self) -> Iterator[str]:
        yield "parts, each a class with arguments of its own, or yours as mymodule.MyClass:"
        for key, part in PARTS.items():
            default = next(a.default for a in self._actions if a.dest == key)
            yield from _row(f"--{key} NAME", f"{part.what} ({_default(default, key)})")
            for name, each in {**part.classes, **self._foreign(key)}.items():
                yield from _row(f"    {name}", summary(each))
                for argument in own_arguments(each, key):
                    given = f"default: {argument.default}"
                    if argument.default is None:
                        given = _given(default, each, argument.name)
                    text = f"{argument.text} ({given})".strip()
                    yield from _row(f"      --{key}.{argument.name}", text)

    def _foreign(self, key: str) -> dict[str, type]:
        each = self.named.get(key)
        return {} if each is None else {f"{each.__module__}.{each.__qualname__}": each}


def _is_shown(action: Action) -> bool:
    hidden = action.help == SUPPRESS or action.dest.endswith(".help")
    return not hidden or action.dest == "print_config"


def _default(default: Any, key: str) -> str:
    if default is None:
        return "default: none" if key == "pair" else "default: by the data"
    return f"default: {default['class_path'].rpartition('.')[2]}"


def _given(default: Any, part: type, name: str) -> str:
    """What stands for an argument without a default: the option's own, or nothing."""
    own = default is not None and default["class_path"].endswith(f".{part.__name__}")
    given = default.get("init_args", {}).get(name) if own else None
    return "required" if given is None else f"default: {given}"


def _option(action: Action) -> Iterator[str]:
    metavar = action.metavar or ""
    if action.choices:
        metavar = "|".join(map(str, action.choices))
    elif metavar.startswith("{"):
        metavar = metavar.strip("{}").replace(",", "|")
    names = action.option_strings or [metavar]
    metavar += " ..." if action.nargs in ("+", "*") else ""
    left = f"{', '.join(names)} {metavar if action.option_strings else ''}".rstrip()
    text = re.sub(r"\s+", " ", action.help or "")
    flag = action.nargs == 0 or action.dest in ("help", "print_config", "config")
    if action.option_strings and not flag and action.default not in (None, SUPPRESS):
        default = action.default
        words = default if isinstance(default, list | tuple) else [default]
        text += f" (default: {' '.join(map(str, words))})"
    yield from _row(left, text)


def _row(left: str, right: str) -> Iterator[str]:
    left = f"  {left}"
    wrapped = textwrap.wrap(right, WIDTH - INDENT) or [""]
    if len(left) >= INDENT:
        yield left
    else:
        yield f"{left:{INDENT}}{wrapped.pop(0)}"
    yield from (" " * INDENT + line for line in wrapped)


def _paragraphs(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="    ") or [""]
