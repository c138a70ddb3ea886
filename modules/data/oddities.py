"""What is unusual about a video and read all the same, in words for the report: better said than found in the results."""

from pathlib import Path
from typing import Any

from .displayed import Display, is_clear
from .video_decode import opened

# transfer characteristics that mean more light than a screen of today shows: what ITU-T H.273 calls them
BRIGHTER = {16: "PQ", 18: "HLG"}


def oddities(path: Path, frame: Any, display: Display) -> tuple[str, ...]:
    """What a user should know, as sentences that begin with "it".

    Args:
        path: of the video.
        frame: its first one, as PyAV decodes it.
        display: how it is shown.
    """
    found = []
    if getattr(frame, "color_trc", None) in BRIGHTER:
        found.append(
            f"it is HDR ({BRIGHTER[frame.color_trc]}) and read as if it were not, so its colours are dull: convert it to BT.709 first"
        )
    if frame.interlaced_frame:
        found.append("it is interlaced, so things that move have combs: run it through ffmpeg -vf bwdif first")
    if display.askew:
        found.append("its header turns it by less than a quarter, which is left away: turn its pixels first")
    if is_clear(frame):
        found.append("it is transparent in places, which are black here")
    elif _has_alpha_aside(path):
        found.append("it has transparency that its decoder leaves away: what is behind may show")
    return tuple(found)


def _has_alpha_aside(path: Path) -> bool:
    """Whether a WebM keeps its transparency beside the pictures."""
    with opened(path) as (_, stream):
        return stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
