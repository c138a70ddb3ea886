"""A take from causal Wan models: block after block, with keys and values of the past in a cache."""

import time
from typing import Any

import torch

from ... import host
from ...modules.control.timed_prompts import TimedPrompt, joined, starts
from ...modules.disk.recording import Recording
from ...modules.sampling.causal import CausalTake
from ...modules.sampling.causal_seen import seen
from ...modules.sampling.causal_systems import CausalSettings
from ...modules.sampling.sampling_settings import SamplingSettings
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from ..prompting import check_negative, prompt_inputs
from .causal_inputs import PromptsType
from .recording import recording_input, shown

io = host.io
CATEGORY = "LongTake/forcing"


class LongTakeCausalTake(LongTakeNode):
    """A long take from a causal Wan model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        _, negative = prompt_inputs(needed=True)
        return io.Schema(
            node_id="LongTakeCausalTake",
            display_name="Causal Take (Self-Forcing, LongLive)",
            category=CATEGORY,
            description="Makes a long take with a causal, few-step Wan model: Self-Forcing, Causal-Forcing, LongLive, Infinity-RoPE. It"
            " is made block after block; keys and values of past frames are kept in a cache of constant size, with sink frames. The same"
            " seed gives the same frames, whatever the length.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The causal model comes from Load Diffusion Model; it needs no mark in its file and no shift.",
                ),
                io.Conditioning.Input("positive", tooltip="The positive conditioning is what the take shows, or begins with."),
                io.Latent.Input(
                    "latent",
                    tooltip="An empty video latent says how large the frames are and how many there will be: whole blocks, 3 latent"
                    " frames each for most systems.",
                ),
                *inputs_of(SamplingSettings, "seed"),
                *inputs_of(CausalSettings),
                *inputs_of(SamplingSettings, "cfg"),
                negative,
                io.Latent.Input(
                    "start",
                    optional=True,
                    tooltip="The start is latent frames that the take begins with, in whole blocks: a finished take that goes on, or what"
                    " Causal Start makes of a picture or a clip. They come back unchanged.",
                ),
                PromptsType.Input(
                    "prompts",
                    optional=True,
                    tooltip="The prompts are what the take shows later, each from its time on, from Prompt at a Time.",
                ),
                recording_input(),
            ],
            outputs=[
                io.Latent.Output(tooltip="It is the whole take, or with a recording its end."),
                io.String.Output(display_name="report", tooltip="The report says what was made and how long it took."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        latent: dict[str, Any],
        seed: int,
        cfg: float,
        negative: list | None = None,
        start: dict[str, Any] | None = None,
        prompts: tuple[TimedPrompt, ...] | None = None,
        recording: Recording | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        check_negative(cfg, negative)
        settings = settings_of(CausalSettings, given)
        system = settings.chosen()
        clip, known = beginning(latent["samples"], None if start is None else start["samples"])
        later = prompts or ()
        switched = starts(later, settings.fps, system.block, clip.shape[2])
        algorithm = CausalTake.of(system.plan(clip.shape[2], known, switched), settings.context_noise)
        directed = joined(positive, later)
        causal = host.apply_causal(model, system.cache)
        began = time.perf_counter()
        made = host.sample(
            causal,
            directed,
            negative,
            cfg=cfg,
            latent=clip,
            algorithm=algorithm,
            seed=seed,
            sigmas=system.sigmas(),
            recording=recording,
        )
        plan, seconds = algorithm.plan, time.perf_counter() - began
        blocks = (plan.frames - plan.known) // plan.block
        ring = host.ring_bytes(causal, clip.shape, system.cache.room, 1 if cfg == 1 else 2)
        *_, last = seen(plan, system.cache)
        prompted = said(switched, system.cache.switch)
        report = (
            f"seed {seed}, {plan.frames} latent frames in blocks of {plan.block}, {plan.rows_total} model calls, cache for"
            f" {system.cache.room} frames with {system.cache.sinks} sink frames{prompted}, {ring / 1e9:.3g} GB of"
            f" keys and values, {last.evicted} frames left it; {seconds:.1f} s, {seconds / blocks:.2g} s a block"
        )
        return io.NodeOutput({"samples": made}, report, ui=shown(report, recording))


def said(switched: list[int], switch: str) -> str:
    """Where prompts begin, for a report."""
    return f", other prompts from frames {', '.join(map(str, switched))} ({switch})" if switched else ""


def beginning(clip: torch.Tensor, start: torch.Tensor | None) -> tuple[torch.Tensor, int]:
    """A clip with its first frames in place, and how many these are: ``clip``, ``start``: ``b c f h w``. Returns ``b c f h w``."""
    if clip.ndim != 5:
        raise ValueError(
            f"the latent has the shape {list(clip.shape)}: a causal model takes videos, b c f h w, such as from EmptyHunyuanLatentVideo"
        )
    if start is None:
        return torch.zeros_like(clip), 0
    if start.ndim != 5 or start.shape[:2] != clip.shape[:2] or start.shape[3:] != clip.shape[3:]:
        raise ValueError(
            f"start has the shape {list(start.shape)} and the latent {list(clip.shape)}: they must agree but for the frames"
        )
    if start.shape[2] >= clip.shape[2]:
        raise ValueError(
            f"start has {start.shape[2]} latent frames and the take {clip.shape[2]}: nothing is left to make; use a longer latent"
        )
    return torch.cat([start, torch.zeros_like(clip[:, :, start.shape[2] :])], dim=2), start.shape[2]
