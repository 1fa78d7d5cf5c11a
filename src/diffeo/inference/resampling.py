"""Which draws to keep, and how often, so that the kept ones need no weights."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def systematic(log_weights: Tensor, count: int, generator: Generator | None = None) -> Tensor:
    """Indices ``(count,)``, each draw's as often as its weight says, to within one.

    One uniform number sets a comb of ``count`` teeth over the accumulated weights. Unbiased, and with less
    noise than independent choices; in order of the draws, so that equal weights give each draw once.

    References: Kitagawa 1996; Douc, Cappe and Moulines 2005, section 2.4.

    Example:
        >>> import torch
        >>> systematic(torch.tensor([0.25, 0.5, 0.25]).log(), 4).tolist()
        [0, 1, 1, 2]
    """
    share = log_weights.double().softmax(0).cumsum(0)
    start = torch.rand((), dtype=torch.float64, generator=generator).to(share.device)
    teeth = (torch.arange(count, dtype=torch.float64, device=share.device) + start) / count
    return torch.searchsorted(share, teeth * share[-1]).clamp_max(len(share) - 1)
