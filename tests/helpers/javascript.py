"""Functions of ``web/*.js`` for tests, run by Node.js."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def js(tmp_path_factory) -> Any:
    """``js(module, function, *arguments)`` gives what a function of ``web/<module>.js`` does, or raises ValueError with what it throws."""
    if NODE is None:
        pytest.skip("no Node.js (node) on the path")
    folder = tmp_path_factory.mktemp("web")
    for path in (ROOT / "web").glob("*.js"):
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    process = subprocess.Popen(
        [str(NODE), str(ROOT / "tests" / "helpers" / "js_calls.mjs"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    into, out = process.stdin, process.stdout
    assert into is not None and out is not None

    def call(module: str, name: str, *args: Any) -> Any:
        into.write(json.dumps({"module": module, "name": name, "args": args}) + "\n")
        into.flush()
        answer = json.loads(out.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer.get("value")

    yield call
    into.close()
    process.wait(timeout=10)
