"""Context windows: clips longer than a motion module was trained on, and what they cost, to look at before sampling."""

from typing import Any

from ... import host
from ...modules.draw.window_picture import draw_plan
from ...modules.draw.window_text import describe
from ...modules.fields.setting import Setting
from ...modules.temporal.windows import MODES, WindowPlan, frames_of, fused_at
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked

io = host.io
CATEGORY = "LongTake/motion"
MODE = {
    "temporal": "Pictures are computed once per frame, and windows slide inside the motion module only; this is fastest and steadiest.",
    "views": "It is the same, but the whole motion module runs once per window, as AnimateDiff-Evolved's views do; a little slower.",
    "whole": "The whole model runs once per window, as in ComfyUI's context windows; overlapping frames are computed several times, and"
    " windows drift apart more easily.",
}


class LongTakeContextWindows(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeContextWindows",
            display_name="Context Windows",
            category=CATEGORY,
            description="Makes clips of any length: the model sees overlapping windows of as many frames as it was trained on. As it "
            "is set, only the motion module slides a window, so a long clip takes as long per frame as a short one.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model has a motion module, or in mode whole it is any model that takes frames."
                ),
                widget(
                    "mode",
                    "temporal",
                    Setting("The mode decides about cost and motion.", menu={name: MODE[name] for name in MODES}),
                ),
                *inputs_of(WindowPlan, length=0),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="It is the same model; clips longer than a window are now possible."
                )
            ],
        )

    validate_inputs = checked(WindowPlan)

    @classmethod
    def execute(cls, model: Any, mode: str, **given: Any) -> "io.NodeOutput":
        plan = settings_of(WindowPlan, given, fuse_at=fused_at(mode))
        return io.NodeOutput(host.context_windows(model, plan, mode))


class LongTakeShowPlan(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeShowPlan",
            display_name="Show Plan",
            category=CATEGORY,
            description="Shows what context windows and memory settings do to a clip, before anything is sampled: which frames are "
            "seen together at which step, how they are averaged, and what it costs.",
            inputs=[
                io.Model.Input("model", tooltip="The model is the one that goes into the sampler."),
                io.Latent.Input(
                    "latent", tooltip="The latent is the one that goes into the sampler: its length and size are what counts."
                ),
                widget(
                    "steps",
                    20,
                    Setting("Sampling takes so many steps; some schedules shift their windows at each.", least=1, most=10000),
                ),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="The picture has steps downwards, frames to the right, and a bar per window, bright where it counts most."
                ),
                io.String.Output(display_name="text", tooltip="The text says the same in numbers, and what the memory plan is."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, latent: dict[str, Any], steps: int) -> "io.NodeOutput":
        plan, mode, trained, most = host.window_plan(model)
        plan, frames = plan and plan.resolved(trained, most), frames_of(latent["samples"])
        text = describe(plan, frames, steps, mode=mode, trained=trained, most=most) + "\n" + host.memory_text(model, latent)
        return io.NodeOutput(draw_plan(plan, frames, steps), text, ui=host.ui.PreviewText(text))
