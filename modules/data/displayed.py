"""How the frames of a video are looked at: turned and mirrored as its header says, with square pixels, all in the first one's size.

Players do this, and so does ffmpeg when it writes pictures. A phone stores how a video is to be turned instead of turning its pixels, old
discs store pixels that are not square, and what was recorded from a call or a broadcast may change its size in the middle.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .video_decode import pyav

UPRIGHT = (1.0, 0.0, 0.0, 1.0)
ASKEW = 0.02  # how far a matrix may be from quarters of a turn


@dataclass(frozen=True)
class Display:
    """What is done with each frame.

    Attributes:
        width, height: of a picture.
        transposed: whether rows become columns, before it is mirrored.
        across, down: whether it is mirrored from left to right, and from top to bottom.
        askew: whether the header asks for a turn that is no quarter of one, which is left away.
    """

    width: int
    height: int
    transposed: bool = False
    across: bool = False
    down: bool = False
    askew: bool = False

    @classmethod
    def of(cls, frame: Any, ratio: Fraction | None) -> "Display":
        """What a video's first frame asks for.

        Args:
            frame: as PyAV decodes it.
            ratio: width of a pixel to its height; None where the file does not say.
        """
        xx, xy, yx, yy = _matrix(frame)  # where the axes go: x to (xx, xy), y to (yx, yy)
        transposed = abs(xx) + abs(yy) < abs(xy) + abs(yx)
        width, height, ratio = frame.width, frame.height, ratio or Fraction(1)
        if transposed:
            width, height, ratio = height, width, 1 / ratio
        x, y = (yx, xy) if transposed else (xx, yy)
        askew = min(abs(xx) + abs(yy), abs(xy) + abs(yx)) > ASKEW * (abs(x) + abs(y))
        return cls(max(1, int(width * ratio)), height, transposed, x < 0, y < 0, askew)

    def filters(self) -> list[tuple[str, str]]:
        """What ffmpeg does with a frame when it turns it and makes its pixels square, as filters with what they are told."""
        turn = [("transpose", str(self.across + 2 * self.down))] if self.transposed else []
        mirror = [] if self.transposed else [("hflip", "")] * self.across + [("vflip", "")] * self.down
        return [*turn, *mirror, ("scale", f"w={self.width}:h={self.height}:flags=bicubic")]


class View:
    """Makes pictures of decoded frames, through the filters that ffmpeg would put behind the decoder; for one thread.

    Args:
        display: how the frames are looked at.
    """

    def __init__(self, display: Display):
        self.display = display
        self._kind: tuple[Any, ...] = ()
        self._graph: Any = None

    def picture(self, frame: Any) -> Tensor:
        """A frame as it is looked at; where it is transparent, on black. Returns ``h w 3`` in 0..1."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if kind != self._kind:
            self._kind, self._graph = kind, self._built(frame)
        self._graph.push(frame)
        shown = torch.from_numpy(np.ascontiguousarray(self._graph.pull().to_ndarray())).float() / 255
        return shown[..., :3] * shown[..., 3:] if shown.shape[-1] == 4 else shown

    def _built(self, frame: Any) -> Any:
        graph = pyav().filter.Graph()
        layout = "rgba" if is_clear(frame) else "rgb24"
        size = {"width": frame.width, "height": frame.height, "format": frame.format.name}
        chain = [graph.add_buffer(**size, time_base=frame.time_base or Fraction(1, 25))]
        chain += [graph.add(*item) for item in [*self.display.filters(), ("format", f"pix_fmts={layout}"), ("buffersink", "")]]
        for one, other in pairwise(chain):
            one.link_to(other)
        graph.configure()
        return graph


def is_clear(frame: Any) -> bool:
    """Whether a frame may be transparent in places."""
    return any(component.is_alpha for component in frame.format.components)


def _matrix(frame: Any) -> tuple[float, ...]:
    """The display matrix without its shift; upright where there is none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    numbers = np.frombuffer(bytes(data), np.int32) / 65536
    return tuple(numbers[[0, 1, 3, 4]].tolist())
