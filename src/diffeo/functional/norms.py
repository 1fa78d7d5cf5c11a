"""Upper bounds on the Euclidean operator norm of linear layers.

Power iteration approaches the norm from below and certifies nothing; these bound it from above, round-off
included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def norm_bound(matrix: Tensor) -> Tensor:
    """An upper bound on the largest singular value of each matrix ``(*, m, n)``, tight to round-off.

    The root of the largest eigenvalue of the smaller Gram matrix, enlarged by what rounding the Gram matrix
    and its eigenvalues can have cost.
    """
    m, n = matrix.shape[-2:]
    if not m * n:
        return matrix.real.new_zeros(matrix.shape[:-2])
    gram = matrix.mH @ matrix if n <= m else matrix @ matrix.mH
    largest = torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0)
    return (largest * (1 + 8 * max(m, n) * torch.finfo(matrix.real.dtype).eps)).sqrt()


def conv_norm_bound(weight: Tensor, size: Sequence[int]) -> Tensor:
    """An upper bound on the norm of a convolution with zero padding, stride 1, on images of ``size``.

    Padding an image with ``k - 1`` zeros keeps its norm, the circular convolution of the padded image holds
    every value of the padded convolution, and dropping the rest loses norm only. A circular convolution is
    block-diagonal in the frequencies, where its norm is the largest of those of its blocks.

    Args:
        weight: ``(out_channels, in_channels, k, l)``.
        size: height and width of the images.

    References: Sedghi, Gupta and Long 2019, "The singular values of convolutional layers", theorem 6.
    """
    padded = [s + k - 1 for s, k in zip(size, weight.shape[2:], strict=True)]
    frequencies = torch.fft.rfft2(weight, s=padded).permute(2, 3, 0, 1)  # real weights: half of them suffice
    return norm_bound(frequencies).max() * (1 + 64 * torch.finfo(weight.dtype).eps)
