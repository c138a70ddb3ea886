"""What clips are cut from the sources, and how."""

from dataclasses import dataclass

from .captions import FLIPS, MISSING, NEEDED
from .lengths import REFUSE, SHORT, Pace
from .sizes import CROPS, SIZES, Size


@dataclass(frozen=True)
class ClipSettings:
    """How clips are made; two data sets of equal sources and settings give equal clips.

    Attributes:
        frames: of a clip.
        stride: frames of the source from one frame of the clip to the next. AnimateDiff was trained with 16 frames, 4 apart.
        fps: if above 0, so many frames per second instead of a stride.
        width, height: of a clip, in pixels; with buckets, the area and one of the shapes.
        sizes: a name in ``SIZES``, for sources of different shapes.
        crop: a name in ``CROPS``.
        flip: a name in ``FLIPS``; where a flip is allowed, every second clip is mirrored.
        short: a name in ``SHORT``, for sources with too few frames.
        variants: different cuts of a source; 0 for another one every time, which a cache is no use for.
        seed: of all that is drawn.
        missing: a name in ``MISSING``, for sources without a caption.
        caption: of sources that have none.
        before: what every caption begins with.
        multiple: what the sides of buckets are multiples of.
    """

    frames: int = 16
    stride: int = 4
    fps: float = 0.0
    width: int = 512
    height: int = 512
    sizes: str = "buckets"
    crop: str = "centre"
    flip: str = "never"
    short: str = REFUSE
    variants: int = 0
    seed: int = 0
    missing: str = NEEDED
    caption: str = ""
    before: str = ""
    multiple: int = 64

    def __post_init__(self) -> None:
        for name, least, most in (
            ("frames", 1, 4096),
            ("stride", 1, 1024),
            ("fps", 0, 1000),
            ("width", 8, 8192),
            ("height", 8, 8192),
            ("multiple", 1, 1024),
            ("variants", 0, 10**6),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be from {least} to {most}")
        tables = {"sizes": SIZES, "crop": CROPS, "flip": FLIPS, "short": SHORT, "missing": MISSING}
        for name, table in tables.items():
            if getattr(self, name) not in table:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r}: choose one of {', '.join(table)}")
        uneven = [name for name in ("width", "height") if getattr(self, name) % 8]
        if uneven:
            raise ValueError(f"{uneven[0]} is {getattr(self, uneven[0])}: it must be a multiple of 8, as image models have it")

    @property
    def pace(self) -> Pace:
        """Which frames are looked at."""
        return Pace(self.frames, self.stride, self.fps)

    @property
    def size(self) -> Size:
        """The size asked for."""
        return Size(self.width, self.height)
