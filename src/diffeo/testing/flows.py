"""``check_flow``: the contract of what a user holds."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from diffeo import io
from diffeo.contexts import CONTEXTS
from diffeo.encodings.context import OneHotContext
from diffeo.errors import ContextError, ShapeError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator, seeded
from diffeo.presets import PRESETS, Preset
from diffeo.testing.density import require_covered, require_integral, require_sampled
from diffeo.testing.points import draw, far_sizes, outside, randomize_
from diffeo.testing.rules import Rules, require, require_close

ROWS = 5
rules = Rules()


@dataclass(frozen=True)
class Subject:
    """A private copy of the flow in evaluation mode, points of its support and contexts for them."""

    flow: Flow
    x: Tensor
    context: Tensor | None

    def row(self, i: int) -> Tensor | None:
        """One context, without batch axes."""
        return None if self.context is None else self.context[i]

    @property
    def pairs(self) -> bool:
        """Whether a sample comes with its log-density."""
        return self.flow.encoding is None or self.flow.encoding.exact


def check_flow(
    flow: Flow,
    context: Tensor | None = None,
    *,
    x: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    randomize: bool = True,
    samples: int = 20_000,
) -> None:
    """Hold a flow to its contract: a density that integrates to one, a sampler that draws from it,
    shapes, contexts, named errors, ``distribution()``, and a file that brings it back.

    The flow itself is left as it is: a copy is put through the rules.

    Args:
        flow: any; with up to two features its density is integrated numerically.
        context: ``(rows, *context_shape)``, at least two; random ones by default.
        x: data, ``(rows, *event_shape)``; by default the flow's own samples.
        dtype: what the copy computes in.
        seed: of points, samples and parameters.
        randomize: add noise to the copy's parameters first, so that a neutral start hides nothing.
        samples: how many the statistical rules draw for each context.

    Raises:
        AssertionError: it names the flow, the rule and the numbers.

    Example:
        >>> import diffeo
        >>> check_flow(diffeo.presets.MAF(features=1, layers=2, hidden=(8,)).build(), samples=4000)
    """
    own = copy.deepcopy(flow).to(dtype).eval()
    if randomize:
        randomize_(own, seed, 0.2)
    if context is None and own.context_shape is not None:
        shape = (ROWS if x is None else len(x), *own.context_shape)
        encoding = own.context_encoding
        if isinstance(encoding, OneHotContext):
            context = (torch.arange(shape[0]) % encoding.latent_shape[0]).reshape(shape)
        else:
            context = draw(None, shape, generator(seed), dtype)
    if x is None:
        x = own.sample(() if context is not None else (ROWS,), context, generator=generator(seed))
    name = "Flow" if flow.preset is None else type(flow.preset).__name__
    rules.run(name, Subject(own, x, context))
    if flow.encoding is None:
        _density.run(name, (Subject(own, x, context), samples))


# -- the density ----------------------------------------------------------------------------------

_density = Rules()


@_density.add("normalization", 2)
def _normalization(pair: tuple[Subject, int]) -> None:
    s, count = pair
    samples = s.flow.sample(count, s.row(0), generator=generator(1))

    def log_prob(x: Tensor) -> Tensor:
        return s.flow.log_prob(x, s.row(0))

    if s.flow.event_shape.numel() <= 2:
        require_integral(log_prob, samples, s.flow.bijection.domain)
    else:
        require_covered(log_prob, samples)


@_density.add("sampler", 6)
def _sampler(pair: tuple[Subject, int]) -> None:
    s, count = pair
    both = None if s.context is None else s.context[:2]
    samples = s.flow.sample(count, both, generator=generator(2))
    for i in range(1 if both is None else 2):
        # What was sampled at a context has, at that context, the base's latents.
        context = s.row(i)
        z = s.flow.to_latent(samples if both is None else samples[:, i], context)
        inner = _inner(s.flow, context)
        inner = (
            None if s.flow.base.context_shape is None or inner is None else inner.expand(len(z), *inner.shape)
        )
        base = s.flow.base
        require_sampled(lambda z, c=inner: base.log_prob(z, c), z, base.support, f"context {i}")


def _inner(flow: Flow, context: Tensor | None) -> Tensor | None:
    """The context as the layers see it."""
    encoding = flow.context_encoding
    return context if encoding is None or context is None else encoding(context)


@_density.add("outside the support", 9)
def _outside(pair: tuple[Subject, int]) -> None:
    s, _ = pair
    parameters = [p for p in s.flow.parameters() if p.requires_grad]
    for number, columns in outside(s.flow.bijection.domain):
        x = s.x.clone()
        x[0] = torch.where(columns, number, x[0])
        x.requires_grad_()
        log_prob = s.flow.log_prob(x, s.context)
        require(log_prob[0] == -math.inf, f"log_prob at {number:g} is {log_prob[0].item():g}, not -inf")
        require(log_prob[1:].isfinite().all(), f"a point at {number:g} touches other rows")
        grads = torch.autograd.grad(log_prob.sum(), [x, *parameters], allow_unused=True)
        require(
            all(g.isfinite().all() for g in grads if g is not None), f"gradients at {number:g} are not finite"
        )


@_density.add("far points", 10)
def _far(pair: tuple[Subject, int]) -> None:
    s, _ = pair
    flow = copy.deepcopy(s.flow).float()
    context = s.context if s.context is None or not s.context.is_floating_point() else s.context.float()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    for size in (1e2, 1e4, 1e6):
        x = (size * s.x.sign()).float().requires_grad_()
        log_prob = flow.log_prob(x, context)
        require(not log_prob.isnan().any(), f"log_prob at {size:g} in float32 is {log_prob.tolist()}")
        for g in torch.autograd.grad(log_prob.sum(), [x, *parameters], allow_unused=True):
            require(g is None or not g.isnan().any(), f"gradients at {size:g} in float32 are NaN")


@_density.add("never NaN", 10)
def _never_nan(pair: tuple[Subject, int]) -> None:
    s, _ = pair
    with torch.no_grad():
        near, z = s.flow.log_prob(s.x, s.context), s.flow.to_latent(s.x, s.context)
        for dtype in (torch.float32, torch.float64):
            flow, context = copy.deepcopy(s.flow).to(dtype), s.context
            if context is not None and context.is_floating_point():
                context = context.to(dtype)
            for size in (1e3, 1e6, *far_sizes(dtype)[:-1]):
                for far in _far_points(s.x.to(dtype), size):
                    log_prob = flow.log_prob(far, context)
                    where = f"log_prob at {size:g} in {dtype} is {log_prob.tolist()}"
                    require(not log_prob.isnan().any(), where)
                    require((log_prob <= near.max() + 10).all(), f"{where}, above all of {near.tolist()}")
                for far in _far_points(z.to(dtype), size):
                    back, log_det = flow.bijection.inverse(far, _inner(flow, context))
                    lost = back.isnan().any() | log_det.isnan().any()
                    require(not lost, f"the inverse of latents at {size:g} in {dtype} is NaN")


def _far_points(points: Tensor, size: float) -> Iterator[Tensor]:
    """All elements far, by their signs and all one way; then one element of each row."""
    yield size * points.sign()
    yield torch.full_like(points, size)
    far = points.clone(memory_format=torch.contiguous_format).flatten(1)
    index = torch.arange(len(far))
    far[index, index % far.shape[1]] = -size
    yield far.reshape(points.shape)


@rules.add("sum of the parts", 2)
def _parts(s: Subject) -> None:
    log_prob = s.flow.log_prob(s.x, s.context)
    require(log_prob.shape == s.x.shape[:1], f"log_prob of {len(s.x)} rows has shape {tuple(log_prob.shape)}")
    require(log_prob.isfinite().all(), f"log_prob of rows of the support: {log_prob.tolist()}")
    require_close("forward against log_prob", s.flow(s.x, s.context), log_prob, 0.0)
    require(
        log_prob.requires_grad or not list(s.flow.parameters()), "log_prob has no gradient in evaluation mode"
    )
    if s.flow.encoding is None and s.flow.context_encoding is None:
        z, log_det = s.flow.bijection(s.x, s.context)
        wanted = s.flow.base.log_prob(z, s.context) + log_det
        require_close("log_prob against base and log_det", log_prob, wanted, 1e-9 * (1 + wanted.abs()))


@rules.add("latents", 1)
def _latents(s: Subject) -> None:
    z = s.flow.to_latent(s.x, s.context)
    require(z.shape == (len(s.x), *s.flow.latent_shape), f"to_latent gives {tuple(z.shape)}")
    back = s.flow.to_data(z, s.context)
    if s.pairs:
        require_close("to_data of to_latent", back, s.x, 1e-6 * (1 + s.x.abs()))


@rules.add("NaN", 9)
def _nan(s: Subject) -> None:
    gaps = s.flow.encoding is not None and s.flow.encoding.takes_gaps
    clean = s.flow.log_prob(s.x, s.context)
    x = s.x.clone(memory_format=torch.contiguous_format)
    x.reshape(len(x), -1)[0, -1] = math.nan
    log_prob = s.flow.log_prob(x, s.context)
    right = log_prob[0].isfinite() if gaps else log_prob[0].isnan()
    require(right, f"log_prob of a row with NaN is {log_prob[0].item():g}")
    require_close("rows beside one with NaN", log_prob[1:], clean[1:], 1e-9 * (1 + clean[1:].abs()))


# -- shapes and contexts ----------------------------------------------------------------------------


@rules.add("broadcasting", 3)
def _broadcasting(s: Subject) -> None:
    event, n = s.flow.event_shape, len(s.x)
    require(
        s.flow.log_prob(s.x[:0], None if s.context is None else s.context[:0]).shape == (0,),
        "a batch of 0 fails",
    )
    single = s.flow.log_prob(s.x[0], s.row(0))
    require(single.shape == (), f"log_prob of one point has shape {tuple(single.shape)}")
    if s.context is None:
        grid = s.flow.log_prob(s.x.reshape(1, n, 1, *event))
        wanted = s.flow.log_prob(s.x).reshape(1, n, 1)
    else:
        grid = s.flow.log_prob(s.x.unsqueeze(1), s.context)
        wanted = torch.stack([s.flow.log_prob(s.x, c.expand_as(s.context)) for c in s.context], 1)
    require_close("log_prob over broadcast batch axes", grid, wanted, 1e-6 * (1 + wanted.abs()))


@rules.add("named errors", 3)
def _errors(s: Subject) -> None:
    event = s.flow.event_shape
    longer = torch.zeros(3, *event[:-1], (event[-1] if event else 1) + 1, dtype=s.x.dtype)
    _raises(
        ShapeError,
        lambda: s.flow.log_prob(longer, None if s.context is None else s.context[:1]),
        "a wrong event",
    )
    if s.context is None:
        _raises(ContextError, lambda: s.flow.log_prob(s.x, s.x), "an unwanted context")
        _raises(ContextError, lambda: s.flow.sample(2, s.x), "an unwanted context")
        return
    _raises(ContextError, lambda: s.flow.log_prob(s.x), "a missing context")
    _raises(ContextError, lambda: s.flow.sample(2), "a missing context")
    two, three = s.x[:1].expand(2, *event), s.context[:1].expand(3, *s.context.shape[1:])
    _raises(ShapeError, lambda: s.flow.log_prob(two, three), "2 points with 3 contexts")
    if s.context.dim() > 1:
        wide = torch.cat([s.context, s.context], -1)
        _raises(ShapeError, lambda: s.flow.log_prob(s.x, wide), "a context of another shape")


def _raises(error: type[Exception], call: Callable[[], object], what: str) -> None:
    try:
        call()
    except error as raised:
        require(len(str(raised)) > 20, f"{what}: the message {str(raised)!r} does not help")
    except Exception as raised:
        raise AssertionError(f"{what} raises {type(raised).__name__}, not {error.__name__}") from raised
    else:
        raise AssertionError(f"{what} goes unnoticed; {error.__name__} was wanted")


@rules.add("context", 3)
def _context(s: Subject) -> None:
    if s.context is None:
        return
    log_prob = s.flow.log_prob(s.x[:1].expand_as(s.x), s.context)
    require(log_prob.unique().numel() > 1, "log_prob ignores the context")


# -- samples ----------------------------------------------------------------------------------------


@rules.add("samples", 3)
def _samples(s: Subject) -> None:
    batch = () if s.context is None else s.context.shape[:1]
    for shape in ((), 3, (2, 3), (0,)):
        full = ((shape,) if isinstance(shape, int) else shape) + tuple(batch)
        x = s.flow.sample(shape, s.context, generator=generator(1))
        require(x.shape == (*full, *s.flow.event_shape), f"sample({shape}) has shape {tuple(x.shape)}")
        require(not x.requires_grad, "sample carries gradients")
        require(s.flow.encoding is not None or x.dtype == s.x.dtype, f"sample gives {x.dtype}")
        if s.pairs:
            again, log_prob = s.flow.sample_and_log_prob(shape, s.context, generator=generator(1))
            require_close("sample_and_log_prob against sample", again, x, 1e-6 * (1 + x.abs()))
            # Contexts interleaved or repeated along the wrong axis would show here.
            wanted = s.flow.log_prob(x, s.context)
            require(
                log_prob.shape == full, f"sample_and_log_prob({shape}) gives log_prob {tuple(log_prob.shape)}"
            )
            require_close(
                "log_prob of samples, each at its own context", log_prob, wanted, 1e-5 * (1 + wanted.abs())
            )


@rules.add("generator", 6)
def _generator(s: Subject) -> None:
    def sample(seed: int) -> Tensor:
        return s.flow.sample((4,), s.context, generator=generator(seed)).nan_to_num()  # gaps are equal

    require(torch.equal(sample(1), sample(1)), "one seed gives two samples")
    require(not torch.equal(sample(1), sample(2)), "the generator is not used")
    with seeded(0):
        before = torch.get_rng_state()
        sample(1)
        s.flow.log_prob(s.x, s.context)
        require(torch.equal(before, torch.get_rng_state()), "torch's default generator is used")
        torch.manual_seed(1)
        first = s.flow.log_prob(s.x, s.context)
        torch.manual_seed(2)
        require(torch.equal(first, s.flow.log_prob(s.x, s.context)), "log_prob is random in evaluation mode")


@rules.add("reparameterized", 6)
def _reparameterized(s: Subject) -> None:
    if s.pairs and s.flow.encoding is None and any(p.requires_grad for p in s.flow.parameters()):
        x, log_prob = s.flow.sample_and_log_prob((3,), s.context, generator=generator(1))
        require(x.requires_grad and log_prob.requires_grad, "samples carry no gradients to the parameters")


# -- distribution() and files -----------------------------------------------------------------------


@rules.add("distribution", 3)
def _distribution(s: Subject) -> None:
    d = s.flow.distribution(s.context)
    batch = torch.Size() if s.context is None else s.context.shape[:1]
    require(
        (d.batch_shape, d.event_shape) == (batch, s.flow.event_shape),
        f"it has shapes {d.batch_shape, d.event_shape}",
    )
    require_close("its log_prob", d.log_prob(s.x), s.flow.log_prob(s.x, s.context), 0.0)
    require(d.sample((2, 3)).shape == (2, 3, *batch, *s.flow.event_shape), "its samples have other shapes")
    if s.context is not None:
        joint = Independent(d, 1)
        require_close(
            "Independent",
            joint.log_prob(s.x),
            d.log_prob(s.x).sum(),
            1e-9 * d.log_prob(s.x).abs().sum().detach(),
        )
    try:
        kl_divergence(d, d)
    except NotImplementedError:
        pass  # the honest answer: there is no closed form
    else:
        raise AssertionError("kl_divergence of two flows has an answer")


@rules.add("copies and files", 6)
def _files(s: Subject) -> None:
    wanted = s.flow.log_prob(s.x, s.context)
    twin = randomize_(copy.deepcopy(s.flow), seed=99)
    require(torch.equal(s.flow.log_prob(s.x, s.context), wanted), "a deep copy shares its parameters")
    twin.load_state_dict(s.flow.state_dict())
    require_close("log_prob after load_state_dict", twin.log_prob(s.x, s.context), wanted, 0.0)
    own = not _has_recipe(s.flow)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.safetensors"
        io.save(s.flow, path, weights_only=own)
        loaded = io.load(path, into=randomize_(twin, seed=98) if own else None)
    again = loaded.log_prob(s.x, s.context)
    require_close("log_prob after save and load", again, wanted, 1e-12 * (1 + wanted.abs()))


def _has_recipe(flow: Flow) -> bool:
    """Whether a file can name what built the flow: no flow by hand, no preset or context of one's own."""
    if not isinstance(flow.preset, Preset) or type(flow.preset) not in PRESETS.values():
        return False
    spec = flow.preset.conditioned_on
    return spec is None or type(spec) in CONTEXTS.values()
