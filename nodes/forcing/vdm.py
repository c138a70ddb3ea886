"""Samplers of Video Diffusion Models (arXiv:2204.03458): as a SAMPLER, and as a node that makes a clip longer."""

import time
from typing import Any

from ... import host
from ...modules.disk.recording import Recording
from ...modules.guidance.extension import ExtendSettings, Extension, frames_of, lengthened
from ...modules.guidance.history import compose
from ...modules.guidance.reconstruction import ReconstructionGuidance
from ...modules.sampling.model_view import Guide
from ...modules.sampling.sampling_settings import SamplingSettings
from ...modules.sampling.vdm import VdmSampler
from ...modules.temporal.gradients import Gradients
from ..fields import inputs_of, settings_of
from ..guidance.guidance import guidance_input
from ..models.models import labelled
from ..node import LongTakeNode
from ..prompting import check_negative, prompt_inputs
from .recording import recording_input, shown

io = host.io
CATEGORY = "LongTake/sampling"


class LongTakeVdmSampler(LongTakeNode):
    """The samplers of Video Diffusion Models."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeVdmSampler",
            display_name="VDM Sampler",
            category=CATEGORY,
            description="Offers the samplers of Video Diffusion Models as a SAMPLER for SamplerCustomAdvanced: ancestral steps of any"
            " variance, a Langevin corrector, and known frames, which are those that the latent's noise mask leaves alone.",
            inputs=inputs_of(VdmSampler),
            outputs=[io.Sampler.Output(tooltip="The sampler goes to SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, **given: Any) -> "io.NodeOutput":
        return io.NodeOutput(host.forcing_sampler(settings_of(VdmSampler, given)))


class LongTakeExtend(LongTakeNode):
    """A clip made longer, window by window."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeExtend",
            display_name="Extend",
            category=CATEGORY,
            description="Makes any clip longer with a model of short clips: again and again its last frames and the next ones are sampled"
            " together, and reconstruction guidance makes the new ones fit (not on large video models, where it is off unless you set"
            " weight). It goes backwards too, to frames before the clip.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model is one that moves: a video model, or an image model with a motion module."
                ),
                io.Latent.Input("clip", tooltip="The clip holds the frames that there are; they come back unchanged."),
                *prompt_inputs(),
                *inputs_of(SamplingSettings),
                *inputs_of(ExtendSettings, "new_frames", "direction"),
                *inputs_of(Extension),
                *inputs_of(ExtendSettings, "steps"),
                *inputs_of(ExtendSettings, "weight"),
                *inputs_of(VdmSampler, corrector_steps=1),
                *inputs_of(Gradients),
                guidance_input("guidance"),
                recording_input(),
            ],
            outputs=[
                io.Latent.Output(tooltip="It is the whole clip, old frames and new ones."),
                io.String.Output(
                    display_name="report", tooltip="The report says what was made, how long it took and what it cost."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: dict,
        cfg: float,
        seed: int,
        positive: list | None = None,
        negative: list | None = None,
        guidance: Guide | None = None,
        recording: Recording | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        check_negative(cfg, negative)
        settings, samples, info = settings_of(ExtendSettings, given), clip["samples"], host.video_info(model)
        extension = settings_of(
            Extension,
            given,
            known=frames_of(samples),
            window=given["window"] or (info.frames if info else 0),
            backwards=settings.backwards,
            sampler=settings_of(VdmSampler, given),
        )
        latent = lengthened(samples, settings.new_frames, backwards=settings.backwards)
        weight = settings.weight_on(host.suits_gradients(model))
        guide = ReconstructionGuidance(weight, gradients=settings_of(Gradients, given)) if weight != 0 else None
        around, sigmas = compose([guidance, guide]), host.level_sigmas(model, settings.steps)
        cost = host.sampling_cost(model, extension, latent, steps=settings.steps, cfg=cfg, guide=around)
        began = time.perf_counter()
        take = host.sample(
            model,
            labelled(model, "") if positive is None else positive,
            negative,
            cfg=cfg,
            latent=latent,
            algorithm=extension,
            seed=seed,
            sigmas=sigmas,
            guide=around,
            recording=recording,
        )
        took = f"{time.perf_counter() - began:.1f} s"
        made = f"seed {seed}, {frames_of(latent)} frames, {settings.new_frames} of them new, {took}"
        report = "\n".join([made, f"weight {weight:g}", *cost.lines()])
        return io.NodeOutput({"samples": take}, report, ui=shown(report, recording))
