"""MP4 files keep colours: converted to BT.709 and tagged so, in every size."""

import shutil
import subprocess

import pytest
import torch
from pack.host.mp4 import mp4

av = pytest.importorskip("av")
PAINTS = torch.tensor([[220, 30, 30], [30, 200, 40], [40, 60, 220], [128, 128, 128], [16, 235, 240]]) / 255


def painted(height, width):
    """``f h w 3``: a frame of each colour."""
    return PAINTS[:, None, None].expand(-1, height, width, 3).contiguous()


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_are_what_they_were(size, deep, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4(painted(*size), 8, deep=deep))
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        coded = stream.codec_context
        assert (coded.colorspace, coded.color_primaries, coded.color_trc, coded.color_range) == (1, 1, 13, 1)
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    middles = torch.tensor([picture[size[0] // 2, size[1] // 2].tolist() for picture in shown]) / 255
    torch.testing.assert_close(middles, PAINTS, atol=4 / 255, rtol=0)


def test_ffmpeg_sees_the_same_colours(tmp_path):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed: it is what reads the file here")
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4(painted(720, 1280), 8))
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", "crop=2:2", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    seen = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 2, 2, 3)[:, 0, 0] / 255
    torch.testing.assert_close(seen, PAINTS, atol=4 / 255, rtol=0)
