"""A setting says all about itself: what it is refused with, and what its class's docstring reads."""

from dataclasses import MISSING, dataclass

import pytest
from pack.modules.fields.setting import Setting, check, documented, rows_of, setting


@documented
@dataclass(frozen=True)
class Wind:
    """How a wind blows.

    Attributes:
        mask: where it blows.
    """

    mask: object = None
    strength: float = setting(1.0, "The strength says how hard it blows.", least=0.0, most=12.0, aliases=("force",))
    steps: int = setting(20, "Steps are what it takes.", least=1)
    loop: bool = setting(False, "The wind comes back.")
    side: str = setting("west", "The side is where it comes from.", menu={"west": "The sea is there.", "east": "The land is."})
    name: str = setting("", "The name is free.")
    seed: int = setting(0, "The seed decides all noise.", least=0, most=2**64 - 1, control=True)

    def __post_init__(self):
        check(self)


def test_the_docstring_has_every_text_behind_what_was_there():
    assert (
        Wind.__doc__
        == """How a wind blows.

Attributes:
    strength: The strength says how hard it blows. Others call it force. It may be 0 to 12; 1 is usual.
    steps: Steps are what it takes. It may be 1 or more; 20 is usual.
    loop: The wind comes back. It is usually off.
    side: The side is where it comes from. The usual choice is west.
        west: The sea is there.
        east: The land is.
    name: The name is free.
    seed: The seed decides all noise.
    mask: where it blows."""
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"strength": 13.0}, "strength is 13: it must lie between 0 and 12; 1 is usual"),
        ({"strength": -0.5}, "strength is -0.5: it must lie between 0 and 12"),
        ({"strength": float("nan")}, "strength is nan: it must lie between 0 and 12"),
        ({"strength": "1"}, "strength is '1': it must be a number"),
        ({"strength": True}, "strength is True: it must be a number"),
        ({"steps": 0}, "steps is 0: it must be finite, and at least 1; 20 is usual"),
        ({"steps": 1.5}, "steps is 1.5: it must be a whole number"),
        ({"loop": 1}, "loop is 1: it must be on or off"),
        ({"side": "north"}, "side is 'north': choose one of west, east"),
        ({"name": 3}, "name is 3: it must be a text"),
        ({"seed": 2**64}, "seed is 18446744073709551616: it must lie between 0 and 18446744073709551615"),
    ],
)
def test_what_it_may_not_be_is_refused(given, sentence):
    with pytest.raises(ValueError) as error:
        Wind(**given)
    assert sentence in str(error.value)


@pytest.mark.parametrize("given", [{}, {"strength": 3}, {"strength": 0.0}, {"steps": 10**9}, {"side": "east"}, {"mask": "any"}])
def test_the_rest_is_not(given):
    Wind(**given)


def test_a_usual_value_can_be_missing():
    @dataclass
    class Run:
        steps: int = setting(MISSING, "Steps are all that it takes.", least=1)

    (row,) = rows_of(Run)
    assert row.usual is MISSING and row.about.told() == "Steps are all that it takes. It may be 1 or more."
    with pytest.raises(TypeError, match="steps"):
        Run()


def test_fields_without_a_text_are_no_settings():
    assert [row.name for row in rows_of(Wind)] == ["strength", "steps", "loop", "side", "name", "seed"]
    assert Setting("A text.").told() == "A text."
