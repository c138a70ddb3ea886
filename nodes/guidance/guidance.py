"""What is done around the model at every call of a sampler: history guidance, and the GUIDER that carries guidance to a sampler."""

from typing import Any

from ... import host
from ...modules.guidance.branches import PRESETS, Branch, read_branches
from ...modules.guidance.history import HIDDEN, HistoryGuidance, compose
from ...modules.sampling.model_view import Guide, plain
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/guidance"
CUSTOM = "custom"
GuidanceType = io.Custom("LONGTAKE_GUIDANCE")


class LongTakeHistoryGuidance(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeHistoryGuidance",
            display_name="History Guidance",
            category=CATEGORY,
            description="Makes new frames hold on more firmly to the finished ones: the model is asked with the history, without it or with"
            " parts of it, and the answers are combined. For models trained with a noise level per frame, in samplers that finish frames"
            " one after the other.",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, CUSTOM],
                    default="vanilla",
                    tooltip="vanilla: away from the guess without history. fractional: the same, but away from it only as far as a noisy"
                    " history says, which keeps motion. stabilised: the history is slightly noisy. custom: what branches says.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How firmly; 1 is off, 1.5 to 4 are usual. Not for custom, where every branch has a weight.",
                ),
                io.Float.Input(
                    "level",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How noisy the history is: for fractional 0.4 to 0.8, for stabilised about 0.02. 0 is clean, 1 is all noise.",
                ),
                io.String.Input(
                    "branches",
                    default="all:1.5, none:-0.5",
                    tooltip="For custom: frames@level:weight, divided by commas. Frames are all, none, last 4, first 4, or numbers such as"
                    " 0..3+8; negative ones count back from the newest finished frame. What is missing to a sum of 1 goes to none.",
                ),
                io.Combo.Input(
                    "hidden",
                    options=list(HIDDEN),
                    default="noise",
                    tooltip="What frames are that a branch hides. noise: pure noise, for models trained with a noise level per frame."
                    " absent: left out, for other models; every branch is a call of its own then.",
                ),
                io.Int.Input(
                    "at_once",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Branches that go through the model together; 0 is all of them. 1 needs the least memory.",
                ),
                GuidanceType.Input("before", optional=True, tooltip="Other guidance to combine with this."),
            ],
            outputs=[GuidanceType.Output(display_name="guidance")],
        )

    @classmethod
    def execute(
        cls, preset: str, weight: float, level: float, branches: str, hidden: str, at_once: int, before: Guide | None = None
    ) -> "io.NodeOutput":
        history = HistoryGuidance(branches_of(preset, weight, level, branches), hidden, at_once)
        return io.NodeOutput(compose([before, history]))


def branches_of(preset: str, weight: float, level: float, text: str) -> tuple[Branch, ...]:
    """The branches of a preset, or of text where it is custom."""
    if preset == CUSTOM:
        return read_branches(text)
    if preset not in PRESETS:
        raise ValueError(f"the preset {preset!r} is not known: choose one of {', '.join([*PRESETS, CUSTOM])}")
    return PRESETS[preset](weight, level)


class LongTakeGuider(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeGuider",
            display_name="Guider (Long Take)",
            category=CATEGORY,
            description="CFG with guidance of this pack around it, for SamplerCustomAdvanced. Rollout (Long Take) takes guidance directly.",
            inputs=[
                io.Model.Input("model", tooltip="The model that is sampled."),
                io.Conditioning.Input("positive", tooltip="What to show."),
                io.Conditioning.Input("negative", optional=True, tooltip="What CFG moves away from; needed when cfg is not 1."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale; 1 is off and twice as fast."
                ),
                GuidanceType.Input("guidance", optional=True, tooltip="History Guidance or other guidance; none is CFG alone."),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: list, cfg: float, negative: list | None = None, guidance: Guide | None = None
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        return io.NodeOutput(host.guider(model, positive, negative, cfg, guidance or plain))
