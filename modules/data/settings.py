"""What clips are cut from the sources, and how."""

from dataclasses import dataclass

from ..fields.setting import check, documented, setting
from .captions import NEEDED, NOT_NEEDED
from .lengths import LEAVE_OUT, REFUSE, Pace
from .sizes import Size


@documented
@dataclass(frozen=True)
class ClipSettings:
    """How clips are made; two data sets of equal sources and settings give equal clips.

    Attributes:
        multiple: what the sides of buckets are multiples of.
    """

    frames: int = setting(16, "A clip has so many frames; 1 trains on single pictures.", least=1, most=4096)
    stride: int = setting(
        4,
        "So many frames of the video lie from one frame of a clip to the next: 4 as in AnimateDiff, 1 for slow videos such as GIFs of 8"
        " frames per second.",
        least=1,
        most=1024,
    )
    clip_fps: float = setting(
        0.0,
        "A clip has so many frames per second, whatever those of its video, and the stride does nothing; at 0 the stride decides.",
        least=0.0,
        most=1000.0,
        step=0.5,
    )
    width: int = setting(
        512, "A clip is so many pixels wide; with buckets, width and height say how many it has.", least=8, most=8192, step=8
    )
    height: int = setting(512, "A clip is so many pixels high.", least=8, most=8192, step=8)
    sizes: str = setting(
        "buckets",
        "Sizes says what becomes of videos of several shapes.",
        menu={
            "buckets": "Each gets a size of as many pixels as width times height, nearest to it in shape; a batch is of one size.",
            "crop": "All are cut to width and height.",
            "refuse": "The node stops if there are several.",
        },
    )
    crop: str = setting(
        "centre",
        "The crop is where a clip is cut out of a frame of another shape.",
        menu={"centre": "It is cut out of the middle.", "random": "It is cut out elsewhere in each clip."},
    )
    flip: str = setting(
        "never",
        "Flip says when every second clip is mirrored; leave it at never for camera moves that have a side.",
        menu={
            "never": "No clip is mirrored.",
            "unless a side is named": "A clip is not mirrored if its caption names a side or writing.",
            "swap left and right in captions": "Those without writing are mirrored, and so are their captions.",
            "always allowed": "All may be mirrored.",
        },
    )
    short: str = setting(
        REFUSE,
        "Short says what becomes of videos with too few frames.",
        menu={
            REFUSE: "The node stops and says so.",
            LEAVE_OUT: "They are left out.",
            "squeeze": "Their clips take smaller steps, as in AnimateDiff.",
            "back and forth": "Their clips turn round at the ends.",
        },
    )
    variants: int = setting(
        0,
        "Each video is cut in so many ways; at 0 it is cut anew every time it is seen. A cache of latents needs 1 or more.",
        least=0,
        most=10**6,
    )
    seed: int = setting(0, "The seed decides the order of clips, and where each is cut.", least=0, most=2**64 - 1, control=False)
    missing_captions: str = setting(
        NEEDED,
        "This says what becomes of videos without a caption, if there is none for all.",
        menu={NEEDED: "The node stops and says so.", NOT_NEEDED: "They are trained with an empty one."},
    )
    caption: str = setting("", "The caption is that of all videos that have none of their own; an empty one is none.")
    caption_before: str = setting(
        "", "Every caption begins with this, such as a word that shall stand for the motion; it may be empty."
    )
    multiple: int = 64

    def __post_init__(self) -> None:
        check(self)
        if not 1 <= self.multiple <= 1024:
            raise ValueError(f"multiple is {self.multiple}: it must lie between 1 and 1024")
        uneven = [name for name in ("width", "height") if getattr(self, name) % 8]
        if uneven:
            raise ValueError(f"{uneven[0]} is {getattr(self, uneven[0])}: it must be a multiple of 8, as image models have it")

    @property
    def pace(self) -> Pace:
        """Which frames are looked at."""
        return Pace(self.frames, self.stride, self.clip_fps)

    @property
    def size(self) -> Size:
        """The size asked for."""
        return Size(self.width, self.height)
