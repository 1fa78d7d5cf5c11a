"""Training in memory that does not grow with depth: activations recomputed from the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils.checkpoint import get_device_states, set_device_states

from diffeo.bijections.base import Bijection
from diffeo.bijections.chain import Chain, Inverse
from diffeo.contracts import Initializable
from diffeo.errors import NotConverged
from diffeo.functional.convergence import captured


class Reversible(Bijection, Initializable):
    """A chain whose activations are not kept for the backward pass, but recomputed from its output.

    For deep flows and large batches: a training step holds the activations of one part at a time,
    whatever the depth. The backward pass walks the parts from the last to the first, takes each one's
    output back to its input by the inverse, and differentiates that part alone. Maps, log-dets and the
    names of parameters are the chain's own; so are the gradients, up to the round-off of the way back.

    Formula: ``x_i = f_i^-1(x_{i+1})``, then ``dL/dx_i`` and ``dL/dparameters`` by autograd through ``f_i``
    at that point; in ``inverse`` with the two directions exchanged. What the walk ends on is compared with
    the input. Rows that do not come back to a quarter of ``sqrt(eps)``, 1e-4 in float32 (points outside a
    domain, beyond where a map saturates, or NaN), are walked again on inputs that another forward pass keeps.
    Numbers drawn in training (dropout) are drawn again, the same.

    Limits: an error inside the chain counts as it shows at the input. Where an inverse draws its noise
    otherwise than its forward (``Autoregressive`` on a net with dropout), the inputs of all parts are kept,
    ``(*batch, D)`` each. For second derivatives (``create_graph=True``) and under ``torch.func``, forward
    mode or ``torch.compile`` the chain runs as ever, and keeps what it ever kept. To run it backwards, put
    it outside: ``Reversible(Inverse(chain))``.

    Cost: two more passes than the three of an ordinary step, an inverse and a forward one. An inverse
    that goes column by column (``Autoregressive``) is slow at it; couplings and linear layers are not.

    Args:
        bijection: usually a ``Chain``; each ``Chain`` and ``Inverse`` in it is unrolled. A single part gains
            nothing.

    Shape: the chain's own, both ways.

    References:
        Gomez et al. (2017), *The Reversible Residual Network*, algorithm 1; Jacobsen et al. (2018),
        *i-RevNet*; MacKay et al. (2018), *Reversible Recurrent Neural Networks*, section 4, on why what a
        map forgets has to be kept.

    Example:
        >>> import torch
        >>> from diffeo.bijections import LU, ActNorm, Chain, Reversible
        >>> chain = Chain([ActNorm((2,)), LU(2)])
        >>> deep = Reversible(chain)
        >>> list(deep.state_dict()) == list(chain.state_dict())
        True
        >>> z, log_det = deep(torch.ones(3, 2))
        >>> (z.sum() + log_det.sum()).backward()
        >>> deep.parts[1].bias.grad
        tensor([3., 3.])
    """

    def __init__(self, bijection: Bijection):
        chain = bijection if isinstance(bijection, Chain) else Chain([bijection])
        super().__init__(
            chain.event_shape, latent_shape=chain.latent_shape, context_shape=chain.context_shape
        )
        self.domain, self.codomain, self.traits = chain.domain, chain.codomain, chain.traits
        self.parts = chain.parts
        self.chain = (chain,)  # a tuple: the parts are registered once, by the names they have in the chain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (chain,) = self.chain
        return chain(x, context) if self._is_plain(x, context) else _Pass(chain, False)(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (chain,) = self.chain
        return chain.inverse(y, context) if self._is_plain(y, context) else _Pass(chain, True)(y, context)

    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chain[0].push(x, context) if self._is_plain(x, context) else self(x, context)[0]

    def pull(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chain[0].pull(y, context) if self._is_plain(y, context) else self.inverse(y, context)[0]

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize each part, as ``Chain`` does."""
        self.chain[0].initialize(x, context)

    def _is_plain(self, x: Tensor, context: Tensor | None) -> bool:
        """Whether no gradient is wanted, or a graph or a transform makes its own."""
        if captured() or forward_ad._current_level >= 0:
            return True
        given = x.requires_grad or (context is not None and context.requires_grad)
        return not (torch.is_grad_enabled() and (given or any(p.requires_grad for p in self.parameters())))


@dataclass(frozen=True)
class _Step:
    """One map on the way: a part, run forward or backwards."""

    part: Bijection
    backwards: bool

    def do(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.part.inverse(x, context) if self.backwards else self.part(x, context)

    def undo(self, y: Tensor, context: Tensor | None) -> Tensor:
        return self.part.push(y, context) if self.backwards else self.part.pull(y, context)


def _unroll(bijection: Bijection, backwards: bool) -> Iterator[_Step]:
    """The single maps that a bijection, or its inverse, applies one after the other."""
    if isinstance(bijection, Chain | Reversible):
        for part in reversed(bijection.parts) if backwards else bijection.parts:
            yield from _unroll(part, backwards)  # type: ignore[arg-type]
    elif isinstance(bijection, Inverse):
        yield from _unroll(bijection.bijection, not backwards)
    else:
        yield _Step(bijection, backwards)


class _Pass:
    """One pass through a chain: its steps in order, and the random state before each that drew numbers."""

    def __init__(self, chain: Chain, backwards: bool):
        self.chain = chain
        self.steps = list(_unroll(chain, backwards))
        self.states: list[_RandomState | None] = []

    def __call__(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _Recompute.apply(self, x, context, *self.tensors().values())  # type: ignore[return-value]

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer that the steps may use."""
        return {**dict(self.chain.named_parameters()), **dict(self.chain.named_buffers())}

    def holding(self, tensors: Sequence[Tensor], function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, called while ``tensors`` stand in for those of ``tensors()``.

        The backward pass needs those of the forward pass; after a ``functional_call`` of the user's own,
        say, the modules hold others by then.
        """
        names = [f"module.{name}" for name in self.tensors()]
        return functional_call(_Caller(self.chain), dict(zip(names, tensors, strict=True)), (function, *args))

    # -- forward ------------------------------------------------------------------------------------

    def run(
        self, x: Tensor, context: Tensor | None, visit: Callable[[int, Tensor], None]
    ) -> tuple[Tensor, Tensor]:
        """Value and log-det; ``visit`` is told each step's number and input before the step is taken."""
        total = None
        for i, step in enumerate(self.steps):
            visit(i, x)
            x, log_det = step.do(x, context)
            total = log_det if total is None else total + log_det
        assert total is not None
        return x, total

    def run_first(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``run``, keeping the random state before each step that draws numbers."""

        def note(i: int, x: Tensor) -> None:
            self.states.append(_RandomState(x))
            if i and self.states[i - 1] == self.states[i]:
                self.states[i - 1] = None

        results = self.run(x, context, note)
        note(len(self.steps), x)
        self.states.pop()
        return results

    def replay(self, i: int, _: Tensor | None = None) -> None:
        """Let step i draw what it drew."""
        state = self.states[i]
        if state is not None:
            state.restore()

    def aside(self) -> AbstractContextManager[Any]:
        """Leaves the generators as they are, whatever is drawn again."""
        state = next((s for s in self.states if s is not None), None)
        return nullcontext() if state is None else state.aside()

    # -- backward -----------------------------------------------------------------------------------

    def by_autograd(
        self, inputs: Sequence[Any], wanted: Sequence[bool], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Gradients that can be differentiated again: the steps once more, everything kept."""
        with torch.enable_grad():
            # Views, or the gradient to x would take in the way from x to a context or weight made of it.
            views: list[Any] = [None if t is None else t.view_as(t) for t in inputs]
            x, context, *tensors = views
            outputs = self.holding(tensors, self.run, x, context, self.replay)
        chosen = [view for view, w in zip(views, wanted, strict=True) if w]
        found = iter(_gradients(outputs, grads, chosen, create_graph=torch.is_grad_enabled()))
        return [next(found) if w else None for w in wanted]

    def by_inverses(
        self,
        inputs: Sequence[Any],
        wanted: Sequence[bool],
        outputs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Gradients by the way back, taken again with more kept where it does not end on the input."""
        pairs = zip(inputs, wanted, strict=True)
        leaves: list[Any] = [None if t is None else t.detach().requires_grad_(w) for t, w in pairs]
        x, context, *tensors = leaves
        y, log_det = outputs
        lost = log_det == -torch.inf  # outside a domain, from where there is no way back
        while True:
            found, astray = self.holding(tensors, self._walk, x, context, y, grads, lost)
            if not (astray & ~lost).any():
                return [found.get(id(leaf)) for leaf in leaves]
            lost = lost | astray

    def _walk(
        self, x: Tensor, context: Tensor | None, y: Tensor, grads: Sequence[Tensor | None], lost: Tensor
    ) -> tuple[dict[int, Tensor], Tensor]:
        """From ``y`` back: gradients by their tensors' ids, and the rows that do not end on ``x``.

        ``grads`` are those to the pass's value and log-det; ``lost`` are rows that y cannot give back, whose
        inputs to all steps are kept.
        """
        # Room for the sums before the walk: made between activations, they would leave the heap in pieces.
        sums = _Sums([context, *self.tensors().values()])
        kept = self._inputs(x, context, lost) if lost.any() else None
        here, (grad, grad_log_det) = y, grads
        for i in reversed(range(len(self.steps))):
            try:
                before = self._before(i, here, context, lost, kept)
            except NotConverged:
                return {}, torch.ones_like(lost)
            before.requires_grad_(i > 0 or x.requires_grad)
            again, grad = self._step_back(i, before, context, (grad, grad_log_det), sums)
            if self.states[i] is not None and (_astray(again, here, lost) & ~lost).any():
                return {}, torch.ones_like(lost)  # the inverse drew other numbers, or in another order
            here = before.detach()
            del before, again
        if grad is not None:
            sums.found[id(x)] = grad
        return sums.found, _astray(here, x, lost)

    def _step_back(
        self, i: int, x: Tensor, context: Tensor | None, grads: Sequence[Tensor | None], sums: _Sums
    ) -> tuple[Tensor, Tensor | None]:
        """Step i's value at x, and the gradient to x; those to all else are added to ``sums``."""
        self.replay(i)
        with torch.enable_grad():
            outputs = self.steps[i].do(x, context)
        part = self.steps[i].part
        learned = [t for t in (context, *part.parameters(), *part.buffers()) if t is not None]
        grad, *others = _gradients(outputs, grads, [x, *learned])
        sums.add(learned, others)
        return outputs[0].detach(), grad

    def _inputs(self, x: Tensor, context: Tensor | None, rows: Tensor) -> list[Tensor]:
        """What each step takes of ``rows``, by a second pass."""
        kept: list[Tensor] = []

        def visit(i: int, x: Tensor) -> None:
            self.replay(i)
            kept.append(x[rows])

        with torch.no_grad():
            self.run(x, context, visit)
        return kept

    def _before(
        self, i: int, y: Tensor, context: Tensor | None, lost: Tensor, kept: list[Tensor] | None
    ) -> Tensor:
        """Step i's input, from its output and what is kept."""
        if kept is not None and lost.all():
            return kept[i].reshape(lost.shape + kept[i].shape[1:])
        self.replay(i)
        with torch.no_grad():
            x = self.steps[i].undo(y, context)
            if kept is not None:
                rows = lost.reshape(lost.shape + (1,) * (x.dim() - lost.dim()))
                x = x.masked_scatter(rows, kept[i])
        return x.detach()


class _Sums:
    """Gradients as they come in, by their tensors' ids."""

    def __init__(self, tensors: Sequence[Tensor | None]):
        self.found: dict[int, Tensor] = {}
        self.room = {id(t): torch.zeros_like(t) for t in tensors if t is not None and t.requires_grad}

    def add(self, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
        for t, grad in zip(tensors, grads, strict=True):
            if grad is not None:
                self.found[id(t)] = self.room[id(t)].add_(grad)


class _Caller(nn.Module):
    """Calls a function when it is called itself: the module that ``functional_call`` wants."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class _RandomState:
    """The state of PyTorch's default generators: the CPU's, and that of the device of ``like``."""

    def __init__(self, like: Tensor):
        self.kind = "cuda" if like.device.type == "cpu" else like.device.type  # no indices: any kind will do
        self.cpu = torch.get_rng_state()
        self.indices, self.others = get_device_states(like)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _RandomState)
        return all(map(torch.equal, (self.cpu, *self.others), (other.cpu, *other.others)))

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        set_device_states(self.indices, self.others, device_type=self.kind)

    def aside(self) -> AbstractContextManager[Any]:
        return torch.random.fork_rng(self.indices, device_type=self.kind)


class _Recompute(torch.autograd.Function):
    """A pass as autograd sees it: of all it computes it keeps the two ends."""

    @staticmethod
    def forward(ctx: Any, way: _Pass, x: Tensor, context: Tensor | None, *tensors: Tensor) -> Any:
        y, log_det = way.run_first(x, context)
        ctx.way = way
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, context, y, log_det, *tensors)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        x, context, y, log_det, *tensors = ctx.saved_tensors
        inputs, wanted = (x, context, *tensors), ctx.needs_input_grad[1:]
        with ctx.way.aside():
            if torch.is_grad_enabled() or _are_batched(grads):  # create_graph, is_grads_batched
                return None, *ctx.way.by_autograd(inputs, wanted, grads)
            return None, *ctx.way.by_inverses(inputs, wanted, (y, log_det), grads)


def _are_batched(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a ``vmap``, the old one inside autograd included, stands many gradients behind each."""
    functorch: Any = torch._C._functorch  # type: ignore[attr-defined]
    kinds = functorch.is_batchedtensor, functorch.is_legacy_batchedtensor
    return any(is_kind(t) for t in tensors if t is not None for is_kind in kinds)


def _gradients(
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    create_graph: bool = False,
) -> Sequence[Tensor | None]:
    """``torch.autograd.grad``, None for what has no part in it."""
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad]
    wanted = [t for t in inputs if t.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    values, slopes = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(values, wanted, slopes, allow_unused=True, create_graph=create_graph))
    return [next(found) if t.requires_grad else None for t in inputs]


def _astray(found: Tensor, wanted: Tensor, like: Tensor) -> Tensor:
    """Rows, of the shape of ``like``, where some element is not as wanted to a quarter of ``sqrt(eps)``.

    Measured by the element, and by the geometric mean of its column's: a few huge ones do not decide that.
    """
    size = wanted.abs()
    logs = torch.where(size.log().isfinite(), size.log(), torch.nan)  # neither zeros nor infinities
    usual = logs.nanmean(tuple(range(like.dim()))).exp().nan_to_num(0.0)
    error, bound = (found - wanted).abs(), 0.25 * torch.finfo(wanted.dtype).eps ** 0.5 * (size + usual)
    return ~(error <= bound).unsqueeze(-1).flatten(like.dim()).all(-1)  # NaN is astray
