"""What a user's input can cause, told in one line: the rule, what was received, the remedy."""

import re
from argparse import ArgumentError

KINDS = (ArgumentError, ValueError, TypeError, OSError, FloatingPointError, ImportError)
"""What is answered with one line and exit code 2; anything else is a fault of the program."""

_NEEDS = {
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number, 0 or more",
    "Share": "a share of at least 0 and below 1",
    "Seed": "a whole number from 0 to 2^63 - 1",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "Sequence": "a list such as '[200,100]'",
}
_KEY = re.compile(r'Parser key "([^"]+)"')
_GOT = re.compile(
    r"Got value: (.*)$|literal for \w+\(\).*: '(.*)'$|: (\S+) does not conform|"
    r"Given value: (.*)$"
)
_TYPE = re.compile(r"Not of type (\w+)|Expected an? <class '(?:[\w.]*\.)?(\w+)'>")


def one_line(mistake: Exception, command: str) -> str:
    """An error in one line, without tables; the parser's are put into the package's own words.

    Args:
        mistake: the error.
        command: the command that was called, whose help is pointed at.
    """
    text = " ".join(str(mistake).split("\n\nprogram ")[0].split())
    if isinstance(mistake, OSError) and mistake.filename and mistake.strerror:
        return f"{mistake.filename}: {mistake.strerror}. Choose another path, or free this one."
    if isinstance(mistake, ArgumentError):
        return f"{_of_the_parser(text)} See `bayesvae {command} --help`."
    return text or type(mistake).__name__


def _of_the_parser(text: str) -> str:
    keys, needs, got = _KEY.findall(text), _TYPE.search(text), _GOT.search(text)
    top = [key.replace("_", "-") for key in keys[:1]]
    option = "--" + ".".join([*top, *keys[1:]])
    if refused := re.search(r"class_path '([^']+)'.*Option '([^']+)' is not accepted", text):
        name = refused[1].rpartition(".")[2]
        return f"{option} {name} takes arguments of its own; got {option}.{refused[2]}."
    if keys and needs and got:
        rule = _NEEDS.get(next(filter(None, needs.groups())), "another kind of value")
        return f"{option} needs {rule}; got {next(filter(None, got.groups()))!r}."
    if unknown := re.search(r"unrecognized arguments: (.*)", text):
        return f"Options are those of the help; got {unknown[1]}."
    if choice := re.search(r"argument (\S+): invalid choice: (\S+) \(choose from (.*)\)", text):
        return f"{choice[1]} takes one of {choice[3]}; got {choice[2]}."
    if missing := re.search(r"argument (\S+): expected (.*)", text):
        return f"{missing[1]} needs {missing[2].replace('argument', 'value')}; got none."
    if required := re.search(r"the following arguments are required: (.*)", text):
        return f"This command needs {required[1]}; got none."
    if keys[:1] == ["config"]:
        return f"--config needs a readable YAML file; {text.partition(': ')[2]}."
    if "parsing config" in text:
        return f"--config needs a YAML file of options; {text.partition(': ')[2]}."
    return f"{option if keys else 'Input'}: {_KEY.sub('', text).lstrip(': ')}"
