"""Parametrisations of which a few are always run: the rest is marked slow, which ``python check.py --slow`` runs."""

from collections.abc import Iterable
from typing import Any

import pytest


def sparing(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values, all but the ``quick`` ones marked slow."""
    values = list(values)
    assert all(value in values for value in quick), "each quick one is a value"
    return [
        value if value in quick else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]
