"""What MkDocs is told about files outside docs/: the gallery's scripts, measured tables, the changelog.

Pages link as plain Markdown in the repository does, by paths of the repository. Here a link that leaves docs/
is turned to the page the site makes of that file; where it makes none (a script, a folder), the text stays
and the link goes, since there is nowhere to send the reader. So nothing is kept twice, or moved.

Nothing is loaded from outside, and a test looks through the built pages. A figure is its script: the
docstring is the page, what it prints is quoted, the picture it writes is kept beside, and tests run it at
small settings. Pictures are kept in the repository because full settings take minutes and would differ from
machine to machine. What the pages say of other libraries runs there (`make peers`): their code, their
directions and signs, weights carried over.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{
        path.relative_to(ROOT).as_posix(): f"results/{path.name}"
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    },
}
"""Pages of the site that lie outside docs/, by their paths in the repository."""

log = logging.getLogger("mkdocs.hooks.diffeo")


@dataclass(frozen=True)
class Figure:
    """A script of ``examples/gallery`` and what ``make gallery`` kept of its run."""

    script: Path

    @property
    def name(self) -> str:
        return self.script.stem

    @property
    def page(self) -> str:
        return f"gallery/{self.name}.md"

    @property
    def number(self) -> str:
        """The figure's number in the chapter, "16.6" of ``16_06_coupling``; empty for a note."""
        found = re.match(r"(\d+)_(\d+)", self.name)
        return f"{int(found[1])}.{int(found[2])}" if found else ""

    @property
    def docstring(self) -> str:
        return ast.get_docstring(ast.parse(self.script.read_text(encoding="utf-8"))) or self.name

    @property
    def title(self) -> str:
        return self.docstring.split("\n", 1)[0].removesuffix(".")

    @property
    def label(self) -> str:
        """The title behind the figure's number."""
        return f"{self.number} {self.title}".strip()

    @property
    def text(self) -> str:
        """The docstring between its title and the command that runs the script."""
        text = self.docstring.partition("\n")[2]
        return re.sub(rf"^ +python examples/gallery/{self.name}\.py.*$", "", text, flags=re.M).strip()

    @property
    def code(self) -> str:
        text = self.script.read_text(encoding="utf-8")
        first = ast.parse(text).body[0]
        docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        return "\n".join(text.splitlines()[first.end_lineno if docstring else 0 :]).strip()

    @property
    def pictures(self) -> list[str]:
        """``NAME.svg`` first, then ``NAME-*``."""
        own = re.compile(rf"{re.escape(self.name)}(-.*)?\.(svg|webp|png)")
        found = [path.name for path in (DOCS / "gallery").glob("*") if own.fullmatch(path.name)]
        return sorted(found, key=lambda name: (not name.startswith(f"{self.name}."), name))

    @property
    def printed(self) -> str:
        kept = DOCS / "gallery" / f"{self.name}.txt"
        return kept.read_text(encoding="utf-8").rstrip() if kept.exists() else ""

    def markdown(self) -> str:
        first, _, rest = self.text.partition("\n\n")
        alt = self.title.replace("[", "(").replace("]", ")").replace("`", "")
        pictures = [f"![{alt}]({name}){{ .figure }}" for name in self.pictures]
        parts = [f"# {self.label}", first, *pictures, rest]
        if self.printed:
            parts += ["## What it printed", f"```text\n{self.printed}\n```"]
        parts += ["## The script", f"```sh\npython examples/gallery/{self.name}.py\n```"]
        parts += [f"```python\n{self.code}\n```"]
        return "\n\n".join(parts) + "\n"

    def thumbnail(self) -> str:
        picture = f'![]({self.pictures[0]}){{ loading="lazy" }}' if self.pictures else ""
        return f"[{picture} {self.label}]({self.name}.md)"


def figures() -> list[Figure]:
    scripts = sorted((ROOT / "examples" / "gallery").glob("*.py"))
    return [Figure(script) for script in scripts if re.fullmatch(r"[a-z0-9]\w*", script.stem)]


def chapters() -> dict[str, list[Figure]]:
    """The gallery's figures under their headings."""
    all_ = figures()
    return {
        "Figures of the chapter": [f for f in all_ if f.number],
        "Figures of the notes": [f for f in all_ if not f.number],
    }


def index() -> str:
    """The gallery's first page."""
    parts = [
        "# Gallery",
        "One short script a figure. Each page shows the picture, what the script printed and its code; "
        "figures of the first part have the numbers of chapter 16 of "
        "[*Understanding Deep Learning*](../udl.md). `make gallery` runs them all and keeps their pictures.",
    ]
    for heading, members in chapters().items():
        if members:
            grid = "\n\n".join(f.thumbnail() for f in members)
            parts += [f"## {heading}", f'<div class="thumbnails" markdown>\n\n{grid}\n\n</div>']
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the figures below the gallery's entry in the navigation."""
    entries = [
        {heading: [{f.label: f.page} for f in members]} for heading, members in chapters().items() if members
    ]
    config.nav = _below(config.nav, "gallery/index.md", entries)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for source, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "gallery/index.md", content=index()))
    for figure in figures():
        if not figure.pictures or not figure.printed:
            log.warning("%s has not been run: make gallery", figure.script.relative_to(ROOT))
        files.append(File.generated(config, figure.page, content=figure.markdown()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages of the site, and give wide pages room."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta.setdefault("hide", ["navigation"])  # nothing beside it to go to
    elif uri.startswith("gallery/"):
        page.meta.setdefault("hide", ["toc"])  # room for the code's lines
    source = next((path for path, of_site in OUTSIDE.items() if of_site == uri), f"docs/{uri}")

    def turned(link: re.Match[str]) -> str:
        mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        path = os.path.normpath(PurePosixPath(source).parent / target)
        if "://" in target or not (ROOT / path).exists():
            return link[0]
        found = of_the_site(Path(path).as_posix())
        if not found:
            return text
        return f"{mark}[{text}]({os.path.relpath(found, PurePosixPath(uri).parent)}{anchor})"

    # Code is left as it is: what looks like a link there leads to no file.
    markdown = re.sub(r"(!?)\[([^\[\]]+)\]\(([^()\s#]+)(#[^()\s]*)?\)", turned, markdown)
    return with_docstrings(markdown) if uri == "reference.md" else markdown


def with_docstrings(reference: str) -> str:
    """The reference, with each name in a table's first column linked to its docstring."""
    pages = {}
    for page in sorted((DOCS / "api").glob("*.md")):
        for name in re.findall(r"^::: diffeo\.([\w.]+)$", page.read_text(encoding="utf-8"), re.M):
            pages[name] = f"api/{page.name}#diffeo.{name}"
    rooms: list[str] = []

    def linked(code: re.Match[str]) -> str:
        names = [code[1], *(f"{room}.{code[1]}" for room in rooms)]
        found = next((pages[name] for name in names if name in pages), None)
        return f"[{code[0]}]({found})" if found else code[0]

    lines = reference.split("\n")
    for i, line in enumerate(lines):
        if line.startswith("## "):
            rooms = re.findall(r"`diffeo\.(\w+)`", line) or sorted({name.split(".")[0] for name in pages})
        elif line.startswith("| `"):
            first, bar, rest = line[2:].partition(" | ")
            lines[i] = "| " + re.sub(r"`(?:\w+\.)?(\w+)(?:\([^`]*\))?`", linked, first) + bar + rest
    return "\n".join(lines)


def of_the_site(path: str) -> str | None:
    """The page, or file, of the site that stands for a path of the repository; None for any other path."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/gallery/") and path.endswith(".py"):
        return f"gallery/{PurePosixPath(path).stem}.md"
    return OUTSIDE.get(path)


def _below(nav: Any, page: str, entries: list[Any]) -> Any:
    """The navigation with entries below a page."""
    if isinstance(nav, list):
        return [_below(item, page, entries) for item in nav]
    if isinstance(nav, dict):
        return {k: [page, *entries] if v == page else _below(v, page, entries) for k, v in nav.items()}
    return nav
