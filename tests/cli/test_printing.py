"""What the command line prints: nothing that a terminal obeys, in any locale, to any end of a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffeo
from diffeo import encodings, presets
from diffeo.cli.printing import clean
from diffeo.encodings import kinds

HOSTILE = "size\x1b[2J\x07\u202e"
ROOT = Path(__file__).parents[2]


def model(path: Path, name: str) -> None:
    columns = [encodings.Column(name, kinds.Continuous()), encodings.Column("b", kinds.Continuous())]
    flow = presets.NSF(2, layers=1, hidden=8, blocks=1, bins=4).build(encodings.Columns(columns))
    flow.notes = {HOSTILE: HOSTILE, "list": [HOSTILE, "a\nb"], "tree": {HOSTILE: 1}}
    diffeo.save(flow, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    model(folder / "hostile.safetensors", HOSTILE)
    model(folder / "plain.safetensors", "größe")
    return folder


def command(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell in which ``diffeo`` is the command."""
    script = f"diffeo() {{ {sys.executable} -c 'from diffeo.cli import main; main()' \"$@\"; }}\n{text}\n"
    own = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=own, capture_output=True, timeout=120)


def test_cleaning():
    assert clean("größe 尺寸 a_b") == "größe 尺寸 a_b"
    assert clean(HOSTILE + "\n\r\t\udc80\x9b") == "size?[2J" + 7 * "?"


def test_nothing_of_a_file_reaches_the_terminal_but_letters(folder: Path):
    done = command("diffeo info hostile.safetensors", folder)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "size?[2J??" in text
    assert all(c.isprintable() for c in text.replace("\n", ""))


def test_names_that_were_typed_are_cleaned_too(folder: Path):
    done = command("diffeo fit $'a\\x1b[2J' b $'\\a\\x1b[2Jc' -o m", folder)
    assert done.returncode == 2
    assert not {b"\x1b", b"\a"} & {done.stderr[i : i + 1] for i in range(len(done.stderr))}


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "POSIX"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=str
)
def test_a_letter_that_the_locale_lacks(folder: Path, locale: dict[str, str]):
    done = command("diffeo info plain.safetensors", folder, PYTHONUTF8="0", **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"gr\\xf6\\xdfe" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("diffeo info plain.safetensors >&-", 0),
        ("diffeo info plain.safetensors >&- 2>&-", 0),
        ("diffeo info none 2>&-", 2),
        ("diffeo sample plain.safetensors -n 3 -o - >&-", 2),
        ("diffeo info plain.safetensors > /dev/full", 2),
        ("diffeo --version > /dev/full", 2),
        ("diffeo info none 2> /dev/full", 2),
        ("diffeo info plain.safetensors | true; exit ${PIPESTATUS[0]}", 141),
        ("diffeo sample plain.safetensors -n 100000 -o - | head -1; exit ${PIPESTATUS[0]}", 141),
        ("diffeo info none 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
    ],
)
def test_streams_that_are_closed_full_or_left(folder: Path, line: str, code: int):
    done = command(line, folder)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") <= 1


def test_a_closed_stream_is_not_the_first_file_that_is_opened(folder: Path):
    done = command("diffeo sample plain.safetensors -n 3 -o out.csv --seed 0 >&- 2>&-", folder)
    assert done.returncode == 0
    assert len((folder / "out.csv").read_text().splitlines()) == 4


def test_too_little_memory_to_load_is_one_line(folder: Path):
    done = command("ulimit -v 400000; diffeo info plain.safetensors", folder)
    assert done.returncode == 2
    assert done.stderr.startswith(b"diffeo: error: ")
    assert done.stderr.count(b"\n") == 1
