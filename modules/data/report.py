"""What became of the clips that were found, as text for the user. Whatever is left out is named once, with the reason."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

LISTED = 20


@dataclass(frozen=True)
class LeftOut:
    """A clip that is not used, or not as it is: its name, and why in words."""

    name: str
    reason: str


@dataclass
class Report:
    """An account of a data set.

    Attributes:
        found: clips there were.
        used: those that can be trained on.
        unreadable: those that are broken, or that no reader is there for.
        unusable: those that are sound but do not fit what was asked, such as too short ones.
        remarks: what is unusual about those that are used.
        notes: further sentences.
        passed_over: how often a clip could not be read when it was needed and another took its place, and why the last time.
    """

    found: int = 0
    used: int = 0
    unreadable: list[LeftOut] = field(default_factory=list)
    unusable: list[LeftOut] = field(default_factory=list)
    remarks: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: dict[str, tuple[int, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def broken(self, name: str, reason: str) -> bool:
        """Note that a clip cannot be read. Whether that is news; may be called from any thread."""
        with self._lock:
            news = all(item.name != name for item in self.unreadable)
            if news:
                self.unreadable.append(LeftOut(name, reason))
            return news

    def pass_over(self, name: str, reason: str) -> bool:
        """Count that a clip could not be read when it was needed. Whether that is news; may be called from any thread."""
        with self._lock:
            before, _ = self.passed_over.pop(name, (0, ""))
            self.passed_over[name] = before + 1, reason
            return not before

    def reading(self) -> list[str]:
        """What was passed over so far, a line for each clip."""
        passed = dict(self.passed_over)
        times = {name: "once" if count == 1 else f"{count} times" for name, (count, _) in passed.items()}
        items = [LeftOut(name, f"{times[name]}, the last time because {reason}") for name, (_, reason) in passed.items()]
        return _listed("Passed over, another clip in its place", items)

    def with_more(self, other: "Report") -> "Report":
        """Both together."""
        return Report(
            self.found + other.found,
            self.used + other.used,
            [*self.unreadable, *other.unreadable],
            [*self.unusable, *other.unusable],
            [*self.remarks, *other.remarks],
            [*self.notes, *other.notes],
            {**self.passed_over, **other.passed_over},
        )

    def text(self) -> str:
        """All of it, a line for each."""
        lines = [f"{counted(self.found, 'clip')} found, {self.used} used."]
        lines += _listed("Cannot be read", self.unreadable)
        lines += _listed("Left out", self.unusable)
        lines += _listed("Used, but", self.remarks)
        return "\n".join([*lines, *self.reading(), *self.notes])


def counted(number: int, word: str) -> str:
    """A number and its noun.

    >>> counted(1, "clip"), counted(3, "clip")
    ('1 clip', '3 clips')
    """
    return f"{number} {word}{'' if number == 1 else 's'}"


def named(names: Sequence[str]) -> str:
    """The first few names.

    >>> named(["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    'a.mp4, b.mp4, c.mp4, ...'
    """
    return ", ".join(names[:3]) + (", ..." if names[3:] else "")


def _listed(title: str, items: Sequence[LeftOut]) -> list[str]:
    if not items:
        return []
    more = [f"  and {len(items) - LISTED} more"] if len(items) > LISTED else []
    return [f"{title} ({len(items)}):", *(f"  {item.name}: {item.reason}" for item in items[:LISTED]), *more]
