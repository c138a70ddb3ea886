"""The part of a sampling in which something acts: two settings that many dataclasses share, and the refusal of an empty part."""

from typing import Any, Protocol

from .setting import setting, shown


class Span(Protocol):
    """What acts in a part of the sampling."""

    @property
    def start_percent(self) -> float: ...
    @property
    def end_percent(self) -> float: ...


def start_percent() -> Any:
    """The field ``start_percent``."""
    return setting(
        0.0,
        "It begins to act when sampling has come this far: 0 is the noisiest step and 1 the end, and each frame counts by its own noise"
        " level.",
        least=0.0,
        most=1.0,
        step=0.01,
        exact=True,
        advanced=True,
    )


def end_percent() -> Any:
    """The field ``end_percent``."""
    return setting(
        1.0,
        "It stops acting when sampling has come this far; the rest goes on without it.",
        least=0.0,
        most=1.0,
        step=0.01,
        exact=True,
        advanced=True,
    )


def check_span(settings: Span) -> None:
    """Refuse an empty part; see ``check_percents``."""
    check_percents(settings.start_percent, settings.end_percent)


def check_percents(start_percent: float, end_percent: float) -> None:
    """Refuse an empty part.

    Raises:
        ValueError: the start does not lie before the end.
    """
    if not start_percent < end_percent:
        raise ValueError(
            f"start_percent is {shown(start_percent)} and end_percent {shown(end_percent)}: the start must lie below the end, or it would"
            " never act"
        )
