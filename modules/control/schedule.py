"""Schedules: what holds when, as shares of prompts or as numbers, for every frame of a clip, or of a take without an end."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from ..temporal.block_rules import MOST, parse_numbers
from .arithmetic import evaluate
from .schedule_text import HOLD, Entry, read_entries

NEGATIVE = "--neg"  # FizzNodes' word: what follows is for the negative prompt
TERM = re.compile(r"`([^`]*)`")


def _held(part: Tensor) -> Tensor:
    """A key holds until the next one. ``part``: ``...``, 0 at one key, 1 at the next. Returns ``...``."""
    return torch.zeros_like(part)


def _linear(part: Tensor) -> Tensor:
    """The change from one key to the next is even. ``part``: ``...``. Returns ``...``."""
    return part


def _smooth(part: Tensor) -> Tensor:
    """The change begins and ends slowly: 3 s^2 - 2 s^3. ``part``: ``...``. Returns ``...``."""
    return part * part * (3 - 2 * part)


INTERPOLATIONS: dict[str, Callable[[Tensor], Tensor]] = {HOLD: _held, "linear": _linear, "smooth": _smooth}


@documented
@dataclass(frozen=True)
class ScheduleSettings:
    """How a schedule's times and changes are read."""

    interpolation: str = setting("linear", "The interpolation is how one key becomes the next.", menu=sentences(INTERPOLATIONS))
    frames: int = setting(
        16,
        "The clip has so many frames, which is the latent's batch size. 0 is any number: the last key holds to the end, and times"
        " counted from the end are refused.",
        least=0,
        most=1_000_000,
    )
    fps: float = setting(
        8.0, "The frames per second are for times in seconds, such as 1.5s.", least=0.01, most=1000.0, step=0.01, advanced=True
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Key:
    """An entry at its frame.

    Attributes:
        at: the frame, real.
        text: a prompt, a number or a term.
        how: a name in ``INTERPOLATIONS``, for the change to the next key.
        place: where it stands in the schedule's text, in words.
    """

    at: float
    text: str
    how: str
    place: str = field(default="", compare=False, repr=False)

    def number(self, text: str, frame: float, count: int) -> float:
        """What a number or term of it is in a frame of a clip of ``count`` frames, 0 for any."""
        try:
            return evaluate(text, {"t": frame, **({"max_f": count - 1} if count else {})})
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from None

    def whole(self, before: str, after: str, frame: float, count: int) -> str:
        """The prompt of it between two texts, in a frame of a clip of ``count`` frames, 0 for any."""
        parts = (part.strip().strip(",").strip() for part in (before, self.text, after))
        return TERM.sub(lambda found: f"{self.number(found[1], frame, count):.4g}", ", ".join(filter(None, parts)))


@dataclass(frozen=True, eq=False)
class Mixture:
    """Which prompts each frame has, in what shares.

    Attributes:
        texts: each once.
        shares: ``f k``, of each text in each frame; a row sums to 1.
    """

    texts: tuple[str, ...]
    shares: Tensor


@dataclass(frozen=True)
class Schedule:
    """What holds when.

    Attributes:
        keys: in order of time, at least one; the first holds before it, the last behind it.
        count: frames of the clip; 0 for any, or no end.
    """

    keys: tuple[Key, ...]
    count: int = 0

    @classmethod
    def read(cls, text: str, settings: ScheduleSettings | None = None, *, numbers: bool = False) -> "Schedule":
        """The schedule of a text, see ``schedule_text``.

        >>> Schedule.read("0: a forest; 24: the same in snow").keys[1]
        Key(at=24, text='the same in snow', how='linear')

        Args:
            text: entries with times.
            settings: how they are read; None for the usual ones.
            numbers: whether entries are numbers or terms.

        Raises:
            ValueError: the text does not read so, two entries have one time, or a time needs a length that is not known. The
                sentence says at which line and column.
        """
        settings = settings or ScheduleSettings()
        return cls(tuple(_keys(read_entries(text, numbers), settings)), settings.frames)

    @property
    def last(self) -> float:
        """The frame of the last key."""
        return self.keys[-1].at

    @property
    def least(self) -> int:
        """The shortest clip in which every key is reached; that of ``count`` where it is known."""
        return self.count or int(self.last // 1) + 1

    def shares(self, frames: Tensor) -> Tensor:
        """How much of each key a frame has.

        Args:
            frames: ``f``, frame numbers; any, so takes without an end ask for those that they work on.

        Returns:
            shares: ``f k``, float32; rows sum to 1, and at most two of a row are not 0.
        """
        times = torch.tensor([key.at for key in self.keys], dtype=torch.float64)
        asked = frames.cpu().double()
        before = (torch.searchsorted(times, asked, right=True) - 1).clamp_min(0)
        after = (before + 1).clamp_max(len(times) - 1)
        part = ((asked - times[before]) / (times[after] - times[before]).clamp_min(1e-9)).clamp(0, 1)
        part = torch.where(after == before, torch.zeros_like(part), part)
        late = torch.empty_like(part)
        for name, change in INTERPOLATIONS.items():
            mine = torch.tensor([key.how == name for key in self.keys])[before]
            late[mine] = change(part[mine])
        shares = torch.zeros(len(asked), len(times), dtype=torch.float64)
        rows = torch.arange(len(asked))
        shares[rows, after] += late
        shares[rows, before] += 1 - late
        return shares.float().to(frames.device)

    def prompts(self, frames: Tensor, before: str = "", after: str = "") -> Mixture:
        """The prompts of some frames: what stands between backticks in them is worked out for each frame.

        Args:
            frames: ``f``, frame numbers.
            before: text before every prompt.
            after: text behind every prompt.

        Raises:
            ValueError: a term has no value in some frame.
        """
        shares, places = self.shares(frames), {}
        columns: list[Tensor] = []
        for column, key in enumerate(self.keys):
            changing = TERM.search(before + key.text + after) is not None
            for row in shares[:, column].nonzero().flatten().tolist() if changing else [slice(None)]:
                text = key.whole(before, after, float(frames[row]) if changing else key.at, self.count)
                if text not in places:
                    places[text] = len(columns)
                    columns.append(torch.zeros(len(shares), dtype=shares.dtype, device=shares.device))
                columns[places[text]][row] += shares[row, column]
        return Mixture(tuple(places), torch.stack(columns, dim=1))

    def values(self, frames: Tensor) -> Tensor:
        """The numbers of some frames.

        Args:
            frames: ``f``, frame numbers.

        Returns:
            values: ``f``, float32.

        Raises:
            ValueError: an entry is no number or term, or has no value in some frame.
        """
        shares = self.shares(frames).double()
        values = torch.zeros_like(shares)
        for column, key in enumerate(self.keys):
            for row in shares[:, column].nonzero().flatten().tolist():
                values[row, column] = key.number(key.text, float(frames[row]), self.count)
        return (shares * values).sum(dim=1).float()

    def split(self) -> tuple["Schedule", "Schedule"]:
        """The same for the positive and for the negative prompt, which stands behind ``--neg`` in an entry."""
        first, second = (
            replace(self, keys=tuple(replace(key, text=key.text.partition(NEGATIVE)[side].strip()) for key in self.keys))
            for side in (0, 2)
        )
        return first, second


def _keys(entries: Iterable[Entry], settings: ScheduleSettings) -> list[Key]:
    placed = []
    for entry in entries:
        at = entry.frame(settings.frames, settings.fps)
        placed.append((Key(at, entry.text, entry.how or settings.interpolation, str(entry.place)), entry))
        if entry.until:
            end = entry.frame(settings.frames, settings.fps, entry.until)
            if end <= at:
                raise ValueError(
                    f"{entry.place}: the range {entry.time}:{entry.until} ends at frame {end:g}, before it begins: write {entry.until}"
                    f":{entry.time}"
                )
            if end - 1 > at:
                placed[-1] = (Key(at, entry.text, HOLD, str(entry.place)), entry)
                placed.append((Key(end - 1, entry.text, settings.interpolation, str(entry.place)), entry))
    placed.sort(key=lambda item: item[0].at)
    for (one, _), (other, entry) in pairwise(placed):
        if one.at == other.at:
            raise ValueError(f"{entry.place}: there are two entries for frame {other.at:g}: give each its own time")
    return [key for key, _ in placed]


def numbers_per_frame(text: str, where: str) -> tuple[float, ...]:
    """A number per frame, as a list or as a schedule; the last one holds to the end.

    >>> numbers_per_frame("1, 0.5", "strength"), numbers_per_frame("0: 1; 2: 0", "strength")
    ((1.0, 0.5), (1.0, 0.5, 0.0))

    Args:
        text: numbers between commas or spaces, or a schedule of numbers; empty for none.
        where: the input's name, for sentences.

    Raises:
        ValueError: something else is there, or a number beyond +-10.
    """
    if not re.search("[:=]", text):
        return parse_numbers(text, where)
    try:
        schedule = Schedule.read(text, ScheduleSettings(frames=0), numbers=True)
        numbers = tuple(schedule.values(torch.arange(schedule.least)).tolist())
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from None
    beyond = next((number for number in numbers if not abs(number) <= MOST), None)
    if beyond is not None:
        raise ValueError(f"{where} is {beyond:g} at frame {numbers.index(beyond)}: use numbers between -{MOST:g} and {MOST:g}")
    return numbers
