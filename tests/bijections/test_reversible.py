"""Reversible: the chain's own gradients, from its output, in memory that does not grow with depth."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import diffeo
from diffeo import Flow
from diffeo.bases import Normal
from diffeo.bijections import (
    LU,
    ActNorm,
    Autoregressive,
    Bijection,
    Chain,
    Coupling,
    Inverse,
    Logit,
    OnColumns,
    Permute,
    Pointwise,
    Reversible,
    Sigmoid,
    Standardize,
    reversible,
)
from diffeo.elementwise import Affine, PiecewiseLinear, RationalQuadratic
from diffeo.errors import NotConverged
from diffeo.nets import MADE, MLP, ResidualMLP, ResMADE
from diffeo.testing import check_bijection, randomize_

D = 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def coupling(i: int = 0, hidden: int = 8, context: int = 0, dropout: float = 0.0) -> Coupling:
    mask = [(i + j) % 2 == 0 for j in range(D)]
    make = {"context_features": context, "activation": torch.tanh}  # no kinks
    net = ResidualMLP(2, 4, hidden, 1, dropout=dropout, **make) if dropout else MLP(2, 4, (hidden,), **make)
    return Coupling(mask, net, Affine())


def deep(layers: int, **options: float) -> Chain:
    parts = [p for i in range(layers) for p in (ActNorm((D,)), coupling(i, **options), LU(D))]  # type: ignore[arg-type]
    return randomize_(Chain(parts), scale=0.1)


def mixed(context: int = 0) -> Chain:
    """Every kind of part: chains in a chain, one run backwards, one on some columns, columns in turn."""
    made = MADE(D, 2, (8,), context_features=context, activation=torch.tanh)
    inner = Chain([Permute([1, 0]), Pointwise(RationalQuadratic(4), (2,))])
    parts = [
        Chain([Standardize((D,)), coupling(context=context)]),
        Inverse(Chain([LU(D), coupling(1, context=context)])),
        OnColumns([2, 0], inner, D),
        Autoregressive(made, Affine(), [2, 0, 1, 3]),
        Reversible(Chain([ActNorm((D,)), LU(D)])),
    ]
    return randomize_(Chain(parts))


def gradients(
    kind: Bijection, x: Tensor, context: Tensor | None = None, backwards: bool = False, seed: int = 1
) -> list[Tensor | None]:
    """Those of a loss of value and log-det to x, context and parameters, in this order."""
    torch.manual_seed(seed)
    x, context = (None if t is None else t.clone().requires_grad_() for t in (x, context))
    y, log_det = kind.inverse(x, context) if backwards else kind(x, context)
    log_det = torch.where(log_det.isfinite(), log_det, log_det.nan_to_num(neginf=0.0))
    total = (y.sin() * torch.arange(1.0, 1 + y.shape[-1]).to(y)).sum() + log_det.square().sum()
    wanted = [t for t in (x, context, *kind.parameters()) if t is not None and t.requires_grad]
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def require_same(found: list[Tensor | None], wanted: list[Tensor | None], tol: float) -> None:
    """Equal in norm, each of them, to ``tol``; NaN where NaN is wanted."""
    for f, w in zip(found, wanted, strict=True):
        assert (f is None) == (w is None)
        if f is not None and w is not None:
            assert torch.equal(f.isnan(), w.isnan())
            assert (f - w).nan_to_num().norm() <= tol * w.nan_to_num().norm() + 1e-30


def compare(chain: Chain, x: Tensor, context: Tensor | None = None, tol: float = 1e-10) -> None:
    for backwards in (False, True):
        compare_one_way(chain, x, context, tol, backwards)


def compare_one_way(
    chain: Chain, x: Tensor, context: Tensor | None = None, tol: float = 1e-10, backwards: bool = False
) -> list[Tensor | None]:
    found, wanted = (gradients(kind, x, context, backwards) for kind in (Reversible(chain), chain))
    require_same(found, wanted, tol)
    return found


@pytest.fixture
def walks(monkeypatch) -> list[int]:
    """How many rows each walk back had to keep."""
    seen: list[int] = []
    walk = reversible._Pass._walk

    def counting(self, x, context, y, grads, lost):
        seen.append(int(lost.sum()))
        return walk(self, x, context, y, grads, lost)

    monkeypatch.setattr(reversible._Pass, "_walk", counting)
    return seen


# -- the gradients are the chain's -------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("context", [0, 2])
def test_gradients(dtype: torch.dtype, tol: float, context: int, walks: list[int]):
    chain = mixed(context).to(dtype)
    given = torch.randn(20, 2, dtype=dtype) if context else None
    compare(chain, torch.randn(20, D, dtype=dtype), given, tol)
    assert not any(walks)  # no row was walked again


@pytest.mark.parametrize("batch", [(), (0,), (1,), (2, 3)], ids=str)
def test_batches(batch: tuple[int, ...]):
    compare(mixed(2).double(), torch.randn(*batch, D).double(), torch.randn(*batch, 2).double())


def test_the_contract():
    interval = Chain([LU(2), Sigmoid((2,)), Pointwise(PiecewiseLinear(4), (2,)), Logit((2,))])
    check_bijection(Reversible(interval), capture=False)
    check_bijection(Reversible(Chain([Logit((D,)), coupling(context=2), LU(D)])), capture=False)
    check_bijection(Reversible(mixed(2)), capture=False)


def test_frozen_parameters(monkeypatch):
    chain = mixed().double()
    x = torch.randn(5, D).double()
    for name, p in chain.named_parameters():
        p.requires_grad_("net" in name)
    compare(chain, x)
    kind = Reversible(chain)
    made: list[int] = []
    start = reversible._Sums.__init__
    monkeypatch.setattr(
        reversible._Sums, "__init__", lambda sums, *a: start(sums, *a) or made.append(len(sums.room))
    )
    sum(t.sum() for t in kind(x)).backward()  # x wants none itself
    assert made == [sum(p.requires_grad for p in kind.parameters())]
    assert all((p.grad is not None) == p.requires_grad for p in kind.parameters())
    for p in chain.parameters():
        p.requires_grad_(False)
    compare(chain, x)
    assert not kind(x)[0].requires_grad
    assert kind(x.requires_grad_())[0].requires_grad
    with torch.no_grad():
        assert not kind(x)[0].requires_grad


def test_value_or_log_det_alone():
    chain = mixed().double()
    x = torch.randn(5, D).double().requires_grad_()
    for pick in (0, 1):
        ways = [
            list(torch.autograd.grad(kind(x)[pick].sum(), [x, *chain.parameters()], allow_unused=True))
            for kind in (Reversible(chain), chain)
        ]
        zero = [[torch.zeros(()) if g is None else g for g in way] for way in ways]
        require_same(*zero, 1e-10)  # type: ignore[arg-type]
    (pushed,) = torch.autograd.grad(Reversible(chain).push(x).sum(), x)
    (pulled,) = torch.autograd.grad(Reversible(chain).pull(x).sum(), x)
    require_same([pushed, pulled], [*torch.autograd.grad(chain.push(x).sum(), x),
                                    *torch.autograd.grad(chain.pull(x).sum(), x)], 1e-10)  # fmt: skip


def test_shared_parts_add_up():
    shared = coupling()
    chain = randomize_(Chain([shared, LU(D), shared])).double()
    compare(chain, torch.randn(5, D).double())


def test_sixty_four_layers_in_float32(walks: list[int]):
    chain = deep(64)
    x = torch.randn(100, D)
    chain.initialize(x)
    compare_one_way(chain, x, tol=1e-4)
    assert walks == [0]


# -- memory ------------------------------------------------------------------------------------------


class Ledger(torch.autograd.graph.saved_tensors_hooks):
    """The most bytes of activations that autograd held at any one time."""

    def __init__(self, kind: nn.Module):
        own = {t.untyped_storage().data_ptr() for t in (*kind.parameters(), *kind.buffers())}
        self.now = self.peak = 0
        ledger = self

        class Entry:
            def __init__(self, t: Tensor):
                self.tensor, self.size = t, 0 if t.untyped_storage().data_ptr() in own else t.nbytes
                ledger.now += self.size
                ledger.peak = max(ledger.peak, ledger.now)

            def __del__(self):
                ledger.now -= self.size

        super().__init__(Entry, lambda entry: entry.tensor)

    def __enter__(self) -> Ledger:
        super().__enter__()
        return self


@pytest.mark.parametrize("backwards", [False, True])
def test_memory_does_not_grow_with_depth(backwards: bool):
    peaks: dict[bool, list[int]] = {False: [], True: []}
    for layers in (2, 16):
        chain = deep(layers)
        x = torch.randn(50, D)
        for wrapped in peaks:
            kind = Reversible(chain) if wrapped else chain
            with Ledger(kind) as ledger:
                gradients(kind, x, backwards=backwards)
            peaks[wrapped].append(ledger.peak)
    assert peaks[True][1] < 1.1 * peaks[True][0]
    assert peaks[False][1] > 5 * peaks[False][0]
    assert peaks[True][1] < 0.3 * peaks[False][1]


# -- what does not come back ---------------------------------------------------------------------------


def test_saturation_loses_no_gradient(walks: list[int]):
    chain = randomize_(Chain([ActNorm((2,)), Sigmoid((2,)), Logit((2,)), LU(2)]))
    x = torch.randn(10, 2)
    x[3, 1] = 60.0  # the sigmoid is 1 - eps / 2 from 17 on
    compare_one_way(chain, x, tol=1e-4)
    assert walks == [0, 1]
    x[7, 1] = 1e9  # one row does not hide another
    compare_one_way(chain, x, tol=1e-4)
    assert walks == [0, 1, 0, 2]


def test_zeros_need_no_second_walk(walks: list[int]):
    x = torch.randn(50, D) * (torch.rand(50, D) < 0.1)
    compare_one_way(deep(4), x, tol=1e-4)
    assert walks == [0]


def test_points_outside_the_domain():
    chain = randomize_(Chain([Logit((2,)), LU(2), ActNorm((2,))])).double()
    x = torch.rand(10, 2).double()
    for number in (-1e-9, 1.5, -torch.inf):
        x[3, 1] = number
        found = compare_one_way(chain, x)
        assert found[0] is not None
        assert found[0][3, 1] == 0
        assert all(g is not None and g.isfinite().all() for g in found)
    x[:, 0] = 2.0  # not one comes back
    compare_one_way(chain, x)


@pytest.mark.parametrize("context", [0, 2])
def test_nan_rows_spoil_what_they_spoil_in_the_chain(context: int):
    chain = mixed(context).double()
    x, given = torch.randn(6, D).double(), torch.randn(6, 2).double() if context else None
    x[2, 1] = torch.nan
    if given is not None:
        given[4, 0] = torch.nan
    for backwards in (False, True):
        found = compare_one_way(chain, x, given, backwards=backwards)
        assert found[0] is not None
        assert found[0][[0, 1, 3, 5]].isfinite().all()


class Stubborn(Bijection):
    """Half of x, by an inverse that does not converge for large values."""

    def __init__(self):
        super().__init__((D,))
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, context=None):
        return self.weight * x, self.weight.abs().log().expand(x.shape[:-1]) * D

    def inverse(self, y, context=None):
        if y.abs().max() > 1:
            raise NotConverged("too large")
        return y / self.weight, -self.weight.abs().log().expand(y.shape[:-1]) * D


def test_an_inverse_that_gives_up_is_done_without(walks: list[int]):
    chain = randomize_(Chain([LU(D), Stubborn(), LU(D)])).double()
    compare_one_way(chain, 10 * torch.randn(5, D).double())
    assert walks == [0, 5]


# -- noise -------------------------------------------------------------------------------------------


def test_dropout_is_drawn_again_the_same(walks: list[int]):
    chain = deep(3, dropout=0.4).double()
    x = torch.randn(20, D).double()
    compare(chain, x)
    assert walks == [0, 0]  # by inverses that drop the same units
    assert not torch.equal(chain(x)[0], chain(x)[0])
    chain.eval()
    compare(chain, x)


def test_the_backward_pass_leaves_the_generator_alone():
    kind = Reversible(deep(3, dropout=0.4))
    y, _ = kind(torch.randn(20, D))
    state = torch.get_rng_state()
    y.sum().backward()
    assert torch.equal(state, torch.get_rng_state())


def test_an_inverse_that_draws_in_another_order(walks: list[int], monkeypatch):
    net = ResMADE(D, 2, 16, 1, dropout=0.4, activation=torch.tanh)
    chain = randomize_(Chain([ActNorm((D,)), Autoregressive(net, Affine()), coupling()])).double()
    steps: list[int] = []
    back = reversible._Pass._step_back
    monkeypatch.setattr(
        reversible._Pass, "_step_back", lambda way, i, *a: steps.append(i) or back(way, i, *a)
    )
    compare(chain, torch.randn(20, D).double())
    assert walks == [0, 20, 0, 20]
    assert steps == [2, 1, 2, 1, 0, 2, 1, 2, 1, 0]  # the first walk ends where that is seen


# -- derivatives of other kinds ------------------------------------------------------------------------


def second(kind: Bijection, x: Tensor) -> list[Tensor | None]:
    """Second derivatives, where weights and context depend on x."""
    x = x.clone().requires_grad_()
    weights = {name: p * (1 + x.mean()) for name, p in kind.named_parameters()}
    torch.manual_seed(1)
    y, log_det = torch.func.functional_call(kind, weights, (x, x[:, :2].sin()))
    (slope,) = torch.autograd.grad(y.sin().sum() + log_det.square().sum(), x, create_graph=True)
    wanted = [x, *kind.parameters()]
    return list(torch.autograd.grad(slope.square().sum(), wanted, allow_unused=True))


def test_second_derivatives():
    chain = mixed(2).double()
    x = torch.randn(3, D).double()
    torch.autograd.gradcheck(Reversible(chain), (x.clone().requires_grad_(), torch.randn(3, 2).double()))
    noisy = randomize_(Chain([coupling(dropout=0.4), LU(D), coupling(1, dropout=0.4)])).double()
    for each in (chain, noisy):
        require_same(second(Reversible(each), x), second(each, x), 1e-9)


def test_weights_of_a_functional_call_that_is_over():
    chain = mixed().double()
    x = torch.randn(5, D).double()

    def slopes(kind: Bijection) -> list[Tensor | None]:
        weights = {name: (1.5 * p).detach().requires_grad_() for name, p in kind.named_parameters()}
        y, log_det = torch.func.functional_call(kind, weights, (x,))
        return list(
            torch.autograd.grad(y.sin().sum() + log_det.sum(), [*weights.values()], allow_unused=True)
        )

    require_same(slopes(Reversible(chain)), slopes(chain), 1e-10)
    assert all(p.grad is None for p in chain.parameters())


def test_weights_changed_before_the_backward_pass_are_refused():
    kind = Reversible(deep(1))
    y, _ = kind(torch.randn(5, D))
    with torch.no_grad():
        next(kind.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_graph_can_be_used_twice():
    kind = Reversible(mixed().double())
    x = torch.randn(5, D).double().requires_grad_()
    y, _ = kind(x)
    first, again = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_transforms():
    chain = deep(2).double()
    kind = Reversible(chain)
    x, way = torch.randn(5, D).double(), torch.randn(5, D).double()
    weights = {name: p.detach() for name, p in kind.named_parameters()}

    def loss(kind: Bijection) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda weights: torch.func.functional_call(kind, weights, (x,))[0].square().sum()

    ways = [list(torch.func.grad(loss(k))(weights).values()) for k in (kind, chain)]
    require_same(*ways, 1e-10)
    with forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own, at its first dual
        slopes = [forward_ad.unpack_dual(k(forward_ad.make_dual(x, way))[1]).tangent for k in (kind, chain)]
    require_same(slopes[:1], slopes[1:], 1e-10)


def test_many_gradients_at_once():
    chain = randomize_(Chain([coupling(), Pointwise(Affine(), (D,)), coupling(1)])).double()
    x = torch.randn(2, D).double().requires_grad_()
    wanted = [x, *chain.parameters()]
    many = torch.eye(2 * D).double().reshape(-1, 2, D)
    kind = Reversible(chain)
    found = torch.autograd.grad(kind(x)[0], wanted, many, is_grads_batched=True)
    for i, grad in enumerate(many):
        one = list(torch.autograd.grad(chain(x)[0], wanted, grad))
        require_same([g[i] for g in found], one, 1e-10)  # type: ignore[arg-type]


def test_compiled_whole():
    chain = deep(2).double()
    x = torch.randn(5, D).double().requires_grad_()
    compiled = torch.compile(Reversible(chain), fullgraph=True, backend="eager")
    ways = [list(torch.autograd.grad(sum(t.sum() for t in k(x)), x)) for k in (compiled, chain)]  # type: ignore[arg-type]
    require_same(*ways, 1e-10)  # type: ignore[arg-type]


# -- as a part of something ----------------------------------------------------------------------------


def test_it_is_declared_as_the_chain():
    chain = Chain([Logit((D,)), coupling(context=2)])
    kind = Reversible(chain)
    for name in ("domain", "codomain", "traits", "event_shape", "latent_shape", "context_shape"):
        assert getattr(kind, name) == getattr(chain, name)
    assert list(kind.state_dict()) == list(chain.state_dict())
    assert list(Reversible(LU(2)).state_dict()) == [f"parts.0.{name}" for name in LU(2).state_dict()]
    kind.load_state_dict(randomize_(copy.deepcopy(chain)).state_dict())
    twin = randomize_(copy.deepcopy(kind), seed=2)
    x, context = torch.rand(5, D), torch.randn(5, 2)
    assert torch.equal(kind(x, context)[0], chain(x, context)[0])
    assert torch.equal(twin(x, context)[0], twin.chain[0](x, context)[0])
    assert not torch.equal(twin(x, context)[0], chain(x, context)[0])


def test_parts_are_set_from_data():
    kind = Reversible(Chain([Standardize((D,)), LU(D), ActNorm((D,))]))
    x = 3 * torch.randn(1000, D) + 7
    Chain([kind, coupling()]).initialize(x)
    z = kind(x)[0]
    assert z.mean(0).abs().max() < 1e-4
    assert (z.std(0) - 1).abs().max() < 1e-2


def test_training_goes_the_chains_way():
    rows = torch.randn(400, D, dtype=torch.float64) @ torch.randn(D, D).double()

    def trained(wrap: Callable[[Chain], Bijection]) -> list[Tensor | None]:
        torch.manual_seed(0)
        flow = Flow(Chain([Standardize((D,)), wrap(deep(4, dropout=0.1))]), Normal((D,))).double()
        diffeo.fit(flow, rows, max_steps=30, batch_size=64)
        return [p.detach() for p in flow.parameters()]

    require_same(trained(Reversible), trained(lambda chain: chain), 1e-8)
