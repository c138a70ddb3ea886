"""What a causal take may begin with and turn to: prompts with times, pictures."""

from typing import Any

from ... import host
from ...modules.control.start_pictures import start_pictures
from ...modules.control.timed_prompts import TimedPrompt
from ...modules.fields.setting import Setting
from ...modules.sampling.causal_systems import SYSTEMS, CausalSettings
from ..fields import inputs_of, widget
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/forcing"
PromptsType: Any = io.Custom("LONGTAKE_PROMPTS")


class LongTakePromptAt(LongTakeNode):
    """A prompt that begins in the middle of a take."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakePromptAt",
            display_name="Prompt at a Time",
            category=CATEGORY,
            description="What a causal take shows from a time on. Connect one after the other for more prompts.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The conditioning is what the take shows from that time on."),
                widget(
                    "seconds",
                    5.0,
                    Setting(
                        "The prompt begins so many seconds after the take does, with the next block of frames.",
                        least=0.01,
                        most=1_000_000.0,
                        step=0.01,
                    ),
                ),
                PromptsType.Input("prompts", optional=True, tooltip="The prompts are those with other times; any order will do."),
            ],
            outputs=[
                PromptsType.Output(
                    display_name="prompts", tooltip="The prompts go to Causal Take, or to the next of these nodes."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning: list, seconds: float, prompts: tuple[TimedPrompt, ...] | None = None) -> "io.NodeOutput":
        every = (*(prompts or ()), TimedPrompt(seconds, conditioning))
        return io.NodeOutput(tuple(sorted(every, key=lambda prompt: prompt.seconds)))


class LongTakeCausalStart(LongTakeNode):
    """Pictures as the first blocks of a causal take."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeCausalStart",
            display_name="Causal Start",
            category=CATEGORY,
            description="Makes a picture, or the end of a clip, into whole blocks of latent frames that a causal take begins with.",
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The images are one picture, which fills the first block, or the pictures of a clip, of which the last whole"
                    " blocks are used. They have the size of the take.",
                ),
                io.Vae.Input("vae", tooltip="The VAE is the model's own."),
                *inputs_of(CausalSettings, "system"),
            ],
            outputs=[io.Latent.Output(display_name="start", tooltip="The latent frames go to start of Causal Take.")],
        )

    @classmethod
    def execute(cls, images: Any, vae: Any, system: str) -> "io.NodeOutput":
        return io.NodeOutput({"samples": vae.encode(start_pictures(images[..., :3], SYSTEMS[system].block))})
