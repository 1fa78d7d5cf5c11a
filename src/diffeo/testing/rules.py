"""How a rule of the contract is written, run and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffeo.contracts import Traits


@dataclass(frozen=True)
class Rule:
    """A rule: its name, the item of the contract it stands for, when it applies, and the check."""

    name: str
    item: int
    applies: Callable[[Traits], bool]
    check: Callable[[Any], None]


class Rules(list[Rule]):
    """The rules for one noun; ``@rules.add("name", item)`` puts a function on the list."""

    def add(
        self, name: str, item: int, applies: Callable[[Traits], bool] = lambda traits: True
    ) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        def join(check: Callable[[Any], None]) -> Callable[[Any], None]:
            self.append(Rule(name, item, applies, check))
            return check

        return join

    def run(self, kind: str, subject: Any, traits: Traits | None = None) -> None:
        """Hold ``subject`` to every rule that its traits call for; the first breach raises."""
        for rule in self:
            if rule.applies(traits or Traits()):
                with naming(kind, rule.name, rule.item):
                    rule.check(subject)


@contextmanager
def naming(kind: str, rule: str, item: int) -> Iterator[None]:
    """Turns whatever goes wrong inside into an ``AssertionError`` with the kind's and rule's names."""
    head = f"{kind} breaks '{rule}' (contract, item {item}): "
    try:
        yield
    except AssertionError as error:
        raise AssertionError(head + str(error)) from error.__cause__
    except Exception as error:
        raise AssertionError(f"{head}it raised {type(error).__name__}: {error}") from error


def require(ok: bool | Tensor, message: str) -> None:
    """Raise ``AssertionError`` unless ``ok``."""
    if not bool(ok):
        raise AssertionError(message)


def require_close(what: str, found: Tensor, wanted: Tensor, bound: Tensor | float) -> None:
    """Raise unless ``|found - wanted| <= bound`` everywhere; equal infinities and NaNs agree."""
    require(found.shape == wanted.shape, f"{what}: shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}")
    found, wanted = found.detach().double(), wanted.detach().double()
    bound = torch.as_tensor(bound, dtype=torch.float64).expand_as(found)
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    error = (found - wanted).abs()
    bad = ~(same | (error <= bound))
    if bad.any():
        excess = torch.where(bad, (error / bound.clamp_min(1e-300)).nan_to_num(torch.inf), -1.0)
        i = int(excess.flatten().argmax())
        raise AssertionError(
            f"{what}: {found.flatten()[i].item():.9g} where {wanted.flatten()[i].item():.9g} was wanted, "
            f"error {error.flatten()[i].item():.3g} beyond the bound {bound.flatten()[i].item():.3g} "
            f"({int(bad.sum())} of {bad.numel()} entries)"
        )


def round_off(dtype: torch.dtype, factor: float) -> float:
    """``factor`` units of relative round-off."""
    return factor * torch.finfo(dtype).eps
