"""The documentation does what it says: its code runs, its commands exist, its lists are complete."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
import torch
import typer.main
from matplotlib import pyplot
from typer.testing import CliRunner

import diffeo
from diffeo.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs" / "reference.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
API = sorted((ROOT / "docs" / "api").glob("*.md"))
CONSTANTS = {
    "PRESETS",
    "ENCODINGS",
    "CONTEXTS",
    "FORMAT",
    "LAYERS_FORMAT",
    "State",
    "COLORS",
    "DARK",
    "STYLE",
}
"""Names that no page of the API shows."""
GALLERY = sorted((ROOT / "examples" / "gallery").glob("*.py"))
MADE = {ROOT / "docs" / "gallery" / f"{name}.md" for name in ("index", *(script.stem for script in GALLERY))}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ROOMS = {name for name in diffeo.__all__ if isinstance(getattr(diffeo, name), ModuleType)}
LISTED = sorted(ROOMS - {"functional", "plots", "errors"})
"""Rooms whose every public name is in the reference."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the line it starts on."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of every ``diffeo`` call in a block of shell."""
        if self.language not in ("sh", "console"):
            return []
        start = r"^\$ diffeo " if self.language == "console" else r"^diffeo "
        lines = (line for line in self.text.splitlines() if re.match(start, line))
        return [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in lines]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def public(room: str) -> set[str]:
    """What a room says is public; of a module that does not say, the classes it defines."""
    module = importlib.import_module(f"diffeo.{room}")
    classes = {name for name, thing in vars(module).items() if isinstance(thing, type)}
    own = {name for name in classes if getattr(module, name).__module__ == module.__name__}
    return set(getattr(module, "__all__", own))


def title(page: Path) -> str:
    """A page's first heading."""
    return next(line for line in read(page).splitlines() if line.startswith("# ")).removeprefix("# ")


def blocks(page: Path) -> list[Block]:
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", read(page), re.M | re.S)
    return [Block(m[1], m[2], read(page)[: m.start()].count("\n") + 1) for m in found]


def hurried(text: str) -> str:
    """The same with small budgets: a test wants to know that it runs."""
    text = re.sub(r"max_seconds=[\d.]+", "max_seconds=2", text)
    text = re.sub(r"--max-seconds [\d.]+", "--max-seconds 2", text)
    return re.sub(r"max_steps=\d+", "max_steps=20", text)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEO_DATA", raising=False)  # scripts take it for pictures of their own
    torch.manual_seed(0)
    yield tmp_path
    for name, module in list(sys.modules.items()):  # two pages may name a module alike
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_blocks_run_in_order_in_an_empty_folder(page, empty_folder):
    names: dict = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            # the page's own lines in tracebacks
            exec(compile("\n" * block.line + hurried(block.text), str(page), "exec"), names)
        for arguments in block.commands:
            quick = hurried(" ".join(map(shlex.quote, arguments)))
            result = CliRunner().invoke(app, shlex.split(quick))
            assert result.exit_code == 0, (page.name, arguments, result.output, result.exception)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(example, empty_folder, capsys):
    copy = empty_folder / example.name
    copy.write_text(hurried(read(example)), encoding="utf-8")
    runpy.run_path(str(copy), run_name="__main__")
    assert capsys.readouterr().out
    assert f"python examples/{example.name}" in read(example)
    assert example.name in read(ROOT / "docs" / "index.md")


@pytest.mark.parametrize("script", GALLERY, ids=lambda p: p.stem)
def test_the_gallerys_scripts_draw_their_pictures(script, empty_folder, capsys):
    copy = empty_folder / script.name
    copy.write_text(hurried(read(script)), encoding="utf-8")
    with matplotlib.rc_context():
        matplotlib.use("Agg")
        try:
            runpy.run_path(str(copy), run_name="__main__")
        finally:
            pyplot.close("all")
    assert capsys.readouterr().out
    drawn = {path.name for path in empty_folder.iterdir()} - {script.name}
    assert f"{script.stem}.svg" in drawn, drawn
    assert all(name.startswith(script.stem) for name in drawn), "a figure's files bear its name"
    assert f"python examples/gallery/{script.name}" in read(script)
    for name in (*drawn, f"{script.stem}.txt"):
        assert (ROOT / "docs" / "gallery" / name).exists(), f"make gallery has not made {name}"


def benchmark_options(script: str, measurement: str | None = None) -> set[str]:
    """The options of a script of ``benchmarks`` or, of measure.py, those of the measurement."""
    sys.path.append(str(ROOT / "benchmarks"))
    try:
        if script == "measure":
            return importlib.import_module("measurements").named(measurement).parser().names
        return importlib.import_module(script).options().names
    finally:
        sys.path.pop()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_exist(page):
    text = read(page)
    for name in re.findall(r"(?:`|^\$ )diffeo (\w+)", text, re.M):
        assert name in COMMANDS, f"{page.name}: there is no command diffeo {name}"
    commands = [*COMMANDS.values()]
    commands += [below for group in commands for below in getattr(group, "commands", {}).values()]
    known = {o for command in commands for p in command.params for o in p.opts + p.secondary_opts}
    for line in text.splitlines():
        script = re.search(r"benchmarks/(\w+)\.py(?: (\w+))?", line)
        own = benchmark_options(*script.groups()) if script else set()
        own |= benchmark_options("peers.__main__") if "make bench" in line else set()
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", line):
            pips = {"--index-url"} if "pip install" in line else set()
            assert option in own | pips | known | {"--help", "--version"}, f"{page.name}: no option {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_a_line(name):
    for below in getattr(COMMANDS[name], "commands", ()):
        assert f"`diffeo {name} {below}" in read(REFERENCE)
    result = CliRunner().invoke(app, [name, "--help"])
    assert f"Example: diffeo {name}" in " ".join(result.output.split())
    assert f"`diffeo {name}" in read(REFERENCE)
    assert f"diffeo {name}" in read(ROOT / "README.md")


@pytest.mark.parametrize("room", LISTED)
def test_every_public_kind_is_in_the_reference(room):
    code = " ".join(re.findall(r"`([^`]+)`", read(REFERENCE)))
    named = set(re.findall(r"\w+", code))
    missing = public(room) - named
    assert not missing, f"docs/reference.md lacks {', '.join(sorted(missing))} of diffeo.{room}"


def test_the_reference_names_nothing_that_is_gone():
    known = set(diffeo.__all__)
    for room in LISTED:
        known |= public(room)
    rows = re.findall(
        r"^\| ((?:`\w+(?:\([^`]*\))?`(?:, )?)+) \|",
        read(REFERENCE),
        re.M,
    )
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert not named - known, f"docs/reference.md names {', '.join(sorted(named - known))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)\)", read(page)):
        if "://" not in link:
            path = (page.parent / link).resolve()
            assert path.exists() or path in MADE, f"{page.name} links to {link}"


def test_the_readme_is_short():
    assert len(read(ROOT / "README.md").splitlines()) < 120


def test_every_page_is_on_the_map():
    map_, navigation = ROOT / "docs" / "index.md", read(ROOT / "mkdocs.yml")
    assert "](docs/index.md)" in read(ROOT / "README.md")
    listed = {link: text for text, link in re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", read(map_), re.M)}
    for page in PAGES[1:]:
        path = page.relative_to(map_.parent).as_posix()
        if page.parent.name == "api":  # the site's own; reference.md is the map of names
            assert f"- {path}\n" in navigation, f"mkdocs.yml does not lead to {path}"
        else:
            assert page == map_ or path in listed, f"docs/index.md does not lead to {path}"
    for link, text in listed.items():
        page = (map_.parent / link).resolve()
        assert page in MADE or title(page) == text, f"docs/index.md calls {link} by another title"


def test_the_map_and_the_navigation_have_the_same_groups():
    groups: dict[str, list[str]] = {}
    for line in read(ROOT / "docs" / "index.md").splitlines():
        if line.startswith("## "):
            groups[line.removeprefix("## ")] = []
        elif linked := re.match(r"\| \[.+?\]\((?:.*/)?([\w.]+)\) \|", line):
            [*groups.values()][-1].append(linked[1].lower())
    entry = r"^  - ([\w ]+):$|^      - (?:Gallery: )?(?!api/)(?:.*/)?([\w.]+\.md)"
    navigation: dict[str, list[str]] = {}
    for group, page in re.findall(entry, read(ROOT / "mkdocs.yml").split("\nnav:")[1].split("\n\n")[0], re.M):
        if group:
            navigation[group] = []
        else:
            [*navigation.values()][-1].append(page)
    assert {group: pages for group, pages in groups.items() if pages} == navigation


@pytest.mark.parametrize("room", sorted(ROOMS - {"functional"}))
def test_every_public_kind_is_on_an_api_page(room):
    text = "\n".join(read(page) for page in API)
    shown = set(re.findall(rf"^::: diffeo\.{room}\.(\w+)$", text, re.M))
    missing = public(room) - shown - CONSTANTS
    assert not missing, f"docs/api lacks {', '.join(sorted(missing))} of diffeo.{room}"


def test_everything_at_the_top_leads_to_its_docstring():
    page = read(ROOT / "docs" / "api" / "flow.md")
    for name in set(diffeo.__all__) - ROOMS:
        linked = re.search(rf"\[`{name}`\]\((\w+)\.md#(diffeo\.\1\.{name})\)", page)
        where = read(ROOT / "docs" / "api" / f"{linked[1]}.md") if linked else page
        assert f"::: {linked[2] if linked else f'diffeo.{name}'}\n" in where, name


def test_what_the_changelog_says_has_moved_is_there():
    rows = re.findall(r"^\| `diffeo.*\| (.*) \|$", read(ROOT / "CHANGELOG.md"), re.M)
    paths = {path for row in rows for path in re.findall(r"\bdiffeo\.([\w.]+)", row)}
    assert len(paths) > 10
    for path in paths:
        found = diffeo
        for name in path.split("."):
            found = getattr(found, name)


def test_the_map_of_the_tests_is_complete():
    tests = ROOT / "tests"
    named = re.findall(r"`((?:\w+/)?(?:\w+\.py)?)`", read(tests / "README.md"))
    assert all((tests / path).exists() for path in named), named
    here = {f"{p.name}/" for p in tests.iterdir() if p.is_dir() and not p.name.startswith("_")}
    missing = here - {path.partition("/")[0] + "/" for path in named}
    assert not missing, f"tests/README.md lacks {missing}"
