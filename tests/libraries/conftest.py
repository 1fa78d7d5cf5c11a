"""Which of these tests this environment can run: those on PyTorch, FlowJAX's, or none but in `make peers`."""

from __future__ import annotations

from importlib.util import find_spec

ON_TORCH, ON_JAX = ["test_conventions.py", "test_ports.py"], ["test_flowjax.py"]
EVERYWHERE = ["test_migrating.py"]
collect_ignore = ON_JAX if find_spec("zuko") else ON_TORCH
if not find_spec("zuko") and not find_spec("flowjax"):
    collect_ignore = [*ON_TORCH, *ON_JAX, *EVERYWHERE]
