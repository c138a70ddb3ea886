"""Check the tensor shapes that docstrings state, on every call into a folder that the tests make.

A shape is einops notation in double backticks, stated in one of these ways::

    ``x``: ``n c h w``            anywhere in the text, for an argument
    x: ``n c h w``, noisy frames  at the start of a line, as in Args
    Returns ``n c h w``.          in the text, for the result
    Returns:                      as a section; several entries are the items of a tuple
        clean: ``n c h w``.

Names stand for sizes within one call, so ``b f c`` in and ``b c`` out must agree on ``b`` and ``c``. An integer argument is the
size of the axis of its own name. ``(b f)`` is a product, ``...`` any run of axes, ``m+1`` one more than ``m``, ``()`` a number.

Calls are watched through Python's profiling hook: nothing is wrapped or replaced, so tables of functions, methods, nested functions
and generators are all covered, and what ``torch.compile`` traces or runs as generated code is simply not seen.
"""

import inspect
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

ARGUMENT = re.compile(r"(?:^[ \t]*(\w+)|``(\w+)``): ``([^`]+)``(?!: ``)", re.MULTILINE)
SECTION = re.compile(r"^Returns:[ \t]*\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)
INLINE = re.compile(r"\bReturns ``([^`]+)``")
SHAPE = re.compile(r"\(\)$|(?:(?:\.\.\.|\w+(?:[+-]\d+)?|\(\w+(?: \w+)*\))(?: |$))+$")
AXIS = re.compile(r"\([^)]*\)|\.\.\.|\w+(?:[+-]\d+)?")

Sizes = dict[str, int]


class ShapeError(AssertionError):
    """A tensor was not of the shape that its docstring states."""


@dataclass(frozen=True)
class Stated:
    """What one docstring says."""

    arguments: tuple[tuple[str, str], ...]
    results: tuple[str, ...]

    @classmethod
    def by(cls, docstring: str) -> "Stated":
        doc = inspect.cleandoc(docstring) + "\n"
        section = SECTION.search(doc)
        rest = SECTION.sub("", doc)
        inline = [shape for shape in INLINE.findall(rest) if SHAPE.match(shape)]
        results = [shape for _, _, shape in ARGUMENT.findall(section[1]) if SHAPE.match(shape)] if section else inline[:1]
        if section and not results:  # a section without a name: "``m f``, the levels"
            results = [shape for shape in re.findall(r"^\s*``([^`]+)``", section[1], re.MULTILINE) if SHAPE.match(shape)]
        arguments = [(first or second, shape) for first, second, shape in ARGUMENT.findall(rest) if SHAPE.match(shape)]
        return cls(tuple(arguments), tuple(results))

    def __len__(self) -> int:
        return len(self.arguments) + len(self.results)


def fits(pattern: str, shape: tuple[int, ...], sizes: Sizes) -> bool:
    """Whether ``shape`` is of the ``pattern``; notes in ``sizes`` what each new name stands for."""
    axes = [] if pattern == "()" else AXIS.findall(pattern)
    if "..." in axes:
        gap = axes.index("...")
        axes[gap : gap + 1] = ["_"] * (len(shape) - len(axes) + 1)
    return len(axes) == len(shape) and all(_fits(axis, size, sizes) for axis, size in zip(axes, shape, strict=True))


def _fits(axis: str, size: int, sizes: Sizes) -> bool:
    if axis == "_":
        return True
    if axis.isdigit():
        return size == int(axis)
    if axis.startswith("("):
        return _fits_product(axis[1:-1].split(), size, sizes)
    name, sign, number = re.match(r"(\w+?)(?:([+-])(\d+))?$", axis).groups()  # type: ignore[union-attr]
    return sizes.setdefault(name, size - int((sign or "+") + (number or "0"))) == size - int((sign or "+") + (number or "0"))


def _fits_product(factors: list[str], size: int, sizes: Sizes) -> bool:
    values = [int(name) if name.isdigit() else sizes.get(name) for name in factors]
    known = math.prod(value for value in values if value is not None)
    unknown = [name for name, value in zip(factors, values, strict=True) if value is None]
    if not unknown:
        return size == known
    if not known or size % known:
        return False
    if len(unknown) == 1:
        sizes[unknown[0]] = size // known
    return True


class ShapeChecker:
    """While it is open, calls into files under ``folder`` are checked; leaving it raises for what did not fit."""

    def __init__(self, folder: Path | str):
        self.folder = str(folder)
        self.stated: dict[int, tuple[CodeType, Stated | None]] = {}
        self.calls: dict[FrameType, Sizes] = {}
        self.wrong: list[str] = []
        self.before: Any = None

    def __enter__(self) -> "ShapeChecker":
        self.before = sys.getprofile()
        sys.setprofile(self._event)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        sys.setprofile(self.before)
        self.calls.clear()
        if self.wrong and kind is None:
            raise ShapeError("\n".join(dict.fromkeys(self.wrong)))

    def _event(self, frame: FrameType, event: str, value: Any) -> None:
        if event == "call":
            stated = self._of(frame.f_code)
            if stated is not None:
                self._called(frame, stated)
        elif event == "return" and frame in self.calls:
            self._returned(frame, value)

    def _of(self, code: CodeType) -> Stated | None:
        known = self.stated.get(id(code))
        if known is None:
            stated = None
            first = code.co_consts[0] if code.co_consts else None
            if isinstance(first, str) and code.co_filename.startswith(self.folder):
                stated = Stated.by(first)
            # the code is kept too: its id must not come back as another's
            known = self.stated[id(code)] = code, stated if stated else None
        return known[1]

    def _called(self, frame: FrameType, stated: Stated) -> None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values: Mapping[str, Any] = frame.f_locals
        generator = code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
        if generator and set(values) - set(names) - set(code.co_freevars):
            return  # it goes on after a yield: its arguments may have been assigned to since
        sizes = {name: values[name] for name in names if type(values.get(name)) is int}
        for name, pattern in stated.arguments:
            if name in names:
                self._check(frame, name, pattern, values.get(name), sizes)
        if stated.results and not generator:
            self.calls[frame] = sizes

    def _returned(self, frame: FrameType, value: Any) -> None:
        sizes = self.calls.pop(frame)
        results = self._of(frame.f_code).results  # type: ignore[union-attr]
        values = value if isinstance(value, tuple) and len(results) > 1 else (value,)
        for pattern, item in zip(results, values, strict=False):
            self._check(frame, "the result", pattern, item, sizes)

    def _check(self, frame: FrameType, name: str, pattern: str, value: Any, sizes: Sizes) -> None:
        if isinstance(value, Tensor) and not fits(pattern, tuple(value.shape), sizes):
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_firstlineno} {frame.f_code.co_name}"
            self.wrong.append(f"{place}: {name} is {list(value.shape)}, stated ``{pattern}`` where {sizes}")
