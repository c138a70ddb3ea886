"""Guidance by gradients: towards frames that are known, or towards a goal."""

import re

from ... import host
from ...modules.guidance.extension import frames_of
from ...modules.guidance.goals import GOALS, VALUES, GoalGuidance, named
from ...modules.guidance.history import compose
from ...modules.guidance.reconstruction import SHRINKS, Known, ReconstructionGuidance, Small
from ...modules.guidance.steering import When
from ...modules.sampling.model_view import Guide
from ...modules.temporal.gradients import Gradients
from ..node import LongTakeNode
from .guidance import CATEGORY, GuidanceType

io = host.io
BRANCHES = ("both", "positive")
FIRST, LAST = "first", "last"
NUMBERS = re.compile(r"(?P<low>-?\d+)(?:\.\.(?P<high>-?\d+))?")


def gradient_inputs() -> list:
    """The widgets that say what gradients cost; three nodes have them."""
    return [
        io.Combo.Input(
            "branch",
            options=list(BRANCHES),
            default=BRANCHES[0],
            tooltip="With CFG, what the gradient goes through. both: the positive and the negative condition, as in the formula. positive:"
            " that one only, with less memory and time.",
        ),
        io.Boolean.Input(
            "checkpoint",
            default=True,
            tooltip="Layers compute again for the gradient instead of keeping what they computed: a third slower, and about the memory that"
            " sampling takes without guidance; without it 15 times as much.",
        ),
    ]


def when_inputs() -> list:
    """The widgets that say when guidance acts; two nodes have them."""
    return [
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="From where on in sampling it acts."),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Up to where it acts."),
        io.Int.Input(
            "every", default=1, min=1, max=1000, tooltip="It acts in each of so many model calls; the others are faster."
        ),
        io.Float.Input(
            "clamp",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip="The largest correction of a frame, relative to the frame; the log says when it was needed. 0 is off.",
        ),
        *gradient_inputs(),
    ]


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


class LongTakeReconstructionGuidance(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeReconstructionGuidance",
            display_name="Reconstruction Guidance",
            category=CATEGORY,
            description="Makes a clip fit to frames of it that are known, or to a smaller version of it: new frames are moved to where the"
            " model makes the known ones out of them (Video Diffusion Models). For Guider (Long Take), with any sampler.",
            inputs=[
                io.Latent.Input(
                    "known_frames", optional=True, tooltip="Frames that are known; in the result they are as they are here."
                ),
                io.String.Input(
                    "known_at",
                    default=FIRST,
                    tooltip="Which frames of the clip these are: first, last, or numbers and ranges such as 0, 8..11, -1.",
                ),
                io.Latent.Input("small_clip", optional=True, tooltip="The whole clip, but of a smaller size, to be made large."),
                io.Combo.Input(
                    "shrink", options=list(SHRINKS), default="area", tooltip="How a large clip becomes as small as that."
                ),
                io.Float.Input(
                    "weight",
                    default=2.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="How firmly. 1 is what the formula says; 2 and more holds better, too much makes frames alike. 0 is off.",
                ),
                *when_inputs(),
                GuidanceType.Input("before", optional=True, tooltip="Other guidance to combine with this."),
            ],
            outputs=[GuidanceType.Output(display_name="guidance")],
        )

    @classmethod
    def execute(
        cls,
        known_at: str,
        shrink: str,
        weight: float,
        start_percent: float,
        end_percent: float,
        every: int,
        clamp: float,
        branch: str,
        checkpoint: bool,
        known_frames: dict | None = None,
        small_clip: dict | None = None,
        before: Guide | None = None,
    ) -> "io.NodeOutput":
        if known_frames is None and small_clip is None:
            raise ValueError("reconstruction guidance has nothing to reconstruct: connect known_frames, small_clip or both")
        known = None
        if known_frames is not None:
            samples = known_frames["samples"]
            known = Known(frame_numbers(known_at, frames_of(samples)), samples)
        small = None if small_clip is None else Small(small_clip["samples"], shrink)
        when, wish = When(start_percent, end_percent, every), Gradients(checkpoint, branch == BRANCHES[1])
        return io.NodeOutput(compose([before, ReconstructionGuidance(weight, known, small, when, clamp, wish)]))


class LongTakeGoalGuidance(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeGoalGuidance",
            display_name="Goal Guidance",
            category=CATEGORY,
            description="Leads a clip to a goal that can be measured, without training: a brightness, a colour, or how much moves.",
            inputs=[
                io.Combo.Input(
                    "goal",
                    options=list(GOALS),
                    default="brightness",
                    tooltip="brightness and motion: value is the goal. colour: red, green and blue are.",
                ),
                io.Float.Input(
                    "value",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="brightness: of each frame, 0 black to 1 white. motion: how much neighbours differ, 0 for a still; usual are"
                    " 0.02 to 0.15.",
                ),
                *(
                    io.Float.Input(
                        name, default=0.5, min=0.0, max=1.0, step=0.01, tooltip=f"The {name} of each frame on average."
                    )
                    for name in ("red", "green", "blue")
                ),
                io.Float.Input(
                    "weight",
                    default=100.0,
                    min=-100000.0,
                    max=100000.0,
                    step=1.0,
                    tooltip="How firmly; below 0 it leads away from the goal.",
                ),
                io.Int.Input(
                    "futures",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Monte-Carlo guidance: continuations that the present frames are judged by, each a model call; 1 is off. For"
                    " schedules whose later frames are noisier, such as pyramid.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Of the continuations' noise."),
                *when_inputs(),
                GuidanceType.Input("before", optional=True, tooltip="Other guidance to combine with this."),
            ],
            outputs=[GuidanceType.Output(display_name="guidance")],
        )

    @classmethod
    def execute(
        cls,
        goal: str,
        value: float,
        red: float,
        green: float,
        blue: float,
        weight: float,
        futures: int,
        seed: int,
        start_percent: float,
        end_percent: float,
        every: int,
        clamp: float,
        branch: str,
        checkpoint: bool,
        before: Guide | None = None,
    ) -> "io.NodeOutput":
        target = (red, green, blue) if VALUES.get(goal) == 3 else (value,)
        when, wish = When(start_percent, end_percent, every), Gradients(checkpoint, branch == BRANCHES[1])
        guide = GoalGuidance(named(goal, target), weight, False, futures, seed, when, clamp, wish)
        return io.NodeOutput(compose([before, guide]))
