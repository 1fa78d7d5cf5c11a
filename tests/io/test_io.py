"""Model files: what is saved comes back, and nothing else is taken for a model."""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from cases import VECTORS, stirred
from torch import Tensor, nn

import diffeo
from diffeo import contexts, encodings, io, presets
from diffeo.bijections import Autoregressive, LogTails
from diffeo.elementwise import RationalQuadratic
from diffeo.encodings import kinds
from diffeo.encodings.base import Encoding
from diffeo.errors import ConfigError, DiffeoError, FormatError
from diffeo.functional.tails import NO_END
from diffeo.io import files
from diffeo.nets import Bounded
from diffeo.tables import Table, score_table

GOLDEN = Path(__file__).parents[1] / "golden"


def small(**fields: Any) -> diffeo.Flow:
    return stirred(presets.NSF(features=2, layers=2, hidden=8, blocks=1, bins=4, **fields).build())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    diffeo.save(small(), path)
    return path


def assert_same(a: diffeo.Flow, b: diffeo.Flow) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=0, equal_nan=True)


# -- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("context", [None, contexts.Vector(2), contexts.Classes(3)], ids=str)
def test_every_preset_comes_back(kind: str, context: Any, tmp_path: Path):
    flow = stirred(presets.PRESETS[kind](features=3, context=context, layers=2).build())
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    x = torch.randn(5, 3)
    given = {
        None: None,
        contexts.Vector(2): torch.randn(5, 2),
        contexts.Classes(3): torch.tensor([0, 1, 2, 1, 0]),
    }
    with torch.no_grad():
        assert torch.equal(flow.log_prob(x, given[context]), again.log_prob(x, given[context]))
    assert_same(flow, again)
    assert repr(flow) == repr(again)
    assert not any(module.training for module in again.modules())
    diffeo.save(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype, tmp_path: Path):
    flow = small(context=contexts.Classes(3)).to(dtype)
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    assert_same(flow, again)
    before, after = dict(flow.named_buffers()), dict(again.named_buffers())  # the unsaved ones too
    assert {k: v.dtype for k, v in before.items()} == {k: v.dtype for k, v in after.items()}


def test_mixed_dtypes_are_kept(tmp_path: Path):
    flow = small()
    name, value = next(iter(flow.named_parameters()))
    value.data = value.data.double()
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    assert again.get_parameter(name).dtype == torch.float64
    assert_same(flow, again)


def test_weights_that_are_not_finite_are_kept(tmp_path: Path):
    flow = small()
    next(flow.parameters()).data.view(-1)[:2] = torch.tensor([torch.nan, torch.inf])
    diffeo.save(flow, tmp_path / "model")
    assert_same(flow, diffeo.load(tmp_path / "model"))


def test_saving_and_loading_draw_no_random_numbers(tmp_path: Path):
    flow = small()
    state = torch.get_rng_state()
    diffeo.save(flow, tmp_path / "model")
    diffeo.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)


def test_loading_depends_on_no_global_default(model: Path):
    expected = diffeo.load(model)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            again = diffeo.load(model)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(expected, again)


def test_any_safetensors_reader_reads_it(model: Path):
    tensors = safetensors.torch.load_file(model)
    flow = diffeo.load(model)
    assert tensors.keys() == flow.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in flow.state_dict().items())


def test_inspect_tells_without_reading_weights(tmp_path: Path):
    flow = small()
    flow.notes = {"quantiles": [1.0, 2.5], "columns": ["é"]}
    diffeo.save(flow, tmp_path / "model")
    info = io.inspect(tmp_path / "model")
    assert (info.format, info.version, info.encoding) == (io.FORMAT, diffeo.__version__, None)
    assert info.notes == {"quantiles": [1.0, 2.5], "columns": ["é"]}
    assert info.recipe is not None
    assert info.recipe["preset"] == "NSF"
    assert info.recipe["fields"]["bins"] == 4
    assert info.tensors == {name: (value.dtype, value.shape) for name, value in flow.state_dict().items()}


def test_a_tables_columns_come_back(tmp_path: Path):
    columns = encodings.Columns(
        [
            encodings.Column("size", kinds.Positive(), loc=0.5, scale=2.0),
            encodings.Column("unit", kinds.Constant(7.0)),
            encodings.Column("count", kinds.Integer(), "int64", loc=3.0, scale=1.5),
        ]
    )
    flow = presets.NSF(features=2, layers=1, hidden=8).build(columns).eval()
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    x = torch.tensor(
        [[0.3, 7.0, 2.0], [5.0, 7.0, 4.0], [-1.0, 7.0, 4.0], [1.0, 8.0, 4.0]], dtype=torch.float64
    )
    with torch.no_grad():
        expected = flow.log_prob(x)
        assert torch.equal(again.log_prob(x), expected)
    assert expected.isneginf().tolist() == [False, False, True, True]
    assert isinstance(again.encoding, encodings.Columns)
    assert again.encoding.to_json() == columns.to_json()


class Shift(Encoding):
    """A stand-in encoding with a setting and a buffer."""

    exact = True

    def __init__(self, features: int):
        super().__init__()
        self.event_shape = self.latent_shape = torch.Size((features,))
        self.loc: Tensor
        self.register_buffer("loc", torch.zeros(features))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.loc)[None], torch.zeros(1, *x.shape[:-1])

    def decode(self, v: Tensor) -> Tensor:
        return v + self.loc

    def to_json(self) -> dict[str, Any]:
        return {"features": self.event_shape[0]}

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Shift:
        if type(spec.get("features")) is not int or not 0 < spec["features"] < 100:
            raise FormatError("features must be 1 to 99")
        return cls(spec["features"])


@pytest.fixture
def shifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(encodings, "ENCODINGS", {"Shift": Shift}, raising=False)
    encoding = Shift(2)
    encoding.loc.copy_(torch.tensor([1.0, 2.0]))
    diffeo.save(presets.NSF(features=2, layers=1, hidden=8).build(encoding), tmp_path / "model")
    return tmp_path / "model"


def test_the_encoding_comes_back(shifted: Path):
    flow = diffeo.load(shifted)
    assert isinstance(flow.encoding, Shift)
    assert flow.encoding.loc.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ({"kind": "Wavelet", "spec": {}}, "no encoding 'Wavelet'"),
        ({"kind": ["Shift"], "spec": {}}, "no encoding"),
        ({"kind": "Shift"}, "Shift encoding cannot be rebuilt"),
        ({"kind": "Shift", "spec": {"features": 10**12}}, "features must be 1 to 99"),
        ({"kind": "Shift", "spec": {"features": 3}}, "cannot be rebuilt"),
        (None, "the flow has no 'encoding.loc'"),
    ],
)
def test_encodings_that_cannot_be(encoding: Any, says: str, shifted: Path):
    forge(shifted, lambda about, table: about.update(encoding=encoding))
    refused(shifted, says)


# -- flows without a recipe that rebuilds them --------------------------------------------------


def by_hand() -> diffeo.Flow:
    flow = small()
    return diffeo.Flow(flow.bijection, flow.base)


def with_another_part() -> diffeo.Flow:
    flow = small()
    flow.bijection.extra = nn.Linear(2, 2)
    return flow


def with_another_family() -> diffeo.Flow:
    """The same names and shapes of tensors, another function."""
    flow = small()
    part = next(part for part in flow.modules() if isinstance(part, Autoregressive))
    part.family = RationalQuadratic(4, bound=5.0)
    return flow


def with_another_activation() -> diffeo.Flow:
    flow = small()
    part = next(part for part in flow.modules() if isinstance(part, Autoregressive))
    part.net.activation = torch.tanh
    return flow


def with_another_preset() -> diffeo.Flow:
    flow = small()
    flow.preset = presets.NSF(features=3)
    return flow


def of_ones_own() -> diffeo.Flow:
    flow = small()
    assert isinstance(flow.preset, presets.NSF)
    flow.preset = Own(flow.preset)
    return flow


class Own:
    """A builder that no file can name."""

    def __init__(self, inner: presets.Preset):
        self.inner = inner

    def build(self, encoding: Encoding | None = None) -> diffeo.Flow:
        return self.inner.build(encoding)


@pytest.mark.parametrize(
    "edited",
    [
        by_hand,
        with_another_part,
        with_another_family,
        with_another_activation,
        with_another_preset,
        of_ones_own,
    ],
)
def test_a_flow_its_preset_does_not_rebuild_is_refused_with_the_cure(edited: Callable, tmp_path: Path):
    flow = edited()
    with pytest.raises(ConfigError, match=r"weights_only=True.*load\(path, into=flow\)"):
        diffeo.save(flow, tmp_path / "model")
    assert os.listdir(tmp_path) == []
    diffeo.save(flow, tmp_path / "model", weights_only=True)
    with pytest.raises(ConfigError, match=r"into=flow"):
        diffeo.load(tmp_path / "model")
    other = edited()
    for value in other.parameters():
        value.data.zero_()
    assert diffeo.load(tmp_path / "model", into=other.train()) is other
    assert_same(flow, other)
    assert not other.training


@pytest.mark.parametrize(
    "kind",
    [kinds.Bounded(0, 1), kinds.Circular(0, 1), kinds.Integer(0, 3), kinds.Lattice(1, 0), kinds.Constant(1)],
    ids=repr,
)
def test_whole_numbers_stand_for_floats(kind: kinds.Kind, tmp_path: Path):
    """A file holds 1.0 where the user wrote 1: the same flow, not an edited one."""
    columns = encodings.Columns([encodings.Column("a", kind), encodings.Column("b", kinds.Continuous())])
    flow = presets.NSF(features=1 + kind.width, layers=1, hidden=4, max_scale=2).build(columns)
    diffeo.save(flow, tmp_path / "model")
    assert diffeo.load(tmp_path / "model").preset == flow.preset


def test_into_a_flow_that_does_not_fit_changes_nothing(model: Path, tmp_path: Path):
    for other, says in [
        (presets.NSF(features=3, layers=2, hidden=8, blocks=1, bins=4).build(), "shape"),
        (presets.NSF(features=2, layers=3, hidden=8, blocks=1, bins=4).build(), "lacks"),
        (presets.NSF(features=2, layers=1, hidden=8, blocks=1, bins=4).build(), "too many"),
        (small().double(), "convert the flow"),
    ]:
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(FormatError, match=says):
            diffeo.load(model, into=other)
        assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_preset_and_notes_come_back(tmp_path: Path):
    flow = small()
    flow.notes = {"rows": 3, "found": {"log Z": -1.5}}
    diffeo.save(flow, tmp_path / "model")
    again = diffeo.load(tmp_path / "model")
    assert again.preset == flow.preset
    assert again.notes == flow.notes
    twin = copy.deepcopy(again)
    assert (twin.preset, twin.notes) == (flow.preset, flow.notes)
    twin.notes["rows"] = 4
    assert again.notes["rows"] == 3


def test_notes_come_with_the_weights(tmp_path: Path):
    flow, other = by_hand(), by_hand()
    flow.notes = {"rows": 3}
    diffeo.save(flow, tmp_path / "model", weights_only=True)
    assert diffeo.load(tmp_path / "model", into=other).notes == {"rows": 3}
    assert other.preset is None


def test_notes_do_not_make_a_flow_another(tmp_path: Path):
    flow = small()
    diffeo.save(flow, tmp_path / "plain")
    flow.notes = {"rows": 3}
    diffeo.save(flow, tmp_path / "noted")
    assert repr(diffeo.load(tmp_path / "plain")) == repr(diffeo.load(tmp_path / "noted"))


@pytest.mark.parametrize("notes", [{"x": object()}, {"x": {1, 2}}, {"x": torch.zeros(1)}, ["x"], None])
def test_notes_that_are_not_json_are_refused(notes: Any, tmp_path: Path):
    flow = small()
    flow.notes = notes
    with pytest.raises(ConfigError, match="plain JSON"):
        diffeo.save(flow, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_tensor_no_file_can_hold_is_refused(tmp_path: Path):
    flow = small()
    flow.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(ConfigError, match="'odd'"):
        diffeo.save(flow, tmp_path / "model", weights_only=True)


# -- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    broken: str, model: Path, monkeypatch: pytest.MonkeyPatch
):
    before = model.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    flow = presets.NSF(features=3).build()
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="disk full"):
            diffeo.save(flow, model)
    assert os.listdir(model.parent) == [model.name]
    assert model.read_bytes() == before


def test_a_save_replaces_and_follows_links(model: Path):
    link = model.parent / "link"
    link.symlink_to(model)
    diffeo.save(presets.NSF(features=3, layers=1, hidden=8).build(), link)
    assert link.is_symlink()
    assert diffeo.load(model).event_shape == (3,)
    assert sorted(os.listdir(model.parent)) == ["link", model.name]


def test_only_a_regular_file_is_replaced(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with pytest.raises(ConfigError, match="not a regular file"):
            diffeo.save(small(), path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


# -- damage -----------------------------------------------------------------------------------


def refused(path: Path, says: str = ".", error: type[DiffeoError] = FormatError) -> None:
    with pytest.raises(error, match=says) as caught:
        diffeo.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 700


def header_size(raw: bytes) -> int:
    return 8 + int.from_bytes(raw[:8], "little")


def test_truncation_anywhere_is_noticed(model: Path):
    raw = model.read_bytes()
    start = header_size(raw)
    for size in [*range(1, 16), *range(16, start + 64, 37), *range(start + 64, len(raw), 1009), len(raw) - 1]:
        model.write_bytes(raw[:size])
        refused(model)


def test_trailing_bytes_are_noticed(model: Path):
    model.write_bytes(model.read_bytes() + b"\0")
    refused(model, "longer")


def test_a_flipped_bit_anywhere_in_the_header_is_noticed(model: Path):
    raw = model.read_bytes()
    for i in [*range(8), *range(8, header_size(raw), 5)]:
        flipped = bytearray(raw)
        flipped[i] ^= 1 << (i % 8)
        model.write_bytes(flipped)
        refused(model)


def test_a_flipped_bit_in_the_weights_is_noticed(model: Path):
    raw = model.read_bytes()
    start = header_size(raw)
    for i in [start, *range(start, len(raw), 997), len(raw) - 1]:
        flipped = bytearray(raw)
        flipped[i] ^= 1 << (i % 8)
        model.write_bytes(flipped)
        refused(model, "weights do not match their checksum")


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"a,b\n1,2\n3,4\n" * 9,
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04" + bytes(100),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (20000).to_bytes(8, "little") + b"[" * 20000,
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        safetensors.torch.save({"weight": torch.zeros(3)}),
        safetensors.torch.save({"weight": torch.zeros(3)}, {"format": "pt"}),
        safetensors.torch.save({"weight": torch.zeros(3)}, {"diffeo": "no", "sha256": ""}),
    ],
    ids=range(13),
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "foreign").write_bytes(content)
    refused(tmp_path / "foreign", "not a diffeo model file|not one that diffeo wrote")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        diffeo.load(tmp_path / "nothing")


def test_files_of_before_have_tails_without_an_end(tmp_path: Path):
    rows = torch.distributions.StudentT(2.0).sample((500, 2))
    old = presets.Tabular(2, layers=1, hidden=8, blocks=1, marginal=4).build()
    new = copy.deepcopy(old)
    for flow in (old, new):
        flow.initialize(rows)
    for layer in (m for m in old.modules() if isinstance(m, LogTails)):
        layer.register_buffer("ends", torch.full_like(layer.ends, NO_END), persistent=False)
    far = 1e4 * rows[:50]
    assert not torch.allclose(new.log_prob(far), old.log_prob(far))
    io.save(old, tmp_path / "old.safetensors", weights_only=True)
    assert not any(name.endswith("ends") for name in io.inspect(tmp_path / "old.safetensors").tensors)
    found = diffeo.load(tmp_path / "old.safetensors", into=new)
    assert torch.equal(found.log_prob(far), old.eval().log_prob(far))


# -- forgery: headers whose checksums are right -------------------------------------------------


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change the header as one who knows the format would."""
    raw = path.read_bytes()
    table = json.loads(raw[8 : header_size(raw)])
    about = json.loads(table.pop("__metadata__")["diffeo"])
    change(about, table)
    text = json.dumps(about)
    metadata = {"diffeo": text, "sha256": files.header_sum(text, table)}
    header = json.dumps({"__metadata__": metadata, **table}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[header_size(raw) :])


def test_forge_forges(model: Path):
    forge(model, lambda about, table: about["notes"].update(forged=True))
    assert io.inspect(model).notes == {"forged": True}
    diffeo.load(model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", 10**12),
        ("features", 10**400),
        ("features", -1),
        ("features", 0),
        ("features", True),
        ("features", 2.0),
        ("features", "2"),
        ("features", None),
        ("features", [2]),
        ("features", {"a": 1}),
        ("features", 3),
        ("layers", 10**9),
        ("layers", 3),
        ("hidden", 10**9),
        ("bins", 10**6),
        ("bins", float("nan")),
        ("bound", float("nan")),
        ("bound", float("inf")),
        ("bound", "3"),
        ("dropout", 1.0),
        ("context", {"kind": "Vector", "size": 10**12}),
        ("context", {"kind": "os.system", "size": 1}),
        ("context", ["Vector"]),
        ("build", "x"),
        ("__class__", "x"),
        ("unknown\nfield", 1),
    ],
)
def test_a_hostile_field_is_refused(field: str, value: Any, model: Path):
    forge(model, lambda about, table: about["recipe"]["fields"].update({field: value}))
    refused(model)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"preset": "NSF2", "fields": {}}, "no preset 'NSF2'; upgrade"),
        ({"preset": "Preset", "fields": {}}, "no preset"),
        ({"preset": ["NSF"], "fields": {}}, "no preset"),
        ({"preset": "x" * 10**6, "fields": {}}, "."),
        ({"fields": {}}, "no preset None"),
        ({"preset": "NSF"}, "cannot be rebuilt"),
        ({"preset": "NSF", "fields": None}, "cannot be rebuilt"),
        ({"preset": "NSF", "fields": ["features"]}, "cannot be rebuilt"),
        ({"preset": "NSF", "fields": {}}, "features"),
        ({"preset": "MAF", "fields": {"features": 2}}, "another flow's file"),
        ("NSF", "not one that diffeo wrote"),
    ],
    ids=range(11),
)
def test_a_hostile_recipe_is_refused(recipe: Any, says: str, model: Path):
    forge(model, lambda about, table: about.update(recipe=recipe))
    refused(model, says)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"format": 2, "version": "9.1"}, "written by diffeo 9.1 in format 2.*upgrade diffeo"),
        ({"format": 2, "recipe": 7, "later": []}, "upgrade diffeo"),
        ({"format": 10**30}, "upgrade diffeo"),
        ({"format": 0}, "not one that diffeo wrote"),
        ({"format": True}, "not one that diffeo wrote"),
        ({"format": "1"}, "not one that diffeo wrote"),
        ({"format": None}, "not one that diffeo wrote"),
        ({"version": 1}, "not one that diffeo wrote"),
        ({"notes": []}, "not one that diffeo wrote"),
        ({"sha256": 0}, "not one that diffeo wrote"),
        ({"sha256": "0"}, "do not match their checksum"),
        ({"surprise": 0}, "not one that diffeo wrote"),
    ],
    ids=str,
)
def test_a_newer_or_strange_header_is_refused(entries: dict[str, Any], says: str, model: Path):
    forge(model, lambda about, table: about.update(entries))
    refused(model, says)


def first(table: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in table.values() if entry["data_offsets"][0] == 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: first(t).update(shape=[10**12]),
        lambda t: first(t).update(shape=[10**12], data_offsets=[0, 8 * 10**12]),
        lambda t: first(t).update(shape=[2**62, 2**62, 0], data_offsets=[0, 0]),
        lambda t: first(t).update(shape=[-1]),
        lambda t: first(t).update(shape=[True]),
        lambda t: first(t).update(shape=[2.5]),
        lambda t: first(t).update(shape="12"),
        lambda t: first(t).update(shape=None),
        lambda t: first(t).update(dtype="F7"),
        lambda t: first(t).update(dtype=["F32"]),
        lambda t: first(t).update(data_offsets=[0]),
        lambda t: first(t).update(data_offsets=[4, 0]),
        lambda t: first(t).update(data_offsets=["0", "4"]),
        lambda t: first(t).pop("shape"),
        lambda t: t.update(first="x"),
        lambda t: t.update(copy=dict(first(t))),
        lambda t: t.pop(next(name for name in t if t[name] is first(t))),
        lambda t: t.clear(),
        lambda t: t.update(void={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    ],
    ids=range(19),
)
def test_a_tensor_that_cannot_be_is_refused(change: Callable, model: Path):
    forge(model, lambda about, table: change(table))
    refused(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"features": 64, "layers": 16, "hidden": 16384, "blocks": 32, "bins": 512},
        {"features": 16384},
        {"context": {"kind": "Vector", "size": 16384}, "hidden": 16384},
        {"context": {"kind": "Classes", "size": 16384}, "hidden": 16384},
    ],
    ids=str,
)
def test_a_recipe_within_every_cap_takes_no_more_memory_than_its_file_explains(
    fields: dict[str, Any], model: Path
):
    forge(model, lambda about, table: about["recipe"]["fields"].update(fields))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(model, "far more memory than its tensors take|far more parts than it has tensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


wide = {"features": 16384}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about, table: first(table).update(shape=[10**900] * 8000), "a tensor that cannot be"),
        (lambda about, table: first(table).update(shape=[10**4000] * 1900), "header is damaged"),
        (lambda about, table: about["notes"].update(x=[10**4000] * 1900), "not one that diffeo wrote"),
        (lambda about, table: about["recipe"]["fields"].update(features="x" * 10**6), "features"),
        (lambda about, table: about["recipe"]["fields"].update({"x " * 10**6: 1}), "no field"),
        (lambda about, table: about["recipe"]["fields"].update(layers=256, blocks=64), "far more"),
        (lambda about, table: about.update(encoding=integers(20_000, 4096)), "4096 draws for each of 20,000"),
        (lambda about, table: about.update(encoding=integers(20_000, 1, "x")), "used for two columns"),
        (lambda about, table: about.update(recipe=tabular(range(0, 16384, 2))), "far more"),
        (lambda about, table: about["recipe"].update(preset="Gaussianization", fields=wide), "far more"),
    ],
    ids=range(10),
)
def test_caps_are_budgets_of_their_product(change: Callable, says: str, model: Path):
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    forge(model, change)
    sys.set_int_max_str_digits(digits)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused(model, says)
    assert time.process_time() - start < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def integers(columns: int, draws: int, twice: str = "") -> dict[str, Any]:
    """The encoding of so many columns of whole numbers, the last two of one name where one is given."""
    kind = kinds.Integer().to_json()
    names = [str(i) for i in range(columns - 2)] + [twice or "y", twice or "z"]
    found = [{"name": n, "kind": kind, "dtype": "int64", "loc": 0.0, "scale": 1.0} for n in names]
    return {"kind": "Columns", "spec": {"columns": found, "given": [], "weights": None, "draws": draws}}


def tabular(circular: range) -> dict[str, Any]:
    return {"preset": "Tabular", "fields": {"features": 16384, "circular": list(circular)}}


def renote(path: Path, notes: str) -> None:
    """Put another text for the notes into the header, its checksum right."""
    raw = path.read_bytes()
    table = json.loads(raw[8 : header_size(raw)])
    text = table.pop("__metadata__")["diffeo"].replace('"notes": {}', notes)
    metadata = {"diffeo": text, "sha256": files.header_sum(text, table)}
    header = json.dumps({"__metadata__": metadata, **table}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[header_size(raw) :])


@pytest.mark.parametrize("depth", [300, 5000, 100_000])
def test_notes_of_any_depth_are_read_or_refused(depth: int, model: Path):
    renote(model, '"notes": {"x": ' + "[" * depth + "]" * depth + "}")
    if depth == 300:
        assert diffeo.load(model).notes
    else:
        refused(model, "not one that diffeo wrote")


def test_a_name_that_stands_twice_is_refused(model: Path):
    renote(model, '"notes": {}, "notes": {"x": 1}')
    refused(model, "not one that diffeo wrote")


def test_what_load_refuses_is_not_written(tmp_path: Path):
    flow = small()
    flow.notes = {"x": 10**2000}
    with pytest.raises(ConfigError, match="2001 digits"):
        diffeo.save(flow, tmp_path / "model")


def test_a_deep_flow_of_small_parts_comes_back(tmp_path: Path):
    flow = presets.NSF(features=2, layers=40, hidden=1, blocks=4, bins=2).build()
    diffeo.save(flow, tmp_path / "model")
    assert_same(flow, diffeo.load(tmp_path / "model"))


# -- releases ---------------------------------------------------------------------------------


def golden(suffix: str) -> Any:
    """A test of every release's file of this kind."""
    found = sorted(GOLDEN.glob(f"*[0-9]{suffix}.safetensors"))
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


@pytest.mark.parametrize("suffix", ["", "-table"])
def test_this_release_has_its_golden_files(suffix: str):
    path = GOLDEN / f"{diffeo.__version__}{suffix}.safetensors"
    assert path.exists(), "run tests/golden/make.py"


def noted(flow: diffeo.Flow, *names: str) -> list[Tensor]:
    return [torch.tensor(flow.notes[name], dtype=torch.float64) for name in names]


@golden("")
def test_the_files_of_every_release_load_and_score_the_same(path: Path):
    flow = diffeo.load(path)
    x, context, z, log_prob = noted(flow, "x", "context", "z", "log_prob")
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.to_latent(x, context), z, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(flow.to_data(z, context), x, rtol=1e-7, atol=1e-7)


@golden("")
def test_nets_of_older_files_see_without_bound_and_stay_so(path: Path, tmp_path: Path):
    with open(path, "rb") as file:
        had_one = any(name.endswith("reach") for name in files.read_header(file).tensors)
    flow = diffeo.load(path)
    reaches = [float(net.reach) for net in flow.modules() if isinstance(net, Bounded)]
    assert reaches
    assert had_one or set(reaches) == {math.inf}
    diffeo.save(flow, tmp_path / "again")
    again = diffeo.load(tmp_path / "again")
    x, context = (100 * t for t in noted(flow, "x", "context"))
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    if not had_one:
        for net in again.modules():
            if isinstance(net, Bounded):
                net.reach.fill_(10.0)
        assert not torch.equal(again.log_prob(x, context), flow.log_prob(x, context))


@golden("-table")
def test_the_tables_of_every_release_load_and_score_the_same(path: Path):
    flow = diffeo.load(path)
    x, log_prob, quantile = noted(flow, "x", "log_prob", "quantile")
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    assert isinstance(flow.encoding, encodings.Columns)
    scores = score_table(flow, Table.from_values(flow.encoding.names, x.numpy()))
    np.testing.assert_allclose(scores.quantile, quantile.numpy(), rtol=1e-9, atol=1e-9)
