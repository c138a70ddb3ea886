"""What is done around the model at every call of a sampler: history guidance, and the GUIDER that carries guidance to a sampler."""

from typing import Any

from ... import host
from ...modules.guidance.branches import PRESETS, Branch, Preset, items_of, read_branches
from ...modules.guidance.history import HIDDEN, HistoryGuidance, compose
from ...modules.sampling.model_view import Guide, plain
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/guidance"
CUSTOM, TEMPORAL = "custom", "temporal"
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
                    " history says, which keeps motion. temporal: several parts of the history, named in branches, each by itself. custom:"
                    " what branches says.",
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
                    tooltip="For fractional: how noisy the history is that guides. 0 is clean, 1 is all noise; 0.4 to 0.8 are usual.",
                ),
                io.Float.Input(
                    "stabilisation",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise that the history is shown with, so that its own errors do not count: 0 is none, 1 is all noise; 0.02 is"
                    " usual (stabilized_vanilla and stabilized_fractional of DFoT). Not for custom, where branches say it.",
                ),
                io.Boolean.Input(
                    "generated_only",
                    default=True,
                    tooltip="Stabilisation is for frames that were generated, as in DFoT: those that were given stay clean. Off: for all.",
                ),
                io.String.Input(
                    "branches",
                    default="all:1.5, none:-0.5",
                    tooltip="For custom: frames@level:weight, divided by commas. Frames are all, none, last 4, first 4, or numbers such as"
                    " 0..3+8; negative ones count back from the newest finished frame, h0 is the oldest in the window. What is missing to a"
                    " sum of 1 goes to none. For temporal: frames only, such as h0..h2, h1..h3; they share the weight.",
                ),
                io.String.Input(
                    "segments",
                    default="all",
                    tooltip="New frames that are guessed together while the others are hidden: all, or parts that may overlap such as 0..2,"
                    " 1..3, counted from the oldest. A frame in several is their mean. Each is a guess of its own.",
                ),
                io.Combo.Input(
                    "hidden",
                    options=list(HIDDEN),
                    default="noise",
                    tooltip="What frames are that a branch hides. noise: pure noise, for models trained with a noise level per frame."
                    " absent: left out, for other models; every branch is a call of its own then.",
                ),
                io.Int.Input(
                    "branch_batch",
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
        cls,
        preset: str,
        weight: float,
        level: float,
        stabilisation: float,
        generated_only: bool,
        branches: str,
        segments: str,
        hidden: str,
        branch_batch: int,
        before: Guide | None = None,
    ) -> "io.NodeOutput":
        given = branches_of(preset, weight, level, stabilisation, branches, generated_only=generated_only)
        history = HistoryGuidance(given, hidden, branch_batch, items_of(segments))
        return io.NodeOutput(compose([before, history]))


def branches_of(
    preset: str, weight: float, level: float, stabilisation: float, text: str, *, generated_only: bool
) -> tuple[Branch, ...]:
    """The branches of a preset, or of text where it is custom."""
    if preset == CUSTOM:
        return read_branches(text)
    if preset not in PRESETS:
        raise ValueError(f"the preset {preset!r} is not known: choose one of {', '.join([*PRESETS, CUSTOM])}")
    parts = items_of(text) if preset == TEMPORAL else ("all",)
    if not parts or any(":" in part for part in parts):
        raise ValueError(
            f"the branches {text!r} are for custom: for temporal write frames alone, such as all, last 4 or h0..h2, h1..h3"
        )
    return PRESETS[preset](Preset(weight, level, stabilisation, generated_only, parts))


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
