"""Stan models against densities written out by hand. A program takes half a minute to compile, once."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Dirichlet, Exponential, Normal

from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.targets import Evaluator, Stan, named

pytest.importorskip("httpstan")

PROGRAM = """
data {
  int<lower=0> N;
  vector[N] y;
  matrix[2, 3] A;
  int group;
}
parameters {
  real mu;
  real<lower=0> tau;
  simplex[3] w;
  ordered[2] o;
  real<lower=-1, upper=2> r;
  matrix[2, 3] B;
}
transformed parameters {
  real<lower=0> variance = square(tau);
}
model {
  print("seen");
  if (mu > 100) reject("mu is too large: ", mu);
  mu ~ normal(0, 2);
  tau ~ exponential(0.5);
  w ~ dirichlet([1, 2, 3]');
  o ~ normal(0, 1);
  r ~ normal(0.5, 1);
  to_vector(B - A) ~ std_normal();
  y ~ normal(mu + w[group], tau);
}
generated quantities {
  array[3, 2] real noise;
  int count = poisson_rng(5);
  for (i in 1:3) for (j in 1:2) noise[i, j] = normal_rng(10 * i + j, 0.01);
}
"""
A = np.arange(6.0).reshape(2, 3)
SHAPES = {"mu": (), "tau": (), "w": (3,), "o": (2,), "r": (), "B": (2, 3)}
Y = [0.3, -1.0, 2.5, 0.1]
DATA = {"N": np.int64(4), "y": torch.tensor(Y), "A": A, "group": 2}


@pytest.fixture(scope="module")
def target() -> Stan:
    return Stan(PROGRAM, DATA)


def u_rows(rows: int = 7) -> torch.Tensor:
    return torch.randn(rows, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def on_their_own_scale(point: dict[str, np.ndarray]) -> float:
    """The density of PROGRAM's parameters, from torch's distributions."""
    x = {name: torch.as_tensor(value.copy()) for name, value in point.items()}
    y = torch.tensor(Y, dtype=torch.float64)
    return (
        Normal(0.0, 2.0).log_prob(x["mu"])
        + Exponential(0.5).log_prob(x["tau"])
        + Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).log_prob(x["w"])
        + Normal(0.0, 1.0).log_prob(x["o"]).sum()
        + Normal(0.5, 1.0).log_prob(x["r"])
        + Normal(torch.tensor(A), 1.0).log_prob(x["B"]).sum()
        + Normal(x["mu"] + x["w"][1], x["tau"]).log_prob(y).sum()
    ).item()


def free(point: dict[str, np.ndarray]) -> np.ndarray:
    """D numbers that fix a row of draws: all parameters, but a simplex without its last entry."""
    parts = {**{name: point[name] for name in SHAPES}, "w": point["w"][:, :2]}
    return np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1)


def test_shapes(target):
    assert target.features == 13
    assert target.shapes == SHAPES
    assert list(target.shapes) == list(SHAPES)


def test_density_is_the_constrained_one_with_the_jacobian_and_all_constants(target):
    u, step = u_rows(), 1e-5
    expected = []
    for row in u:
        moves = step * torch.eye(13, dtype=torch.float64)
        jacobian = (free(target.named(row + moves)) - free(target.named(row - moves))) / (2 * step)
        point = {name: values[0] for name, values in target.named(row[None]).items()}
        expected.append(on_their_own_scale(point) + np.linalg.slogdet(jacobian)[1])
    torch.testing.assert_close(target.log_prob(u), torch.tensor(expected), rtol=0, atol=1e-6)


def test_gradient(target):
    u = u_rows(3).requires_grad_()
    assert torch.autograd.gradcheck(target.log_prob, u)
    value, grad = Evaluator(target).value_and_grad(u)
    assert torch.equal(value, target.log_prob(u.detach())) or torch.allclose(
        value, target.log_prob(u.detach())
    )
    torch.testing.assert_close(grad, torch.autograd.grad((2 * target.log_prob(u)).sum(), u)[0] / 2)
    first = torch.autograd.grad(target.log_prob(u).sum(), u, create_graph=True)[0]
    with pytest.raises(ConfigError, match="no second derivatives"):
        torch.autograd.grad(first.sum(), u)


def test_draws(target):
    u = u_rows()
    x = named(target, u)
    assert {name: values.shape[1:] for name, values in x.items()} == {
        **SHAPES, "variance": (), "noise": (3, 2), "count": ()
    }  # fmt: skip
    assert {len(values) for values in x.values()} == {7}
    columns = u.numpy().T
    np.testing.assert_allclose(x["mu"], columns[0])
    np.testing.assert_allclose(x["tau"], np.exp(columns[1]))
    np.testing.assert_allclose(x["variance"], x["tau"] ** 2)
    np.testing.assert_allclose(x["w"].sum(1), 1)
    assert (x["w"] > 0).all()
    np.testing.assert_allclose(x["o"], np.stack([columns[4], columns[4] + np.exp(columns[5])], 1))
    np.testing.assert_allclose(x["r"], -1 + 3 / (1 + np.exp(-columns[6])))
    np.testing.assert_allclose(
        x["B"], columns[7:].reshape(3, 2, 7).transpose(2, 1, 0)
    )  # the first index fastest
    np.testing.assert_allclose(
        x["noise"], np.broadcast_to([[11, 12], [21, 22], [31, 32]], (7, 3, 2)), atol=0.1
    )
    assert len(np.unique(x["noise"])) == 42
    again = named(target, u)
    assert all(np.array_equal(values, again[name]) for name, values in x.items())


def test_unconstrain(target):
    u = u_rows()
    x = target.named(u)
    torch.testing.assert_close(target.unconstrain(x), u)
    with pytest.raises(DataError, match="'tau' has no values"):
        target.unconstrain({"mu": x["mu"]})
    with pytest.raises(DataError, match="row 2: .*Lower bounded"):
        target.unconstrain({**x, "tau": np.where(np.arange(7) == 2, -1.0, x["tau"])})
    with pytest.raises(ShapeError, match=r"'w' have shape \(7, 2\); expected \(7, 3\)"):
        target.unconstrain({**x, "w": x["w"][:, :2]})
    with pytest.raises(ShapeError, match=r"'mu' have shape \(\); expected \(rows\)"):
        target.unconstrain({**x, "mu": 0.0})


def test_rejected_rows(target):
    u = u_rows(4)
    u[1, 0] = 101.0
    u[2, 3] = math.nan
    u.requires_grad_()
    value, grad = Evaluator(target).value_and_grad(u)
    others = torch.tensor([0, 3])
    assert value.isneginf().tolist() == [False, True, True, False]
    assert not grad[1:3].any()
    assert grad[others].all()
    assert target.log_prob(u).isnan().tolist() == [False, False, True, False]
    torch.testing.assert_close(value[others], target.log_prob(u.detach()[others]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_dtypes_and_rows(target, dtype, rows):
    u = u_rows(rows).to(dtype).requires_grad_()
    value = target.log_prob(u)
    assert value.dtype == dtype
    assert value.shape == (rows,)
    assert torch.autograd.grad(value.sum(), u)[0].dtype == dtype
    torch.testing.assert_close(value, target.log_prob(u.detach().double()).to(dtype))
    assert target.named(u)["B"].shape == (rows, 2, 3)
    with pytest.raises(ShapeError, match="13 unconstrained parameters"):
        target.log_prob(torch.zeros(13))
    with pytest.raises(ShapeError, match="13 unconstrained parameters"):
        target.named(torch.zeros(2, 12))


def test_two_data_sets_of_one_program(target, tmp_path: Path, capfd):
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"N": 1, "y": [Y[0]], "A": A.tolist(), "group": 2}))
    u = u_rows()
    before = target.log_prob(u)
    other = Stan(PROGRAM, file)
    x = target.named(u)
    missing = Normal(torch.tensor(x["mu"] + x["w"][:, 1])[:, None], torch.tensor(x["tau"])[:, None])
    difference = missing.log_prob(torch.tensor(Y[1:], dtype=torch.float64)).sum(1)
    torch.testing.assert_close(target.log_prob(u) - other.log_prob(u), difference)
    del other
    assert torch.equal(target.log_prob(u), before)
    assert capfd.readouterr() == ("", "")  # neither of building nor of the program's own print


def test_inside_an_event_loop(target):
    async def notebook() -> torch.Tensor:
        return Stan(PROGRAM, DATA).log_prob(u_rows())

    assert torch.equal(asyncio.run(notebook()), target.log_prob(u_rows()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "variable does not exist.*variable name=N.*line 3"),
        ({**DATA, "y": Y[:3]}, "mismatch in dimension.*variable name=y"),
        ({**DATA, "N": -1}, "N is -1, but must be greater than or equal to 0"),
        ({**DATA, "N": "four"}, "N, error: string values not allowed"),
        ({**DATA, "N": {4}}, "set is not a number"),
        ([1], "a mapping or a JSON object; got list"),
        (Path("/no/such/data.json"), "No such file"),
    ],
)
def test_data_that_do_not_fit(target, data, message):
    with pytest.raises(DataError, match=message) as caught:
        Stan(PROGRAM, data)
    assert "\n" not in str(caught.value)


def test_a_program_bug_is_no_rejection(target):
    wrong = Stan(PROGRAM, {**DATA, "group": 7})
    with pytest.raises(DataError, match="row 0: .*index 7 out of range"):
        wrong.log_prob(u_rows())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "parameters { real x; }\nmodel { x ~ normal(0, y); }",
            "line 2, column 22.*Identifier 'y' not in scope",
        ),
        ("parameters { real x }", "line 1, column 20.*expected after variable"),
        ("model.stan", r"give Path\('model.stan'\)"),
        (Path("/no/such/model.stan"), "No such file"),
    ],
)
def test_programs_that_do_not_compile(program, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Stan(program)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails(monkeypatch, tmp_path: Path, caplog, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="diffeo"), pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        Stan("parameters { real x; } model { x ~ std_normal(); }")
    assert "half a minute" in caplog.text
    assert [path for path in tmp_path.rglob("*") if path.suffix in {".cpp", ".o"}] == []
    assert capfd.readouterr().out == ""
