"""Prompts and numbers that change along a clip, as one text."""

from collections.abc import Sequence
from typing import Any

import torch

from ... import host
from ...modules.control.prompt_mixing import BLENDS, Encoded
from ...modules.control.schedule import Mixture, Schedule, ScheduleSettings
from ...modules.control.timed_prompts import TimedPrompt
from ...modules.fields.setting import Setting
from ..fields import inputs_of, settings_of, widget
from ..forcing.causal_inputs import PromptsType
from ..models.models import described, labelled
from ..node import LongTakeNode, checked
from .keyframes import CATEGORY

io = host.io
FloatsType: Any = io.Custom("FLOATS")  # AnimateDiff-Evolved's name for a number per frame
SIDE = 8  # pixels of a mask that is the same everywhere
WRITTEN = (
    " A frame is counted from 0, -1 is the last, 1.5s is seconds and 50% a share of the clip; a word behind the time changes one"
    " interpolation, as in 24 hold: snow."
)
BLEND = {
    "text": "Each frame has the mixture of its prompts' encodings; a step costs as much as with one prompt.",
    "predictions": "The model is asked for each prompt, and its answers are mixed in each frame; a step costs as much as there are"
    " prompts. It also does for video models with a time axis of their own, such as Wan.",
    "shots": "Positive is the first prompt alone, for Causal Take, which takes the later ones from the output prompts.",
}


def check_prompts(schedule: str, negative: str, interpolation: str, frames: int, fps: float) -> None:
    """Refuse texts of Prompt Schedule.

    Raises:
        ValueError: one cannot be read.
    """
    settings = ScheduleSettings(interpolation, frames, fps)
    Schedule.read(schedule, settings)
    Schedule.read(negative, settings)


def check_values(schedule: str, interpolation: str, frames: int, fps: float) -> None:
    """Refuse texts of Value Schedule.

    Raises:
        ValueError: it cannot be read, or an entry is no number.
    """
    read = Schedule.read(schedule, ScheduleSettings(interpolation, frames, fps), numbers=True)
    read.values(torch.arange(read.least))


class LongTakePromptSchedule(LongTakeNode):
    """Prompts that change along a clip."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakePromptSchedule",
            display_name="Prompt Schedule (Prompt Travel)",
            category=CATEGORY,
            description="Makes prompts with times into one conditioning that changes along the clip (prompt travel). It reads"
            " 0: a forest; 24: the same in snow, and the ways in which FizzNodes and AnimateDiff-Evolved write it.",
            inputs=[
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP encodes the prompts; weights such as (snow:1.2) are as ComfyUI has them.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model is one from Load Video Model that knows words instead of text; connect it in the place of a CLIP.",
                ),
                widget(
                    "schedule",
                    "0: a forest path in spring\n12: a forest path in snow",
                    Setting(
                        "The schedule is an entry a line, or between semicolons, with a time before each: 0: a forest; 24: the same in"
                        f" snow.{WRITTEN} What stands between backticks is worked out in each frame, as in (snow:`t/max_f`).",
                        multiline=True,
                    ),
                ),
                widget(
                    "negative",
                    "",
                    Setting(
                        "The negative prompt says what the clip does not show. It may be a schedule too; what stands behind --neg in an"
                        " entry of the other schedule is added.",
                        multiline=True,
                    ),
                ),
                widget(
                    "before", "", Setting("This text stands before every positive prompt.", aliases=("pre_text", "prepend_text"))
                ),
                widget(
                    "after", "", Setting("This text stands behind every positive prompt.", aliases=("app_text", "append_text"))
                ),
                *inputs_of(ScheduleSettings),
                widget("blend", "text", Setting("The blend says what frames between two prompts are made of.", menu=BLEND)),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompts go to a sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt goes to a sampler."),
                io.String.Output(display_name="report", tooltip="The report says what holds at each time, a line for each key."),
                PromptsType.Output(
                    display_name="prompts",
                    tooltip="The prompts are those after the first, each with its time by fps, for Causal Take, which is given the first as"
                    " positive by blend shots.",
                ),
            ],
        )

    validate_inputs = checked(check_prompts)

    @classmethod
    def execute(
        cls,
        clip: Any,
        model: Any,
        schedule: str,
        negative: str,
        before: str,
        after: str,
        blend: str,
        **given: Any,
    ) -> "io.NodeOutput":
        settings = settings_of(ScheduleSettings, given)
        encode = Encoder(clip, model)
        positive, beside = Schedule.read(schedule, settings).split()
        against = Schedule.read(negative, settings)
        made = [
            BLENDS[blend]([encode(text) for text in mixture.texts], mixture.shares)
            for mixture in (mixed(positive, before, after), added(mixed(against), mixed(beside)))
        ]
        return io.NodeOutput(*made, told(positive), later(positive, settings.fps, before, after, encode))


class Encoder:
    """Texts to CONDITIONING, each once.

    Args:
        clip: CLIP, or None.
        model: MODEL from Load Video Model that knows words, or None.

    Raises:
        ValueError: neither is given, or both are.
    """

    def __init__(self, clip: Any, model: Any):
        if (clip is None) == (model is None):
            what = "nothing is connected to clip or model" if clip is None else "both clip and model are connected"
            raise ValueError(f"{what}: connect a CLIP, or the MODEL of a Load Video Model that knows words, and only one of them")
        if model is not None:
            described(model)
        self.clip, self.model, self.known = clip, model, {}

    def __call__(self, text: str) -> Encoded:
        """CONDITIONING of a prompt."""
        if text not in self.known:
            host.check_interrupt()
            self.known[text] = (
                labelled(self.model, text)
                if self.clip is None
                else self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
            )
        return self.known[text]


def mixed(schedule: Schedule, before: str = "", after: str = "") -> Mixture:
    """The prompts of every frame of a clip; where it has no end, of those to the last key."""
    return schedule.prompts(torch.arange(schedule.least), before, after)


def later(schedule: Schedule, fps: float, before: str, after: str, encode: "Encoder") -> tuple[TimedPrompt, ...]:
    """The prompts after the first, each with its time."""
    found, last = [], schedule.keys[0].text
    for key in schedule.keys[1:]:
        if key.text != last and key.at > 0:
            found.append(TimedPrompt(key.at / fps, list(encode(key.whole(before, after, key.at, schedule.count)))))
        last = key.text
    return tuple(found)


def added(one: Mixture, other: Mixture) -> Mixture:
    """Two schedules' prompts one behind the other, in the frames of the longer one."""
    count = max(len(one.shares), len(other.shares))
    first, second = (part.shares[torch.arange(count).clamp_max(len(part.shares) - 1)] for part in (one, other))
    shares: dict[str, torch.Tensor] = {}
    for i, head in enumerate(one.texts):
        for j, tail in enumerate(other.texts):
            text = ", ".join(filter(None, (head, tail)))
            shares[text] = shares.get(text, torch.zeros(count)) + first[:, i] * second[:, j]
    used = {text: share for text, share in shares.items() if bool(share.any())}
    return Mixture(tuple(used), torch.stack(list(used.values()), dim=1))


def told(schedule: Schedule) -> str:
    """What holds when, a line for each key."""
    beyond = [key for key in schedule.keys if schedule.count and key.at >= schedule.count]
    lines = [f"frame {key.at:g}, then {key.how}: {key.text or '(nothing)'}" for key in schedule.keys]
    if beyond:
        lines.append(f"The clip has {schedule.count} frames: {len(beyond)} of {len(lines)} keys lie behind its end.")
    return "\n".join(lines)


class LongTakeValueSchedule(LongTakeNode):
    """Numbers that change along a clip."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeValueSchedule",
            display_name="Value Schedule",
            category=CATEGORY,
            description="Makes numbers with times into a number for each frame, as a text, as a list and as a mask, for"
            " effect_per_frame and effect_mask of Motion Keyframe, strength_per_frame of Keyframed ControlNet, Set Mask, and other"
            " packs' nodes.",
            inputs=[
                widget(
                    "schedule",
                    "0: 1; 12: 0.5",
                    Setting(
                        "The schedule is numbers with times, between commas, semicolons or line ends: 0: 1; 24: 0.5."
                        f"{WRITTEN} A number may be worked out in each frame: 0.5+0.5*sin(t/8), where t is the frame and max_f the last"
                        " one.",
                        multiline=True,
                    ),
                ),
                *inputs_of(ScheduleSettings),
            ],
            outputs=[
                io.String.Output(display_name="numbers", tooltip="The numbers are a text, one for each frame."),
                FloatsType.Output(display_name="floats", tooltip="The numbers are a list, one for each frame."),
                io.Mask.Output(display_name="mask", tooltip="The numbers are a mask, the same all over each frame."),
            ],
        )

    validate_inputs = checked(check_values)

    @classmethod
    def execute(cls, schedule: str, **given: Any) -> "io.NodeOutput":
        read = Schedule.read(schedule, settings_of(ScheduleSettings, given), numbers=True)
        values = read.values(torch.arange(read.least))
        return io.NodeOutput(listed(values.tolist()), values.tolist(), values[:, None, None].expand(-1, SIDE, SIDE).clone())


def listed(values: Sequence[float]) -> str:
    """Numbers as a text."""
    return ", ".join(f"{value:.6g}" for value in values)
