"""What a causal take will see, before it is made."""

from typing import Any

from ... import host
from ...modules.control.timed_prompts import TimedPrompt, starts
from ...modules.draw.cache_picture import cache_text, draw_cache
from ...modules.fields.setting import Setting
from ...modules.sampling.causal_seen import seen
from ...modules.sampling.causal_systems import CausalSettings
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode
from .causal_inputs import CATEGORY, PromptsType

io = host.io
USED = ("system", "room", "sink_frames", "positions", "switch", "fps")


class LongTakeCausalPlan(LongTakeNode):
    """A picture of a causal take's cache."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeCausalPlan",
            display_name="Show Causal Plan",
            category=CATEGORY,
            description="Draws which past frames each block of a causal take sees, and where in time it is told they are; counts calls and"
            " frames that leave the cache. No model is needed.",
            inputs=[
                *inputs_of(CausalSettings, *USED),
                widget(
                    "frames",
                    60,
                    Setting(
                        "The take has so many latent frames, in whole blocks: 1 for the first picture and 1 for every four more.",
                        least=1,
                        most=100_000,
                    ),
                ),
                PromptsType.Input("prompts", optional=True, tooltip="The prompts are those of the take, from Prompt at a Time."),
            ],
            outputs=[
                io.Image.Output(display_name="picture", tooltip="The picture shows which cached frames each block sees."),
                io.String.Output(
                    display_name="report", tooltip="The report says how many frames are kept, and how much memory they take."
                ),
            ],
        )

    @classmethod
    def execute(cls, frames: int, prompts: tuple[TimedPrompt, ...] | None = None, **given: Any) -> "io.NodeOutput":
        settings = settings_of(CausalSettings, given)
        system = settings.chosen()
        plan = system.plan(frames, prompts=starts(prompts or (), settings.fps, system.block, frames))
        parts = list(seen(plan, system.cache))
        report = cache_text(parts, plan.rows_total)
        return io.NodeOutput(draw_cache(parts, frames), report, ui=host.ui.PreviewText(report))
