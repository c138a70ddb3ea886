"""Context windows: clips longer than a motion module was trained on, and what they cost, to look at before sampling."""

from typing import Any

from ... import host
from ...modules.draw.window_picture import draw_plan
from ...modules.draw.window_text import describe
from ...modules.temporal.windows import FUSES, MODES, SCHEDULES, WindowPlan, frames_of, fused_at
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/motion"


class LongTakeContextWindows(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeContextWindows",
            display_name="Context Windows",
            category=CATEGORY,
            description="Clips of any length: the model sees overlapping windows of as many frames as it was trained on. As it "
            "is, only the motion module slides a window, so a long clip takes as long per frame as a short one.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a motion module, or in mode whole any model that takes frames."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="temporal",
                    tooltip="Cost and motion. temporal: pictures are computed once per frame and windows slide inside the "
                    "motion module only; fastest and steadiest. views: the same, but the whole motion module runs once per "
                    "window, as AnimateDiff-Evolved's views; a little slower. whole: the whole model runs once per window, as "
                    "ComfyUI's context windows; overlapping frames are computed several times, and windows drift apart more "
                    "easily.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default="standard_static",
                    tooltip="standard_static: the same windows at every step. standard_uniform: windows shift at every step, so "
                    "no frame is always at a seam. looped_uniform: windows also run past the end into the beginning, for "
                    "loops. batched: end to end without overlap; cheapest, and motion jumps where windows meet.",
                ),
                io.Int.Input(
                    "length",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Frames in a window. 0 takes the length that the motion module was trained on (16 for AnimateDiff), "
                    "which moves best, and sets the overlap to a quarter of it. Shorter moves less well; longer is refused "
                    "beyond what the module knows.",
                ),
                io.Int.Input(
                    "overlap",
                    default=4,
                    min=0,
                    max=4095,
                    tooltip="Frames that neighbouring windows share; less than length, and not used where length is 0. More "
                    "makes transitions softer. In mode whole it costs time: an overlap of half the length doubles it.",
                ),
                io.Int.Input(
                    "stride",
                    default=1,
                    min=1,
                    max=16,
                    tooltip="Uniform schedules only. 1: windows of neighbouring frames. 2 adds windows of every 2nd frame, 3 of "
                    "every 4th and so on: distant frames agree better, motion gets calmer, and each adds time in modes views "
                    "and whole. Strides too wide for the clip do nothing.",
                ),
                io.Boolean.Input(
                    "closed_loop",
                    default=False,
                    tooltip="Let the last frame lead back to the first. Needs looped_uniform and a clip longer than a window.",
                ),
                io.Combo.Input(
                    "fuse",
                    options=list(FUSES),
                    default="pyramid",
                    tooltip="How overlapping windows are averaged. pyramid: the middle of a window counts most; the softest "
                    "transition. flat: all the same. relative: as pyramid, falling to almost nothing at a window's ends. "
                    "overlap-linear: one window fades into the next over the overlap. None costs more than another.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The same model; clips longer than a window are now possible.")
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, mode: str, schedule: str, length: int, overlap: int, stride: int, closed_loop: bool, fuse: str
    ) -> "io.NodeOutput":
        plan = WindowPlan(schedule, length, overlap, stride, closed_loop, fuse, fused_at(mode))
        return io.NodeOutput(host.context_windows(model, plan, mode))


class LongTakeShowPlan(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeShowPlan",
            display_name="Show Plan",
            category=CATEGORY,
            description="What context windows and memory settings do to a clip, before anything is sampled: which frames are "
            "seen together at which step, how they are averaged, and what it costs.",
            inputs=[
                io.Model.Input("model", tooltip="The model as it goes into the sampler."),
                io.Latent.Input("latent", tooltip="The latent as it goes into the sampler: its length and size are what counts."),
                io.Int.Input(
                    "steps", default=20, min=1, max=10000, tooltip="Sampling steps; some schedules shift their windows at each."
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="Steps downwards, frames to the right, one bar per window, bright where it counts most."),
                io.String.Output(display_name="text", tooltip="The same in numbers, and the memory plan."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, latent: dict[str, Any], steps: int) -> "io.NodeOutput":
        plan, mode, trained, most = host.window_plan(model)
        plan, frames = plan and plan.resolved(trained, most), frames_of(latent["samples"])
        text = describe(plan, frames, steps, mode=mode, trained=trained, most=most) + "\n" + host.memory_text(model, latent)
        return io.NodeOutput(draw_plan(plan, frames, steps), text, ui=host.ui.PreviewText(text))
