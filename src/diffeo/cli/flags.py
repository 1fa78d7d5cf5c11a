"""Cures of errors in the command line's words: what each argument of Python is called here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from diffeo.errors import Cure

FLAGS = {
    "columns": "--column",
    "context": "--given-table",
    "drop": "--drop",
    "features": "--dim",
    "given": "--given",
    "preset": "--preset",
    "size": "--size",
    "weights": "--weights",
}
"""An argument's name in Python, and the option that stands for it."""


def hint(cure: Cure | None) -> str:
    """A sentence with the options to give, or nothing where no option stands for the argument.

    Example:
        >>> hint(Cure("drop", ["id", "the day"]))
        " On the command line: --drop id --drop 'the day'."
        >>> hint(Cure("columns", {"price": "positive"})), hint(Cure("size", (48, 64)))
        (' On the command line: --column price=positive.', ' On the command line: --size 48x64.')
    """
    if cure is None or cure.parameter not in FLAGS:
        return ""
    flag = FLAGS[cure.parameter]
    return f" On the command line: {' '.join(f'{flag} {shlex.quote(text)}' for text in _texts(cure.value))}."


def _texts(value: Any) -> list[str]:
    """What follows the option, each time that it is given."""
    if isinstance(value, Mapping):
        return [f"{name}={kind}" for name, kind in value.items()]
    if isinstance(value, tuple):  # of a height and a width
        return ["x".join(map(str, value))]
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
