"""MP4 files, where PyAV is installed: ComfyUI brings it along, elsewhere it is the user's to install."""

import importlib.util
import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

# what players take a video for, by its numbers in ITU-T H.273, as ComfyUI writes it
BT709, SRGB, LIMITED = 1, 13, 1


def _tag(coded: Any) -> None:
    """Say of a frame, or of what encodes it, which colours its numbers stand for; untagged, players guess by its size."""
    coded.color_primaries, coded.color_trc, coded.colorspace, coded.color_range = BT709, SRGB, BT709, LIMITED


def mp4(
    images: Tensor,
    fps: float | Fraction,
    *,
    deep: bool = False,
    facts: Mapping[str, str] | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> bytes:
    """A whole file in BT.709, tagged so.

    It is made in memory, since PyAV goes by the file name's ending and files that are being written have another one.

    Args:
        images: ``f h w c`` in 0..1.
        fps: frames per second.
        deep: ten bits per colour instead of eight.
        facts: written into the file.
        told: is told how many frames are done.

    Raises:
        ValueError: PyAV is missing, or a side is odd.
    """
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            "an MP4 file needs the package av, which is not installed: python -m pip install av, or choose another format"
        )
    height, width = images.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f"the frames are {width}x{height} and H.264 needs even sides: scale or crop them first, or choose another format"
        )
    import av

    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(facts or {})
        stream: Any = container.add_stream("h264", rate=Fraction(round(fps * 1000), 1000))
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p10le" if deep else "yuv420p"
        _tag(stream.codec_context)
        for done, image in enumerate(images[..., :3].cpu(), start=1):
            if deep:
                frame = av.VideoFrame.from_ndarray((image * 65535).clamp(0, 65535).numpy().astype(np.uint16), format="rgb48le")
            else:
                frame = av.VideoFrame.from_ndarray((image * 255).clamp(0, 255).byte().numpy(), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=BT709)
            _tag(frame)
            container.mux(stream.encode(frame))
            told(done)
        container.mux(stream.encode(None))
    return buffer.getvalue()
