"""Some thousands of damaged files: each is read or refused in a sentence, at once and within memory."""

from __future__ import annotations

import sys

import pytest

from fuzz.runner import failed, outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are waited for as on Unix")
@pytest.mark.parametrize(("kind", "count"), [("table", 3000), ("picture", 1500), ("model", 1000)])
def test_no_file_brings_a_reader_down(kind: str, count: int):
    results = list(outcomes(kind, 0, count))
    assert len(results) == count
    assert [found for found in results if failed(found)] == []
    kinds = {found["result"] for found in results}
    assert kinds == {"read", "refused"}, "both happen, or the damage is not what it should be"
