"""Descriptions in files, as JSON in their metadata: every field of the type that the configuration says, and in its range.

A configuration refuses values that contradict each other; that nothing hangs or divides by zero before it can is seen to here, once for
every file that describes what it is.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# the range of whole numbers by the field's name; bounds are several times what was ever published
USUAL = (0, 65536)
RANGES: Mapping[str, tuple[int, int]] = {
    "in_channels": (1, 4096),
    "out_channels": (1, 4096),
    "condition": (1, 4096),
    "model_channels": (1, 4096),
    "channel_mult": (1, 32),
    "num_res_blocks": (1, 12),
    "transformer_depth": (0, 12),
    "transformer_depth_output": (0, 12),
    "transformer_depth_middle": (0, 12),
    "context_dim": (1, 65536),
    "num_heads": (1, 128),
    "heads": (1, 128),
    "groups": (1, 1024),
    "attentions": (0, 8),
    "ff_mult": (1, 16),
    "hidden": (0, 8192),
    "stem": (1, 4096),
    "latent": (1, 4096),
    "widths": (1, 4096),
    "blocks": (0, 8),
    "patch": (0, 64),
    "frames": (1, 65536),
    "size": (1, 65536),
}
MOST_ENTRIES = {"labels": 4096, "slots": 256}
ENTRIES = 32  # of any other list
LONGEST = 200  # characters of a word


def json_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object of a file's metadata.

    Args:
        text: of it.
        name: of what is read, for the sentence.

    Raises:
        ValueError: it is no JSON, or no object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is broken: it is no JSON ({str(error)[:80]}); download the file again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is broken: it is no JSON object; download the file again")
    return value


def made(kind: type[T], facts: Any, name: str) -> T:
    """A configuration from what a file says of it.

    Args:
        kind: its dataclass; fields that are dataclasses are made likewise.
        facts: value by field.
        name: of what is described, for the sentence.

    Raises:
        ValueError: a field is missing, is not known, is of another type or out of its range, or they contradict each other.
    """
    if not isinstance(facts, Mapping):
        raise ValueError(f"{name} is broken: {shown(facts)} stands for a {kind.__name__}; download the file again")
    hints = get_type_hints(kind)
    unknown = sorted(set(facts) - set(hints))
    if unknown:
        raise ValueError(f"{name} says {shown(unknown[0])}, which this version of the pack does not know: update the pack")
    needed = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [field for field in needed if field not in facts]
    if missing:
        raise ValueError(f"{name} is broken: {missing[0]} is missing; download the file again")
    values = {field: _checked(field, value, hints[field], name) for field, value in facts.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{name} contradicts itself: {error}") from error


def _checked(field: str, value: Any, hint: Any, name: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _checked(field, value, next(one for one in inner if one is not NoneType), name)
    if is_dataclass(hint):
        return made(hint, value, name)  # type: ignore[type-var]
    if origin is tuple:
        fitting = isinstance(value, list | tuple) and len(value) <= MOST_ENTRIES.get(field, ENTRIES)
        if not fitting or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise ValueError(f"{name} is broken: {field} is {shown(value)}, which is no such list; download the file again")
        return tuple(_checked(field, one, inner[0], name) for one in value)
    if not _fits(field, value, origin or hint):
        raise ValueError(
            f"{name} is broken: {field} is {shown(value)}, {_wanted(field, origin or hint)}; download the file again"
        )
    return float(value) if hint is float else value


def _fits(field: str, value: Any, kind: Any) -> bool:
    if kind is int:
        least, most = RANGES.get(field, USUAL)
        return type(value) is int and least <= value <= most
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)
    if kind is str:
        return isinstance(value, str) and len(value) <= LONGEST and (value.isprintable() or not value)
    return isinstance(value, Mapping if kind not in (bool,) else bool)


def _wanted(field: str, kind: Any) -> str:
    if kind is int:
        least, most = RANGES.get(field, USUAL)
        return f"and whole numbers from {least} to {most} are known"
    return {float: "which is no such number", str: "which is no such word", bool: "which is not true or false"}.get(
        kind, "which is no table"
    )


def shown(value: Any) -> str:
    """A value in a sentence, cut: it may be of any length."""
    text = repr(value) if isinstance(value, str | int | float | bool | NoneType) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
