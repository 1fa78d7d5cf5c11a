"""The command line: ``diffeo fit | score | sample | info | demo | images``."""

from __future__ import annotations


def main() -> None:
    """The entry point of the ``diffeo`` command."""
    from diffeo.cli.app import app

    app(prog_name="diffeo")
