"""A training that is killed again and again ends as one that is not: ``python benchmarks/kill_training.py [--kills 10]``.

The command ``python -m modules.train`` is killed with signal 9 at random moments, wherever it happens to be, and started again each time.
One JSON line says at which steps it was killed and from which checkpoints it went on, and whether the final weights, the checkpoint's
moments and averages, and the log are those of an unbroken run, bit for bit. A second line is about a disk that is full while a checkpoint
is written: whether the one before it is intact, and the sentence. The exit status is 1 if anything differs.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]


def start(out: Path, given: argparse.Namespace, limit: int = 0) -> subprocess.Popen:
    """The training, which goes on from its checkpoint if there is one; ``limit``: the largest file it may write, in bytes, 0 for any."""
    command = [
        sys.executable,
        "-m",
        "modules.train",
        "--out",
        str(out),
        "--width",
        "16",
        "--batch",
        "1",
        "--save-every",
        "3",
        "--threads",
        "1",
    ]
    before = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.Popen(
        [*command, "--steps", str(given.steps)],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def lines(log: Path) -> list[str]:
    """The log without times."""
    return [line.partition(', "seconds"')[0] for line in log.read_text().splitlines()] if log.exists() else []


def equal(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def killed(folder: Path, given: argparse.Namespace) -> dict:
    """Kill, start again, compare."""
    straight, out, log = folder / "straight.safetensors", folder / "killed.safetensors", folder / "killed.jsonl"
    process, begun = start(straight, given), time.monotonic()
    startup = seconds_until(process, lambda: lines(folder / "straight.jsonl"))
    _, errors = process.communicate()
    if not straight.exists():
        raise SystemExit(f"the unbroken run failed: {errors[-500:]}")
    training, chance = time.monotonic() - begun - startup, random.Random(given.seed)
    at, resumed = [], []
    for _ in range(given.kills):
        process = start(out, given)
        if chance.random() < 0.8:  # while it trains; else while it starts
            known = len(lines(log))
            seconds_until(process, lambda known=known: len(lines(log)) != known)
            time.sleep(chance.uniform(0, training / given.kills))
        else:
            time.sleep(chance.uniform(0, startup))
        process.send_signal(signal.SIGKILL)
        resumed += went_on(process.communicate()[1], given)
        if out.exists():
            raise SystemExit("the run was over before it was killed often enough: give more --steps")
        at.append(len(lines(log)))
    resumed += went_on(start(out, given).communicate()[1], given)
    return {
        "kills": len(at),
        "killed_after_steps": at,
        "went_on_from": resumed,
        "weights_equal": equal(straight, out),
        "checkpoints_equal": equal(folder / "straight.run.safetensors", folder / "killed.run.safetensors"),
        "logs_equal": lines(folder / "straight.jsonl") == lines(log),
        "left_over": [path.name for path in folder.glob(".killed*.partial")],
    }


def seconds_until(process: subprocess.Popen, happened: Callable[[], object]) -> float:
    """Wait until something has happened, or the process is over."""
    begun = time.monotonic()
    while not happened() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic() - begun


def went_on(errors: str, given: argparse.Namespace) -> list[int]:
    """The step that a run said it goes on from; nothing if it was killed before it could."""
    said, found, _ = errors.partition(f" of {given.steps} steps are done")
    return [int(said.split()[-1])] if found else []


def full_disk(folder: Path, given: argparse.Namespace) -> dict:
    """Let the system refuse to write the next checkpoint whole."""
    out = folder / "full.safetensors"
    process, checkpoint = start(out, given), folder / "full.run.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = checkpoint.read_bytes()
    process = start(out, given, limit=len(before) // 2)
    _, errors = process.communicate()
    return {
        "exit_status": process.returncode,
        "checkpoint_intact": checkpoint.read_bytes() == before,
        "left_over": [path.name for path in folder.glob(".full*.partial")],
        "sentence": errors.strip().splitlines()[-1].replace(str(folder), "FOLDER"),
    }


def main() -> int:
    """Print both lines. Gives 1 if something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        first = killed(Path(name), given)
        print(json.dumps(first), flush=True)
        second = full_disk(Path(name), given)
        print(json.dumps(second), flush=True)
    fine = all(first[f"{part}_equal"] for part in ("weights", "checkpoints", "logs")) and not first["left_over"]
    return int(not (fine and second["checkpoint_intact"] and second["exit_status"] == 1 and not second["left_over"]))


if __name__ == "__main__":
    raise SystemExit(main())
