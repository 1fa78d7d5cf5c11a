"""Errors: each names what was wrong, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cure:
    """An argument that mends what an error is about.

    The error's text says it as Python does, ``drop=['id']``; a front end may say it in its own words too.

    Args:
        parameter: the argument's name.
        value: what to pass; where only the user knows it, a word in capitals stands for it.
    """

    parameter: str
    value: Any


class DiffeoError(Exception):
    """Base class of every error diffeo raises on purpose.

    Args:
        message: what was wrong, where, and what to do about it.
        cure: the argument that mends it, where there is one.
    """

    def __init__(self, message: str, *, cure: Cure | None = None):
        super().__init__(message)
        self.cure = cure


class ShapeError(DiffeoError, ValueError):
    """Shapes that do not fit each other."""


class ContextError(DiffeoError, ValueError):
    """Context that is missing, or given to a flow that takes none."""


class DomainError(DiffeoError, ValueError):
    """The codomain of one map is not the domain of the next."""


class ConfigError(DiffeoError, ValueError):
    """An option, field or argument with a value that cannot work."""


class DataError(DiffeoError, ValueError):
    """A table or tensor that cannot be used as it is."""


class FormatError(DiffeoError, ValueError):
    """A file that is truncated, foreign, newer than this release, or tampered with."""


class TrainingError(DiffeoError, RuntimeError):
    """Training that cannot go on."""


class NotConverged(DiffeoError, RuntimeError):
    """A numeric inverse that missed its stated tolerance."""
