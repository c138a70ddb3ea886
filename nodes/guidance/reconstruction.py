"""Guidance by gradients: towards frames that are known, or towards a goal."""

import re
from collections.abc import Mapping
from typing import Any

from ... import host
from ...modules.fields.setting import Setting
from ...modules.fields.span import check_percents
from ...modules.guidance.extension import frames_of
from ...modules.guidance.goals import GoalGuidance, GoalSettings
from ...modules.guidance.history import compose
from ...modules.guidance.reconstruction import Known, ReconstructionGuidance, Small
from ...modules.guidance.steering import When
from ...modules.sampling.model_view import Guide
from ...modules.temporal.gradients import Gradients
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked
from .guidance import CATEGORY, guidance_input, guidance_output

io = host.io
FIRST, LAST = "first", "last"
NUMBERS = re.compile(r"(?P<low>-?\d+)(?:\.\.(?P<high>-?\d+))?")


def frame_numbers(text: str, count: int) -> tuple[int, ...]:
    """Which frames ``count`` known ones are: ``first``, ``last``, or numbers and ranges such as ``0, 8..11, -1``.

    >>> frame_numbers("0, 4..6, -1", 5)
    (0, 4, 5, 6, -1)

    Raises:
        ValueError: the text is nothing of that.
    """
    words = text.replace(",", " ").lower().split()
    if words in ([FIRST], []):
        return tuple(range(count))
    if words == [LAST]:
        return tuple(range(-count, 0))
    numbers: list[int] = []
    for word in words:
        match = NUMBERS.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is no frame: write first, last, or numbers and ranges such as 0, 8..11, -1")
        low = int(match["low"])
        numbers.extend(range(low, int(match["high"] or low) + 1))
    return tuple(numbers)


def check_settings(known_at: str, start_percent: float, end_percent: float) -> None:
    """Refuse settings of Reconstruction Guidance that do not go together.

    Raises:
        ValueError: the frames cannot be read, or the start does not lie before the end.
    """
    frame_numbers(known_at, 1)
    check_percents(start_percent, end_percent)


class LongTakeReconstructionGuidance(LongTakeNode):
    """Guidance towards known frames, or a small clip."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeReconstructionGuidance",
            display_name="Reconstruction Guidance",
            category=CATEGORY,
            description="Makes a clip fit to frames of it that are known, or to a smaller version of it: new frames are moved to where the"
            " model makes the known ones out of them (Video Diffusion Models). It goes to Guider (Long Take), with any sampler.",
            inputs=[
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="These frames are known; in the result they are as they are here.",
                ),
                widget(
                    "known_at",
                    FIRST,
                    Setting(
                        "This says which frames of the clip are known: first, last, or numbers and ranges such as 0, 8..11, -1."
                    ),
                ),
                io.Latent.Input(
                    "small_clip", optional=True, tooltip="This is the whole clip, but of a smaller size, to be made large."
                ),
                *inputs_of(Small),
                *inputs_of(ReconstructionGuidance, "weight"),
                *inputs_of(When),
                *inputs_of(ReconstructionGuidance, "clamp"),
                *inputs_of(Gradients),
                guidance_input("before"),
            ],
            outputs=[guidance_output()],
        )

    validate_inputs = checked(check_settings)

    @classmethod
    def execute(
        cls,
        known_at: str,
        known_frames: dict | None = None,
        small_clip: dict | None = None,
        before: Guide | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        if known_frames is None and small_clip is None:
            raise ValueError("reconstruction guidance has nothing to reconstruct: connect known_frames, small_clip or both")
        known = None
        if known_frames is not None:
            samples = known_frames["samples"]
            known = Known(frame_numbers(known_at, frames_of(samples)), samples)
        small = None if small_clip is None else settings_of(Small, given, frames=small_clip["samples"])
        guide = settings_of(ReconstructionGuidance, given, known=known, small=small, **acting(given))
        return io.NodeOutput(compose([before, guide]))


def acting(given: Mapping[str, Any]) -> dict[str, Any]:
    """When a guide of this kind acts, and what it asks the host for."""
    return {"when": settings_of(When, given), "gradients": settings_of(Gradients, given)}


class LongTakeGoalGuidance(LongTakeNode):
    """Guidance towards a goal."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeGoalGuidance",
            display_name="Goal Guidance",
            category=CATEGORY,
            description="Leads a clip to a goal that can be measured, without training: a brightness, a colour, or how much moves.",
            inputs=[
                *inputs_of(GoalSettings),
                *inputs_of(GoalGuidance, "weight", "futures", "seed", weight=100.0),
                *inputs_of(When),
                *inputs_of(GoalGuidance, "clamp"),
                *inputs_of(Gradients),
                guidance_input("before"),
            ],
            outputs=[guidance_output()],
        )

    validate_inputs = checked(When)

    @classmethod
    def execute(cls, before: Guide | None = None, **given: Any) -> "io.NodeOutput":
        score = settings_of(GoalSettings, given).score()
        return io.NodeOutput(compose([before, settings_of(GoalGuidance, given, score=score, **acting(given))]))
