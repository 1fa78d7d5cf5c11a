"""Errors: each names what was wrong, where, and what to do about it."""


class DiffeoError(Exception):
    """Base class of every error diffeo raises on purpose."""


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
