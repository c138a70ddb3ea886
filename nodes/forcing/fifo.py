"""FIFO-Diffusion as a SAMPLER, for ComfyUI's SamplerCustomAdvanced."""

from typing import Any

from ... import host
from ...modules.disk.recording import Recording
from ...modules.fields.setting import Setting
from ...modules.sampling.fifo import Fifo
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode
from .recording import recording_input

io = host.io
STARTS = {
    "ramp_up": "It fills up from noise and needs nothing.",
    "base_clip": "It begins with a finished clip of window frames, as in its authors' code.",
}


class LongTakeFifoSampler(LongTakeNode):
    """A queue of frames."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeFifoSampler",
            display_name="FIFO Sampler",
            category="LongTake/forcing",
            description="Makes clips of any length with an ordinary motion module, in constant memory: frames stand in a queue, each a"
            " little noisier than the one before it, and leave it finished one by one. It is a SAMPLER for SamplerCustomAdvanced.",
            inputs=[
                *inputs_of(Fifo),
                widget("init", "ramp_up", Setting("This says how the queue is filled.", menu=STARTS)),
                io.Latent.Input(
                    "base_clip",
                    optional=True,
                    tooltip="For init base_clip, the queue begins with this clip: it has as many frames as the window, of the size of the"
                    " latent.",
                ),
                recording_input(),
                widget(
                    "frames",
                    0,
                    Setting(
                        "With a recording, frames is the length of the take, whatever that of the latent, which then says how large the"
                        " frames are: an empty one of a single frame does, and memory does not grow with the take. 0 goes on until you"
                        " cancel. Without a recording it is not used: the latent says how many frames there are.",
                        least=0,
                        most=100_000_000,
                    ),
                ),
            ],
            outputs=[io.Sampler.Output(tooltip="The sampler goes to SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, init: str, frames: int, base_clip: dict | None = None, recording: Recording | None = None, **given: Any
    ) -> "io.NodeOutput":
        if (init == "base_clip") != (base_clip is not None):
            connected = "no base clip is connected" if base_clip is None else "a base clip is connected, which it does not use"
            raise ValueError(f"init is {init} and {connected}: connect one for base_clip and none for ramp_up")
        base = None if base_clip is None else base_clip["samples"]
        fifo = settings_of(Fifo, given, base=base, frames=None if recording is None else frames)
        return io.NodeOutput(host.forcing_sampler(fifo, recording))
