"""Which models are measured, how, on which page they are reported, and the Markdown of a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kit

from peers.libraries import COMPILED, ENTRIES, FLOOR, OURS, PEERS
from peers.spec import IMAGES, LAYERED

TIMED = ("log_prob", "train", "sample")
MEMORY, ROUND_TRIP = "memory", "round_trip"
KINDS = (*TIMED, MEMORY, ROUND_TRIP)


@dataclass(frozen=True)
class Plan:
    """What is measured of a model: kinds of rows, numbers of columns, batch sizes."""

    rows: tuple[str, ...]
    features: tuple[int, ...]
    batch: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """A report of its own, RESULTS/name.json and RESULTS/name.md, so that a run of one leaves the others."""

    name: str
    title: str
    flows: str
    """What every contestant builds, in words."""
    plans: Mapping[str, Plan]


PAGES = (
    Page(
        "peers",
        "diffeo beside other libraries",
        "Five layers, nets of 64 x 64 hidden units with ReLU, splines of 8 bins on [-3, 3].",
        dict.fromkeys(LAYERED, Plan((*TIMED, MEMORY), (8, 64), (256, 1024, 16384))),
    ),
    Page(
        "peers_free_form",
        "Residual and continuous flows beside other libraries",
        "Nets of 64 x 64 hidden units. ResidualFlow: five blocks x + g(x), LipSwish, the norms of a net's "
        "layers with a product of at most 0.97; each net is fitted to 0.9 Q tanh(x), Q a random rotation, as "
        "near as its library's bound lets it, so that the inverse has to work. FFJORD: one field with tanh "
        "and three pairs of time features, the same weights in each library, which move points by some 0.8; "
        "exact traces, tolerance 1e-5 absolute and relative.",
        {
            "ResidualFlow": Plan(("sample", ROUND_TRIP), (2, 8), (256, 1024)),
            "FFJORD": Plan((*TIMED, ROUND_TRIP), (2, 8), (256, 1024)),
        },
    ),
    Page(
        "peers_images",
        "Glow beside other libraries",
        "Square images with sides of D pixels. Three levels of eight steps: activation normalization, 1 x 1 "
        "convolution by LU factors, affine coupling of channels by a net of 3 x 3, 1 x 1 and 3 x 3 "
        "convolutions with 64 channels between.",
        dict.fromkeys(IMAGES, Plan((*TIMED, MEMORY, ROUND_TRIP), (32, 64), (16, 64))),
    ),
)
PLANS = {model: plan for page in PAGES for model, plan in page.plans.items()}

# -- Markdown -----------------------------------------------------------------------------------------

TITLES = {
    "log_prob": "log_prob, milliseconds",
    "train": "Training step (forward, backward, Adam), milliseconds",
    "sample": "Sample, milliseconds",
    MEMORY: "Peak memory of a training step, MB above the process at rest",
    ROUND_TRIP: "Round trip, the largest |forward(inverse(z)) - z|",
}
BELOW = 2.0

Found = dict[str, Any]


def markdown(page: Page, found: Found) -> str:
    """Headline, one table a kind, the flows' sizes, versions."""
    kinds = {kind: [row for row in found["rows"] if row["kind"] == kind] for kind in TITLES}
    timed = [row for row in found["rows"] if row["kind"] in TIMED]
    parts = [f"# {page.title}", *_headline(timed, "Time"), *_headline(kinds[MEMORY], "Memory")]
    parts += [*([_below(timed)] if timed else []), _how(found)]
    for kind, rows in kinds.items():
        parts += [f"## {TITLES[kind]}", _table(rows)] if rows else []
    parts += ["## The flows", _flows(page, found["flows"]), *_notes(found["flows"])]
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    return "\n\n".join([*parts, "## Versions", versions]) + "\n"


def best_peer(row: Found) -> tuple[float, str] | None:
    """The peer with the smallest figure; of one that was not run, what it takes at least."""
    cells = {peer: row["cells"].get(peer) or {"failed": ""} for peer in PEERS}
    known = [(c.get("median", c.get("above")), peer) for peer, c in cells.items() if "failed" not in c]
    return min(known, default=None)


def ratio(row: Found, name: str = OURS) -> float | None:
    """The best peer's figure over ours: above 1 where we are better."""
    best, ours = best_peer(row), row["cells"].get(name, {}).get("median")
    return None if best is None or not ours or ours <= 0 else best[0] / ours


def to_floor(row: Found, name: str = OURS) -> float | None:
    """Our time over that of the nets' dense products."""
    ours, floor = (row["cells"].get(n, {}).get("median") for n in (name, FLOOR))
    return ours / floor if ours and floor else None


def _place(row: Found) -> str:
    return f"{row['model']}, D = {row['features']}, batch {row['batch']}, {row['kind']}"


def _ratios(rows: list[Found]) -> list[tuple[float, str, Found]]:
    """Ratio, best peer and row, the least first, of the rows that have one."""
    known = [(ratio(row), best_peer(row)[1], row) for row in rows if ratio(row) is not None]
    return sorted(known, key=lambda found: found[0])


def _headline(rows: list[Found], what: str) -> list[str]:
    if not (known := _ratios(rows)):
        return []
    (least, best, row), over = known[0], sum(r >= BELOW for r, _, _ in known)
    return [
        f"**{what}: the best peer's over diffeo's is at least {least:.2f}** ({_place(row)}, against "
        f"{best}); {over} of {len(known)} rows are at {BELOW:g} or above."
    ]


def _below(rows: list[Found]) -> str:
    """Rows where the fastest peer takes less than twice our time, and how far we are from the floor there."""
    if not (known := [found for found in _ratios(rows) if found[0] < BELOW]):
        return f"No timed row is below {BELOW:g}."
    floor = any(FLOOR in row["cells"] for row in rows)
    head = ["row", "fastest peer", "peer / diffeo"]
    head += ["diffeo / floor", "peer / compiled", "compiled / floor"] if floor else []
    lines = []
    for r, best, row in known:
        more = [to_floor(row), ratio(row, COMPILED), to_floor(row, COMPILED)] if floor else []
        lines.append([_place(row), best, f"{r:.2f}", *map(_number, more)])
    return f"Timed rows below {BELOW:g}:\n\n" + kit.markdown(head, lines)


def _how(found: Found) -> str:
    place, asked = found["machine"], found["options"]
    present = {name for row in found["rows"] for name in row["cells"]}
    where = f"{place['processor']}, {place['threads']} threads of {place['cores']} cores, {place['system']}"
    told = f"""{where}, {place["date"]}, {found.get("minutes", "?")} minutes.

Float32. Contestants are timed in turns, one process each, in up to {asked["rounds"]} rounds; a cell is the
median and, in brackets, least and greatest. n = 1: a single timing, as a second would have gone over
{asked["cell_seconds"]:g} s a cell. `> X`: not run, as smaller batches foretell at least X.\
{WAITS if present & {COMPILED, "FlowJAX"} else ""}
The libraries on PyTorch take `torch.optim.Adam(fused=True)`, diffeo the step of its own `fit`.
`log_prob` and `sample` are without gradients."""
    return told + (FLOORED if FLOOR in present else "")


WAITS = """ FlowJAX is jitted;
what it and `torch.compile` make one wait before the first result stands behind the comma and is in no
median."""
FLOORED = """ The floor is the time of the nets' dense matrix products
alone, measured in the same rounds: once for `log_prob` and `sample`, three times for a training step."""


def _table(rows: list[Found]) -> str:
    kind, present = rows[0]["kind"], {name for row in rows for name in row["cells"]}
    names = [name for name in ENTRIES if name in present]
    extra = {} if kind == ROUND_TRIP else {"best peer / diffeo": _ratio}
    extra |= {"diffeo / floor": lambda row: _number(to_floor(row))} if FLOOR in present else {}
    lines = []
    for row in rows:
        cells = [cell(row["cells"].get(name), name, kind) for name in names]
        place = [row["model"], str(row["features"]), str(row["batch"])]
        lines.append([*place, *cells, *(shown(row) for shown in extra.values())])
    return kit.markdown(["model", "D", "batch", *names, *extra], lines)


def cell(found: Found | None, name: str, kind: str) -> str:
    if not found:
        return ""
    if "failed" in found:
        return f"failed: {found['failed']}"
    if "above" in found:
        return f"> {_figure(1e3 * found['above'])}"
    if kind in (MEMORY, ROUND_TRIP):
        return f"{found['median']:{'.1f' if kind == MEMORY else '.1e'}}"
    times = found["median"], found["seconds"][0], found["seconds"][-1]
    middle, least, greatest = (_figure(1e3 * t) for t in times)
    spread = f"({least}-{greatest})" if len(found["seconds"]) > 1 else "(n = 1)"
    wait = f", {found['wait']:.1f} s" if name in (COMPILED, "FlowJAX") else ""
    return f"{middle} {spread}{wait}"


def _flows(page: Page, flows: list[Found]) -> str:
    names = [n for n in ENTRIES if n not in (FLOOR, COMPILED) and any(n in f["contestants"] for f in flows)]
    lines = []
    for flow in flows:
        built = [flow["contestants"].get(name, {}).get("parameters") for name in names]
        counts = ["-" if n is None else f"{n:,}" for n in built]
        lines.append([flow["model"], str(flow["features"]), f"{flow['expected']:,}", *counts])
    head = ["model", "D", "by the architecture", *names]
    return f"{page.flows} Parameters:\n\n{kit.markdown(head, lines)}"


def _notes(flows: list[Found]) -> list[str]:
    notes: dict[tuple[str, str], dict[str, None]] = {}
    for flow in flows:
        for name, built in flow["contestants"].items():
            if note := built.get("missing") or built.get("note"):
                notes.setdefault((name, note), {})[flow["model"]] = None
    lines = [f"- {name}, {', '.join(models)}: {note}." for (name, note), models in notes.items()]
    return ["\n".join(lines)] if lines else []


def _figure(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(row: Found) -> str:
    """In bold where it falls short; `>` where the best peer was not run."""
    if (value := ratio(row)) is None:
        return ""
    bound = "> " if "above" in row["cells"][best_peer(row)[1]] else ""
    return f"**{value:.2f}**" if value < BELOW else f"{bound}{value:.2f}"
