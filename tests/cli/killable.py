"""Commands with a checkpoint, killed at random moments: ``python killable.py FOLDER KILLS SEED``.

Each command runs once undisturbed. Then it is run again and again, in processes that are killed by SIGKILL
after a random part of the time the whole took, until one comes to its end. It must leave the same bits, and
nothing else; and from the first checkpoint on there is at every moment a checkpoint or a model.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import diffeo
from diffeo.cli.app import app
from diffeo.inference import survey
from diffeo.train import Checkpoint

SMALL = "--set layers=1 --set hidden=8"
COMMANDS = {
    "fit": f"fit t.csv --preset nsf {SMALL} --max-steps 60",
    "race": "fit t.csv --max-steps 20 --given b",
    "images": "images fit p.npy --set levels=1 --set layers=1 --set hidden=4 --max-steps 20",
    "target": "target fit ring:log_prob --dim 2 --preset maf --set layers=1 --set hidden=8 --max-steps 40",
    "distill": "distill teacher --preset realnvp --set layers=2 --set hidden=8 --max-steps 40",
}
RING = "def log_prob(x):\n    return -2 * (x.square().sum(-1).sqrt() - 2).square()\n"


def prepare(folder: Path) -> None:
    """The inputs, and sizes that make every command short."""
    os.chdir(folder)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    diffeo.Table.from_columns({"a": a, "b": a**2 + rng.normal(size=300)}).write("t.csv")
    np.save("p.npy", rng.integers(0, 256, (60, 1, 4, 4)).astype(np.uint8))
    Path("ring.py").write_text(RING)
    torch.manual_seed(0)
    diffeo.save(diffeo.presets.MAF(2, layers=1, hidden=(8,)).build(), "teacher")
    survey.CHAINS, survey.MOVING = 128, 64
    import diffeo.distillation.fit as distillation

    distillation.POOL, distillation.JUDGED = 1000, 200
    Checkpoint.__init__.__defaults__ = (0.0,)  # every step is written


def start(command: str, output: str, *more: str) -> int:
    """The command in a process of its own."""
    child = os.fork()
    if child:
        return child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    code = 1
    try:
        app([*command.split(), "-o", output, *more], standalone_mode=False)
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitpid(child, 0)[1]


def same(one: str, other: str) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def torture(name: str, command: str, kills: int, draw: random.Random) -> int:
    """How often the command was killed on its way to the same model."""
    began = time.monotonic()
    assert ended(start(command, f"{name}.whole", "--checkpoint", f"{name}.whole.run")) == 0, name
    whole = time.monotonic() - began
    before, run, model, killed, kept = set(os.listdir()), Path(f"{name}.run"), Path(name), 0, False
    while True:
        child = start(command, name, "--checkpoint", f"{name}.run")
        if killed < kills:
            # as often early as in the last fifth, where what follows the training is
            time.sleep(whole * (draw.uniform(0, 1.1) if draw.random() < 0.5 else draw.uniform(0.8, 1.2)))
            os.kill(child, signal.SIGKILL)
        status = ended(child)
        assert status in (0, signal.SIGKILL), f"{name} failed"
        kept = kept or run.exists() or model.exists()
        assert not kept or run.exists() or model.exists(), f"{name} lost what it had"
        killed += status == signal.SIGKILL
        if status == 0:
            break
    assert same(name, f"{name}.whole"), f"{name} ended with other bits"
    assert set(os.listdir()) - before == {name}, sorted(set(os.listdir()) - before)
    return killed


def main(folder: Path, kills: int, seed: int) -> None:
    prepare(folder)
    draw = random.Random(seed)
    for name, command in COMMANDS.items():
        done = 0
        while done < kills:  # a run that came to its end is begun again
            for left in (name, f"{name}.whole"):
                Path(left).unlink(missing_ok=True)
            done += max(1, torture(name, command, kills - done, draw))
        print(name, done, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
