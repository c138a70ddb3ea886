"""Who is under way in postcards: drawings around a place, each with a motion of its own.

To add a traveller, draw it and give it a row of ``TRAVELLERS``. Times are in frames, lengths in pixels of a picture 64 wide.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .postcard_scenes import SCENES, Colour, Sheet

COLOURS: dict[str, Colour] = {
    "red": (224, 48, 44),
    "blue": (40, 92, 226),
    "yellow": (248, 202, 36),
    "green": (36, 158, 74),
    "white": (244, 244, 244),
}

DARK, GLASS, STRIPE, PAPER_WHITE = (34, 34, 40), (206, 232, 246), (52, 60, 110), (250, 250, 244)


class Pen:
    """Draws a traveller around its place."""

    def __init__(self, sheet: Sheet, x: float, y: float, colour: Colour):
        self.sheet, self.x, self.y = sheet, x, y
        self.colour = self.lit(colour)

    def lit(self, colour: Colour) -> Colour:
        """A colour as it is seen on a traveller: less dim and less tinted than the land, so that it can be told at night."""
        shaded = self.sheet.shade(colour, 0.9)
        return tuple(round(0.35 * dim + 0.65 * own) for dim, own in zip(shaded, colour, strict=True))  # type: ignore[return-value]

    def shape(self, points: list[tuple[float, float]], colour: Colour | None = None) -> None:
        """A filled outline; in the traveller's own colour unless told otherwise."""
        own = self.colour if colour is None else self.lit(colour)
        self.sheet.polygon([(self.x + x, self.y + y) for x, y in points], own)

    def disc(self, x: float, y: float, across: float, colour: Colour | None = None, down: float | None = None) -> None:
        """A filled circle or ellipse."""
        own = self.colour if colour is None else self.lit(colour)
        self.sheet.disc(self.x + x, self.y + y, across, own, down)


def car(pen: Pen, time: float) -> None:
    """A car: it shakes a little on its way, and its wheels turn."""
    if pen.sheet.time.lit:
        pen.sheet.polygon([(pen.x + 12, pen.y - 3), (pen.x + 24, pen.y - 5), (pen.x + 24, pen.y + 4)], (255, 236, 150))
    pen.shape([(-13, 1), (-13, -4), (-8, -5), (-4, -11), (5, -11), (9, -5), (13, -4), (13, 1)])
    pen.shape([(-6, -5), (-3.2, -9.8), (0, -9.8), (0, -5)], GLASS)
    pen.shape([(1.2, -5), (1.2, -9.8), (4.4, -9.8), (7, -5)], GLASS)
    for wheel in (-7.5, 7.5):
        pen.disc(wheel, 1, 7, DARK)
        pen.disc(wheel + 1.1 * math.cos(time), 1 + 1.1 * math.sin(time), 2, (200, 200, 204))


def boat(pen: Pen, time: float) -> None:
    """A sailing boat: it rolls with the waves."""
    lean = 1.2 * math.sin(0.5 * time)
    pen.shape([(-13, 0), (13, 0), (9, 6), (-9, 6)])
    pen.shape([(-0.6, 0), (lean - 0.6, -20), (lean + 0.6, -20), (0.6, 0)], (120, 80, 50))
    pen.shape([(lean + 1.2, -19), (1.4, -2), (11, -2)], PAPER_WHITE)
    pen.shape([(lean - 1.2, -16), (-1.2, -2), (-9, -2)], PAPER_WHITE)


def balloon(pen: Pen, time: float) -> None:
    """A hot-air balloon with a dark stripe: it rises and sinks slowly."""
    pen.disc(0, -10, 20, None, 21)
    pen.shape([(-8, -4.5), (8, -4.5), (2.6, 4), (-2.6, 4)])
    pen.disc(0, -10, 6.5, STRIPE, 21)
    glow = (255, 190, 80) if pen.sheet.time.lit and math.sin(0.9 * time) > 0 else (150, 100, 62)
    pen.shape([(-2.8, 6), (2.8, 6), (2.2, 10), (-2.2, 10)], glow)


def bird(pen: Pen, time: float) -> None:
    """A bird: it flaps its wings."""
    pen.disc(-1, 0, 16, None, 9)
    pen.disc(7, -2.5, 8)
    pen.shape([(10, -3.5), (16, -2), (10, -0.5)], (248, 160, 36))
    pen.shape([(-7, -1), (-15, -5), (-14, 3)])
    flap = 10 * math.sin(0.9 * time)
    pen.shape([(-5, -1), (3, -1), (-4, -2 - flap)], PAPER_WHITE)
    pen.disc(8, -3, 1.8, DARK)


def rocket(pen: Pen, time: float) -> None:
    """A rocket with coloured fins and nose: its flame flickers."""
    flame = 5 + 2.5 * math.sin(2.3 * time)
    pen.shape([(-10, -3), (-13 - flame, 0), (-10, 3)], (255, 168, 40))
    pen.shape([(-8, -5), (-14, -10), (-2, -5)])
    pen.shape([(-8, 5), (-14, 10), (-2, 5)])
    pen.shape([(-11, -5), (6, -5), (6, 5), (-11, 5)], (236, 236, 242))
    pen.shape([(6, -5), (14, 0), (6, 5)])
    pen.disc(0, 0, 5, (70, 150, 226))


@dataclass(frozen=True)
class Traveller:
    """Who is under way: how it is drawn, where it may be, and how high it flies.

    Attributes:
        draw: ``(pen, time)``.
        scenes: names in ``SCENES``.
        height: the middle of its way, pixels from above.
        sway: how far it rises and sinks, pixels.
        beat: how quickly it does, radians per frame.
    """

    draw: Callable[[Pen, float], None]
    scenes: tuple[str, ...]
    height: float
    sway: float
    beat: float


LAND = ("hills", "city", "desert")
TRAVELLERS: dict[str, Traveller] = {
    "car": Traveller(car, LAND, 53.0, 0.5, 1.7),
    "boat": Traveller(boat, ("sea",), 49.0, 1.0, 0.5),
    "balloon": Traveller(balloon, tuple(SCENES), 30.0, 4.0, 0.2),
    "bird": Traveller(bird, tuple(SCENES), 27.0, 4.5, 0.28),
    "rocket": Traveller(rocket, tuple(SCENES), 26.0, 3.0, 0.17),
}
