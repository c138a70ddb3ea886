"""What ffmpeg's own decoder makes of the odd files, for the tests that read them through this pack."""

import shutil
import subprocess
from pathlib import Path

import numpy as np


def ffmpeg() -> str | None:
    """Where ffmpeg is, or None."""
    return shutil.which("ffmpeg")


def decoded_by_ffmpeg(path: Path, size: tuple[int, int], filters: str = "null") -> np.ndarray:
    """All frames as ffmpeg decodes them, none dropped or repeated; on black. Gives ``f h w 3``, uint8."""
    program, clear = ffmpeg(), "rgba" in filters
    assert program, "whoever asks has looked whether it is there"
    layout = "rgba" if clear else "rgb24"
    command = [program, "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf", filters, "-fps_mode", "passthrough"]
    content = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", layout, "-"], capture_output=True, check=True).stdout
    frames = np.frombuffer(content, np.uint8).reshape(-1, size[1], size[0], 4 if clear else 3)
    return np.round(frames[..., :3] * (frames[..., 3:] / 255)).astype(np.uint8) if clear else frames
