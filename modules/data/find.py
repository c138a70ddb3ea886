"""Find clips: in a folder with all below it, in a table, or a single file.

In a folder, every video and every animation is a clip; so are the pictures of a folder together, in the order of their numbers. A clip's
caption is in the text file of its name beside it (``cat.mp4``, ``cat.txt``); that of a folder ``walk`` of pictures in ``walk.txt`` beside
it or in ``walk/caption.txt``. A picture beside a video of the same name is its preview, as video nodes write them, and no clip.

The order is that of the names, whatever the disk's, and whatever the number of threads that open files.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .footage import Footage, Unreadable
from .picture_files import PICTURE_ENDINGS, Animation, Pictures, looks
from .places import Places
from .report import LeftOut, Report, counted
from .source import ClipSource, Found, read_text
from .table import TABLE_ENDINGS, read_table
from .video_file import VIDEO_ENDINGS, VideoFile

Tick = Callable[[int, int], None]
Folders = Iterable[tuple[Path, list[str]]]


@dataclass(frozen=True)
class Search:
    """How to look.

    Attributes:
        picture_fps: frames per second of picture sequences, which do not tell.
        stills: every picture is a clip of its own, of one frame.
        every_frame: decode every video whole, so that damage in the middle is found now and not during training.
        threads: how many files are opened at once.
        within: the folders that nothing outside is read of; empty for all of the machine.
    """

    picture_fps: float = 24.0
    stills: bool = False
    every_frame: bool = False
    threads: int = 4
    within: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.picture_fps <= 1000:
            raise ValueError(f"picture_fps is {self.picture_fps:g}: it must be above 0 and at most 1000 frames per second")


@dataclass(frozen=True)
class Candidate:
    """What may be a clip: one file, or the pictures of a folder; with its caption, or where that may be."""

    name: str
    files: tuple[Path, ...]
    caption: str | None = None
    captions: tuple[Path, ...] = ()
    fps: float = 0.0
    start: float = 0.0
    end: float = 0.0


def find_clips(place: Path, search: Search | None = None, tick: Tick | None = None) -> Found:
    """All clips in a folder, a table (CSV or TSV), or one file.

    Args:
        place: where to look.
        search: how.
        tick: is told how many files are opened, and of how many; while folders are looked through, how many there were, and of 0. May
            raise to stop.

    Raises:
        ValueError: there is nothing there, nothing that can be read, or nothing that may be. One sentence.
    """
    search = search or Search()
    report, places = Report(), Places(search.within)
    places.check(place)
    if place.is_dir():
        candidates = list(_in_folder(place, search, report, _counted(_folders(place, places), tick)))
    elif not place.is_file():
        raise ValueError(f"there is no folder or file {place}: give the path of a folder with clips, or of a CSV that lists them")
    elif place.suffix.lower() in TABLE_ENDINGS:
        candidates = list(_in_table(place, report, places))
    else:
        candidates = [Candidate(place.name, (place,), captions=(place.with_suffix(".txt"),))]
    places.tell(report)
    if not candidates and not report.unreadable:
        raise ValueError(
            f"{place} holds no clips: put videos ({', '.join(VIDEO_ENDINGS[:5])}), GIF, WebP or folders of pictures there"
        )
    sources = _opened(candidates, search, report, places, tick)
    report.found = len(candidates)
    if not sources:
        first = report.unreadable[0]
        raise ValueError(
            f"none of the {counted(len(report.unreadable), 'clip')} in {place} can be read, the first because {first.reason} ({first.name})"
        )
    return Found(sources, report)


def _opened(
    candidates: Sequence[Candidate], search: Search, report: Report, places: Places, tick: Tick | None
) -> list[ClipSource]:
    distinct = list(dict.fromkeys(candidate.files for candidate in candidates))  # rows of a table may share a file
    names = {candidate.files: candidate.name for candidate in reversed(candidates)}
    with ThreadPoolExecutor(max(1, search.threads)) as pool:
        waiting = [pool.submit(_open, files, names[files], search) for files in distinct]
        try:
            footage = {}
            for done, (files, future) in enumerate(zip(distinct, waiting, strict=True), 1):
                footage[files] = future.result()
                if tick:
                    tick(done, len(distinct))
        finally:
            for future in waiting:
                future.cancel()
    for files, result in footage.items():
        if isinstance(result, Footage):
            report.remarks += [LeftOut(names[files], note) for note in result.notes]
    sources = []
    for candidate in candidates:
        result = footage[candidate.files]
        try:
            if isinstance(result, Unreadable):
                raise result
            sources.append(_source(candidate, result, places))
        except Unreadable as error:
            report.broken(candidate.name, str(error))
    return sources


def _open(files: tuple[Path, ...], name: str, search: Search) -> Footage | Unreadable:
    """The reader of one clip, or what is wrong with it."""
    path, ending = files[0], files[0].suffix.lower()
    try:
        if len(files) > 1:
            return Pictures(files, search.picture_fps, name, every_frame=search.every_frame)
        if not path.is_file():
            return Unreadable("there is no such file")
        if ending in VIDEO_ENDINGS:
            return VideoFile(path, every_frame=search.every_frame)
        if ending not in PICTURE_ENDINGS:
            return Unreadable(f"{ending or 'no ending'} is no kind of video or picture that is known")
        return Animation(path) if looks(path) == "moving" else Pictures(files, search.picture_fps, name)
    except Unreadable as error:
        return error


def _source(candidate: Candidate, footage: Footage, places: Places) -> ClipSource:
    caption = candidate.caption
    if caption is None:
        caption = next((read_text(path) for path in candidate.captions if path.is_file() and places.hold(path)), None)
    times = {"fps": candidate.fps, "start": candidate.start, "end": candidate.end}
    return ClipSource.of(footage, candidate.name, caption or None, **times)


def _in_folder(root: Path, search: Search, report: Report, folders: Folders) -> Iterator[Candidate]:
    previews = alone = 0
    for folder, names in folders:
        videos, pictures = [], []
        for name in names:
            path = folder / name
            ending = path.suffix.lower()
            if ending in VIDEO_ENDINGS or ending == ".gif":
                videos.append(path)
            elif ending in PICTURE_ENDINGS:
                (videos if looks(path) == "moving" else pictures).append(path)
        taken = {path.stem for path in videos}
        kept = [path for path in pictures if path.stem not in taken]
        previews += len(pictures) - len(kept)
        broken = len(kept) == 1 and looks(kept[0]) == "broken"  # alone, it may have been an animation
        single = [*videos, *(kept if search.stills or broken else ())]
        for path in sorted(single, key=lambda path: natural(path.name)):
            yield Candidate(_name(path, root), (path,), captions=(path.with_suffix(".txt"),))
        if not search.stills and len(kept) > 1:
            beside = folder.with_name(folder.name + ".txt")
            yield Candidate(_name(folder, root), tuple(kept), captions=(beside, folder / "caption.txt"))
        elif not search.stills and not broken:
            alone += len(kept)
    if previews:
        report.notes.append(f"{counted(previews, 'picture')} beside a video of the same name: taken for its preview.")
    if alone:
        report.notes.append(f"{counted(alone, 'picture')} alone in a folder: no clip, unless clips of one frame are asked for.")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else root.name or str(root)


def _counted(folders: Folders, tick: Tick | None) -> Folders:
    for count, folder in enumerate(folders, 1):
        if tick:
            tick(count, 0)
        yield folder


def _folders(root: Path, places: Places) -> Folders:
    """Every folder below that may be looked at, itself first, and the names of its files.

    Links are followed, hidden things and circles are not.
    """
    seen = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        shown = [name for name in folders if not name.startswith((".", "__"))]
        folders[:] = sorted((name for name in shown if places.hold(Path(place) / name)), key=natural)
        places.outside += len(shown) - len(folders)
        yield Path(place), sorted(places.files(Path(place), [name for name in files if not name.startswith(".")]), key=natural)


def stamp(place: Path, within: tuple[Path, ...] = ()) -> str:
    """A text that changes when files are added, taken away or written again; cheap, since no file is opened.

    Empty for places that are not there, or where ``within`` does not let look.
    """
    places = Places(within)
    if not places.hold(place) or not place.exists():
        return ""
    root = place if place.is_dir() else place.parent
    folders = _folders(root, places)
    if place.is_file() and place.suffix.lower() not in TABLE_ENDINGS:
        folders = [(root, list(places.files(root, [place.name, place.with_suffix(".txt").name])))]
    whole = hashlib.sha256()
    for folder, names in folders:
        for name in names:
            stat = (folder / name).stat()
            whole.update(
                f"{(folder / name).relative_to(root)}/{stat.st_mtime_ns}/{stat.st_size}\n".encode("utf-8", "surrogatepass")
            )
    return whole.hexdigest()


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers by their value.

    >>> sorted(["f10.png", "f9.png", "F1.png"], key=natural)
    ['F1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts if part] + [(2, 0, name)]


def _in_table(path: Path, report: Report, places: Places) -> Iterator[Candidate]:
    for row in read_table(path):
        place = path.parent / row.file
        files = (place,)
        if not places.hold(place):
            report.broken(row.name, f"it {places.refusal}")
            continue
        if place.is_dir():
            files = tuple(
                place / name
                for name in sorted(places.files(place, [path.name for path in place.iterdir()]), key=natural)
                if Path(name).suffix.lower() in PICTURE_ENDINGS
            )
            if not files:
                report.broken(row.name, "there are no pictures in that folder")
                continue
        captions = (place.with_suffix(".txt") if place.suffix else place.with_name(place.name + ".txt"),)
        yield Candidate(row.name, files, row.caption, captions, row.fps, row.start, row.end)
