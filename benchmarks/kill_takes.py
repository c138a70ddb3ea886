"""Takes that are killed, run out of disk or are written twice end as those that are not: ``python benchmarks/kill_takes.py [--kills 10]``.

A row for every sampler that writes to disk, each through its node, on small models with random weights. Killed: signal 9 again and again,
mostly right before one of its writes reaches the disk or gets its name, else at any time; each time the take is run again and goes on.
Full: the output folder is a tmpfs that is too small, then it is made larger and the take is run again. Twice: a second process writes to
the same folder while the first one does. Frames are compared bit for bit with those of an undisturbed take; the exit status is 1 if any
differ, if something is left half-written, or if a sentence is missing. FIFO Sampler, Forcing Sampler, Causal Take and the takes on Wan need
ComfyUI (``COMFYUI_PATH``); the full disk needs a system on which a tmpfs can be mounted (Linux, as root or under ``unshare -rm``).
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "helpers")]
import conftest  # noqa: F401  makes the pack importable under the name ``pack``
import torch
from pack import host
from recorded import TAKES, Take, frames_in

FRAMES, SMALL, LARGE = 40, "100k", "64m"
NAME = "take"


def forked(work: Callable[[], object]) -> int:
    """A process that does some work and ends with status 0, or with 1 and its sentence in ``sentence.txt``."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress
    try:
        work()
    except ValueError as error:
        (host.output_directory().parent / "sentence.txt").write_text(str(error))
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """How a process ended: its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing(before: int) -> None:
    """Let this process be killed before it brings something to the disk, or gives it its name, for the ``before``-th time."""
    left = [before]
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def counted(*given, real=real, **more):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        setattr(os, name, counted)


def killed(take: Take, output: Path, expected: dict[str, bytes], seconds: float, given: argparse.Namespace) -> str:
    """Kill a take again and again, which takes so many ``seconds`` in all. Gives after how many frames on disk."""
    moments, at = random.Random(given.seed), []
    while len(at) < given.kills:
        by_write = moments.random() < 0.7
        before, wait = moments.randrange(1, 30 if take.each == 1 else 150), moments.uniform(0, seconds / 8)

        def work(by_write: bool = by_write, before: int = before) -> None:
            if by_write:
                killing(before)
            take.make(NAME, FRAMES)

        child = forked(work)
        if not by_write:
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        if ended(child) != -signal.SIGKILL:  # it was done sooner: another one
            if frames_in(output / NAME) != expected:
                return "WRONG: other frames"
            shutil.rmtree(output / NAME)
            continue
        at.append(len(frames_in(output / NAME)))
    if ended(forked(lambda: take.make(NAME, FRAMES))):
        return sentence(output)
    return " ".join(map(str, at))


def sentence(output: Path) -> str:
    """What the last process said that failed."""
    return (output.parent / "sentence.txt").read_text().replace(str(output), "OUTPUT")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder with little room."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def full(take: Take, output: Path, expected: dict[str, bytes]) -> str:
    """Let the disk be too small, then larger."""
    try:
        with small_disk(output / NAME):
            status = ended(forked(lambda: take.make(NAME, FRAMES)))
            said = sentence(output) if status else "no refusal"
            before = frames_in(output / NAME)
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", output / NAME], check=True)
            again = ended(forked(lambda: take.make(NAME, FRAMES)))
            same = frames_in(output / NAME) == expected and all(expected[name] == content for name, content in before.items())
            left = list((output / NAME).glob(".*"))
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "not run: no tmpfs can be mounted here"
    fine = status == 1 and "No space left on device" in said and "make room" in said and not again and same and not left
    return f"{len(before)} frames, then all equal" if fine else f"WRONG: {said}"


def twice(take: Take, output: Path, expected: dict[str, bytes]) -> str:
    """Let a second process write there meanwhile."""
    go = output.parent / "go"
    go.unlink(missing_ok=True)

    def waiting(count: int) -> None:
        deadline = time.monotonic() + 60
        while count == 1 and not go.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    first = forked(lambda: take.make(NAME, FRAMES, before=waiting))
    deadline = time.monotonic() + 60
    while not frames_in(output / NAME) and time.monotonic() < deadline:
        time.sleep(0.01)
    refused = ended(forked(lambda: take.make(NAME, FRAMES)))
    go.touch()
    done = ended(first)
    fine = refused == 1 and f"is being written by process {first} on " in sentence(output) and done == 0
    return "refused, first equal" if fine and frames_in(output / NAME) == expected else f"WRONG: {sentence(output)}"


def row(name: str, take: Take, given: argparse.Namespace) -> list[str]:
    """All that is done to one sampler, in words."""
    cells = [name]
    with tempfile.TemporaryDirectory() as folder:
        place = [Path(folder, "output")]
        host.output_directory = lambda: place[0]  # type: ignore[attr-defined]
        began = time.monotonic()
        if ended(forked(lambda: take.make("whole", FRAMES))):
            return [name, f"WRONG: {sentence(place[0])}"]
        seconds, expected = time.monotonic() - began, frames_in(place[0] / "whole")
        at = killed(take, place[0], expected, seconds, given)
        same = frames_in(place[0] / NAME) == expected and len(expected) == take.pictures(FRAMES)
        left = [path.name for path in (place[0] / NAME).glob(".*")]
        cells += [at, "equal" if same else "WRONG: other frames", f"WRONG: {left}" if left else "nothing"]
        for part, happens in (("full", full), ("twice", twice)):
            place[0] = Path(folder, part, "output")
            place[0].parent.mkdir()
            cells.append(happens(take, place[0], expected))
    return cells


def main() -> int:
    """Print the table. Gives 1 if something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", choices=tuple(TAKES), help="one sampler")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [["sampler", "frames on disk at each kill", "frames in the end", "left over", "full disk", "second writer"]]
    for name, take in TAKES.items():
        if given.only not in (None, name):
            continue
        rows.append([name, "not run: it needs ComfyUI"] if take.comfy and host.name != "comfyui" else row(name, take, given))
        print(" | ".join(rows[-1] if len(rows) > 2 else [*rows[0], "\n", *rows[1]]).replace(" | \n | ", "\n"), flush=True)
    return int(any("WRONG" in cell for cells in rows for cell in cells))


if __name__ == "__main__":
    raise SystemExit(main())
