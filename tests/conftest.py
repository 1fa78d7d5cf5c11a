"""Settings of the whole suite: the same examples every run, and one thread for each xdist worker."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "diffeo",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("diffeo")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test has the same random numbers, alone or among others, on whichever worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser():
    """Chromium; DIFFEO_BROWSER=1 in the environment makes a missing one a failure."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next((p for p in found if p), None)
    if os.environ.get("DIFFEO_BROWSER") != "1":
        pytest.importorskip("playwright", reason="playwright is not installed")
        if path is None:
            pytest.skip("no chromium, chromium-browser or google-chrome here")
    assert path is not None, "DIFFEO_BROWSER=1, but there is no browser"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
