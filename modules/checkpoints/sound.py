"""Whether weights are what a network can be filled with: the check that every loader makes, after ``read_state`` and before it builds."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

NAMES = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
FLOATS = frozenset(getattr(torch, name) for name in NAMES if hasattr(torch, name))
PART = 2**20  # numbers that are looked at together: those of 8 bits are widened for it


def check_weights(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Refuse weights that are not exactly the ones a network has.

    Args:
        given: by key.
        wanted: the shape of every weight of the network, by key.
        name: of the file.

    Raises:
        ValueError: weights are missing, are unknown or of another shape, or are not sound. Names the first ones.
    """
    missing = sorted(set(wanted) - set(given))
    if missing:
        raise ValueError(f"{name} is not complete: {_listed(missing, 'missing')}; download it again")
    strange = sorted(key for key, value in given.items() if tuple(value.shape) != wanted.get(key))
    if strange:
        raise ValueError(
            f"{name} is not what its other keys say: {_listed(strange, 'unknown or of another shape')}; download it again"
        )
    sound_weights(given, name)


def sound_weights(given: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite floating-point numbers of a kind that can be computed with.

    Args:
        given: by key.
        name: of the file.

    Raises:
        ValueError: some are not. Names the first ones.
    """
    broken = sorted(key for key, value in given.items() if not _sound(value))
    if broken:
        raise ValueError(
            f"{name} is broken: {_listed(broken, 'not made of finite floating-point numbers')}; use the file as its authors released it"
        )


def _sound(weight: Tensor) -> bool:
    """The least and the most of some numbers show that they are finite, at a tenth of the cost of asking each."""
    if weight.dtype not in FLOATS or not weight.numel():
        return False
    parts = weight.reshape(-1).split(PART)
    return all(math.isfinite(float(edge)) for part in parts for edge in part.float().aminmax())


def shape_of(state: Mapping[str, Tensor], key: str, axes: int, name: str) -> tuple[int, ...]:
    """The shape of a weight that tells how a network is built.

    Args:
        state: weights by key.
        key: of this one.
        axes: how many it has in every such network.
        name: of the file.

    Raises:
        ValueError: it is missing, or of another kind of shape.
    """
    if key not in state:
        raise ValueError(f"{name} is not complete: {_listed([key], 'missing')}; download it again")
    shape = tuple(state[key].shape)
    if len(shape) != axes or 0 in shape:
        raise ValueError(
            f"{name} is damaged: {key} has the shape {list(shape)}, and such weights have {axes} axes; download it again"
        )
    return shape


def count_of(numbers: Iterable[int], what: str, name: str) -> int:
    """How many things are numbered, from 0 on; without going through numbers that a file only claims to have.

    Args:
        numbers: that keys name.
        what: is numbered.
        name: of the file.

    Raises:
        ValueError: one is left out.
    """
    found = set(numbers)
    if found and max(found) >= len(found):
        absent = next(number for number in range(len(found) + 1) if number not in found)
        raise ValueError(f"{name} is not complete: {what} {absent} is missing and {max(found)} is there; download it again")
    return len(found)


def _listed(keys: list[str], what: str) -> str:
    verb = "weight is" if len(keys) == 1 else "weights are"
    return f"{len(keys)} {verb} {what} ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})"
