"""What a training did: its logs as curves, and what temporal attentions do."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...modules.disk.log import Record, parse, read
from ...modules.draw.attention_picture import attention_table, check_frames, chosen, entropy_picture, map_picture, named, one_call
from ...modules.draw.log_picture import log_picture, log_text
from ...modules.fields.setting import Setting
from ...modules.measure.attention import watching
from ..fields import widget
from ..forcing.forcing import anything
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/inspect"


class LongTakeLossPlot(LongTakeNode):
    """A training log as curves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeLossPlot",
            display_name="Loss Plot",
            category=CATEGORY,
            description="Draws curves of one training log or several: loss, and gradient norm and learning rate where the log has them.",
            inputs=[
                widget(
                    "log",
                    "",
                    Setting(
                        "Each line names a log (.jsonl, .csv) or a training checkpoint (.run.safetensors) in models/longtake or the"
                        " output"
                        " folder; or it is the text of one log.",
                        multiline=True,
                    ),
                ),
                widget(
                    "smoothing",
                    0.9,
                    Setting("The moving average remembers so much; 0 is none.", least=0.0, most=0.999, step=0.01, exact=True),
                ),
                widget("logarithmic", True, Setting("Equal distances upwards are equal factors.")),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The plot has a curve per log and measure."),
                io.String.Output(display_name="numbers", tooltip="The numbers say how each log began and ended."),
            ],
        )

    @classmethod
    def execute(cls, log: str, smoothing: float, logarithmic: bool) -> io.NodeOutput:
        logs = logs_of(log)
        text = log_text(logs)
        return io.NodeOutput(log_picture(logs, smoothing, logarithmic=logarithmic), text, ui=host.ui.PreviewText(text))


def logs_of(text: str) -> dict[str, list[Record]]:
    """The records of each log that a text names, or is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("log is empty: write the name of a training log, or connect the text of one")
    if lines[0].startswith("{") or "step" in lines[0].split(","):
        return {"log": parse(text)}
    return {Path(name).name: read(log_file(name)) for name in lines}


def log_file(name: str) -> Path:
    """A log by its name below the folder of video models or the output folder, and nowhere else."""
    folders = [host.model_directory("video_models").resolve(), host.output_directory().resolve()]
    for folder in folders:
        path = (folder / name).resolve()
        if path.is_file() and folder in path.parents:
            return path
    raise ValueError(f"there is no log {name!r} in {' or '.join(map(str, folders))}: put it there, or check the name")


class LongTakeAttentionEntropy(LongTakeNode):
    """One look at a model's temporal attentions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeAttentionEntropy",
            display_name="Attention Entropy",
            category=CATEGORY,
            description="Calls a model once on a noised clip and shows what its temporal attentions do: how many frames each head looks"
            " at, how large logits are, and which frames look at which.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model has temporal modules: it is a LongTake video model, or comes from Apply Motion Module.",
                ),
                io.Latent.Input("latent", tooltip="The latent is the clip, clean; an empty one shows what pure noise does."),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="The prompt is needed by all but LongTake video models."
                ),
                widget(
                    "percent",
                    0.5,
                    Setting(
                        "The clip is made so noisy: near 0 as at the first sampling step, near 1 as at the last.",
                        least=0.01,
                        most=0.99,
                        step=0.01,
                    ),
                ),
                widget(
                    "attention",
                    "",
                    Setting(
                        "The map of this attention is drawn, by its name in the table, such as up.1.2/0; where nothing is written it"
                        " is the"
                        " one with the lowest entropy."
                    ),
                ),
                widget("seed", 0, Setting("The seed decides the noise.", least=0, most=2**64 - 1, control=False)),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="The table has a line per attention."),
                io.Image.Output(display_name="entropies", tooltip="The picture shows how many frames each head looks at."),
                io.Image.Output(display_name="attention_map", tooltip="The map shows how much each frame looks at each other."),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, latent: dict, percent: float, attention: str, seed: int, positive: list | None = None
    ) -> io.NodeOutput:
        motions = host.motion_models(model)
        if not motions:
            raise ValueError(
                "this MODEL has no temporal modules: connect a LongTake video model, or put Apply Motion Module before"
            )
        positive = anything(model) if positive is None else positive
        info = host.video_info(model)
        check_frames(latent["samples"], None if info is None else info.latent_channels)
        sigma = host.noise_schedule(model).at_percent(percent)
        with ExitStack() as stack:
            watches = [stack.enter_context(watching(motion)) for motion in motions]
            host.sample(
                model,
                positive,
                None,
                cfg=1.0,
                latent=latent["samples"],
                algorithm=one_call,
                seed=seed,
                sigmas=torch.tensor([0.0, sigma]),
            )
            readings, maps = named(watches)
        block = chosen(readings, attention)
        text = f"sigma {sigma:.3f}, map of {block}\n\n{attention_table(readings)}"
        return io.NodeOutput(text, entropy_picture(readings), map_picture(maps[block]), ui=host.ui.PreviewText(text))
