"""Rules that hold for every file, and the checker that executes the docstrings' shapes."""

import ast
import doctest
import importlib.util
import pkgutil
import sys
from pathlib import Path

import pack
import pack.modules
import pytest
import torch
from shapes import ShapeChecker, ShapeError, Stated, fits

ROOT = Path(pack.__file__ or "").parent
# a package's __main__ is its command: importing it would run it
MODULES = [
    info.name for info in pkgutil.walk_packages(pack.modules.__path__, "pack.modules.") if not info.name.endswith(".__main__")
]
FILES = sorted(ROOT.glob("modules/**/*.py"))
EVERY_FILE = sorted([*FILES, *ROOT.glob("nodes/**/*.py"), *ROOT.glob("host/**/*.py"), *ROOT.glob("*.py")])
ALLOWED = {"torch", "einops", "safetensors", "numpy", "PIL", *sys.stdlib_module_names}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def public_functions(tree):
    """Functions and methods that others may call; what is defined inside a function is its own business."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def is_tensor(annotation):
    return annotation is not None and ast.unparse(annotation) in ("Tensor", "Tensor | None")


def unstated(function):
    """The names of the tensors of a function whose shapes its docstring does not tell."""
    stated = Stated.by(ast.get_docstring(function) or "")
    told = {name for name, _ in stated.arguments}
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    missing = [item.arg for item in given if is_tensor(item.annotation) and item.arg not in told]
    return missing + (["the result"] if is_tensor(function.returns) and not stated.results else [])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_tensor_has_a_stated_shape(path):
    functions = public_functions(ast.parse(path.read_text(encoding="utf-8")))
    bad = [f"{name_of(path)}:{item.lineno} {item.name}: {', '.join(unstated(item))}" for item in functions if unstated(item)]
    assert not bad


def test_a_missing_shape_is_noticed():
    tree = ast.parse('def f(x: Tensor, y: Tensor | None) -> Tensor:\n    """Of ``x``: ``n c``."""\n')
    assert [unstated(item) for item in public_functions(tree)] == [["y", "the result"]]


def imports(path):
    """``(level, name)`` of every import; level 0 is absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, item.name) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_know_neither_host_nor_nodes(path):
    depth = len(path.relative_to(ROOT / "modules").parts)
    for level, name in imports(path):
        if level:
            assert level <= depth, f"{name_of(path)} imports {'.' * level}{name}, which lies outside modules/"
        else:
            assert name.partition(".")[0] in ALLOWED, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("nodes/**/*.py")), ids=name_of)
def test_nodes_import_only_what_lies_below_them(path):
    depth = len(path.relative_to(ROOT / "nodes").parts)
    for level, name in imports(path):
        room = name.partition(".")[0]
        fine = room in ALLOWED if level == 0 else level <= depth or (level == depth + 1 and room in ("", "host", "modules"))
        assert fine, f"{name_of(path)} imports {'.' * level}{name}"


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_files_have_one_topic(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 450, f"{name_of(path)} has {lines} lines: look for the second topic in it"


@pytest.mark.parametrize(
    ("pattern", "shape", "known", "fit"),
    [
        ("n c", (2, 3), {}, True),
        ("n c", (2, 3, 4), {}, False),
        ("n n", (2, 3), {}, False),
        ("(b f) c", (6, 3), {"f": 2}, True),
        ("(b f) c", (7, 3), {"f": 2}, False),
        ("(b f) c", (6, 3), {"f": 2, "b": 4}, False),
        ("b ... d", (1, 2, 3, 4), {"d": 4}, True),
        ("b ... d", (4,), {}, False),
        ("f 3", (5, 4), {}, False),
        ("m+1 f", (5, 2), {"m": 4}, True),
        ("m+1 f", (4, 2), {"m": 4}, False),
        ("()", (), {}, True),
        ("()", (1,), {}, False),
    ],
)
def test_fits(pattern, shape, known, fit):
    assert fits(pattern, shape, dict(known)) is fit


@pytest.mark.parametrize(
    ("docstring", "arguments", "results"),
    [
        ("Transform ``x``: ``n c h w`` with ``emb``: ``n d``. Returns ``n k h w``.", ["n c h w", "n d"], ["n k h w"]),
        (
            "Give.\n\n    Args:\n        x: ``f c``, what.\n\n    Returns:\n        x: ``c f``, where ``f`` is.\n    ",
            ["f c"],
            ["c f"],
        ),
        ("Two.\n\n    Returns:\n        a: ``m f``.\n        b: ``f``.\n    ", [], ["m f", "f"]),
        ("Levels.\n\n    Returns:\n        ``m f``, where ``m = steps + 1``.\n    ", [], ["m f"]),
        ("Everything: ``ids``: ``f``.", ["f"], []),
        ("A rule ``l = steps + 1`` and a call: ``(q, k, v) -> out``.", [], []),
    ],
)
def test_docstrings_are_read(docstring, arguments, results):
    stated = Stated.by(docstring)
    assert [shape for _, shape in stated.arguments] == arguments
    assert list(stated.results) == results


WATCHED = '''
import torch

def wrong_result(x):
    """Turn ``x``: ``f c``. Returns ``c f``."""
    return x

def wrong_argument(x, frames):
    """Of ``x``: ``frames c``."""

class Thing:
    def method(self, x):
        """Of ``x``: ``n n``."""

def steps(x):
    """Of ``x``: ``n c``."""
    for _ in range(2):
        x = x[0]
        yield x
'''


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda watched: watched.wrong_result(torch.zeros(2, 3)), "wrong_result: the result is [2, 3], stated ``c f``"),
        (lambda watched: watched.wrong_result(torch.zeros(3, 3)), None),
        (lambda watched: watched.wrong_argument(torch.zeros(2, 3), 3), "wrong_argument: x is [2, 3]"),
        (lambda watched: watched.wrong_argument(x=torch.zeros(3, 3), frames=3), None),
        (lambda watched: watched.Thing().method(torch.zeros(2, 3)), "method: x is [2, 3]"),
        (lambda watched: list(watched.steps(torch.zeros(2))), "steps: x is [2]"),
        (lambda watched: list(watched.steps(torch.zeros(2, 3))), None),
    ],
)
def test_calls_are_checked(call, wrong, tmp_path):
    path = tmp_path / "watched.py"
    path.write_text(WATCHED, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("watched", path)
    watched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(watched)
    checker = ShapeChecker(tmp_path)
    try:
        with checker:
            try:
                call(watched)
            except IndexError:
                assert wrong
        message = None
    except ShapeError as error:
        message = str(error)
    assert (message is None) if wrong is None else (wrong in (message or ""))


def test_a_compiled_function_is_left_alone():
    """What ``torch.compile`` traced is generated code: the checker neither stops nor sees it."""
    from pack.modules.noise.seeded import broadcast

    compiled = torch.compile(broadcast, backend="eager")
    values, like = torch.rand(3), torch.rand(3, 4, 5)
    assert torch.equal(compiled(values, like), broadcast(values, like))
