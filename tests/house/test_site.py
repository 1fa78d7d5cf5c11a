"""The documentation site: it builds without a warning, shows all it should and loads nothing from outside."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Whatever a browser fetches without being asked; links for clicking are not among it.
FETCHED = (
    r"<(?:script|link|img|image|use|iframe|source|video|audio|embed|object)\b[^>]*"
    r"\b(?:src|srcset|href|data|poster)\s*=\s*[\"']?(?:https?:)?//[^\"'>\s]+",
    r"url\(\s*[\"']?(?:https?:)?//[^)]+",
    r"@import\s+[\"'](?:https?:)?//[^\"']+",
)
# In scripts any address but the names of namespaces.
ADDRESS = r"[\"'`](?:https?:)?//(?!www\.w3\.org/)\w[^\"'`]*"


def module(name: str):
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


hooks, docstrings, formulas = module("hooks"), module("docstrings"), module("formulas")
CODE = r"(?s)<(pre|code|script|style)\b.*?</\1>"  # of a built page, where a dollar is a dollar
MARKED = r"(?s)```.*?```|`[^`]*`"  # the same of a page's source


def fetched_from_outside(text: str, suffix: str) -> list[str]:
    patterns = (ADDRESS,) if suffix == ".js" else FETCHED
    return [found.group()[:200] for pattern in patterns for found in re.finditer(pattern, text)]


def test_the_site_is_whole_and_loads_nothing_from_outside(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "WARNING" not in said, said

    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for path in (p for p in tmp_path.rglob("*") if p.suffix in (".html", ".css", ".js", ".svg")):
        # The theme's own script has addresses of what nothing here asks it for: diagrams, old browsers.
        if not (path.suffix == ".js" and path.is_relative_to(tmp_path / "assets" / "javascripts")):
            found = fetched_from_outside(path.read_text(encoding="utf-8"), path.suffix)
            assert not found, f"{path.relative_to(tmp_path)} loads {found}"
        assert path.suffix != ".html" or 'class="mermaid"' not in path.read_text(encoding="utf-8")

    for path in pages:
        html = re.sub(CODE, "", path.read_text(encoding="utf-8"))
        assert "$" not in html, f"{path.name} shows a formula's source"
        assert "arithmatex" not in html, f"{path.name} has a formula that is not typeset"
    for page in sorted((ROOT / "docs").rglob("*.md")):
        html = (tmp_path / page.relative_to(ROOT / "docs")).with_suffix(".html").read_text(encoding="utf-8")
        source = re.sub(MARKED, "", page.read_text(encoding="utf-8"))
        written = len(re.findall(r"\$\$.+?\$\$|\$.+?\$", source, re.S))
        assert html.count("<math") == written, f"{page.name} has {written} formulas"

    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        html = (tmp_path / "api" / f"{page.stem}.html").read_text(encoding="utf-8")
        for name, members in re.findall(
            r"^::: ([\w.]+)$(?:\n    options:\n      members: \[(.*)\])?", page.read_text(), re.M
        ):
            for wanted in [name, *(f"{name}.{member}" for member in members.split(", ") if member)]:
                assert f'id="{wanted}"' in html, f"{page.name} lacks {wanted}"
    for figure in hooks.figures():
        html = (tmp_path / "gallery" / f"{figure.name}.html").read_text(encoding="utf-8")
        for picture in figure.pictures:
            assert f'src="{picture}"' in html
            assert (tmp_path / "gallery" / picture).exists()


@pytest.mark.parametrize(
    "text, suffix",
    [
        ('<script async src="https://cdn.example/x.js">', ".html"),
        ('<link rel="stylesheet" href="//fonts.example/css">', ".html"),
        ("<img alt='' src='http://example.org/x.png'>", ".html"),
        ("<style>@font-face { src: url(https://example.org/x.woff2) }</style>", ".html"),
        ('@import "https://example.org/x.css";', ".css"),
        ('fetch("https://example.org/model.json")', ".js"),
    ],
)
def test_what_would_be_fetched_is_found(text, suffix):
    assert fetched_from_outside(text, suffix)


def test_what_is_not_fetched_is_no_fault():
    assert not fetched_from_outside('<a href="https://example.org">there</a> <img src="x.svg">', ".html")
    assert not fetched_from_outside('document.createElementNS("http://www.w3.org/2000/svg", "g")', ".js")


def test_formulas_become_mathml():
    inline = r'an <span class="arithmatex">\(\log p(x) &lt; 0\)</span> in text'
    shown = formulas.typeset(inline)
    assert shown.startswith('an <math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')
    assert "<mi>log</mi><mspace" in shown
    assert shown.endswith("</math> in text")
    block = formulas.typeset('<div class="arithmatex">\\[\n\\exp(x)\n\\]</div>')
    assert 'display="block"' in block
    assert "<mspace" not in block  # the parenthesis follows at once
    index = formulas.typeset(r'<span class="arithmatex">\(\log_2 x\)</span>')
    assert "<msub><mi>log</mi><mn>2</mn></msub>" in index
    with pytest.raises(ValueError, match=r"no MathML for the formula \\nothing x"):
        formulas.typeset(r'<span class="arithmatex">\(\nothing x\)</span>')


def test_links_out_of_docs_lead_to_the_sites_pages():
    assert hooks.of_the_site("docs/results/toys.md") == "results/toys.md"
    assert hooks.of_the_site("benchmarks/results/peers.md") == "results/peers.md"
    assert hooks.of_the_site("examples/gallery/16_06_coupling.py") == "gallery/16_06_coupling.md"
    assert hooks.of_the_site("README.md") == "index.md"
    assert hooks.of_the_site("examples") is None


def test_the_reference_leads_to_docstrings():
    linked = hooks.with_docstrings((ROOT / "docs" / "reference.md").read_text(encoding="utf-8"))
    assert "[`LU(D)`](api/bijections.md#diffeo.bijections.LU)" in linked
    assert "[`Planar`](api/presets.md#diffeo.presets.Planar)" in linked
    assert "[`plots.density`](api/plots.md#diffeo.plots.density)" in linked
    unlinked = re.findall(r"^\| `([\w.]+)", linked, re.M)
    assert set(unlinked) <= {"PRESETS", "ENCODINGS", "CONTEXTS", "plots.STYLE", "diffeo"}, (
        unlinked
    )  # the last are commands


@pytest.fixture
def figure(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "DOCS", tmp_path)
    (tmp_path / "gallery").mkdir()
    for name in ("16_06_a.svg", "16_06_a-steps.webp", "16_06_a_b.svg"):
        (tmp_path / "gallery" / name).touch()
    (tmp_path / "gallery" / "16_06_a.txt").write_text("1.5 nats\n")
    script = tmp_path / "16_06_a.py"
    docstring = "One title.\n\nFirst.\n\nSecond.\n\n    python examples/gallery/16_06_a.py\n"
    script.write_text(f'"""{docstring}"""\n\nprint(1.5, "nats")\n')
    return hooks.Figure(script)


def test_a_script_is_a_page(figure):
    assert (figure.number, figure.title) == ("16.6", "One title")
    assert figure.text == "First.\n\nSecond."
    assert figure.pictures == ["16_06_a.svg", "16_06_a-steps.webp"]
    assert figure.code == 'print(1.5, "nats")'
    page = figure.markdown()
    parts = ["# 16.6 One", "First.", "](16_06_a.svg)", "-steps.webp)", "Second.", "1.5 nats", "```python"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_docstrings_become_markdown():
    text = "One.\n\nFormula: ``y = x``.\n\nShape:\n    ``x``.\n\nArgs:\n    x: it.\n\nExample:\n    >>> 1"
    shown = docstrings.as_markdown(text).split("\n\n")
    assert shown[:3] == ["One.", "**Formula:** ``y = x``.", "**Shape:**\n``x``."]
    assert shown[3:] == ["Args:\n    x: it.", "Examples:\n    >>> 1"]
