"""Words for sentences."""

import difflib
from collections.abc import Iterable


def closest(name: str, there: Iterable[str]) -> list[str]:
    """Which of the names that there are look most like a mistyped one, nearest first; capitals do not matter.

    >>> closest("long_tkae", ["long_take", "endless_take", "pia"])
    ['long_take']
    """
    by_lower: dict[str, str] = {}
    for known in there:
        by_lower.setdefault(known.lower(), known)
    return [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=3)]


def meant(name: str, there: Iterable[str]) -> str:
    """A question about a mistyped name, or nothing.

    >>> meant("framse", ["frames", "seed"]), meant("x", ["frames"])
    ("did you mean 'frames'? ", '')
    """
    found = [repr(known) for known in closest(name, there)]
    return f"did you mean {' or '.join(found)}? " if found else ""


def listed(items: Iterable[str], most: int = 3) -> str:
    """So many of the items, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    names = list(items)
    last = f"{len(names) - most} more" if len(names) > most else names.pop() if len(names) > 1 else ""
    return ", ".join(names[:most]) + (f" and {last}" if last else "")
