"""The odd files, read through this pack and by ffmpeg's own decoder: ``python tests/helpers/odd_table.py`` writes docs/footage.md."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Odd files

Made by `python tests/helpers/odd_table.py`, which writes each file with PyAV or Pillow, reads it as Clip Folder does, and beside that
with ffmpeg. Every frame carries its number and four coloured corners. A row of times says how many frames were found and read as the
numbers that were written, and how far the time of any is from the one that was written. A row of pictures says how far any of its pixels
is from ffmpeg's, turned by its header and with square pixels, of 255 (largest, mean). A row of damage says how many frames are counted as
usable before training, and how many come out as the frame of that place: behind a frame that is gone (losses.ts, cut.mkv, cut.mp4)
places are one lower than numbers, times are right; damage that only decoding finds (struck.mp4) is passed over when training comes to it.
"""


def rows() -> Iterator[str]:
    """A line for each file."""
    from odd_files import DAMAGED, SHOWN, TIMES
    from odd_footage import number_in
    from pack.modules.data.find import find_clips
    from pack.modules.data.footage import Unreadable

    def read(path: Path, make: object) -> tuple:
        path.parent.mkdir(exist_ok=True)
        make(path)  # type: ignore[operator]
        (source,) = find_clips(path).sources
        return source, "; ".join(source.footage.notes)

    with tempfile.TemporaryDirectory() as folder:
        yield "\n## Times\n\n| file | | frames | read | off by |\n| --- | --- | --- | --- | --- |"
        for name, odd in TIMES.items():
            source, _ = read(Path(folder) / "times" / name, odd.make)
            seen = [number_in(frame) for frame in source.frames(range(source.count)).numpy() * 255]
            right = sum(number == place for place, number in enumerate(seen))
            moments = np.array([float(moment) for moment in odd.moments])
            off = np.abs(source.timing.times - moments).max() if len(moments) == source.count else np.inf
            yield f"| {name} | {odd.what} | {source.count} of {len(moments)} | {right} right | {off * 1e3:.2f} ms |"
        yield "\n## Pictures\n\n| file | | size | off by | the report says |\n| --- | --- | --- | --- | --- |"
        for name, odd in SHOWN.items():
            source, notes = read(Path(folder) / "shown" / name, odd.make)
            ours = source.frames(range(source.count)).numpy() * 255
            off = np.abs(ours - decoded_by_ffmpeg(Path(folder) / "shown" / name, odd.size, odd.filters))
            size = f"{source.footage.width}x{source.footage.height}"
            yield f"| {name} | {odd.what} | {size} | {off.max():.2f}, {off.mean():.3f} | {notes} |"
        yield "\n## Damage\n\n| file | | usable | read | the report says |\n| --- | --- | --- | --- | --- |"
        for name, odd in DAMAGED.items():
            source, notes = read(Path(folder) / "damaged" / name, odd.make)
            usable = sorted(set(range(source.count)) - set(source.timing.bad.tolist()))
            right = 0
            for place in usable:
                try:
                    right += number_in(source.frames([place])[0].numpy() * 255) == place + odd.begins
                except Unreadable:
                    continue
            yield f"| {name} | {odd.what} | {len(usable)} of {source.count} | {right} right | {notes} |"


def main() -> None:
    """Write the table."""
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401, makes the pack importable under the name ``pack``

    (ROOT / "docs" / "footage.md").write_text("\n".join([HEAD.rstrip(), *rows()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
