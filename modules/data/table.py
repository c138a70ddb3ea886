"""Tables of clips: CSV or TSV, a clip in each row, in the column names that data sets use.

WebVid's own table works as it is: ``videoid``, ``page_dir`` and ``name``. To know another name of a column, add it to its row in
``COLUMNS``.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE_ENDINGS = (".csv", ".tsv")
DELIMITERS = ",;\t"
# what a column says -> what it may be called, in small letters
COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("path", "file", "file_name", "filename", "file_path", "video", "video_path", "clip", "videoid"),
    "caption": ("caption", "text", "prompt", "name", "description"),
    "start": ("start", "start_time", "start_seconds"),
    "end": ("end", "end_time", "end_seconds"),
    "fps": ("fps", "frame_rate"),
    "folder": ("folder", "page_dir"),
}


@dataclass(frozen=True)
class Row:
    """A clip of a table; times in seconds, 0 where the table says nothing."""

    name: str
    file: str
    caption: str | None
    start: float = 0.0
    end: float = 0.0
    fps: float = 0.0


def read_table(path: Path) -> list[Row]:
    """The clips of a table, in its order; rows that are empty are passed over.

    Raises:
        ValueError: it is no such table, or a number in it is none. One sentence, with the number of the line.
    """
    text = _text(path)
    heading = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=heading.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        titles = [title.strip().lower() for title in next(lines, [])]
        places = {what: _column(titles, names) for what, names in COLUMNS.items()}
        if places["file"] is None:
            raise ValueError(
                f"{path.name} has no column for the file of a clip: call one of its columns ({', '.join(titles) or 'there are none'})"
                f" {COLUMNS['file'][0]} or {COLUMNS['file'][1]}"
            )
        return [_row(cells, places, f"line {lines.line_num} of {path.name}") for cells in lines if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} of {path.name} cannot be read as a table: {error}") from error


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no UTF-8 text: save the table as UTF-8") from error


def _column(titles: list[str], names: tuple[str, ...]) -> int | None:
    return next((titles.index(name) for name in names if name in titles), None)


def _row(cells: list[str], places: Mapping[str, int | None], where: str) -> Row:
    def cell(what: str) -> str:
        place = places[what]
        return cells[place].strip() if place is not None and place < len(cells) else ""

    file = cell("file").replace("\\", "/")
    if not file:
        raise ValueError(f"{where} names no file: fill it in, or take the line out")
    if file.isdecimal():  # WebVid gives numbers
        file += ".mp4"
    if cell("folder"):
        file = f"{cell('folder')}/{file}"
    numbers = {what: _number(cell(what), what, where) for what in ("start", "end", "fps")}
    if numbers["end"] and numbers["end"] <= numbers["start"]:
        raise ValueError(
            f"{where} ends at {numbers['end']:g} s and starts at {numbers['start']:g} s: the end comes after the start"
        )
    stretch = f" from {numbers['start']:g} s" if numbers["start"] else ""
    return Row(f"{file}{stretch}", file, " ".join(cell("caption").split()) or None, **numbers)


def _number(text: str, what: str, where: str) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        unit = "frames per second" if what == "fps" else "seconds"
        raise ValueError(f"{where} has {text!r} as {what}: write {unit} as a plain number, or nothing")
    return number
