"""Everything a change must pass, in one command: ``python check.py``; ``--slow`` runs the tests marked slow as well, ``--fix`` repairs
style first.

Uses the interpreter it is run with. With ComfyUI's own interpreter the tests that need ComfyUI run too.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
INSTALL = "python -m pip install -r requirements-dev.txt"


def steps(fix: bool, slow: bool) -> dict[str, list[str]]:
    """Name -> what to run as ``python -m ...``; the first word is the package it needs."""
    return {
        "style": ["ruff", "check", ".", *(["--fix"] if fix else [])],
        "format": ["ruff", "format", ".", *([] if fix else ["--check"])],
        "types": ["basedpyright", "--level", "error", "--pythonpath", sys.executable],
        "tests": ["pytest", "-q", "-rs", "-n", "auto", "--dist", "loadfile", *([] if slow else ["-m", "not slow"])],
    }


def run(command: list[str]) -> tuple[bool, str]:
    """Whether a step passed, and what to say of it."""
    if importlib.util.find_spec(command[0]) is None:
        return False, f"{command[0]} is not installed: {INSTALL}"
    before = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}).returncode
    return code == 0, f"{time.perf_counter() - before:.0f} s"


def main() -> int:
    """Run every step, also after one failed, and sum up."""
    parser = argparse.ArgumentParser(prog="check.py", description="Style, format, types and tests.")
    parser.add_argument("--fix", action="store_true", help="repair style and format where a tool can")
    parser.add_argument("--slow", action="store_true", help="tests marked slow as well: more cases, and what takes long")
    given = parser.parse_args()
    results = {}
    for name, command in steps(given.fix, given.slow).items():
        print(f"\n{name}: {' '.join(command)}", flush=True)
        results[name] = run(command)
    print(
        "\n" + "\n".join(f"{'ok    ' if passed else 'FAILED'}  {name:7} {remark}" for name, (passed, remark) in results.items())
    )
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
