"""Lines of the code are broken on purpose, and the tests must notice: ``python benchmarks/mutate.py [--count 60] [--seed 0]``.

First the mutations that once lived (``NAMED``), then ``--count`` others that are drawn from ``--seed``: a comparison, a sign, a number, a
condition or an ``and`` of a file in ``TESTS`` becomes another one. Each is made in a copy of the repository, and only the tests that are
named for the file are run, each mutation in a process of its own that has PyTorch loaded already. A row for every mutation; the exit
status is 1 if one lives. What lives and changes nothing that can be seen is in ``EQUAL``, with why.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
SECONDS = 120  # after which tests that do not end count as failed

# file -> arguments of pytest: the tests that are about it, of a few seconds
TESTS = {
    "modules/disk/atomic.py": "tests/modules/disk/test_atomic.py",
    "modules/disk/aside.py": "tests/modules/disk/test_atomic.py tests/modules/disk/test_state.py",
    "modules/disk/state.py": "tests/modules/disk/test_state.py",
    "modules/disk/take_file.py": "tests/modules/disk/test_take_state.py",
    "modules/disk/tensor_file.py": "tests/modules/disk/test_state.py",
    "modules/disk/recorder.py": "tests/modules/disk/test_recorder.py tests/modules/disk/test_take_state.py",
    "modules/noise/clip_noise.py": "tests/modules/noise/test_clip_noise.py",
    "modules/noise/noise_kinds.py": "tests/modules/noise/test_clip_noise.py",
    "modules/noise/freeinit.py": "tests/modules/noise/test_freeinit.py",
    "modules/noise/levels.py": "tests/modules/noise/test_noise.py",
    "modules/noise/seeded.py": "tests/modules/noise/test_noise.py tests/modules/noise/test_augment.py",
    "modules/sampling/level_matrix.py": "tests/modules/sampling/test_level_matrix.py",
    "modules/sampling/known_frames.py": "tests/modules/sampling/test_known_ahead.py tests/modules/sampling/test_edges.py",
    "modules/sampling/plan.py": "tests/modules/sampling/test_schedules.py tests/modules/sampling/test_known_ahead.py",
    "modules/sampling/vdm.py": "tests/modules/sampling/test_vdm.py",
    "modules/sampling/multistep.py": "tests/modules/sampling/test_multistep.py",
    "modules/temporal/windows.py": "tests/modules/temporal/test_windows.py",
    "modules/temporal/kv_cache.py": "tests/modules/temporal/test_kv_cache.py",
    "modules/temporal/chunks.py": "tests/modules/temporal/test_chunks.py",
    "modules/temporal/memory_moments.py": "tests/modules/temporal/test_memory.py",
    "modules/control/schedule.py": "tests/modules/control/test_schedule.py",
    "modules/control/schedule_text.py": "tests/modules/control/test_schedule.py",
    "modules/control/keyframes.py": "tests/modules/control/test_keyframes.py",
    "modules/guidance/branches.py": "tests/modules/guidance/test_guidance.py",
    "modules/guidance/reconstruction.py": "tests/modules/guidance/test_reconstruction.py",
    "modules/measure/spectrum.py": "tests/modules/measure/test_metrics.py",
    "modules/nets/unet.py": "tests/modules/nets/test_unet.py",
    "modules/checkpoints/sound.py": "tests/modules/checkpoints/test_hostile_files.py -k weights_are_finite",
    "modules/checkpoints/schema.py": "tests/modules/checkpoints/test_hostile_files.py -k description",
    "modules/fields/setting.py": "tests/modules/fields/test_setting.py",
    "host/standalone/sampling.py": "tests/host/standalone/test_models.py",
    "host/standalone/schema.py": "tests/host/standalone/test_core_nodes.py",
}


@dataclass(frozen=True)
class Mutation:
    """One change: ``old`` is ``new`` at a place of a file, and ``tests`` are what must notice."""

    file: str
    old: str
    new: str
    tests: str
    place: int = -1  # in characters; -1: where ``old`` is, of which there is one


MEMORY, CLIP, PREVIEW = "modules/temporal/memory_moments.py", "modules/noise/clip_noise.py", "host/comfyui/sampling/sampling.py"
RECONSTRUCTION, CONDITIONS = "modules/guidance/reconstruction.py", "host/standalone/sampling.py"
NAMED = (
    Mutation(
        "modules/sampling/plan.py",
        "range(len(ids) - 1, 0, -1)",
        "range(len(ids) - 2, 0, -1)",
        "tests/modules/sampling/test_edges.py",
    ),
    Mutation(MEMORY, "sum(skip.size for skip in skips) + skips[-1].size if call.controlled else 0", "0", TESTS[MEMORY]),
    Mutation(MEMORY, " + skips[-1].size if", " if", TESTS[MEMORY]),
    Mutation(MEMORY, "(2 if call.controlled else 1)", "1", TESTS[MEMORY]),
    Mutation(CLIP, "least=1,", "least=2,", TESTS[CLIP]),
    Mutation(RECONSTRUCTION, "clean.flatten(0, -4), height", "clean, height", TESTS[RECONSTRUCTION]),
    Mutation(CONDITIONS, "y.shape[1] != config.label_channels or ", "", TESTS[CONDITIONS]),
    Mutation(CONDITIONS, "(len(y) not in (1, frames) and not facts.get(HELD))", "False", TESTS[CONDITIONS]),
    Mutation(CONDITIONS, "y.reshape(-1, y.shape[-1]).float()", "y.float()", TESTS[CONDITIONS]),
)
# with ComfyUI (``COMFYUI_PATH``, and its Python)
NAMED_THERE = (
    Mutation(
        PREVIEW,
        "clean[-1:] if clean.ndim == 4",
        "clean[:1] if clean.ndim == 4",
        "tests/host/comfyui/test_comfy_port.py -k previews",
    ),
    Mutation(PREVIEW, "rearrange(clean[-1:, :1]", "rearrange(clean[:1, :1]", "tests/host/comfyui/test_comfy_port.py -k previews"),
)
EQUAL: dict[tuple[str, str, str], str] = {}

COMPARED = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
}
COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "+", ast.Pow: "*"}
BINDING = {ast.And: "or", ast.Or: "and"}
ASIDE = ("annotation", "returns", "decorator_list", "bases")  # parts of a definition that are no lines of it


class Places:
    """A file, and every change of one place of it that can be drawn; texts, types and what is raised are left alone."""

    def __init__(self, root: Path, file: str):
        self.file, self.text = file, (root / file).read_text(encoding="utf-8")
        self.lines = self.text.splitlines(keepends=True)

    def all(self) -> list[Mutation]:
        """In the order of the file."""
        bodies = [body for body in ast.parse(self.text).body if isinstance(body, ast.FunctionDef | ast.ClassDef)]
        return [mutation for body in bodies for mutation in self._inside(body)]

    def _inside(self, node: ast.AST) -> Iterator[Mutation]:
        yield from self._at(node)
        for name, child in ast.iter_fields(node):
            if name not in ASIDE and not isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
                for part in child if isinstance(child, list) else [child]:
                    if isinstance(part, ast.AST):
                        yield from self._inside(part)

    def _at(self, node: ast.AST) -> Iterator[Mutation]:
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield self._between(node.left, node.comparators[0], COMPARED[type(node.ops[0])])
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
            yield self._between(node.left, node.right, COMPUTED[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            yield self._between(node.values[0], node.values[1], BINDING[type(node.op)])
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield self._instead(*self._span(node.test), "not ({})")
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield self._instead(*self._span(node), str(node.value + 1))

    def _between(self, left: ast.expr, right: ast.expr, new: str) -> Mutation:
        """Another word in the place of the one between two parts."""
        first, last = self._span(left)[1], self._span(right)[0]
        return self._instead(first, last, self.text[first:last].replace(self.text[first:last].strip(" \n()"), new, 1))

    def _instead(self, first: int, last: int, new: str) -> Mutation:
        old = self.text[first:last]
        return Mutation(self.file, old, new.replace("{}", old), TESTS[self.file], first)

    def _span(self, node: ast.expr) -> tuple[int, int]:
        """Where a node begins and ends, in characters; Python counts bytes of a line."""
        return self._character(node.lineno, node.col_offset), self._character(node.end_lineno or 0, node.end_col_offset or 0)

    def _character(self, line: int, byte: int) -> int:
        before = sum(map(len, self.lines[: line - 1]))
        return before + len(self.lines[line - 1].encode()[:byte].decode())


def drawn(root: Path, count: int, seed: int) -> list[Mutation]:
    """So many mutations, each of a line of its own, from all files alike."""
    draw, found, lines = random.Random(seed), [], set()
    every = {file: Places(root, file).all() for file in TESTS}
    while len(found) < count:
        mutation = draw.choice(every[draw.choice(list(every))])
        if (mutation.file, line_of(root, mutation)) not in lines:
            lines.add((mutation.file, line_of(root, mutation)))
            found.append(mutation)
    return found


def placed(root: Path, mutation: Mutation) -> int:
    """Where a mutation is in its file, in characters."""
    text = (root / mutation.file).read_text(encoding="utf-8")
    if mutation.place < 0 and text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file} has {text.count(mutation.old)} times {mutation.old!r}: bring NAMED up to date")
    return text.index(mutation.old) if mutation.place < 0 else mutation.place


def line_of(root: Path, mutation: Mutation) -> int:
    """Its line, from 1."""
    return (root / mutation.file).read_text(encoding="utf-8").count("\n", 0, placed(root, mutation)) + 1


def tested(copy: Path, tests: str, log: Path) -> str:
    """Run tests in a process of its own: ``passed``, ``failed`` or ``endless``."""
    child = os.fork()
    if not child:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(copy)
        sys.path[:] = [item for item in sys.path if not item.startswith(str(HOUSE))]
        import pytest

        arguments = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow"]
        os._exit(int(pytest.main([*arguments, *tests.split()])))
    deadline = time.monotonic() + SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "endless"
        time.sleep(0.05)


def main() -> int:
    """Print a row for each. Gives 1 if one lives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="so many of those that are drawn, which were run before")
    parser.add_argument("--unnamed", action="store_true", help="leave out those that once lived")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    lived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy, log = Path(folder) / "copy", Path(folder) / "log.txt"
        shutil.copytree(HOUSE, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"), symlinks=True)
        chosen = [
            *(() if given.unnamed else NAMED + (NAMED_THERE if os.environ.get("COMFYUI_PATH") else ())),
            *drawn(copy, given.count, given.seed)[given.skip :],
        ]
        moment, sound = int(time.time()), {}
        print("| | file | line | was | became | seconds |\n|---|---|---|---|---|---|")
        for mutation in chosen:
            if mutation.tests not in sound:
                sound[mutation.tests] = tested(copy, mutation.tests, log)
            if sound[mutation.tests] != "passed":
                raise SystemExit(f"{mutation.tests} does not pass as it is:\n{log.read_text()[-2000:]}")
            began, path, place = time.monotonic(), copy / mutation.file, placed(copy, mutation)
            text = path.read_text(encoding="utf-8")
            path.write_text(text[:place] + mutation.new + text[place + len(mutation.old) :], encoding="utf-8")
            moment += 2
            os.utime(path, (moment, moment))  # or bytecode of the one before, as long as this one, would be taken
            line = text.count("\n", 0, place) + 1
            ended = tested(copy, mutation.tests, log)
            path.write_text(text, encoding="utf-8")
            moment += 2
            os.utime(path, (moment, moment))
            known = EQUAL.get((mutation.file, mutation.old.strip(), mutation.new.strip()))
            lived += ended == "passed" and known is None
            said = {"passed": f"equal: {known}" if known else "LIVED", "failed": "killed", "endless": "killed: no end"}[ended]
            was = text.splitlines()[line - 1].strip().replace("|", "\\|")
            row = mutation.file, line, was, mutation.new.strip().replace("|", "\\|"), round(time.monotonic() - began)
            print("|", said, "|", " | ".join(map(str, row)), "|", flush=True)
    print(f"\n{len(chosen)} mutations, {lived} lived")
    return int(bool(lived))


if __name__ == "__main__":
    raise SystemExit(main())
