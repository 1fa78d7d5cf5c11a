"""Transformers: causal over tokens, with a cache for stepping, and over the pixels of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint as recomputed

from diffeo.contracts import Stepper, Windowed, Windows
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.attention import attention
from diffeo.functional.convergence import captured
from diffeo.nets.bounded import ANY_UNITS, Bounded
from diffeo.nets.mlp import check_sizes, linear, zero_


class _Cache:
    """Keys and values of the tokens so far, of one layer."""

    def __init__(self, length: int):
        self.length, self.known = length, 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.next: tuple[Tensor, Tensor] | None = None
        # Derivatives need every step's keys as they were: no buffer that later steps write to.
        self.fixed = not (captured() or torch.is_grad_enabled() or forward_ad._current_level >= 0)

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes those of new tokens, ``(N, heads, n, d)``; gives those of all so far, and the new."""
        if not self.fixed:
            if self.keys is not None and self.values is not None:
                key, value = torch.cat([self.keys, key], -2), torch.cat([self.values, value], -2)
            self.next = key, value
            return key, value
        if self.keys is None or self.values is None:
            shape = (*key.shape[:-2], self.length, key.shape[-1])
            self.keys, self.values = key.new_empty(shape), value.new_empty(shape)
        new = self.known + key.shape[-2]
        self.keys[..., self.known : new, :] = key
        self.values[..., self.known : new, :] = value
        return self.keys[..., :new, :], self.values[..., :new, :]

    def keep(self, count: int) -> None:
        """Count these new tokens, the last that were given, among those so far."""
        self.known += count
        if self.next is not None:
            self.keys, self.values = self.next


class _Block(nn.Module):
    """A pre-norm transformer block: attention, then a two-layer net of each token."""

    def __init__(self, hidden: int, heads: int, expansion: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.merge = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.first = nn.Linear(hidden, expansion * hidden)
        self.second = nn.Linear(expansion * hidden, hidden)

    def forward(self, h: Tensor, causal: bool = False, cache: _Cache | None = None) -> Tensor:
        """``(N, T, hidden)`` to the same; with a cache, h are the tokens behind those in it."""
        parts = self.qkv(self.norm(h)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in parts)
        if cache is not None:
            k, v = cache.extend(k, v)
        seen = attention(q, k, v, causal)
        h = h + self.merge(seen.transpose(-2, -3).flatten(-2))
        return h + self.second(F.gelu(self.first(self.norm2(h))))


class _Transformer(Bounded):
    """Base class of both nets: an embedding of tokens, positions and context, blocks, a head of zeros."""

    def __init__(
        self,
        length: int,
        width: int,
        out: int,
        hidden: int,
        layers: int,
        heads: int,
        expansion: int,
        context_shape: Sequence[int] | None,
        checkpoint: bool,
        reach: float,
    ):
        super().__init__(reach)
        check_sizes(length=length, hidden=hidden, heads=heads, expansion=expansion)
        if hidden % heads:
            raise ConfigError(f"hidden must be a multiple of heads, but {hidden} is not one of {heads}.")
        self.length = length
        self.checkpoint = checkpoint
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.input = linear(width, hidden)
        self.position = nn.Parameter(nn.init.normal_(torch.empty(length, hidden), std=0.02))
        numbers = 0 if self.context_shape is None else self.context_shape.numel()
        self.from_context = nn.Linear(numbers, hidden, bias=False) if numbers else None
        self.blocks = nn.ModuleList(_Block(hidden, heads, expansion) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, out)
        zero_(self.output)

    def _context(self, context: Tensor | None) -> Tensor | None:
        """The context's embedding, ``(N, 1, hidden)``, or None."""
        if self.from_context is None or self.context_shape is None:
            return None
        if context is None:
            raise ShapeError(f"this net needs a context of shape {tuple(self.context_shape)}; pass one.")
        return self.from_context(self.see(context.reshape(-1, 1, self.context_shape.numel())))

    def _hidden(self, h: Tensor, context: Tensor | None, causal: bool) -> Tensor:
        """From the embedded tokens, ``(N, T, hidden)``, to those after the last block."""
        h = h + self.position
        if context is not None:
            h = h + context
        saving = self.checkpoint and torch.is_grad_enabled() and not captured()
        for block in self.blocks:
            h = recomputed(block, h, causal, use_reentrant=False) if saving else block(h, causal)
        return self.norm(h)


class CausalTransformer(_Transformer, Windowed):
    """A transformer over tokens, for ``AutoregressiveTokens``: the parameters of each see those before it.

    Token t's parameters come from position t, which attends to itself and those before it and is fed token
    t - 1; position 0 is fed a learned start. Pre-norm blocks, learned positions; the context's embedding is
    added to every token's. The output layer starts at zero, so a flow built on it starts neutral.

    Cost: a pass is that of a transformer over T tokens. ``stepper`` keeps keys and values: its T steps
    together do one pass's multiplications.

    Args:
        length: T, tokens.
        width: C, numbers in a token.
        params: parameters for each of these numbers (a family's ``num_params``).
        hidden: width of the residual stream, a multiple of ``heads``.
        layers: transformer blocks.
        heads: of attention.
        expansion: the inner layers' width over ``hidden``.
        context_shape: of a vector, or an image, which is flattened; None for no context.
        checkpoint: in training, keep the input of each block only and compute the rest again in the
            backward pass: a fourth more work, in a fraction of the memory.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, T, C)`` and ``(*batch, *context_shape)`` to ``(*batch, T, C, params)``.

    Raises:
        ConfigError: for sizes that are not positive, or do not divide.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models" (TarFlow), section 3.1;
    Vaswani et al. 2017, "Attention is all you need".

    Example:
        >>> import torch
        >>> net = CausalTransformer(16, 4, 2, hidden=8, layers=1, heads=2)
        >>> net(torch.randn(5, 16, 4)).shape
        torch.Size([5, 16, 4, 2])
    """

    def __init__(
        self,
        length: int,
        width: int,
        params: int,
        hidden: int = 128,
        layers: int = 2,
        heads: int = 4,
        *,
        expansion: int = 4,
        context_shape: Sequence[int] | None = None,
        checkpoint: bool = False,
        reach: float = ANY_UNITS,
    ):
        check_sizes(width=width, params=params)
        out = width * params
        super().__init__(
            length, width, out, hidden, layers, heads, expansion, context_shape, checkpoint, reach
        )
        self.width, self.params = width, params
        self.start = nn.Parameter(nn.init.normal_(torch.empty(hidden), std=0.02))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = x.reshape(-1, self.length, self.width)
        h = self.input(self.see(tokens[:, :-1]))
        h = torch.cat([self.start.to(h.dtype).expand(len(h), 1, -1), h], 1)
        h = self._hidden(h, self._context(context), causal=True)
        return self.output(h).reshape(*x.shape, self.params)

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, a token at a time, on a cache of keys and values."""
        return _Steps(self, context, batch_shape)

    def windows(self, context: Tensor | None, batch_shape: torch.Size) -> Windows:
        """The same pass, several tokens at a time."""
        return _Windows(self, context, batch_shape)


class _Pass:
    """One pass, cut into parts: positions so far, and their keys and values."""

    def __init__(self, net: CausalTransformer, context: Tensor | None, batch_shape: torch.Size):
        self.net, self.batch_shape = net, batch_shape
        self.context = net._context(context)
        self.caches = [_Cache(net.length) for _ in net.blocks]
        self.known = 0

    def start(self) -> Tensor:
        """What the first position is fed, ``(N, 1, hidden)``."""
        return self.net.start.expand(math.prod(self.batch_shape), 1, -1)

    def feed(self, tokens: Tensor) -> Tensor:
        """What positions behind ``(*batch, n, width)`` are fed, ``(N, n, hidden)``."""
        seen = self.net.see(tokens.reshape(math.prod(self.batch_shape), *tokens.shape[-2:]))
        return self.net.input(seen)

    def run(self, h: Tensor) -> Tensor:
        """The parameters at the next n positions, ``(*batch, n, width, params)``."""
        net = self.net
        h = h + net.position[self.known : self.known + h.shape[1]]
        if self.context is not None:
            h = h + self.context
        for block, cache in zip(net.blocks, self.caches, strict=True):
            h = block(h, True, cache)
        out = net.output(net.norm(h))
        return out.reshape(*self.batch_shape, h.shape[1], net.width, net.params)

    def keep(self, count: int) -> None:
        """Go on behind the last ``count`` positions run."""
        self.known += count
        for cache in self.caches:
            cache.keep(count)


class _Steps(_Pass):
    def __call__(self, previous: Tensor | None) -> Tensor:
        params = self.run(self.start() if previous is None else self.feed(previous.unsqueeze(-2)))
        self.keep(1)
        return params.squeeze(-3)


class _Windows(_Pass):
    last: Tensor | None = None

    def propose(self, guess: Tensor) -> Tensor:
        first = self.start() if self.last is None else self.last
        return self.run(torch.cat([first, self.feed(guess[..., :-1, :])], 1))

    def accept(self, vectors: Tensor) -> None:
        self.last = self.feed(vectors[..., -1:, :])
        self.keep(vectors.shape[-2])


class VisionTransformer(_Transformer):
    """A transformer over an image's pixels, each of which sees all others: the conditioner of Jet.

    Behind ``Squeeze`` a pixel is a patch. Pre-norm blocks, learned positions; the context's embedding is
    added to every pixel's. The output layer starts at zero, so a flow built on it starts neutral.

    Args:
        in_shape: ``(C, H, W)``.
        out_shape: ``(C', H, W)``.
        hidden: width of the residual stream, a multiple of ``heads``.
        blocks: transformer blocks.
        heads: of attention.
        expansion: the inner layers' width over ``hidden``.
        context_shape: of a vector, or an image, which is flattened; None for no context.
        checkpoint: in training, keep the input of each block only and compute the rest again in the
            backward pass.
        reach: how far it sees, as in ``Bounded``.

    Shape: ``(*batch, C, H, W)`` and ``(*batch, *context_shape)`` to ``(*batch, C', H, W)``.

    Raises:
        ShapeError: when the two images differ in height or width.
        ConfigError: for sizes that are not positive, or do not divide.

    References: Kolesnikov, Pinto and Tschannen 2024, "Jet: a modern transformer-based normalizing flow",
    section 3; Dosovitskiy et al. 2021, "An image is worth 16x16 words".

    Example:
        >>> import torch
        >>> net = VisionTransformer((8, 4, 4), (16, 4, 4), hidden=8, blocks=1, heads=2)
        >>> net(torch.randn(5, 8, 4, 4)).shape
        torch.Size([5, 16, 4, 4])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        hidden: int = 128,
        blocks: int = 2,
        heads: int = 4,
        *,
        expansion: int = 4,
        context_shape: Sequence[int] | None = None,
        checkpoint: bool = False,
        reach: float = ANY_UNITS,
    ):
        (width, *size), (out, *out_size) = in_shape, out_shape
        if len(size) != 2 or size != out_size:
            raise ShapeError(
                f"in_shape {tuple(in_shape)} and out_shape {tuple(out_shape)} must be (C, H, W) and "
                f"(C', H, W), of one height and width."
            )
        check_sizes(channels=out)
        length = math.prod(size)
        super().__init__(
            length, width, out, hidden, blocks, heads, expansion, context_shape, checkpoint, reach
        )
        self.in_shape, self.out_shape = torch.Size(in_shape), torch.Size(out_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        batch = x.shape[:-3]
        pixels = self.see(x.reshape(math.prod(batch), *self.in_shape)).flatten(-2)
        h = self.input(pixels.transpose(-1, -2))
        h = self.output(self._hidden(h, self._context(context), causal=False))
        return h.transpose(-1, -2).reshape(*batch, *self.out_shape)
