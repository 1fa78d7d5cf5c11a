"""The one dictionary every kind joins: room -> name -> zero-argument constructor.

A new kind adds one line here and is held to the whole contract by ``test_conformance``, which also
fails when a public kind has no line. A name may go on after a comma to say what is special.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffeo import bases, bijections, contexts, elementwise, nets, presets
from diffeo.encodings.cell_kinds import Levels, Numbers
from diffeo.encodings.cells import Cells
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.dequantization import Dequantization
from diffeo.encodings.kinds import Bounded, Circular, Constant, Continuous, Integer, Lattice, Positive
from diffeo.encodings.noise import VariationalNoise
from diffeo.flow import Flow
from diffeo.functional import linear_spline, quadratic_spline
from diffeo.functional.log_dets import RouletteLogDet
from diffeo.testing import randomize_

b, e, p = bijections, elementwise, presets
Auto, Couple = b.Autoregressive, b.Coupling
Linear, Quadratic, Rational = e.PiecewiseLinear, e.PiecewiseQuadratic, e.RationalQuadratic
Circular4, Interval4 = e.CircularRationalQuadratic(4), e.IntervalRationalQuadratic(4)
MADE, MLP, OnAngles, ResMADE, ResMLP = nets.MADE, nets.MLP, nets.OnAngles, nets.ResMADE, nets.ResidualMLP
small = {"layers": 2, "hidden": (8,)}
masked = {"layers": 2, "hidden": 8, "blocks": 1}
spline = {"layers": 2, "hidden": 8, "blocks": 1, "bins": 4}

heads = {"hidden": 8, "heads": 2}
transformer = {**heads, "blocks": 1}
pixel = {"hidden": 8, "blocks": 1, "kernel": 3, "bins": 4}


def fitted(kind: Any) -> Any:
    """The kind, set from correlated, shifted and skewed rows."""
    g = torch.Generator().manual_seed(0)
    features = kind.event_shape.numel()
    rows = torch.randn(300, features, generator=g) @ torch.randn(features, features, generator=g)
    kind.initialize((3 * rows + 0.5 * rows.square() + 10).reshape(-1, *kind.event_shape))
    return kind


def contraction(features: int, **options: Any) -> Any:
    return nets.LipschitzMLP(features, (8, 8), lipschitz=0.9, **options)


def causal(length: int, width: int, params: int = 2, **options: Any) -> Any:
    return nets.CausalTransformer(length, width, params, hidden=8, layers=1, heads=2, **options)


def masked_conv(height: int, width: int, params: int, **options: Any) -> Any:
    return nets.MaskedConvNet(height, width, params, hidden=8, blocks=1, kernel=3, **options)


def of_context(numbers: int) -> Any:
    return MLP(0, numbers, (8,), context_features=2)


def mixed() -> Any:
    return e.Mixed([e.Affine(), Circular4, Linear(4)])


def field(features: int, *hidden: int, context: int = 0) -> Any:
    """A field with one pair of time features."""
    return nets.VelocityMLP(features, features, hidden, context_features=2 + context, activation=nets.Tanh)


def conditional(context: int) -> Any:
    return Auto(MADE(1, 2, (8,), context_features=context), e.Affine())


def _table() -> tuple[Columns, Tensor, Tensor]:
    kinds = [Continuous(), Positive(), Bounded(0.0, 4.0), Circular(0.0, 360.0)]
    columns = Columns(
        [Column(type(k).__name__, k, scale=2.0 if i == 0 else 1.0) for i, k in enumerate(kinds)]
    )
    rows = [[1.5, 2.0, 1.0, 90.0], [-3.0, 1e-3, 3.9, 10.0], [0.0, 50.0, 2.0, 359.0]]
    outside = [[0.0, -1.0, 1.0, 9.0], [0.0, 1.0, 5.0, 9.0], [0.0, 1.0, 1.0, 400.0], [0.0, 0.0, 4.0, -1.0]]
    return columns, torch.tensor(rows, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)


def _discrete_table() -> tuple[Columns, Tensor, Tensor]:
    kinds = [Integer(), Lattice(0.05), Constant(7.0), Continuous()]
    columns = Columns([Column(f"c{i}", k) for i, k in enumerate(kinds)], num_draws=4)
    rows = [[1.0, 0.15, 7.0, 0.3], [-4.0, 2.0, 7.0, -1.0], [100.0, 0.0, 7.0, 5.0]]
    outside = [[1.5, 0.0, 7.0, 0.0], [1.0, 0.07, 7.0, 0.0], [1.0, 0.0, 8.0, 0.0]]
    return columns, torch.tensor(rows, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)


def _images(bits: int = 8, **options: Any) -> tuple[Dequantization, Tensor, Tensor]:
    shape = (2, 1, 3)
    rows = torch.tensor([[0, 255, 128, 1, 254, 127], [255] * 6, [0] * 6, [17, 3, 99, 200, 64, 5]])
    rows = (rows >> (8 - bits) << (8 - bits)).reshape(-1, *shape).double()
    outside = torch.zeros(5, *shape, dtype=torch.float64)
    outside[:, 1, 0, 2] = torch.tensor([-1.0, 256.0, 0.5, math.inf, -math.inf])
    return Dequantization(shape, bits, **options), rows, outside


def _cells() -> tuple[Cells, Tensor, Tensor]:
    scale = ((-5.0, 1.0, 40.0), (-2.0, 0.0, 3.0))
    columns = Cells(
        [
            Levels("word", "string", False, ("a", "b", "c")),
            Levels("rare", "string", True, ("p", "q", "r"), (3.0, 1.0)),
            Numbers("count", "int64", True, Continuous(), (0.0, 7.0), scale, 1.0, 0.0, 0.0, 30.0),
            Numbers("price", "double", False, Positive(), (2.5,), scale),
            Numbers("cents", "double", True, Continuous(), (), scale, 0.001),
        ]
    )
    rows = [[0.0, 1.0, 0.0, 2.5, 0.125], [2.0, 2.0, 11.0, 0.3, -4.0], [1.0, 0.0, 30.0, 77.0, 3.001]]
    outside = [
        [3.0, 0, 0, 1, 0],
        [0, -1.0, 0, 1, 0],
        [0, 0, 2.5, 1, 0],
        [0, 0, 31.0, 1, 0],
        [0, 0, 0, -1.0, 0],
    ]
    return columns, torch.tensor(rows, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)


def _cell_density(**options: Any) -> tuple[bases.CellDensity, Tensor]:
    columns, rows, _ = _cells()
    codes = columns.double().encode(rows)[0][0]
    return bases.CellDensity(columns.columns, hidden=16, blocks=1, context=8, bins=4, **options), codes


CASES: dict[str, dict[str, Callable[[], Any]]] = {
    "bijections": {
        "ActNorm": lambda: b.ActNorm((3,)),
        "AdditiveResidual": lambda: b.AdditiveResidual([True, False, True], MLP(1, 2, (8,)), MLP(2, 1, (8,))),
        "AdditiveResidual, context": lambda: b.AdditiveResidual(
            [False, True], MLP(1, 1, (8,), context_features=2), ResMLP(1, 1, 8)
        ),
        "Autoregressive": lambda: Auto(MADE(3, 2, (8,)), e.Affine()),
        "Autoregressive, order": lambda: Auto(ResMADE(3, 11, 8, 1), Rational(4), [2, 0, 1]),
        "Autoregressive, context": lambda: Auto(MADE(3, 2, (8,), context_features=2), e.Affine()),
        "Autoregressive, interval": lambda: Auto(ResMADE(3, 4, 8, 1), Linear(4)),
        "Autoregressive, mixed": lambda: Auto(MADE(3, 12, (8,)), mixed(), [1, 0, 2]),
        "Autoregressive, circular": lambda: Auto(MADE(2, 12, (8,)), Circular4),
        "AutoregressiveTokens": lambda: b.AutoregressiveTokens(causal(3, 2), e.Affine()),
        "AutoregressiveTokens, reverse, vector": lambda: b.AutoregressiveTokens(
            causal(2, 3, context_shape=(2,)), e.Affine(), reverse=True
        ),
        "AutoregressiveTokens, interval, image": lambda: b.AutoregressiveTokens(
            causal(3, 1, 4, context_shape=(1, 2, 1)), Linear(4)
        ),
        "AutoregressiveTokens, uncached": lambda: b.AutoregressiveTokens(
            causal(3, 2), e.Affine(), sampler=b.Uncached()
        ),
        "AutoregressiveTokens, Jacobi": lambda: b.AutoregressiveTokens(
            causal(3, 2, checkpoint=True), e.Affine(), sampler=b.Jacobi(1e-6)
        ),
        "AutoregressiveTokens, masked convolutions": lambda: b.AutoregressiveTokens(
            masked_conv(2, 3, 2), e.Affine(), reverse=True
        ),
        "AutoregressiveTokens, masked convolutions, image": lambda: b.AutoregressiveTokens(
            masked_conv(2, 2, 4, levels=4, context_shape=(1, 2, 1)), Linear(4, -0.5, 0.5)
        ),
        "Chain": lambda: b.Chain([b.LU(2), b.Sigmoid((2,)), b.Pointwise(Linear(4), (2,)), b.Logit((2,))]),
        "Chain, set from data": lambda: b.Chain([b.Standardize((2,)), b.Permute([1, 0]), b.ActNorm((2,))]),
        "Contractive": lambda: b.Contractive(contraction(3)),
        "Contractive, context": lambda: b.Contractive(contraction(2, context_features=2)),
        "Contractive, sine": lambda: b.Contractive(contraction(1, activation=nets.Sine)),
        "Contractive, roulette": lambda: b.Contractive(contraction(3), RouletteLogDet(2)),
        "Contractive, image": lambda: b.Contractive(nets.LipschitzConvNet((2, 3, 2), (4,), (3, 1))),
        "Continuous": lambda: b.Continuous(field(2, 8, 8), b.FixedSteps(4)),
        "Continuous, adaptive": lambda: b.Continuous(field(3, 8), b.Adaptive(1e-6)),
        "Continuous, adjoint": lambda: b.Continuous(
            field(2, 8, 8), b.FixedSteps(4, b.Adjoint()), b.Adaptive(gradient=b.Adjoint())
        ),
        "Continuous, context": lambda: b.Continuous(field(2, 8, 8, context=2)),
        "Continuous, Hutchinson": lambda: b.Continuous(field(3, 8), b.FixedSteps(8), trace=b.Hutchinson()),
        "Continuous, scalar": lambda: b.Continuous(field(1, 8, 8)),
        "Continuous, any net": lambda: b.Continuous(
            MLP(2, 2, (8,), context_features=4, activation=torch.tanh), waves=2
        ),
        "Coupling": lambda: Couple([True, False, False], MLP(1, 4, (8,)), e.Affine()),
        "Coupling, context": lambda: Couple([False, True], ResMLP(1, 7, 8, context_features=2), Quadratic(4)),
        "Coupling, nothing passes": lambda: Couple([False], MLP(0, 2, (8,), context_features=2), e.Affine()),
        "Coupling, mixed": lambda: Couple([True, False, False], MLP(1, 24, (8,)), mixed()),
        "Coupling, interval": lambda: Couple([True, False], MLP(1, 13, (8,)), Interval4),
        "Dense": lambda: b.Dense(3),
        "Exp": lambda: b.Exp((2,)),
        "Exp, scalar": lambda: b.Exp(()),
        "Haar": lambda: b.Haar((2, 2, 4)),
        "Identity": lambda: b.Identity((2, 3)),
        "Identity, scalar": lambda: b.Identity(()),
        "ImageCoupling": lambda: b.ImageCoupling(
            b.channel_mask(3), nets.ConvNet((1, 2, 2), 4, 4), e.Affine()
        ),
        "ImageCoupling, any channels": lambda: b.ImageCoupling(
            torch.tensor([False, True, False])[:, None, None], nets.ConvNet((1, 2, 2), 4, 4), e.Affine()
        ),
        "ImageCoupling, checkerboard": lambda: b.ImageCoupling(
            b.checkerboard(2, 3), nets.ResidualConvNet((2, 2, 3), 22, 4, 1), Rational(4)
        ),
        "ImageCoupling, image": lambda: b.ImageCoupling(
            b.channel_mask(2), nets.ResidualConvNet((1, 2, 2), 2, 4, 1, context_shape=(1, 4, 3)), e.Affine()
        ),
        "ImageCoupling, vector, interval": lambda: b.ImageCoupling(
            b.channel_mask(2), nets.ConvNet((1, 2, 2), 4, 4, context_shape=(2,)), Linear(4)
        ),
        "Interleave": lambda: b.Interleave((2, 2, 3)),
        "Inverse": lambda: b.Inverse(Auto(MADE(3, 2, (8,)), e.Affine())),
        "Inverse, logarithm": lambda: b.Inverse(b.Exp((2,))),
        "LU": lambda: b.LU(3),
        "LeakyReLU": lambda: b.LeakyReLU((2,), 0.2),
        "LeakyReLU, scalar": lambda: b.LeakyReLU(()),
        "LogTails": lambda: b.LogTails(2),
        "LogTails, set": lambda: fitted(b.LogTails(2)),
        "LogTails, scalar": lambda: fitted(b.LogTails(1)),
        "Logit": lambda: b.Logit((2,)),
        "Logit, scalar": lambda: b.Logit((1,)),
        "Marginal": lambda: b.Marginal(2, 8),
        "Marginal, set": lambda: fitted(b.Marginal(2, 8)),
        "Marginal, scalar": lambda: fitted(b.Marginal(1, 8)),
        "Multiscale": lambda: b.Multiscale([b.Squeeze((1, 4, 4)), b.OnChannels(b.LU(2), (2, 2, 2))]),
        "Multiscale, one level": lambda: b.Multiscale([b.OnChannels(b.LU(2), (2, 2, 1))]),
        "Multiscale, Haar": lambda: b.Multiscale([b.Haar((1, 4, 4)), b.Haar((1, 2, 2))], [1]),
        "Multiscale, set, context": lambda: b.Multiscale(
            [
                fitted(b.OnChannels(b.Chain([b.ActNorm((2,)), b.LU(2)]), (2, 2, 2))),
                b.ImageCoupling(
                    b.checkerboard(2, 2), nets.ConvNet((1, 2, 2), 2, 4, context_shape=(2,)), e.Affine()
                ),
            ]
        ),
        "OnChannels": lambda: b.OnChannels(b.Chain([b.ActNorm((3,)), b.LU(3)]), (3, 2, 2)),
        "OnChannels, interval": lambda: b.OnChannels(b.Logit((2,)), (2, 1, 3)),
        "OnChannels, dense": lambda: b.OnChannels(b.Dense(2), (2, 2, 2)),
        "OnColumns, interval": lambda: b.OnColumns([1], b.Logit((1,)), 2),
        "OnColumns": lambda: b.OnColumns([2, 0], b.LU(2), 3),
        "OnColumns, given": lambda: b.OnColumns([1], conditional(4), 3, b.LU(2)),
        "OnColumns, angles": lambda: b.OnColumns([1, 2], Auto(OnAngles(MADE(3, 12, (8,))), Circular4), 3),
        "Orthogonal": lambda: b.Orthogonal(3),
        "Permute": lambda: b.Permute([2, 0, 1]),
        "Planar": lambda: b.Planar(3),
        "Planar, one column": lambda: b.Planar(1),
        "Planar, context": lambda: b.Planar(2, of_context(b.Planar.num_params(2))),
        "Pointwise": lambda: b.Pointwise(Rational(4), (2, 2)),
        "Pointwise, scalar": lambda: b.Pointwise(Rational(4), ()),
        "Pointwise, mixed": lambda: b.Pointwise(e.Mixed([e.Affine(), Circular4, e.Affine()]), (3,)),
        "Probit": lambda: b.Probit((2,)),
        "Probit, scalar": lambda: b.Probit((), -3.0, 3.0),
        "Radial": lambda: b.Radial(3),
        "Radial, one column": lambda: b.Radial(1),
        "Radial, context": lambda: b.Radial(2, of_context(b.Radial.num_params(2))),
        "Reverse": lambda: b.Reverse(3),
        "Reversible": lambda: b.Reversible(b.Chain([b.Logit((1,)), b.LU(1), conditional(2)])),
        "Sigmoid": lambda: b.Sigmoid((2,)),
        "Sigmoid, scalar": lambda: b.Sigmoid((1,)),
        "Softplus": lambda: b.Softplus((2,)),
        "Softplus, scalar": lambda: b.Softplus((1,)),
        "Squeeze": lambda: b.Squeeze((2, 4, 2)),
        "Squeeze, block": lambda: b.Squeeze((1, 3, 3), 3),
        "Standardize": lambda: b.Standardize((3,)),
        "Standardize, set": lambda: fitted(b.Standardize((3,))),
        "Sylvester": lambda: b.Sylvester(4, 2, 3),
        "Sylvester, one column": lambda: b.Sylvester(1, 1),
        "Sylvester, context": lambda: b.Sylvester(2, 2, 3, of_context(b.Sylvester.num_params(2, 2, 3))),
        "Tanh": lambda: b.Tanh((2,)),
        "Tanh, scalar": lambda: b.Tanh((1,)),
        "Tokens": lambda: b.Tokens((2, 3, 2)),
        "Triangular": lambda: b.Triangular(3),
        "Whiten": lambda: b.Whiten(3),
        "Whiten, set": lambda: fitted(b.Whiten(3)),
    },
    "elementwise": {
        "Additive": lambda: e.Additive(),
        "Affine": lambda: e.Affine(),
        "Bernstein": lambda: e.Bernstein(8),
        "CircularRationalQuadratic": lambda: e.CircularRationalQuadratic(5),
        "DeepSigmoid, nine": lambda: e.DeepSigmoid(9),
        "DeepSigmoid": lambda: e.DeepSigmoid(6),
        "IntervalRationalQuadratic": lambda: e.IntervalRationalQuadratic(5, -1.0, 3.0),
        "Mixed": lambda: e.Mixed([e.Affine(), Circular4, Linear(4), e.Affine()]),
        "Mixed, of one": lambda: e.Mixed([Quadratic(4)] * 3),
        "LocationScale": lambda: e.LocationScale(Rational(8)),
        "LocationScale, of PiecewiseQuadratic": lambda: e.LocationScale(Quadratic(4)),
        "MixtureCDF": lambda: e.MixtureCDF(5),
        "MonotonicNet": lambda: e.MonotonicNet(3, (8, 8)),
        "PiecewiseLinear": lambda: Linear(5),
        "PiecewiseLinear, one bin": lambda: Linear(1, -2.0, 7.0),
        "PiecewiseQuadratic": lambda: Quadratic(5),
        "RationalQuadratic": lambda: Rational(8),
        "RationalQuadratic, one bin": lambda: Rational(1, 10.0),
        "RationalQuadratic, many bins": lambda: Rational(64, 5.0),
        "SumOfSquares": lambda: e.SumOfSquares(4, 3),
        "SumOfSquares, one": lambda: e.SumOfSquares(1, 1, 2.0),
    },
    "bases": {
        "CellDensity": _cell_density,
        "CellDensity, given": lambda: _cell_density(given=[2, 0]),
        "ContextNormal": lambda: bases.ContextNormal((2,), MLP(3, 4, (8,))),
        "LearnedNormal": lambda: bases.LearnedNormal((2,)),
        "MixtureOfNormals": lambda: bases.MixtureOfNormals((2,), 3),
        "MixtureOfNormals, scalar": lambda: bases.MixtureOfNormals((), 2),
        "Normal": lambda: bases.Normal((2, 1)),
        "StudentT": lambda: bases.StudentT((1,)),
        "StudentT, learned": lambda: bases.StudentT((2,), 4.0, learned=True),
        "Tempered": lambda: bases.Tempered(bases.LearnedNormal((1,)), 2.0),
        "Tempered, context": lambda: bases.Tempered(bases.ContextNormal((1,), MLP(3, 2, (8,))), 0.5),
        "Uniform": lambda: bases.Uniform((2,), -1.0, 3.0),
    },
    "presets": {
        "BPF": lambda: p.BPF(2, **masked, degree=6),
        "BPF, context": lambda: p.BPF(1, 2, **masked, degree=6),
        "CouplingNSF": lambda: p.CouplingNSF(2, **spline),
        "CouplingNSF, context": lambda: p.CouplingNSF(3, 2, **spline),
        "Gaussianization": lambda: p.Gaussianization(2, layers=3, components=4),
        "Gaussianization, context": lambda: p.Gaussianization(3, 2, layers=2, hidden=(8,), components=3),
        "Glow": lambda: p.Glow((1, 4, 2), levels=1, layers=2, hidden=8),
        "Glow, classes": lambda: p.Glow((2, 2, 2), contexts.Classes(3), levels=1, layers=2, hidden=8),
        "FFJORD": lambda: p.FFJORD(2, hidden=8),
        "FFJORD, context": lambda: p.FFJORD(1, 2, hidden=8, layers=1),
        "FlowMatching": lambda: p.FlowMatching(2, hidden=8),
        "FlowMatching, classes": lambda: p.FlowMatching(2, contexts.Classes(3), layers=2, hidden=8),
        "IAF": lambda: p.IAF(3, **small),
        "IAF, classes": lambda: p.IAF(2, contexts.Classes(3), **small),
        "MAF": lambda: p.MAF(3, **small),
        "Mixed": lambda: (p.Mixed(5, hidden=16, known=8, blocks=1, bins=4), *_cells()),
        "MAF, context": lambda: p.MAF(2, 2, **small),
        "NAF": lambda: p.NAF(2, **masked, units=4),
        "NAF, classes": lambda: p.NAF(3, contexts.Classes(3), **masked, units=4),
        "NICE": lambda: p.NICE(3, **small),
        "NICE, one column": lambda: p.NICE(1, 2, **small),
        "NSF": lambda: p.NSF(2, **spline),
        "NSF, context": lambda: p.NSF(1, 2, **spline),
        "PixelFlow": lambda: p.PixelFlow((1, 2, 1), **pixel),
        "PixelFlow, layers, classes": lambda: p.PixelFlow((3, 1, 2), contexts.Classes(3), layers=2, **pixel),
        "PixelFlow, image": lambda: p.PixelFlow((1, 2, 2), contexts.Image(1, 2, 1), **pixel),
        "Planar": lambda: p.Planar(2, **small),
        "Planar, context": lambda: p.Planar(1, 2, **small),
        "Radial": lambda: p.Radial(3, **small),
        "Radial, classes": lambda: p.Radial(2, contexts.Classes(3), **small),
        "RealNVP": lambda: p.RealNVP(2, **small),
        "RealNVPImage": lambda: p.RealNVPImage((1, 2, 4), levels=1, layers=2, hidden=8),
        "RealNVPImage, image": lambda: p.RealNVPImage(
            (1, 2, 2), contexts.Image(1, 2, 2), levels=1, layers=2, hidden=8, reversible=True
        ),
        "RealNVP, classes": lambda: p.RealNVP(3, contexts.Classes(4), **small),
        "IResNet": lambda: p.IResNet(2, **small),
        "IResNet, context": lambda: p.IResNet(1, 2, **small),
        "ResidualFlow": lambda: p.ResidualFlow(2, **small),
        "ResidualFlow, classes": lambda: p.ResidualFlow(3, contexts.Classes(4), **small),
        "RevNet": lambda: p.RevNet(3, **small),
        "RevNet, one column": lambda: p.RevNet(1, 2, **small),
        "SplineGlow": lambda: p.SplineGlow((3, 2, 2), levels=1, layers=2, hidden=8),
        "SplineGlow, context": lambda: p.SplineGlow((1, 4, 2), 2, levels=1, layers=2, hidden=8),
        "Sylvester": lambda: p.Sylvester(3, rank=2, **small),
        "Sylvester, context": lambda: p.Sylvester(2, 2, reflections=3, **small),
        "SOSPF": lambda: p.SOSPF(2, **masked, degree=3, polynomials=2),
        "SOSPF, context": lambda: p.SOSPF(3, 2, **masked, degree=3, polynomials=2),
        "Jet": lambda: p.Jet((2, 2, 2), patch=2, layers=2, **transformer),
        "Jet, reversible, classes": lambda: p.Jet(
            (1, 4, 2), contexts.Classes(3), patch=2, layers=2, reversible=True, **transformer
        ),
        "Tabular": lambda: p.Tabular(2, **spline),
        "Tabular, marginal": lambda: p.Tabular(2, 2, marginal=8, **spline),
        "TarFlow": lambda: p.TarFlow((2, 2, 2), patch=1, layers=1, blocks=2, hidden=8, heads=2),
        "TarFlow, classes": lambda: p.TarFlow(
            (1, 2, 4), contexts.Classes(3), patch=2, layers=1, blocks=2, **heads, drop=0.1, checkpoint=True
        ),
        "TarFlow, image": lambda: p.TarFlow(
            (1, 2, 2), contexts.Image(1, 2, 1), patch=1, blocks=2, hidden=8, heads=2
        ),
        "UNAF": lambda: p.UNAF(2, **masked, embedding=3, width=8),
        "UNAF, context": lambda: p.UNAF(1, 2, **masked, embedding=3, width=8),
    },
    "encodings": {
        "Cells": _cells,
        "Columns": _table,
        "Columns, discrete": _discrete_table,
        "Dequantization": _images,
        "Dequantization, 5 bits": lambda: _images(5, num_draws=3),
        "Dequantization, logit": lambda: _images(logit=0.05, num_draws=2),
        "Dequantization, variational": lambda: _images(noise=VariationalNoise((2, 1, 3), 4), num_draws=2),
    },
}  # fmt: skip


VECTORS = {name: kind for name, kind in p.PRESETS.items() if issubclass(kind, p.VectorPreset)}
"""The presets of tables; those of images take a shape in place of a number of columns."""
APART = {"DeepSigmoid", "MixtureCDF", "NAF", "Gaussianization"}
"""Mixtures: their units start apart, else nothing would tell them apart; near the identity, not on it."""


def knots_of(family: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
    """The knots of a family's maps, where it has any, for the precision rule."""
    if isinstance(family, e.RationalQuadratic | e.IntervalRationalQuadratic | e.CircularRationalQuadratic):
        return lambda q: tuple(k.movedim(0, -1) for k in family._knots(q, q.dim() - 1)[:2])
    if isinstance(family, e.LocationScale) and (inner := knots_of(family.family)):

        def moved(q: Tensor) -> tuple[Tensor, Tensor]:
            xs, ys = inner(q[..., 2:])
            return xs, family.affine.forward(ys, q[..., None, :2])[0]

        return moved
    if isinstance(family, e.PiecewiseLinear):
        return lambda q: linear_spline._parts(q, family.low, family.high, family.min_slope)[:2]
    if isinstance(family, e.PiecewiseQuadratic):

        def knots(q: Tensor) -> tuple[Tensor, Tensor]:
            widths, heights = q.split([family.bins, family.bins - 1], -1)
            xs, _, _, ys = quadratic_spline._parts(
                widths, heights, family.bound, family.min_width, family.min_slope
            )
            return xs, ys

        return knots
    return None


def stirred(flow: Flow) -> Flow:
    """Weights away from their neutral start, as training would leave them."""
    generator = torch.Generator().manual_seed(1)
    randomize_(flow, seed=1, scale=0.1)
    x = torch.randn(64, *flow.event_shape, generator=generator)
    context = None
    if flow.context_shape is not None:
        context = torch.randn(64, *flow.context_shape, generator=generator)
        context = context if flow.context_shape else (context > 0).long()
    flow.initialize(3.0 + 2.0 * x, context)
    return flow.eval()
