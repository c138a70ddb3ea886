"""Training inside the graph."""

import torch

from .. import host
from ..modules.pictures import curves, smoothed
from ..modules.train.loop import Run, TrainSettings, train
from ..modules.train.objective import METHODS
from ..modules.train.recipes import TEMPORAL, shapes_model
from .node import LongTakeNode

io = host.io
DEFAULTS = TrainSettings()


class LongTakeTrainVideoModel(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainVideoModel",
            display_name="Train Video Model",
            category="LongTake/train",
            description="Train a video model from scratch on a procedural world of moving shapes. Goes on where it stopped: a run that was "
            "cancelled or killed resumes from its last checkpoint when it is queued again with the same settings.",
            inputs=[
                io.String.Input("name", default="my_shapes", tooltip="The file is models/longtake/NAME.safetensors."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=DEFAULTS.method,
                    tooltip="forcing: a noise level per frame (Diffusion Forcing). teacher: next frame given the true past. "
                    "full: all frames at one level.",
                ),
                io.Int.Input("steps", default=DEFAULTS.steps, min=1, max=10_000_000, tooltip="Optimizer steps in all."),
                io.Int.Input("batch", default=DEFAULTS.batch, min=1, max=4096, tooltip="Clips per step."),
                io.Float.Input(
                    "learning_rate",
                    default=DEFAULTS.learning_rate,
                    min=1e-8,
                    max=1.0,
                    step=1e-5,
                    round=False,
                    tooltip="Highest learning rate.",
                ),
                io.Int.Input(
                    "seed",
                    default=DEFAULTS.seed,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,
                    tooltip="Of weights, data and noise.",
                ),
                io.Int.Input("save_every", default=250, min=1, max=100000, tooltip="Steps between checkpoints."),
                io.Combo.Input(
                    "temporal",
                    options=list(TEMPORAL),
                    default="transformer",
                    optional=True,  # workflows from before there was a choice
                    tooltip="What makes it a video model. transformer: frames attend to each other within the window. recurrent: a "
                    "convolutional GRU whose state is carried along the whole take. pseudo3d: convolution over time, then attention.",
                ),
            ],
            outputs=[io.String.Output(display_name="model_name"), io.Image.Output(display_name="loss_curve")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        name: str,
        method: str,
        steps: int,
        batch: int,
        learning_rate: float,
        seed: int,
        save_every: int,
        temporal: str = "transformer",
    ) -> "io.NodeOutput":
        if not name or any(mark in name for mark in "/\\:") or name.startswith("."):
            raise ValueError(f"the name {name!r} cannot be a file name: use letters, digits, - and _")
        folder = host.model_directory("video_models")
        settings = TrainSettings(method=method, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
        progress = host.Progress(steps)
        # The host runs nodes in inference mode, whose tensors cannot be trained.
        with torch.inference_mode(False), torch.enable_grad():
            run = Run(shapes_model(temporal=temporal), settings, folder / f"{name}.run.safetensors")
            for step in train(run, save_every):
                progress.update(step.step)
            path = folder / f"{name}.safetensors"
            run.model().save(path)
        return io.NodeOutput(path.name, curves({method: smoothed(run.losses)}, title=f"{name}: loss"))
