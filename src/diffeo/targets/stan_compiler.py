"""Stan programs, compiled: httpstan's stanc and compiler, with a few functions of ours beside the model."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from diffeo.errors import ConfigError

_LOGGER = logging.getLogger("diffeo")

_BATCH = Path(__file__).with_name("stan_batch.hpp")

# httpstan's way to compile, in a process of its own, since it writes to the working directory and to stderr
# and needs an event loop. It is given C++ already; the folder becomes part of its cache when it is whole.
_BUILD = """
import asyncio, pathlib, sys
import httpstan.cache, httpstan.compile, httpstan.models
here, code = pathlib.Path.cwd(), sys.stdin.read()
httpstan.cache.cache_directory = lambda: here
httpstan.compile.compile = lambda program, name: (program, "")
said = asyncio.run(httpstan.models.build_services_extension_module(code))
name = httpstan.models.calculate_model_name(code)
httpstan.cache.dump_services_extension_module_compiler_output(said, name)
httpstan.cache.dump_stanc_warnings("", name)
"""


def one_line(text: str) -> str:
    return " ".join(text.split())


def compiled(program: str | Path) -> Path:
    """The shared library of a Stan program with the functions of ``stan_batch.hpp``: made, or from the cache.

    Raises:
        ConfigError: without httpstan or a C++ compiler, and for a program that does not compile.
    """
    return _library(_translate(program))


def _httpstan() -> Any:
    try:
        import httpstan.models
    except ImportError:
        raise ConfigError(
            "Stan models need httpstan, which compiles them: pip install 'diffeo[stan]'"
        ) from None
    return httpstan


def _translate(program: str | Path) -> str:
    """The program in C++, by httpstan's stanc; without the file's name, so that the cache knows it again."""
    stanc = Path(_httpstan().__file__).with_name("stanc")
    if isinstance(program, str) and program.endswith(".stan"):
        raise ConfigError(f"{program!r} is a file's name, not a Stan program; give Path({program!r}).")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.stan"
        arguments = [str(stanc), "--print-cpp", "--name=diffeo_model", "--filename-in-msg=model.stan"]
        try:
            file.write_text(
                program if isinstance(program, str) else program.read_text(encoding="utf-8"), encoding="utf-8"
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the Stan program: {one_line(str(error))}") from None
        if isinstance(program, Path):
            arguments.append(f"--include-paths={program.resolve().parent}")
        done = subprocess.run([*arguments, str(file)], capture_output=True, text=True, encoding="utf-8")
    if done.stderr.strip():
        _LOGGER.debug("stanc: %s", done.stderr.strip())
    if done.returncode != 0:
        name = program if isinstance(program, Path) else "the Stan program"
        raise ConfigError(f"{name} does not compile: {_stancs_error(done.stderr)}")
    return done.stdout


def _stancs_error(text: str) -> str:
    """Where, and what: stanc's message without the picture of the program."""
    where = re.search(r"line (\d+), column (\d+)", text)
    *_, what = re.split(r"^ *-{5,} *$", text, flags=re.MULTILINE)
    return f"line {where[1]}, column {where[2]}: {one_line(what)}" if where else one_line(text)


def _library(model: str) -> Path:
    """The compiled module of a model in C++ with ``stan_batch.hpp``, from httpstan's cache or made for it."""
    httpstan = _httpstan()
    code = model + "\n" + _BATCH.read_text(encoding="utf-8")
    folder: Path = httpstan.cache.model_directory(httpstan.models.calculate_model_name(code))
    if found := _module(folder):
        return found
    _LOGGER.info("compiling a Stan program; it takes about half a minute, once.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder.parent.parent)
    except OSError as error:
        raise ConfigError(f"httpstan's cache cannot be written to: {error}") from None
    with temporary as here:
        command = [sys.executable, "-c", _BUILD]
        done = subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8", cwd=here)
        _LOGGER.debug("httpstan: %s", (done.stdout + done.stderr).strip())
        built = Path(here) / "models" / folder.name
        if done.returncode != 0 or not _module(built):
            *_, last = done.stderr.strip().splitlines() or ["no module was made."]
            raise ConfigError(f"the Stan program's C++ did not compile (is there a C++ compiler?): {last}")
        try:
            built.rename(folder)  # whole or not at all
        except OSError:
            _LOGGER.debug("another process was faster: %s", folder)
    found = _module(folder)
    if not found:
        raise ConfigError(f"httpstan's cache has a broken entry; remove {folder}.")
    return found


def _module(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("stan_services_*.so"))), None)
