"""A procedural world of moving postcards: side-scrolling landscapes that go on for ever, with a traveller, known exactly at any time.

Hills, sea, city or desert (``postcard_scenes.py``), by day, at sunset or at night, a camera that pans at a told speed, and a traveller
(``postcard_travellers.py``) in a colour that moves in its own way. Words describe all of it: "red car, hills, sunset".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..noise.seeded import frame_seed
from .postcard_scenes import SCENES, TIMES, Sheet, draw_sky
from .postcard_travellers import COLOURS, TRAVELLERS, Pen

LABELS = (*SCENES, *TIMES, *TRAVELLERS, *COLOURS)


@dataclass(frozen=True)
class Postcard:
    """One place, time and traveller, which go on for ever.

    Attributes:
        scene, time, traveller, colour: names in the tables above.
        seed: of the landscape.
        speed: of the camera, pixels per frame.
        start: where the camera begins, pixels.
        phase: where in its motion the traveller begins, frames.
        place: the middle of the traveller's way across the picture, pixels.
    """

    scene: str
    time: str
    traveller: str
    colour: str
    seed: int = 0
    speed: float = 1.4
    start: float = 0.0
    phase: float = 0.0
    place: float = 30.0

    def __post_init__(self) -> None:
        for what, table in (("scene", SCENES), ("time", TIMES), ("traveller", TRAVELLERS), ("colour", COLOURS)):
            if getattr(self, what) not in table:
                raise ValueError(f"the {what} {getattr(self, what)!r} is not in this world: choose one of {', '.join(table)}")

    @property
    def prompt(self) -> str:
        """Its words, as the world's models are told them."""
        return f"{self.colour} {self.traveller}, {self.scene}, {self.time}"

    def camera(self, frame: float) -> float:
        """Where the camera is, pixels."""
        return self.start + self.speed * frame

    def where(self, frame: float) -> tuple[float, float]:
        """Where the traveller is: x and y in pixels."""
        who, t = TRAVELLERS[self.traveller], frame + self.phase
        return self.place + 3.0 * math.sin(t / 9), who.height + who.sway * math.sin(who.beat * t)

    def draw(self, frame: float, *, traveller: bool = True) -> np.ndarray:
        """The picture at a time, in frames; with or without its traveller: ``h w 3``, bytes."""
        sheet, camera = Sheet(TIMES[self.time]), self.camera(frame)
        draw_sky(sheet, camera, self.seed)
        SCENES[self.scene](sheet, camera, self.seed)
        if traveller:
            TRAVELLERS[self.traveller].draw(Pen(sheet, *self.where(frame), COLOURS[self.colour]), frame + self.phase)
        return sheet.picture()


def drawn(seed: int, number: int, **chosen: Any) -> Postcard:
    """A postcard of a seed by its number: everything drawn at random but what is chosen."""

    def uniform(what: str) -> float:
        return frame_seed(seed, number, f"postcard {what}") / 2**63

    def choice(what: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
        return chosen.get(what) or tuple(names)[int(uniform(what) * len(names))]

    scene = choice("scene", SCENES)
    who = choice("traveller", tuple(name for name, row in TRAVELLERS.items() if scene in row.scenes))
    rest: dict[str, Any] = {
        "seed": int(uniform("land") * 10**6),
        "speed": 0.9 + 1.1 * uniform("speed"),
        "start": 500 * uniform("start"),
        "phase": 200 * uniform("phase"),
        "place": 22 + 18 * uniform("place"),
    }
    rest |= {name: value for name, value in chosen.items() if name in rest}
    return Postcard(scene, choice("time", TIMES), who, choice("colour", COLOURS), **rest)
