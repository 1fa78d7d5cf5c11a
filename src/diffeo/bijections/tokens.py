"""Images as sequences of tokens, and autoregressive layers over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from diffeo.bijections.base import Bijection, check_family, shelter
from diffeo.bijections.token_samplers import Solution, Stepwise, TokenSampler
from diffeo.contracts import CausalNet, Traits
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ShapeError
from diffeo.functional import matmul_precision
from diffeo.functional.shapes import image_shape, sum_event


class Tokens(Bijection):
    """An image's pixels as a sequence: ``(C, H, W)`` to ``(H W, C)``, in raster order.

    Behind ``Squeeze`` a pixel is a patch of the image, and its channels are the patch's pixels. Domain: any.
    log-det: 0. Cost: none to speak of.

    Args:
        shape: ``(C, H, W)``.

    Shape:
        ``x``: ``(*batch, C, H, W)``, ``z``: ``(*batch, H W, C)``, log-det: ``(*batch,)``.

    Raises:
        ShapeError: when the shape is not that of an image.

    Example:
        >>> import torch
        >>> Tokens((3, 2, 2))(torch.zeros(5, 3, 2, 2))[0].shape
        torch.Size([5, 4, 3])
    """

    domain = None
    codomain = None

    def __init__(self, shape: Sequence[int]):
        shape = image_shape(shape)
        channels, height, width = shape
        super().__init__(shape, latent_shape=(height * width, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flatten(-2).transpose(-1, -2), x.new_zeros(x.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.transpose(-1, -2).unflatten(-1, self.event_shape[1:]), y.new_zeros(y.shape[:-2])

    def extra_repr(self) -> str:
        return f"{tuple(self.event_shape)}"


class AutoregressiveTokens(Bijection):
    """Each token through a map whose parameters see the tokens before it.

    ``Autoregressive`` in blocks: the elements of one token are mapped side by side, each by a scalar map
    of its own, and none sees another of the same token. One net pass gives all parameters in ``forward``.
    ``inverse`` goes as the sampler says: token by token on the net's cache (``Stepwise``), or by passes
    over all tokens at once until they no longer move (``Jacobi``).

    Args:
        net: gives ``net.params = family.num_params`` parameters for each of the ``net.width`` elements of
            ``net.length`` tokens.
        family: the scalar map.
        reverse: whether the last token comes first. Alternate it from layer to layer.
        sampler: how ``inverse`` is computed; it has no weights, is in no file, and may be changed any time.

    Shape: ``(*batch, T, C)``; context ``(*batch, *net.context_shape)`` where the net takes one.

    Raises:
        ShapeError: when the net's sizes do not fit.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models" (TarFlow), eqs. 3-5.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import Affine
        >>> from diffeo.nets import CausalTransformer
        >>> layer = AutoregressiveTokens(CausalTransformer(4, 3, 2, hidden=8, heads=2), Affine())
        >>> x = torch.randn(5, 4, 3)
        >>> torch.allclose(layer.inverse(layer(x)[0])[0], x)
        True
    """

    def __init__(
        self,
        net: CausalNet,
        family: Elementwise,
        reverse: bool = False,
        sampler: TokenSampler | None = None,
    ):
        super().__init__((net.length, net.width), context_shape=net.context_shape)
        if net.params != family.num_params:
            raise ShapeError(
                f"the net gives {net.params} parameters an element, but {family} takes {family.num_params}; "
                f"build the net with params={family.num_params}."
            )
        check_family(family, net.width)
        self.net, self.family, self.reverse = net, family, reverse
        self.sampler: TokenSampler = Stepwise() if sampler is None else sampler
        self.domain, self.codomain = family.domain, family.codomain

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        return self.sampler.traits(self.family.traits, self.net.length)

    def _context(self, context: Tensor | None) -> Tensor | None:
        return None if self.net.context_shape is None else context

    def _ordered(self, x: Tensor) -> Tensor:
        """First token first; its own inverse."""
        return x.flip(-2) if self.reverse else x

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = self._ordered(shelter(x, self.domain)[0])
        params = matmul_precision.run_net(self.net, seen, self._context(context))
        y, log_slope = self.family.forward(self._ordered(x), params)
        return self._ordered(y), sum_event(log_slope, 2)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        solution = self.solve(y, context)
        return solution.x, solution.log_det

    def solve(
        self, y: Tensor, context: Tensor | None = None, sampler: TokenSampler | None = None
    ) -> Solution:
        """``inverse``, by this sampler if one is given, with the number of net passes it took."""
        sampler = self.sampler if sampler is None else sampler
        solution = sampler.solve(self.net, self.family, self._ordered(y), self._context(context))
        return dataclasses.replace(solution, x=self._ordered(solution.x))

    def extra_repr(self) -> str:
        return f"{self.family}" + (", reverse=True" if self.reverse else "") + f", sampler={self.sampler}"
