"""Samplers of Video Diffusion Models (arXiv:2204.03458): as a SAMPLER, and as a node that makes a clip longer."""

import time
from typing import Any

from ... import host
from ...modules.guidance.extension import Extension, frames_of, lengthened
from ...modules.guidance.history import compose
from ...modules.guidance.reconstruction import ReconstructionGuidance
from ...modules.sampling.model_view import Guide
from ...modules.sampling.vdm import REPLACEMENTS, VdmSampler
from ...modules.temporal.gradients import Gradients
from ..guidance.guidance import GuidanceType
from ..guidance.reconstruction import BRANCHES, gradient_inputs
from ..models.models import labelled
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/sampling"
AFTER, BEFORE = "after", "before"


def vdm_inputs(corrector_steps: int) -> list:
    """The widgets of the sampler; two nodes have them."""
    return [
        io.Float.Input(
            "gamma",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How much noise a step takes out and puts in again: 0 the least (as euler_ancestral), 1 the most. Usual: 0 to 0.3.",
        ),
        io.Int.Input(
            "corrector_steps",
            default=corrector_steps,
            min=0,
            max=16,
            tooltip="Langevin steps after each step: they mend what the step got wrong, above all where frames are known. Each is one more"
            " model call.",
        ),
        io.Float.Input(
            "delta", default=0.1, min=0.001, max=3.9, step=0.01, tooltip="Size of a Langevin step; the paper's is 0.1."
        ),
        io.Combo.Input(
            "replacement",
            options=list(REPLACEMENTS),
            default="fresh",
            tooltip="How the model sees known frames. fresh: with noise of the level of the others, new noise in each call. fixed: the same"
            " noise in each call. none: clean, for models trained with a noise level per frame, such as the bundled one.",
        ),
    ]


class LongTakeVdmSampler(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeVdmSampler",
            display_name="VDM Sampler",
            category=CATEGORY,
            description="The samplers of Video Diffusion Models as a SAMPLER for SamplerCustomAdvanced: ancestral steps of any variance, a"
            " Langevin corrector, and known frames, which are those that the latent's noise mask leaves alone.",
            inputs=vdm_inputs(corrector_steps=0),
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, gamma: float, corrector_steps: int, delta: float, replacement: str) -> "io.NodeOutput":
        return io.NodeOutput(host.forcing_sampler(VdmSampler(gamma, corrector_steps, delta, replacement)))


class LongTakeExtend(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeExtend",
            display_name="Extend",
            category=CATEGORY,
            description="Makes any clip longer with a model of short clips: again and again its last frames and the next ones are sampled"
            " together, and reconstruction guidance makes the new ones fit. Or the other way round: what came before the clip.",
            inputs=[
                io.Model.Input("model", tooltip="A model that moves: a video model, or an image model with a motion module."),
                io.Latent.Input("clip", tooltip="The frames that there are; they come back unchanged."),
                io.Conditioning.Input("positive", optional=True, tooltip="What to show; anything, where nothing is connected."),
                io.Conditioning.Input("negative", optional=True, tooltip="What CFG moves away from; needed when cfg is not 1."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale; 1 is off and twice as fast."
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of all noise."),
                io.Int.Input("new_frames", default=16, min=1, max=100000, tooltip="How many frames are made."),
                io.Combo.Input(
                    "direction", options=[AFTER, BEFORE], default=AFTER, tooltip="Whether they come after the clip or before it."
                ),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Frames that the model sees at once; 0 is what it was trained with.",
                ),
                io.Int.Input(
                    "overlap",
                    default=8,
                    min=1,
                    max=4095,
                    tooltip="How many of these are known already: more holds the clip together better and takes longer.",
                ),
                io.Int.Input("steps", default=32, min=1, max=1000, tooltip="Denoising steps of each window."),
                io.Float.Input(
                    "weight",
                    default=2.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="Of the reconstruction guidance: how firmly new frames are held to known ones. 0 is off and three times faster;"
                    " too much makes them too much alike.",
                ),
                *vdm_inputs(corrector_steps=1),
                *gradient_inputs(),
                GuidanceType.Input("guidance", optional=True, tooltip="Other guidance to combine with this."),
            ],
            outputs=[io.Latent.Output(), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: dict,
        cfg: float,
        seed: int,
        new_frames: int,
        direction: str,
        window: int,
        overlap: int,
        steps: int,
        weight: float,
        gamma: float,
        corrector_steps: int,
        delta: float,
        replacement: str,
        branch: str,
        checkpoint: bool,
        positive: list | None = None,
        negative: list | None = None,
        guidance: Guide | None = None,
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        if new_frames < 1:
            raise ValueError(f"new_frames is {new_frames}: it must be at least 1")
        samples, backwards, info = clip["samples"], direction == BEFORE, host.video_info(model)
        sampler = VdmSampler(gamma, corrector_steps, delta, replacement)
        extension = Extension(frames_of(samples), window or (info.frames if info else 0), overlap, backwards, sampler)
        latent = lengthened(samples, new_frames, backwards=backwards)
        guide = ReconstructionGuidance(weight, gradients=Gradients(checkpoint, branch == BRANCHES[1])) if weight != 0 else None
        began = time.perf_counter()
        take = host.sample(
            model,
            labelled(model, "") if positive is None else positive,
            negative,
            cfg=cfg,
            latent=latent,
            algorithm=extension,
            seed=seed,
            sigmas=host.level_sigmas(model, steps),
            guide=compose([guidance, guide]),
        )
        report = f"seed {seed}, {frames_of(take)} frames, {new_frames} of them new, {time.perf_counter() - began:.1f} s"
        return io.NodeOutput({"samples": take}, report, ui=host.ui.PreviewText(report))
