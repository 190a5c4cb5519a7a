"""Types in words: what an option needs."""

import types
from collections.abc import Callable, Collection
from inspect import isclass
from typing import Any, Union, get_args, get_origin

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
    "dict": "entries such as '{name: value}'",
}
_MANY = {int: "whole numbers such as '[200,100]'", float: "numbers such as '[0.5,1]'"}


def rule(hint: Any) -> str:
    """What a value of a type is, to be put behind "needs".

    Example:
        >>> from collections.abc import Sequence
        >>> rule(Sequence[int]), rule(float | None)
        ("a list of whole numbers such as '[200,100]'", 'a number')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = (rule(each) for each in inner if each is not type(None))
        return " or ".join(dict.fromkeys(kinds))
    if origin is Callable:
        return "a class by its import path, such as torch.nn.Tanh"
    if isclass(origin) and issubclass(origin, Collection) and origin is not dict:
        return f"a list of {_MANY.get(inner[0] if inner else None, 'values')}"
    name = getattr(origin or hint, "__name__", "")
    return _NEEDS.get(name, "a class by its import path" if isclass(hint) else "another value")
