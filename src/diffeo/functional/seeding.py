"""Random numbers that a seed decides: blocks with a state of their own, and generators on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """A block whose default random state comes from ``seed``; the state outside is put back at its end.

    Args:
        seed: any whole number that fits 64 bits.
        device: where random numbers are drawn; the CPU's state is seeded in any case.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=_kind(device)):
        torch.manual_seed(seed)
        yield


def generator(seed: int | None, device: torch.device | str = "cpu") -> Generator:
    """A generator on ``device``, seeded; without a seed its numbers are other ones each time."""
    made = Generator(device)
    if seed is None:
        made.seed()
    else:
        made.manual_seed(seed)
    return made


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type  # what fork_rng calls its other device
