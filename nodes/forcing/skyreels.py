"""Models of SkyReels-V2, which are Wan models trained with a noise level per frame."""

from typing import Any

from ... import host
from ...modules.checkpoints.skyreels import fps_modulation, read_fps
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/forcing"
NONE = "none"


class LongTakeSkyReels(LongTakeNode):
    """A Wan model run as SkyReels-V2's authors run theirs."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeSkyReels",
            display_name="SkyReels-V2 (Diffusion Forcing)",
            category=CATEGORY,
            description=(
                "Runs a SkyReels-V2-DF model, loaded with Load Diffusion Model, as its authors do: whole timesteps, the frame rate that"
                " the 1.3B model wants to know, and attention that is causal by blocks of frames if you like. It works with"
                " samplers that have a noise level per frame, and with KSampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model is SkyReels-V2-DF and comes from Load Diffusion Model."),
                widget(
                    "causal_attention",
                    False,
                    Setting(
                        "Latent frames see those of their block and what comes before, but nothing behind. Off, every frame of the window"
                        " sees all, as in the authors' examples, asynchronous ones too; on takes less time."
                    ),
                ),
                widget(
                    "causal_block_size",
                    5,
                    Setting(
                        "With causal_attention a block has so many latent frames: as many as block of the schedule, 5 in the authors'"
                        " examples.",
                        least=1,
                        most=1024,
                    ),
                ),
                widget(
                    "fps",
                    24,
                    Setting(
                        "The 1.3B model is told so many frames per second. It knows 16, and takes anything else for 24.",
                        least=1,
                        most=240,
                        advanced=True,
                    ),
                ),
                io.Combo.Input(
                    "fps_file",
                    options=[NONE, *host.files("diffusion_models")],
                    default=NONE,
                    tooltip="The frame-rate embedding of the 1.3B model is read from this file, the one that the model was loaded"
                    " from. The"
                    " 14B model has none.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, for a sampler.")],
        )

    @classmethod
    def execute(cls, model: Any, causal_attention: bool, causal_block_size: int, fps: int, fps_file: str) -> "io.NodeOutput":
        rate = None if fps_file == NONE else fps_modulation(read_fps(host.file("diffusion_models", fps_file)), fps)
        return io.NodeOutput(host.apply_skyreels(model, causal_block_size if causal_attention else 0, rate))
