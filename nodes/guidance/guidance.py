"""What is done around the model at every call of a sampler: history guidance, and the GUIDER that carries guidance to a sampler."""

from typing import Any

from ... import host
from ...modules.guidance.branches import items_of
from ...modules.guidance.history import HistoryGuidance, compose
from ...modules.guidance.history_settings import HistorySettings
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.sampling_settings import SamplingSettings
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode, checked
from ..prompting import check_negative, prompt_inputs

io = host.io
CATEGORY = "LongTake/guidance"
GuidanceType = io.Custom("LONGTAKE_GUIDANCE")


def guidance_input(name: str) -> Any:
    """Other guidance."""
    return GuidanceType.Input(name, optional=True, tooltip="Guidance that is connected here is combined with this.")


def guidance_output() -> Any:
    """What samplers and other guidance take."""
    return GuidanceType.Output(
        display_name="guidance", tooltip="It goes to Rollout, Stream, Extend, Guider (Long Take) or other guidance."
    )


class LongTakeHistoryGuidance(LongTakeNode):
    """Branches of the history, combined."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeHistoryGuidance",
            display_name="History Guidance",
            category=CATEGORY,
            description="Makes new frames hold on more firmly to the finished ones: the model is asked with the history, without it or with"
            " parts of it, and the answers are combined. It is for models trained with a noise level per frame, in samplers that finish"
            " frames one after the other.",
            inputs=[
                *inputs_of(HistorySettings),
                *inputs_of(HistoryGuidance),
                guidance_input("before"),
            ],
            outputs=[guidance_output()],
        )

    validate_inputs = checked(HistorySettings)

    @classmethod
    def execute(cls, before: Guide | None = None, **given: Any) -> "io.NodeOutput":
        settings = settings_of(HistorySettings, given)
        history = settings_of(HistoryGuidance, given, branches=settings.chosen(), segments=items_of(settings.segments))
        return io.NodeOutput(compose([before, history]))


class LongTakeGuider(LongTakeNode):
    """CFG with guidance around it."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeGuider",
            display_name="Guider (Long Take)",
            category=CATEGORY,
            description="Puts guidance of this pack around CFG, for SamplerCustomAdvanced. Rollout takes guidance directly.",
            inputs=[
                io.Model.Input("model", tooltip="The model is the one that is sampled."),
                *prompt_inputs(needed=True),
                *inputs_of(SamplingSettings, "cfg"),
                GuidanceType.Input(
                    "guidance",
                    optional=True,
                    tooltip="The guidance comes from History Guidance or another guidance node; without one there is CFG alone.",
                ),
            ],
            outputs=[io.Guider.Output(tooltip="The guider goes to SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: list, cfg: float, negative: list | None = None, guidance: Guide | None = None
    ) -> "io.NodeOutput":
        check_negative(cfg, negative)
        return io.NodeOutput(host.guider(model, positive, negative, cfg, guidance or plain))
