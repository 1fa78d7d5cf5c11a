"""What a result depends on besides versions."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path


def machine(threads: int) -> dict[str, str | int]:
    """Processor, cores, threads used, system and date."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """The processor's model name, with family and model where the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    name = found.get("model name", platform.processor())
    return f"{name}, family {found.get('cpu family', '?')}, model {found.get('model', '?')}"


def pin(threads: int) -> None:
    """Keep this process, and every thread pool it makes, on so many cores; where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
