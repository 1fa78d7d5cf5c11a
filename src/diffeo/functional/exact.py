"""Whether an object does exactly what its class says: what the kernels may take the place of."""

from __future__ import annotations

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MAPS = frozenset(("forward", "inverse"))


def exactly(thing: object, *kinds: type) -> bool:
    """Whether ``thing`` is of one of these classes itself, with no hooks and no ``forward`` of its own.

    The kernels read what a layer holds and never call it. So a subclass that overrides a method, a
    parametrization (which makes a subclass), pruning and the old ``weight_norm`` (which are hooks) or a
    ``forward`` set on the object would be passed over without a word: such a layer is run by PyTorch.
    """
    return type(thing) in kinds and untouched(thing)


def untouched(thing: object) -> bool:
    """Whether ``thing`` has no hooks and no ``forward`` of its own."""
    own = vars(thing)
    return _MAPS.isdisjoint(own) and not any(map(own.get, HOOKS))
