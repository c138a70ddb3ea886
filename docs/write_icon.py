"""Draw ``icon.png`` and ``banner.jpg`` of the registry's page from the take that the README shows: ``python docs/write_icon.py [FOLDER]``.

The icon is one frame of ``postcards_take.webp`` as a frame of film; the banner is the take as a strip, from its first frame to its last.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageSequence

HERE = Path(__file__).resolve().parent
ICON, BANNER = (400, 400), (1260, 540)
NAME, SAID = "LongTake", "long, controllable, trainable video"
PAPER, HOLE, INK = (24, 26, 30), (232, 232, 232), (240, 240, 240)


def take() -> list[Image.Image]:
    """The frames of the take."""
    with Image.open(HERE / "postcards_take.webp") as film:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]


def squares(frame: Image.Image) -> Image.Image:
    """The square in the middle of a frame."""
    side = min(frame.size)
    left, top = (frame.width - side) // 2, (frame.height - side) // 2
    return frame.crop((left, top, left + side, top + side))


def perforated(sheet: Image.Image, top: int, bottom: int, apart: int) -> None:
    """Holes of a film along two lines."""
    draw, size = ImageDraw.Draw(sheet), apart // 2
    for x in range(apart // 4, sheet.width, apart):
        for y in (top, bottom):
            draw.rounded_rectangle((x, y - size // 3, x + size, y + size // 3), 4, fill=HOLE)


def icon(frames: Sequence[Image.Image]) -> Image.Image:
    """One frame of film."""
    sheet, frame = Image.new("RGB", ICON, PAPER), squares(frames[len(frames) // 4])
    high = frame.width * 290 // ICON[0]
    sheet.paste(frame.crop((0, frame.height - high, frame.width, frame.height)).resize((ICON[0], 290)), (0, 55))
    perforated(sheet, 28, ICON[1] - 28, 50)
    return sheet


def banner(frames: Sequence[Image.Image]) -> Image.Image:
    """The take as a strip under the name."""
    sheet, side = Image.new("RGB", BANNER, PAPER), BANNER[0] // 5
    draw = ImageDraw.Draw(sheet)
    draw.text((50, 36), NAME, fill=INK, font=ImageFont.load_default(84))
    draw.text((54, 146), SAID, fill=INK, font=ImageFont.load_default(32))
    for place in range(5):
        frame = squares(frames[place * (len(frames) - 1) // 4])
        sheet.paste(frame.resize((side - 4, side - 4), Image.Resampling.LANCZOS), (place * side + 2, 244))
    perforated(sheet, 222, 516, 50)
    return sheet


if __name__ == "__main__":
    folder, frames = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE, take()
    icon(frames).save(folder / "icon.png", optimize=True)
    banner(frames).save(folder / "banner.jpg", quality=88, optimize=True)
    print(folder / "icon.png", folder / "banner.jpg")
