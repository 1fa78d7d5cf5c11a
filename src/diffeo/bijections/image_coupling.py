"""Couplings of images: over channels or over a checkerboard."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection, shelter
from diffeo.contracts import ImageNet
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional import matmul_precision


class ImageCoupling(Bijection):
    """The part of an image under the mask passes unchanged and gives the parameters for the rest.

    One net pass either way, so sampling is as fast as scoring. With a mask of channels
    (``channel_mask``) the net takes the passing channels alone and gives parameters for the others alone;
    with a mask of pixels (``checkerboard``) it sees the image with zeros where it is to change.

    Formula: ``y = x`` where the mask is True, ``family(x; net(x * mask))`` elsewhere; log-det the sum of
    the family's log-slopes. Domain: the family's. Cost: one pass of the net.

    Args:
        mask: booleans, True passes unchanged: ``(C, 1, 1)`` for channels, else ``(1 or C, H, W)``.
        net: an ``ImageNet`` with C, or for a mask of channels as many in-channels as pass, and
            ``family.num_params`` out-channels for each it changes, those of one channel side by side.
        family: the scalar map, the same for all channels.

    Shape: ``(*batch, C, H, W)``; context ``(*batch, *net.context_shape)`` where the net takes one.

    Raises:
        ShapeError: when the net's sizes do not fit; it names the sizes needed.
        ConfigError: for a mask under which nothing changes.

    References: Dinh et al. 2017, section 3.4; Kingma and Dhariwal 2018, section 3.3; Prince 2023, section
    16.3.3.

    Example:
        >>> import torch
        >>> from diffeo.bijections import channel_mask
        >>> from diffeo.elementwise import Affine
        >>> from diffeo.nets import ConvNet
        >>> layer = ImageCoupling(channel_mask(4), ConvNet((2, 3, 3), 4, 8), Affine())
        >>> layer(torch.randn(5, 4, 3, 3))[1].shape
        torch.Size([5])
    """

    mask: Tensor
    order: Tensor
    back: Tensor

    def __init__(self, mask: Tensor, net: ImageNet, family: Elementwise):
        mask = torch.as_tensor(mask, dtype=torch.bool)
        channels_only = mask.dim() == 3 and mask.shape[1:] == (1, 1)
        height, width = net.in_shape[1:]
        in_channels = int(mask.sum()) if channels_only else net.in_shape[0]
        changing = int((~mask).sum()) if channels_only else in_channels
        channels = len(mask) if channels_only else in_channels
        fitting = (1, height, width), (channels, height, width)
        if mask.dim() != 3 or not (channels_only or mask.shape in fitting):
            raise ShapeError(
                f"a mask of shape {tuple(mask.shape)} does not fit a net on images {tuple(net.in_shape)}; it "
                f"must be (C, 1, 1) for channels or (1 or C, {height}, {width}) for pixels."
            )
        if bool(mask.all()):
            raise ConfigError("the mask passes everything unchanged; make at least one entry False.")
        wanted = (in_channels, height, width), (changing * family.num_params, height, width)
        if (net.in_shape, net.out_shape) != wanted:
            raise ShapeError(
                f"the net takes {tuple(net.in_shape)} and gives {tuple(net.out_shape)}, but this mask and "
                f"family need in_shape={wanted[0]}, out_shape={wanted[1]}."
            )
        if family.features is not None:
            raise ShapeError(f"{family} has a map for each column; an image coupling needs one for all.")
        super().__init__((channels, height, width), context_shape=net.context_shape)
        self.net, self.family, self.channels_only = net, family, channels_only
        self.domain, self.codomain, self.traits = family.domain, family.codomain, family.traits
        if channels_only:
            flat = mask.flatten()
            order = torch.cat([flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]])
            self.register_buffer("order", order, persistent=False)
            self.register_buffer("back", order.argsort(), persistent=False)
            self.sizes = in_channels, changing
            self.natural = bool((order == torch.arange(channels)).all())
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(self.family.forward, *shelter(x, self.domain), context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(self.family.inverse, *shelter(y, self.codomain), context)

    def _through(
        self,
        scalar_map: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        outside: Tensor | None,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        context = None if self.context_shape is None else context
        change = self._change_channels if self.channels_only else self._change_pixels
        y, log_slope = change(scalar_map, x.movedim(-3, -1), context)
        log_det = log_slope.sum((-3, -2, -1))
        if outside is not None:
            log_det = torch.where(outside.flatten(-3).any(-1), -math.inf, log_det)
        return y.movedim(-1, -3), log_det

    # Both take and give images with their channels last, as nets and families like them best.

    def _change_channels(
        self,
        scalar_map: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        x = x if self.natural else x[..., self.order]
        passing, changing = x.split(self.sizes, -1)
        y, log_slope = scalar_map(changing, self._params(passing, context))
        y = torch.cat([passing, y], -1)
        return y if self.natural else y[..., self.back], log_slope

    def _change_pixels(
        self,
        scalar_map: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        mask = self.mask.movedim(0, -1)
        y, log_slope = scalar_map(x, self._params(torch.where(mask, x, 0.0), context))
        return torch.where(mask, x, y), torch.where(mask, 0.0, log_slope)

    def _params(self, passing: Tensor, context: Tensor | None) -> Tensor:
        params = matmul_precision.run_net(self.net, passing.movedim(-1, -3), context).movedim(-3, -1)
        return params.unflatten(-1, (-1, self.family.num_params))

    def extra_repr(self) -> str:
        return f"{self.family}, {'channels' if self.channels_only else 'pixels'}"
