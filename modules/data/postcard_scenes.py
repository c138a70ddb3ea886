"""Landscapes that go on for ever, in layers that move as slowly as they are far: what postcards are drawn on, and their scenes.

Lengths are in pixels of a picture 64 wide; pictures are drawn with Pillow four times as large and reduced. To add a scene, write its
layers and name it in ``SCENES``; a time of day, a row of ``TIMES``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from ..noise.seeded import frame_seed

SIDE, FINER = 64, 4  # pixels of a picture, and how many times as large it is drawn
OCTAVES = ((0.6, 1.0), (0.3, 2.3), (0.1, 5.1))  # shares of a ridge, and how much finer each is
GROUND = 51.0  # where the ground begins, pixels from above

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Time:
    """A time of day: the sky from above to the horizon, how bright things are, and whether windows are lit."""

    sky: tuple[Colour, Colour]
    bright: float
    tint: Colour
    lit: bool
    disc: Colour


TIMES: dict[str, Time] = {
    "day": Time(((92, 168, 232), (214, 236, 250)), 1.0, (255, 255, 255), False, (255, 244, 190)),
    "sunset": Time(((110, 60, 130), (255, 170, 100)), 0.85, (255, 190, 160), True, (255, 226, 150)),
    "night": Time(((10, 12, 38), (46, 50, 104)), 0.5, (150, 160, 235), True, (236, 238, 250)),
}


def smooth_noise(x: float, seed: int) -> float:
    """A smooth random function of one place, in 0..1, the same at a place whenever it is asked."""
    low = math.floor(x)
    part = x - low
    part = part * part * (3 - 2 * part)
    return _random(low, seed) * (1 - part) + _random(low + 1, seed) * part


@lru_cache(maxsize=4096)
def _random(place: int, seed: int) -> float:
    return frame_seed(seed, place, "postcard") / 2**63


def ridge(x: float, seed: int, scale: float) -> float:
    """The height of a chain of hills at a place, in 0..1; ``scale`` is the length of a hill."""
    return (
        0.6 * smooth_noise(x / scale, seed)
        + 0.3 * smooth_noise(2.3 * x / scale, seed + 1)
        + 0.1 * smooth_noise(5.1 * x / scale, seed + 2)
    )


class Sheet:
    """What a picture is drawn on: lengths in pixels of the finished picture, colours as by day.

    Args:
        time: of day, which changes the colours.
    """

    def __init__(self, time: Time):
        self.time = time
        self.image = Image.new("RGB", (SIDE * FINER, SIDE * FINER))
        self.draw = ImageDraw.Draw(self.image)

    def shade(self, colour: Colour, least: float = 0.0) -> Colour:
        """A colour as this time of day shows it, at least so bright."""
        bright = max(self.time.bright, least)
        return tuple(round(value * bright * tint / 255) for value, tint in zip(colour, self.time.tint, strict=True))  # type: ignore[return-value]

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A filled outline."""
        self.draw.polygon([(x * FINER, y * FINER) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.draw.rectangle((left * FINER, top * FINER, right * FINER - 1, bottom * FINER - 1), fill=colour)

    def disc(self, x: float, y: float, across: float, colour: Colour, down: float | None = None) -> None:
        """A filled circle around a place, or an ellipse."""
        down = across if down is None else down
        box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        self.draw.ellipse(tuple(value * FINER for value in box), fill=colour)

    def picture(self) -> np.ndarray:
        """The finished picture: ``h w 3``, bytes."""
        return np.asarray(self.image.resize((SIDE, SIDE), Image.Resampling.BOX))


def draw_sky(sheet: Sheet, camera: float, seed: int) -> None:
    """The sky, the sun or moon, stars at night and slow clouds otherwise."""
    top, bottom = (np.array(colour, dtype=np.float32) for colour in sheet.time.sky)
    share = np.linspace(0, 1, SIDE * FINER, dtype=np.float32)[:, None] ** 0.8
    rows = np.repeat((top * (1 - share) + bottom * share)[:, None], SIDE * FINER, axis=1)
    sheet.image.paste(Image.fromarray(rows.round().astype(np.uint8)))
    x, y = 46 + 8 * (_random(0, seed + 50) - 0.5), 11 + 5 * _random(1, seed + 50)
    night = sheet.time.bright < 0.6
    for across, part in ((15, 0.25), (11.5, 0.5)):
        halo = tuple(
            round(a + (b - a) * part * (0.4 if night else 0.8)) for a, b in zip(sheet.time.sky[0], sheet.time.disc, strict=True)
        )
        sheet.disc(x, y, across, halo)  # type: ignore[arg-type]
    sheet.disc(x, y, 8.5, sheet.time.disc)
    if night:
        for star in range(22):
            sheet.disc(
                SIDE * _random(star, seed + 60),
                34 * _random(star, seed + 61),
                0.7 + 0.5 * _random(star, seed + 62),
                (250, 250, 255),
            )
        return
    for cloud in range(math.floor(camera * 0.08 / 40) - 1, math.floor((camera * 0.08 + SIDE) / 40) + 2):
        x = 40 * cloud + 26 * _random(cloud, seed + 70) - camera * 0.08
        y = 7 + 14 * _random(cloud, seed + 71)
        colour = sheet.shade((255, 255, 255), 0.95)
        for dx, dy, across, down in ((0, 0, 16, 4), (-3.5, -1.5, 7, 4.5), (2.5, -2, 8, 6)):
            sheet.disc(x + dx, y + dy, across, colour, down)


def draw_ridge(
    sheet: Sheet, camera: float, seed: int, *, colour: Colour, speed: float, base: float, scale: float, high: float
) -> None:
    """One layer of hills: ``speed`` in parts of the camera's, ``base`` and ``high`` in pixels."""
    outline = [(float(x), base - high * ridge(x + camera * speed, seed, scale)) for x in range(0, SIDE + 2, 2)]
    sheet.polygon([(0, SIDE), *outline, (SIDE + 1, SIDE)], sheet.shade(colour))


def draw_trees(sheet: Sheet, camera: float, seed: int, *, apart: float, speed: float, foot: float, kind: str) -> None:
    """A row of trees or cacti, not all places taken."""
    for place in range(math.floor(camera * speed / apart) - 1, math.floor((camera * speed + SIDE) / apart) + 2):
        if _random(place, seed) < 0.45:
            continue
        x = apart * (place + 0.5 * _random(place, seed + 1)) - camera * speed
        tall = 6 + 4 * _random(place, seed + 2)
        if kind == "tree":
            sheet.box(x - 0.6, foot - 3, x + 0.6, foot, sheet.shade((96, 68, 44)))
            sheet.polygon([(x - 3.2, foot - 2), (x, foot - 2 - tall), (x + 3.2, foot - 2)], sheet.shade((34, 104, 58)))
        else:
            green = sheet.shade((74, 128, 74))
            sheet.box(x - 0.9, foot - tall, x + 0.9, foot, green)
            sheet.box(x - 2.8, foot - 0.75 * tall, x - 1.6, foot - 0.45 * tall, green)
            sheet.box(x - 2.8, foot - 0.55 * tall, x, foot - 0.45 * tall, green)
            sheet.box(x + 1.6, foot - 0.85 * tall, x + 2.8, foot - 0.6 * tall, green)
            sheet.box(x, foot - 0.7 * tall, x + 2.8, foot - 0.6 * tall, green)


def draw_houses(sheet: Sheet, camera: float, seed: int, *, colour: Colour, speed: float, wide: float, high: float) -> None:
    """A row of tall houses with windows, some of them lit when it is dark."""
    for place in range(math.floor(camera * speed / wide) - 1, math.floor((camera * speed + SIDE) / wide) + 2):
        tall = high * (0.45 + 0.55 * _random(place, seed))
        left = wide * place - camera * speed
        sheet.box(left, GROUND - tall, left + wide - 1, GROUND, sheet.shade(colour))
        for row in range(int((tall - 3) // 4)):
            for column in range(2):
                lit = sheet.time.lit and _random(97 * place + 7 * row + column, seed + 1) < 0.6
                window = (255, 214, 110) if lit else sheet.shade((170, 200, 222) if not sheet.time.lit else (70, 76, 100))
                x = left + 1.5 + column * (wide - 3.5) / 2
                top = GROUND - tall + 2 + 4 * row
                sheet.box(x, top, x + (wide - 5) / 2, top + 2, window)


def draw_road(sheet: Sheet, camera: float, colour: Colour) -> None:
    """A strip of land with a road on it, whose dashes move as fast as the camera."""
    sheet.box(0, GROUND, SIDE, SIDE, sheet.shade(colour))
    sheet.box(0, GROUND + 2, SIDE, GROUND + 10, sheet.shade((84, 84, 90)))
    for dash in range(-1, 5):
        x = 16 * dash - camera % 16
        sheet.box(x, GROUND + 7.7, x + 7, GROUND + 9, sheet.shade((240, 236, 214), 0.7))


def hills(sheet: Sheet, camera: float, seed: int) -> None:
    """Two chains of hills, trees and a road."""
    draw_ridge(sheet, camera, seed, colour=(120, 152, 160), speed=0.25, base=44, scale=24, high=20)
    draw_ridge(sheet, camera, seed + 10, colour=(66, 132, 80), speed=0.55, base=50, scale=18, high=14)
    draw_trees(sheet, camera, seed + 20, apart=11, speed=0.8, foot=GROUND + 0.5, kind="tree")
    draw_road(sheet, camera, (98, 172, 78))


def desert(sheet: Sheet, camera: float, seed: int) -> None:
    """Dunes, cacti and a road."""
    draw_ridge(sheet, camera, seed, colour=(206, 150, 112), speed=0.25, base=46, scale=34, high=18)
    draw_ridge(sheet, camera, seed + 10, colour=(226, 182, 116), speed=0.55, base=51, scale=26, high=10)
    draw_trees(sheet, camera, seed + 20, apart=16, speed=0.8, foot=GROUND + 0.5, kind="cactus")
    draw_road(sheet, camera, (238, 206, 146))


def city(sheet: Sheet, camera: float, seed: int) -> None:
    """Two rows of houses and a street."""
    draw_houses(sheet, camera, seed, colour=(146, 152, 176), speed=0.25, wide=10, high=36)
    draw_houses(sheet, camera, seed + 10, colour=(98, 98, 124), speed=0.6, wide=12, high=24)
    draw_road(sheet, camera, (128, 128, 134))


def sea(sheet: Sheet, camera: float, seed: int) -> None:
    """Islands far away, and waves."""
    draw_ridge(sheet, camera, seed, colour=(112, 140, 158), speed=0.2, base=46, scale=30, high=12)
    for row, (top, colour) in enumerate(((42, (58, 132, 190)), (48, (44, 112, 178)), (55, (34, 92, 160)))):
        speed = 0.4 + 0.3 * row
        crest = [(float(x), top + 0.9 * math.sin((x + camera * speed) * 0.55)) for x in range(0, SIDE + 2, 2)]
        sheet.polygon([(0, SIDE), *crest, (SIDE + 1, SIDE)], sheet.shade(colour))
    for foam in range(-1, 5):
        x = 16 * foam - camera % 16
        sheet.box(x, 59, x + 6, 60, sheet.shade((196, 224, 244)))


SCENES: dict[str, Callable[[Sheet, float, int], None]] = {scene.__name__: scene for scene in (hills, sea, city, desert)}
