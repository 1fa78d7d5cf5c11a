"""The command line.

``diffeo fit | score | sample | report | info | demo | distill``,
``diffeo images fit | sample | interpolate | score | reconstruct``, ``diffeo target fit | sample``.

A command parses its arguments, calls one function that Python has too, and prints what that gave. Errors come
from the library in Python's words; ``flags`` adds what their cure is called here.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

BEGAN: ContextVar[float | None] = ContextVar("BEGAN", default=None)
"""When the command was started: a time budget counts from there, imports included."""


def main() -> None:
    """The entry point of the ``diffeo`` command."""
    BEGAN.set(time.monotonic())
    from diffeo.cli.printing import give_up_streams, prepare_streams, say

    prepare_streams()
    try:
        from diffeo.cli.app import app

        app(prog_name="diffeo")
    except (ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        why = " ".join(str(error).split()) or "there is too little memory"
        say(f"diffeo: error: {why}; is the installation whole, and the memory enough (ulimit -v)?", err=True)
        raise SystemExit(2) from None
    finally:
        give_up_streams()
