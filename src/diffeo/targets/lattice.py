"""``Phi4``: a scalar field on a lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from diffeo.errors import ConfigError
from diffeo.targets.energies import Energy


@final
class Phi4(Energy):
    """A scalar field on a periodic lattice with a quartic coupling: what flows first sampled in physics.

    With a negative ``mass_squared`` and a small coupling it has two phases of opposite sign, which local
    samplers hardly ever change between.

    Formula: ``log p(phi) = -S``, ``S = sum_n (sum_mu (phi_(n + mu) - phi_n)^2 + m^2 phi_n^2 + lambda
    phi_n^4)``, mu along each axis, with neighbors across the edge; ``phi_n (2 phi_n - phi_(n + mu) -
    phi_(n - mu))`` sums to the same. ``log_z`` is None, but exact for the free field, lambda = 0: ``N/2
    log pi - 1/2 sum_k log(m^2 + sum_mu 4 sin^2(pi k_mu / L_mu))``.

    Args:
        shape: the lattice's sides; x are its sites, the last axis fastest.
        mass_squared: m^2, of either sign; positive where the coupling is 0.
        coupling: lambda, at least 0.

    Shape:
        ``x``: ``(*batch, sites)``, log-density: ``(*batch,)``.

    Raises:
        ConfigError: for an empty lattice, or a density that cannot be normalized.

    Example:
        >>> import torch
        >>> from diffeo.targets import Phi4
        >>> Phi4((2, 3)).features, Phi4((2, 3)).log_prob(torch.ones(1, 6))
        (6, tensor([-24.]))

    References:
        Albergo, Kanwar and Shanahan (2019), *Flow-based generative models for Markov chain Monte Carlo in
        lattice field theory*, equation 18; Albergo et al. (2021), *Introduction to Normalizing Flows for
        Lattice Field Theory*, section III.
    """

    def __init__(self, shape: Sequence[int] = (8, 8), mass_squared: float = -4.0, coupling: float = 8.0):
        sides = tuple(shape)
        if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ConfigError(f"Phi4: shape must be positive whole numbers, such as (8, 8), got {shape}.")
        if not math.isfinite(mass_squared) or not 0 <= coupling < math.inf:
            raise ConfigError(
                f"Phi4: mass_squared must be finite and coupling at least 0, got {mass_squared} and "
                f"{coupling}."
            )
        if coupling == 0 and mass_squared <= 0:
            raise ConfigError(
                f"Phi4: without a coupling, mass_squared = {mass_squared} gives a density that cannot be "
                f"normalized; give a positive one, or a coupling."
            )
        log_z = _free_log_z(sides, mass_squared) if coupling == 0 else None
        super().__init__(math.prod(sides), log_z, 1.0)
        self.shape = torch.Size(sides)
        self.mass_squared = mass_squared
        self.coupling = coupling

    def _log_prob(self, x: Tensor) -> Tensor:
        phi = x.reshape(*x.shape[:-1], *self.shape)
        axes = tuple(range(-len(self.shape), 0))
        squares = phi.square()
        action = squares * (self.mass_squared + self.coupling * squares)
        for axis in axes:
            action = action + (phi.roll(-1, axis) - phi).square()
        return -action.sum(axes)


def _free_log_z(shape: tuple[int, ...], mass_squared: float) -> float:
    """A Gaussian's, by the eigenvalues of the lattice's Laplacian."""
    spectrum = torch.full((1,), mass_squared, dtype=torch.float64)
    for side in shape:
        k = torch.arange(side, dtype=torch.float64)
        spectrum = spectrum.unsqueeze(-1) + 4 * torch.sin(math.pi * k / side).square()
    return 0.5 * math.prod(shape) * math.log(math.pi) - 0.5 * spectrum.log().sum().item()
