"""Which of the clips that were found can be trained on as the settings ask, and what is to be said of them."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .lengths import LEAVE_OUT, REFUSE, SHORT
from .report import LeftOut, Report, counted, named
from .settings import ClipSettings
from .sizes import Size
from .source import ClipSource
from .timing import Timing


def usable(
    sources: Sequence[ClipSource], settings: ClipSettings, starts: Callable[[Timing], np.ndarray], report: Report
) -> list[ClipSource]:
    """The sources that clips can be cut from.

    Args:
        sources: all that were found.
        settings: how to cut them.
        starts: the frames of a source that a clip may begin at.
        report: where the others are noted.

    Raises:
        ValueError: some are too short and the settings do not say what to do then, or none is left. One sentence.
    """
    kept, short, unfit = [], [], []
    for source in sources:
        lacking = settings.pace.too_short(source.timing)
        if not settings.pace.reaches(source.timing):
            unfit.append(
                LeftOut(source.name, f"it has {source.fps:.4g} frames per second, and {settings.clip_fps:g} are asked for")
            )
        elif lacking and SHORT[settings.short] is None:
            short.append(LeftOut(source.name, lacking))
        elif not lacking and not len(starts(source.timing)):
            unfit.append(LeftOut(source.name, "frames are missing or held in every stretch of it that is long enough"))
        else:
            kept.append(source)
    if short and settings.short == REFUSE:
        raise ValueError(
            f"{counted(len(short), 'clip')} of {len(sources)} {'is' if len(short) == 1 else 'are'} too short"
            f" ({short[0].name}: {short[0].reason}): ask for fewer frames or a smaller stride, or set short to {LEAVE_OUT},"
            " squeeze or back and forth"
        )
    report.unusable += [*short, *unfit]
    if not kept:
        left = report.unusable or [LeftOut("nothing", "nothing was found")]
        raise ValueError(f"no clip is left to train on ({left[0].name}: {left[0].reason})")
    return kept


def described(sources: Sequence[ClipSource], settings: ClipSettings, whole: Sequence[Size], sizes: Sequence[Size]) -> list[str]:
    """What is to be said of clips, in sentences.

    Args:
        sources: where they come from.
        settings: how they are cut.
        whole: the sizes of the sources.
        sizes: of the clips.
    """
    notes = ["Sizes: " + ", ".join(f"{count} at {size}" for size, count in sorted(Counter(sizes).items())) + "."]
    enlarged = sum(was.width < now.width or was.height < now.height for was, now in zip(whole, sizes, strict=True))
    if enlarged:
        notes.append(f"{counted(enlarged, 'clip')} smaller than that: enlarged.")
    seconds = sum(source.timing.length for source in sources)
    notes.append(f"{seconds:.1f} s in all; a clip is {counted(settings.frames, 'frame')}.")
    uneven = [source.name for source in sources if source.timing.uneven]
    if uneven and not settings.clip_fps and settings.frames > 1:
        notes.append(
            f"{counted(len(uneven), 'clip')} whose frames are not evenly timed ({named(uneven)}): by stride they speed up and slow"
            " down; set clip_fps to go by their times."
        )
    return notes
