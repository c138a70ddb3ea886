"""Settings: dataclass fields that say all about themselves, once.

What a user can set is a field made by ``setting``: its usual value, a text, and what it may be. From this one place come the class's
docstring (``documented``), the refusal of what it may not be (``check``), and the widget with its tooltip (``nodes/fields.py``).

>>> @documented
... @dataclass(frozen=True)
... class Wind:
...     \"\"\"How a wind blows.\"\"\"
...     strength: float = setting(1.0, "The strength says how hard it blows.", least=0, most=12, step=0.1)
...     side: str = setting("west", "The side is where it comes from.", menu=("west", "east"), advanced=True)
...     def __post_init__(self) -> None:
...         check(self)
>>> print(Wind.__doc__)
How a wind blows.
<BLANKLINE>
Attributes:
    strength: The strength says how hard it blows. It may be 0 to 12; 1 is usual.
    side: The side is where it comes from. The usual choice is west.
>>> Wind(13.0)
Traceback (most recent call last):
ValueError: strength is 13: it must lie between 0 and 12; 1 is usual
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy

KEY = "longtake"  # of a field's metadata
T = TypeVar("T")
LARGE = 1000  # a bound beyond this says that something is a slip of the hand, and not how far one goes


@dataclass(frozen=True)
class Setting:
    """All that is known of a setting besides its name and its usual value.

    Attributes:
        text: whole sentences: what it does, and what its values mean.
        least, most: of a number; None for any.
        step: by which an editor moves a number.
        menu: what a text may be: names, or names and a sentence for each.
        group: a word that settings about the same thing share.
        advanced: whether it can be left alone by whoever begins.
        aliases: other names of the field for it.
        multiline: whether a text has lines.
        exact: whether a number may lie between two steps.
        control: for seeds, whether an editor may choose another after each run.
    """

    text: str
    least: float | None = None
    most: float | None = None
    step: float | None = None
    menu: Collection[str] = ()
    group: str = ""
    advanced: bool = False
    aliases: tuple[str, ...] = ()
    multiline: bool = False
    exact: bool = False
    control: bool | None = None

    def told(self, usual: Any = MISSING) -> str:
        """The text with what else is known: entries of the menu, other names, what it may be, and what is usual."""
        sentences = [self.text]
        if self.aliases:
            sentences.append(f"Others call it {' or '.join(self.aliases)}.")
        if self.control is None:
            sentences.append(self._range(usual))
        entries = self.menu.items() if isinstance(self.menu, Mapping) else ()
        return "\n".join([" ".join(filter(None, sentences)), *(f"{name}: {text}" for name, text in entries)])

    def _range(self, usual: Any) -> str:
        said = usual is not MISSING and usual is not None and usual != ""
        if isinstance(usual, bool):
            return f"It is usually {'on' if usual else 'off'}."
        if self.menu:
            return f"The usual choice is {usual}." if said else ""
        bounds = self._bounds()
        if not bounds:
            return ""
        return f"It may be {bounds}; {shown(usual)} is usual." if said else f"It may be {bounds}."

    def _bounds(self) -> str:
        if self.least is None:
            return ""
        return (
            f"{shown(self.least)} or more"
            if self.most is None or self.most > LARGE
            else f"{shown(self.least)} to {shown(self.most)}"
        )

    def wrong(self, value: Any, kind: type, usual: Any = MISSING) -> str | None:
        """What is wrong with a value of this setting, to follow its name; None for nothing.

        Args:
            value: what was given.
            kind: ``int``, ``float``, ``bool`` or ``str``.
            usual: what is usual, which the sentence then says.
        """
        if self.menu:
            return None if value in self.menu else f"is {value!r}: choose one of {', '.join(self.menu)}"
        if not is_a(value, kind):
            return f"is {value!r}: it must be {KINDS[kind]}"
        if kind not in (int, float):
            return None
        low, high = (self.least if self.least is not None else -math.inf), (self.most if self.most is not None else math.inf)
        if low <= value <= high and math.isfinite(value):
            return None
        given, tail = f"is {shown(value)}: it must", "" if usual is MISSING else f"; {shown(usual)} is usual"
        if math.isinf(high):
            return f"{given} be finite{'' if math.isinf(low) else f', and at least {shown(low)}'}{tail}"
        return f"{given} lie between {shown(low)} and {shown(high)}{tail}"


KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "on or off (True or False)", str: "a text"}


def is_a(value: Any, kind: type) -> bool:
    """Whether a value can stand where a number, a whole number, a switch or a text belongs; a switch is no number."""
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not is_a(value, bool)
    return isinstance(value, (bool, numpy.bool_) if kind is bool else kind)


def shown(value: Any) -> str:
    """A number as people write it.

    >>> shown(1.0), shown(0.25), shown(2**64 - 1)
    ('1', '0.25', '18446744073709551615')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def sentences(table: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """The names of a table of functions, and the first sentence of each one's docstring: a menu that explains itself.

    Raises:
        ValueError: a function has none.
    """
    menu = {}
    for name, function in table.items():
        first = re.match(r".+?[.](?=\s|$)", " ".join((inspect.getdoc(function) or "").split()))
        if first is None or "`" in first[0]:
            raise ValueError(f"{name} has no docstring that begins with a sentence for its users")
        menu[name] = first[0]
    return menu


def setting(usual: Any, text: str, **about: Any) -> Any:
    """A dataclass field that a user sets.

    Args:
        usual: its default; ``dataclasses.MISSING`` where it must be given.
        text: see ``Setting.text``.
        about: other attributes of ``Setting``.
    """
    return dataclasses.field(default=usual, metadata={KEY: Setting(text, **about)})


@dataclass(frozen=True)
class Row:
    """A setting as a dataclass has it: ``usual`` is ``MISSING`` where it must be given."""

    name: str
    kind: type
    usual: Any
    about: Setting


def rows_of(settings: type) -> list[Row]:
    """The settings of a dataclass, in order; its other fields are no user's business."""
    return [
        Row(item.name, item.type, item.default, item.metadata[KEY])
        for item in dataclasses.fields(settings)
        if KEY in item.metadata and isinstance(item.type, type)
    ]


def check(settings: Any) -> None:
    """Refuse what a setting may not be; for ``__post_init__``.

    Raises:
        ValueError: a value is of another type, out of range or not in the menu. The sentence says which, and what is usual.
    """
    for row in rows_of(type(settings)):
        wrong = row.about.wrong(getattr(settings, row.name), row.kind, row.usual)
        if wrong:
            raise ValueError(f"{row.name} {wrong}")


def documented(cls: type[T]) -> type[T]:
    """Say what the settings of a dataclass are in its docstring, under ``Attributes``."""
    entries = "".join(
        f"    {row.name}: {row.about.told(row.usual).replace(chr(10), chr(10) + ' ' * 8)}\n" for row in rows_of(cls)
    )
    doc = inspect.cleandoc(cls.__doc__ or "")
    head, found, rest = re.split(r"(Attributes:\n)", doc + "\n", maxsplit=1) if "Attributes:\n" in doc + "\n" else (doc, "", "")
    cls.__doc__ = (head + found + entries + rest if found else f"{head}\n\nAttributes:\n{entries}").rstrip()
    return cls
