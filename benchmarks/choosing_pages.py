"""What ``choosing.py`` keeps and shows: its rows as JSON lines, their page, and the tables of the guide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kit
from kit import Row

KINDS_OF_CALL = {"log_prob": "`log_prob`", "step": "training step", "sample": "`sample`"}
COLUMNS = (8, 64)
TABLES = ("power", "protein")
SPECIAL = ("one column", "heavy tails")
PLAIN = {"Gaussian": "a Gaussian", "mixture": "a mixture of 20"}


# -- rows ---------------------------------------------------------------------------------------------


def store(folder: Path) -> kit.Store:
    """Rows by what they are of: part, preset, and where."""
    return kit.Store(folder / "choosing.jsonl", "part", "preset", "where")


def setting(fields: dict[str, Any], seconds: float) -> str:
    """What a run of the sweep is called."""
    changed = ", ".join(f"{name}={value}" for name, value in fields.items()) or "defaults"
    return f"{changed}, {seconds:g} s"


def known(rows: list[Row], part: str) -> dict[tuple[str, str], Row]:
    """The rows of a part, by preset and where."""
    return {(row["preset"], row["where"]): row for row in rows if row["part"] == part}


def best_first(rows: list[Row]) -> list[str]:
    """All presets, those with the most test nats on both tables first."""
    quality = known(rows, "quality")
    names = dict.fromkeys(row["preset"] for row in rows if row["part"] in ("speed", "quality"))

    def nats(name: str) -> float:
        found = [quality[name, table]["test"] for table in TABLES if (name, table) in quality]
        return sum(found) if len(found) == len(TABLES) else float("-inf")

    return sorted((name for name in names if name not in PLAIN), key=nats, reverse=True)


# -- tables -------------------------------------------------------------------------------------------


def speed(rows: list[Row], columns: tuple[int, ...] = COLUMNS) -> str:
    """Milliseconds a call of a batch, of the presets that were measured at the last of these columns."""
    cells = known(rows, "speed")
    head = ["preset", *(f"{name}, D = {d}" for d in columns for name in KINDS_OF_CALL.values())]
    lines = []
    for preset in best_first(rows):
        line = [_ms(cells.get((preset, f"{d} {kind}"))) for d in columns for kind in KINDS_OF_CALL]
        if (preset, f"{columns[-1]} step") in cells:
            lines.append([f"`{preset}`", *line])
    return kit.markdown(head, lines)


def wide(rows: list[Row]) -> str:
    """The same of a wide table."""
    return speed(rows, (256,))


def quality(rows: list[Row]) -> str:
    """Test nats on both tables, and what a fit got done."""
    cells = known(rows, "quality")
    head = ["preset", "parameters", *(f"{name}, test nats" for name in TABLES)]
    head += [f"{name}: steps, CPU s" for name in TABLES]
    lines = []
    for preset in [*best_first(rows), *PLAIN]:
        found = [cells.get((preset, name)) for name in TABLES]
        size = next((f"{row['parameters']:,}" for row in found[1:] if row and "parameters" in row), "")
        shown = PLAIN.get(preset, f"`{preset}`")
        steps = [f"{row['steps']:,}, {row['seconds']:.0f}" if row and "steps" in row else "" for row in found]
        lines.append([shown, size, *(_nats(row) for row in found), *steps])
    return kit.markdown(head, lines)


def trained(rows: list[Row]) -> str:
    """What a row costs after the fits of ``quality``, whose maps are harder than those of ``speed``."""
    cells = known(rows, "quality")
    head = ["preset", *(f"{name}: {what}" for name in TABLES for what in ("score", "sample", "worst row"))]
    lines = []
    for preset in best_first(rows):
        line = [f"`{preset}`"]
        for name in TABLES:
            row = cells.get((preset, name))
            worst = "not run" if row is None else f"{row['worst']:,.1f}"
            line += [_micro(row, "score_us"), _micro(row, "sample_us"), worst]
        lines.append(line)
    return kit.markdown(head, lines)


def special(rows: list[Row]) -> str:
    """Gaps to exact densities."""
    cells = known(rows, "special")
    lines = []
    for preset in [*best_first(rows), *PLAIN]:
        shown = PLAIN.get(preset, f"`{preset}`")
        lines.append([shown, *(_gap(cells.get((preset, where))) for where in SPECIAL)])
    return kit.markdown(["preset", *(f"{where}, gap" for where in SPECIAL)], lines)


def sweep(rows: list[Row]) -> str:
    """What other sizes change, after each of the times that were tried."""
    cells = known(rows, "sweep")
    times = sorted({row["budget"] for row in cells.values()})
    settings = sorted({json.dumps(row["fields"]): row for row in cells.values()}.values(), key=_place)
    head = [
        "`NSF` with",
        "parameters",
        *(f"{t:g} s: {what}" for t in times for what in ("steps", "test nats")),
    ]
    lines = []
    for row in settings:
        shown = [f"`{k}={v}`" for k, v in row["fields"].items()] or ["defaults"]
        line = [*shown, f"{row['parameters']:,}"]
        for t in times:
            own = cells.get(("NSF", setting(row["fields"], t)))
            line += [f"{own['steps']:,}" if own else "", _nats(own)]
        lines.append(line)
    return kit.markdown(head, lines)


def few(rows: list[Row]) -> str:
    """Few training rows."""
    cells = known(rows, "rows")
    lines = []
    for name, n in sorted({(row["table"], row["rows"]) for row in cells.values()}, key=_protein_first):
        found = [cells.get((preset, f"{name} {n}")) for preset in (*PLAIN, "NSF", "Tabular")]
        lines.append([f"{name}, {n:,}", *(_nats(row) for row in found)])
    return kit.markdown(["rows of", *PLAIN.values(), "`NSF`", "`Tabular`, small"], lines)


def _protein_first(place: tuple[str, int]) -> tuple[bool, int]:
    return place[0] != "protein", place[1]


def _place(row: Row) -> tuple[Any, ...]:
    """The defaults first, then by field and value."""
    return tuple(row["fields"].items())


def _ms(row: Row | None) -> str:
    if row is None:
        return "not run"
    return row["skipped"].removeprefix("a call takes ") if "skipped" in row else significant(row["ms"])


def _micro(row: Row | None, name: str) -> str:
    if row is None:
        return "not run"
    return significant(row[name]) if name in row else "failed"


def _nats(row: Row | None) -> str:
    if row is None:
        return "not run"
    return row.get("failed") or f"{row['test']:.2f} ± {row['standard_error']:.2f}"


def _gap(row: Row | None) -> str:
    if row is None:
        return "not run"
    return row.get("failed") or f"{-row['test']:.3f} ± {row['standard_error']:.3f}"


def significant(value: float) -> str:
    """Two digits or more: 0.45, 4.5, 45, 4,500."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def commands(rows: list[Row]) -> str:
    """A paragraph a command: of its rows one that was fitted, if there is one."""
    found = {row["command"]: row for row in rows} | {row["command"]: row for row in rows if "budget" in row}

    def about(row: Row) -> str:
        return f"{row['budget']:g} s a fit, seed {row['seed']}. " if "budget" in row else ""

    return "\n\n".join(kit.made_by(found.values(), about, lambda own: ""))


BLOCKS: dict[str, Callable[[list[Row]], str]] = {
    "speed": speed,
    "wide": wide,
    "quality": quality,
    "trained": trained,
    "special": special,
    "sweep": sweep,
    "few": few,
    "commands": commands,
}


def blocks(rows: list[Row]) -> dict[str, str]:
    """What the page of all figures and the guide have of them."""
    return {name: make(rows) for name, make in BLOCKS.items()}
