"""From the words of a command line, or a file of options, to a configuration.

What is wrong with an option is found here and told by its name: that there is no such option, how
many values it takes, the class of a part and its arguments, and the type of each value.
"""

import json
import math
from argparse import Action, ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, signature
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace

from bayesvae.cli.help import Parser
from bayesvae.cli.mistakes import own_error, unknown
from bayesvae.cli.parts import PARTS, imported, own_arguments
from bayesvae.cli.rules import rule
from bayesvae.cli.trust import OWN, read_yaml, refuse_foreign

_NETWORKS = ("encoder", "decoder")
_NOT_IN_FILES = ("help", "config", "print_config")


class Given(NamedTuple):
    """An option with what was given for it.

    Attributes:
        option: its name as on the command line.
        value: its words on the command line, or what stands in a file.
        spoken: whether it was on the command line.
    """

    option: str
    value: Any
    spoken: bool

    @property
    def key(self) -> str:
        """Its name in a configuration, as ``batch_size`` or ``prior.components``."""
        head, dot, tail = self.option.removeprefix("--").partition(".")
        return f"{head.replace('-', '_')}{dot}{tail}"

    @property
    def text(self) -> str:
        """What was given, to be shown."""
        if self.spoken:
            return repr(" ".join(self.value))
        plain = self.value is None or isinstance(self.value, bool)
        return json.dumps(self.value) if plain else repr(self.value)


def parse(parser: Parser, words: Sequence[str]) -> Namespace:
    """Reads a command line.

    Args:
        parser: of the command.
        words: all after the command, classes of the package by import path.

    Raises:
        ValueError: in words, if they are not sound.
    """
    if {"-h", "--help"} & set(words):
        # Help alone: a file of options beside it would be read, and what it names imported.
        return parser.parse_args(["--help"])
    spoken = list(_spoken(parser, words))
    said = {each.key for each in spoken}
    given = list(chain.from_iterable(_expanded(parser, each, said) for each in spoken))
    _check_parts(parser, given)
    try:
        with TemporaryDirectory() as folder:
            found = parser.parse_args(list(_without_own(parser, words, said, Path(folder))))
    except ArgumentError as error:
        raise _blamed(parser, given, error) from error
    _check_found(parser, found)
    return found


def parse_file(parser: Parser, path: Path) -> Namespace:
    """Reads a file of options that has been looked at by `trust.refuse_foreign`.

    Raises:
        ValueError: in words, if they are not sound.
    """
    given = list(_in_file(parser, path))
    _check_parts(parser, given)
    try:
        found = parser.parse_path(str(path))
    except ArgumentError as error:
        raise _blamed(parser, given, error) from error
    _check_found(parser, found)
    return found


def _without_own(
    parser: Parser, words: Sequence[str], said: set[str], folder: Path
) -> Iterator[str]:
    """The words, with files of options that do not say again what the user said (`trust.OWN`).

    Each is a file of ours in ``folder``: options as text would be taken for the name of a file,
    which others may have put there.
    """
    file = False
    for word in words:
        joined = word.startswith("--config=")
        if not parser.trust and (file or joined):
            content = read_yaml(Path(word.removeprefix("--config=") if joined else word))
            left = {key: v for key, v in content.items() if key not in OWN or key not in said}
            copy = folder / f"{len(list(folder.iterdir()))}.yaml"
            copy.write_text(yaml.safe_dump(left))
            yield f"--config={copy}" if joined else str(copy)
        else:
            yield word
        file = word == "--config"


def _expanded(parser: Parser, given: Given, said: set[str]) -> list[Given]:
    """An option, or for ``--config`` those in its file, if that may be trusted."""
    if given.key != "config":
        return [given]
    path = Path(given.value[0])
    if not path.is_file():
        raise ValueError(f"--config needs a YAML file; there is none at {given.text}.")
    inside = list(_in_file(parser, path))
    defaults = {action.dest: action.default for action in parser._actions}
    refuse_foreign(
        path, parser.trust, {k: defaults[k] for k in OWN if k in defaults.keys() - said}
    )
    return [each for each in inside if each.key not in OWN or each.key not in said]


def _spoken(parser: Parser, words: Sequence[str]) -> Iterator[Given]:
    """The options on a command line, each with its words."""
    rest, loose = list(words), []
    while rest:
        option, equals, joined = rest.pop(0).partition("=")
        if not _is_option(option):
            loose.append(option + equals + joined)
            continue
        action = _action(parser, option)
        following = [joined] if equals else _values(rest, action)
        if action is None:
            known = [each for each in parser._option_string_actions if not each.endswith(".help")]
            got = " ".join([option, *following])
            raise unknown(f"Options are those of `{parser.prog} --help`", known, option, got)
        given = Given(option, following, True)
        _check_words(given, action, bool(equals))
        yield given
    _check_loose(parser, loose)


def _check_loose(parser: Parser, loose: Sequence[str]) -> None:
    """Checks the words that belong to no option."""
    alone = [action for action in parser._actions if not action.option_strings]
    if len(loose) > len(alone):
        raise ValueError(
            f"`{parser.prog}` takes {'one word' if alone else 'no words'} besides its options; "
            f"got {' '.join(loose)!r}. See `{parser.prog} --help`."
        )
    if missing := [each for each in alone[len(loose) :] if each.required]:
        name = missing[0].metavar
        raise ValueError(f"`{parser.prog}` needs {name}, {missing[0].help}; got none.")


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit() and word[1:2] != "."


def _action(parser: Parser, option: str) -> Action | None:
    """What reads an option; that of the part if it is one of a part's arguments."""
    head, dot, _ = option.partition(".")
    found = parser._option_string_actions.get(option)
    if found is None and dot and head.removeprefix("--") in PARTS:
        return parser._option_string_actions.get(head)
    return found


def _values(rest: list[str], action: Action | None) -> list[str]:
    """Takes the words that belong to an option from those that follow it."""
    most = {None: 1, "?": 1, 0: 0}.get(action.nargs if action else "+", len(rest))
    if action is not None and action.dest == "print_config":
        most = 0
    values = []
    while rest and len(values) < most and not _is_option(rest[0]):
        values.append(rest.pop(0))
    return values


def _check_words(given: Given, action: Action, joined: bool) -> None:
    if action.nargs == 0 or action.dest == "print_config":
        if joined:
            raise ValueError(
                f"{given.option} takes no value; got {given.text}. Write it alone, or leave it "
                "out."
            )
    elif not given.value and action.nargs not in ("*", "?"):
        several = "at least one value" if action.nargs == "+" else "one value"
        raise ValueError(f"{given.option} needs {several}; got none.")
    if any(not word or "\0" in word for word in given.value):
        raise ValueError(
            f"{given.option} needs a text, not empty and without null bytes; got {given.text}. "
            "Leave it out for its default."
        )
    if action.choices and given.value[0] not in action.choices:
        raise unknown(f"{given.option} takes", action.choices, given.value[0])


def _in_file(parser: Parser, path: Path) -> Iterator[Given]:
    """The options in a file, each with its value."""
    actions = {action.dest: action for action in parser._actions if action.option_strings}
    known = [key for key in actions if key not in _NOT_IN_FILES and "." not in key]
    for key, value in read_yaml(path).items():
        if key not in known:
            what = f"{path} takes options of `{parser.prog} --help`"
            raise unknown(what, known, key)
        given, action = Given(_option(key), value, False), actions[key]
        if value is None and action.default is None:
            continue
        if key in PARTS:
            yield from _part_in_file(given)
        else:
            _check_entry(given, action)
            yield given


def _check_entry(given: Given, action: Action) -> None:
    several, value = action.nargs in ("+", "*"), given.value
    if action.nargs == 0:
        sound, needs = isinstance(value, bool), "true or false"
    elif several:
        sound, needs = isinstance(value, list), f"a list, each entry {rule(_hint(action))}"
        sound = sound and (value or action.nargs == "*")
        sound = sound and not any(isinstance(each, list | dict) for each in value)
    elif action.choices:
        sound, needs = value in action.choices, f"one of {', '.join(action.choices)}"
    else:
        sound, needs = not isinstance(value, list | dict | None), rule(_hint(action))
    if not sound or "\0" in str(value):
        raise _mistaken(given, needs)


def _part_in_file(given: Given) -> Iterator[Given]:
    value = given.value if isinstance(given.value, dict) else {"class_path": given.value}
    path, arguments = value.get("class_path", ""), value.get("init_args", {})
    sound = set(value) <= {"class_path", "init_args"} and isinstance(arguments, dict)
    if not sound or not isinstance(path, str) or "." not in path:
        example = "`class_path: mymodule.MyClass` and `init_args: {name: value}`"
        raise _mistaken(given, f"an import path, or {example}")
    yield Given(given.option, [path], True)
    for name, argument in arguments.items():
        yield Given(f"{given.option}.{name}", argument, False)


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _check_parts(parser: Parser, given: Sequence[Given]) -> None:
    """Checks that each part is a class for its place, made with what it is given."""
    for key in PARTS:
        made, own = _class_of(parser, key, given), _own(key, given)
        if made is not None:
            _check_arguments(key, made, own, _default(parser, key))
        elif own:
            option = next(iter(own.values())).option
            raise ValueError(f"{option} belongs to a class; got none. Name it by --{key} first.")


def _own(key: str, given: Sequence[Given]) -> dict[str, Given]:
    """The arguments of a part by name, without those in a file for a class named before."""
    own: dict[str, Given] = {}
    for each in given:
        if each.key == key:
            own = {name: argument for name, argument in own.items() if argument.spoken}
        elif each.key.startswith(f"{key}.") and each.key != f"{key}.help":
            own[each.key.partition(".")[2]] = each
    return own


def _default(parser: Parser, key: str) -> Any:
    return next((a.default for a in parser._actions if a.dest == key), None)


def _class_of(parser: Parser, key: str, given: Sequence[Given]) -> type | None:
    """The class that fills a place, None if it is left open."""
    default = _default(parser, key)
    named = [each.value[0] for each in given if each.key == key]
    path = named[-1] if named else default and default["class_path"]
    if path is None:
        return None
    known = PARTS[key].classes
    home = PARTS[key].home.__name__
    own = {f"{home}.{name}": each for name, each in known.items()} | known
    if path in own:
        return own[path]
    torchs = path.startswith("torch.") and key not in _NETWORKS
    if torchs or path.startswith("bayesvae.") or "." not in path:
        raise unknown(f"--{key} takes", known, path, more=", or a class of yours")
    return imported(path, f"--{key}", PARTS[key].base)


def _check_arguments(key: str, made: type, own: Mapping[str, Given], default: Any) -> None:
    takes = {argument.name: argument for argument in own_arguments(made, key)}
    name = made.__name__
    open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in signature(made).parameters.values())
    for argument, each in own.items():
        if argument.partition(".")[0] not in takes and not open_ended:
            options = [f"--{key}.{each}" for each in takes]
            raise unknown(f"--{key} {name} takes", options, each.option, each.option)
    inherited = default.get("init_args") or {} if default else {}
    missing = [
        f"--{key}.{each.name}"
        for each in takes.values()
        if each.default is None and each.name not in own and each.name not in inherited
    ]
    if missing:
        raise ValueError(
            f"--{key} {name} needs {', '.join(missing)}; got no such value. Add "
            f"{'them' if len(missing) > 1 else 'it'}, or name another class."
        )


def _blamed(parser: Parser, given: Sequence[Given], error: ArgumentError) -> Exception:
    """The mistake in words: the first option whose value is not of its type."""
    own = own_error(error)
    if own is not None:
        return own
    for each in given:
        hint, several = _type_of(parser, given, each)
        if hint is not None and not _fits(hint, several, each):
            return _mistaken(each, rule(hint))
    options = " ".join(f"{each.option} {each.text}" for each in given)
    return ValueError(
        f"Options have to go together, a class before its arguments; got {options}. See "
        f"`{parser.prog} --help`."
    )


def _type_of(parser: Parser, given: Sequence[Given], each: Given) -> tuple[Any, Any]:
    """The type that an option's value has to be of, and of how many it is."""
    key, _, name = each.key.partition(".")
    if not name:
        action = next(action for action in parser._actions if action.dest == key)
        return None if key in PARTS else _hint(action), action.nargs
    parameters = signature(_class_of(parser, key, given)).parameters
    found = parameters.get(name)
    return None if found is None or found.annotation is found.empty else found.annotation, None


def _hint(action: Action) -> Any:
    return getattr(action, "_typehint", None)


def _fits(hint: Any, several: Any, each: Given) -> bool:
    if not each.spoken and each.value is None:
        return type(None) in get_args(hint)
    alone = ArgumentParser(exit_on_error=False)
    alone.add_argument("--value", type=hint, nargs=several)
    try:
        if each.spoken:
            alone.parse_args(["--value", *each.value])
        else:
            alone.parse_object({"value": each.value})
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


def _mistaken(given: Given, needs: str) -> ValueError:
    return ValueError(f"{given.option} needs {needs}; got {given.text}.")


def _check_found(parser: Parser, found: Namespace) -> None:
    """Checks what the types let through: nothing where something is needed, and infinity."""
    for action in parser._actions:
        if action.default is not None and found.get(action.dest, action) is None:
            raise _mistaken(Given(_option(action.dest), None, False), rule(_hint(action)))
    for key, value in vars(found.clone().as_flat()).items():
        if isinstance(value, float) and not math.isfinite(value):
            option = _option(key.replace(".init_args", ""))
            raise _mistaken(Given(option, value, False), "a finite number")
