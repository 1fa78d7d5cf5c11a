"""Which checks this environment can run: those on PyTorch, or FlowJAX's."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = ["test_flowjax.py"] if find_spec("torch") else ["test_conventions.py", "test_ports.py"]
