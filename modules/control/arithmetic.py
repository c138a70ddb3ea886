"""Arithmetic in schedules, such as ``0.5+0.5*sin(t/8)``: numbers that change from frame to frame, as FizzNodes and Deforum write them."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 200  # characters of one term
CONSTANTS = {"pi": math.pi, "e": math.e}
FUNCTIONS: dict[str, Callable[..., float]] = {
    name: getattr(math, name) for name in ("sin", "cos", "tan", "exp", "log", "sqrt", "floor", "ceil")
} | {"abs": abs, "min": min, "max": max, "where": lambda given, yes, no: yes if given else no}
BETWEEN: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, power: math.pow(base, power),
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
BEFORE: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def evaluate(text: str, names: Mapping[str, float]) -> float:
    """The number that a term is.

    >>> evaluate("0.5 + t / max_f", {"t": 4, "max_f": 16})
    0.75

    Args:
        text: a term with numbers, ``+ - * / % **``, comparisons, and what is in ``FUNCTIONS``.
        names: further names and what they stand for, such as ``t``, the frame.

    Raises:
        ValueError: the term does not read so, or is no finite number for these names. The sentence begins with the term.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]!r}... has {len(text)} characters: a term of a schedule has {LONGEST} at most")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"{text!r} is neither a number nor a term: write such as 0.8, or 0.5+0.5*sin(t/8)") from None
    try:
        number = float(_value(tree, {**CONSTANTS, **names}, text))
    except (ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(repr(text)):
            raise
        raise ValueError(f"{text!r} has no value at frame {names.get('t', 0):g}: {error}") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is {number} at frame {names.get('t', 0):g}: it must be finite")
    return number


def _value(node: ast.AST, names: Mapping[str, float], text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)  # of real numbers no power takes long
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and type(node.op) in BEFORE:
        return BEFORE[type(node.op)](_value(node.operand, names, text))
    if isinstance(node, ast.BinOp) and type(node.op) in BETWEEN:
        return BETWEEN[type(node.op)](_value(node.left, names, text), _value(node.right, names, text))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in BETWEEN:
        return BETWEEN[type(node.ops[0])](_value(node.left, names, text), _value(node.comparators[0], names, text))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords:
        return FUNCTIONS[node.func.id](*(_value(item, names, text) for item in node.args))
    what = node.id if isinstance(node, ast.Name) else ast.unparse(node)
    raise ValueError(f"{text!r} holds {what!r}, which is not known here: known are {', '.join([*names, *FUNCTIONS])}")
