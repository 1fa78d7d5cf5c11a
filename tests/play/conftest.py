"""The page that plays in Chromium, from files and without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The HTML of docs/play.md in an empty document."""
    text = (DOCS / "play.md").read_text(encoding="utf-8")
    lines = re.findall(r"^<(?:link|div|script) .*$", text, re.M)
    assert sum("<script" in line for line in lines) == 8
    head = f'<!doctype html><meta charset="utf-8"><base href="{DOCS.as_uri()}/">'
    path = tmp_path_factory.mktemp("play") / "page.html"
    path.write_text("\n".join([head, *lines]), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, html):
    """The page, loaded; afterwards, that it complained of nothing and loaded files alone."""
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(html)
    page.wait_for_function("DiffeoPlay.page.view.ready")
    yield page
    page.close()
    assert not errors
    assert len(asked) == 10
    assert all(url.startswith("file:") for url in asked)
