"""Headers of earlier releases, brought to today's form."""

from __future__ import annotations

from typing import Any


def modernize(about: dict[str, Any]) -> dict[str, Any]:
    """What a header says in today's words; the one place that knows how files were written before.

    A change of the format stands here as one step that finds the old form by what it holds, and has a file of
    the release before it in ``tests/golden``.
    """
    return about
