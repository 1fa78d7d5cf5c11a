"""Lists of modules whose kind a type checker knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T", bound=nn.Module)


class Layers(nn.ModuleList, Generic[T]):
    """A ``ModuleList`` of one kind of module: what it gives back is of the kind that was put in."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[T] = ()) -> None: ...

        def __iter__(self) -> Iterator[T]: ...

        def __getitem__(self, idx: int) -> T: ...  # type: ignore[override]
