"""The settings under which this pack's frames are compared with AnimateDiff-Evolved's, one row each, and our side of each row.

To add a case, append a row to ``CASES``; a setting that is new also needs a line in ``ours`` and one in ``parity_ade.theirs``.

Needs ComfyUI and this pack under the name ``pack`` (``peers.start_comfyui``, or the tests' ``conftest``).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from parity_models import FAMILIES, core_lora, image_model, motion_file, motion_lora_file, text
from torch import Tensor

SIZE = 8  # of a latent


@dataclass(frozen=True)
class Context:
    """Context windows; ``mode`` is ours, and theirs follows from it: "whole" are context options, "views" and "temporal" view options."""

    mode: str = "whole"
    schedule: str = "standard_static"
    length: int = 16
    overlap: int = 4
    fuse: str = "pyramid"
    stride: int = 1
    closed_loop: bool = False


@dataclass(frozen=True)
class Mask:
    """A factor for each pixel of each frame, between ``low`` and 1."""

    low: float

    def values(self, frames: int) -> Tensor:
        """In the picture's size, not the latent's: ``frames h w``."""
        return self.low + (1 - self.low) * uniform(frames, 8 * SIZE, 8 * SIZE)


@dataclass(frozen=True)
class PerFrame:
    """A factor for each frame, between ``low`` and 1."""

    low: float

    def values(self, frames: int) -> list[float]:
        """Three digits each, as somebody would type them."""
        return [round(self.low + (1 - self.low) * value, 3) for value in uniform(frames).tolist()]


def uniform(*shape: int) -> Tensor:
    """The same numbers from 0 to 1 every time: of ``shape``."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(17))


Value = float | Mask | PerFrame


@dataclass(frozen=True)
class Strength:
    """How strongly something acts; in a part of the network ``scale`` is for both attentions or, as a pair, for each."""

    effect: Value = 1.0
    scale: Value | tuple[float, float] = 1.0


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: of the row.
        modules: families of the motion modules, applied in this order.
        frames: length of the clip.
        context: windows; None for one window.
        strength: of every module.
        later: strength from a percent of the sampling on, by that percent.
        blocks: strength of parts of the network, all of them "down", "mid" or "up", or all of them modules as "down.1.0".
        span: start and end percent.
        motion_lora: strength of a MotionLoRA, 0 for none.
        core_lora: strength of a LoRA on the image model, 0 for none.
        prompts: whether every frame has its own prompt.
        free_noise: whether the noise repeats in shuffled windows.
        sampler: name of the sampler, and scheduler.
        shipped: leave AnimateDiff-Evolved's norms and schedules as it ships them, see ``parity_ade``.
        information: the difference is printed and not held to the limit, for this reason.
        golden: whether our tests repeat this row without AnimateDiff-Evolved.
    """

    name: str
    modules: tuple[str, ...] = ("v3",)
    frames: int = 16
    steps: int = 3
    cfg: float = 2.0
    context: Context | None = None
    strength: Strength = Strength()
    later: Mapping[float, Strength] = field(default_factory=dict)
    blocks: Mapping[str, Strength] = field(default_factory=dict)
    span: tuple[float, float] = (0.0, 1.0)
    motion_lora: float = 0.0
    core_lora: float = 0.0
    prompts: bool = False
    free_noise: bool = False
    sampler: tuple[str, str] = ("euler", "normal")
    shipped: bool = False
    information: str = ""
    golden: bool = False

    @property
    def base(self) -> str:
        """The image model, a name in ``parity_models.BASES``."""
        return FAMILIES[self.modules[0]].base

    def small(self) -> "Case":
        """The same over half as many frames, for frames that are kept in a file."""
        halved = self.context and replace(self.context, length=self.context.length // 2, overlap=self.context.overlap // 2)
        return replace(self, frames=self.frames // 2, context=halved)


def _windowed(mode: str) -> list[Case]:
    """Every schedule and fuse method in one mode, over a clip that the windows do not divide."""
    kinds = [("standard_static", fuse, 1) for fuse in ("pyramid", "flat", "overlap-linear")]
    kinds += [
        ("standard_uniform", "pyramid", 1),
        ("standard_uniform", "flat", 2),
        ("looped_uniform", "flat", 1),
        ("looped_uniform", "pyramid", 2),
    ]
    if mode == "whole":  # theirs know these for context options only
        kinds += [("standard_static", "relative", 1), ("batched", "flat", 1)]
    golden = {("standard_static", "pyramid", 1), ("looped_uniform", "flat", 1), ("standard_uniform", "pyramid", 1)}
    rows = [
        Case(
            f"{mode}: {schedule} 16/4, stride {stride}, {fuse}",
            frames=42,
            context=Context(mode, schedule, overlap=0 if schedule == "batched" else 4, fuse=fuse, stride=stride),
            golden=(schedule, fuse, stride) in golden,
        )
        for schedule, fuse, stride in kinds
    ]
    closed = Context(mode, "looped_uniform", fuse="pyramid", closed_loop=True)
    return [*rows, Case(f"{mode}: looped_uniform 16/4, closed, pyramid", frames=42, context=closed)]


CASES: tuple[Case, ...] = (
    Case("v3, one window", golden=True),
    Case("v2, one window", ("v2",), golden=True),
    Case("v1, one window", ("v1",)),
    Case("SDXL beta, one window", ("SDXL-beta",)),
    Case("HotshotXL, one window", ("HotshotXL",), frames=8),
    Case("AnimateLCM, one window", ("AnimateLCM",), cfg=1.5, steps=4, sampler=("lcm", "sgm_uniform")),
    # kept in the file, for what the sampler lcm draws between steps depends on ComfyUI's version
    Case("AnimateLCM, euler", ("AnimateLCM",), cfg=1.5, steps=4, sampler=("euler", "sgm_uniform"), golden=True),
    *_windowed("whole"),
    Case("v1 as shipped", ("v1",), shipped=True, information="theirs gives every norm the whole clip"),
    Case("SDXL beta as shipped", ("SDXL-beta",), shipped=True, information="theirs gives every norm the whole clip"),
    Case("HotshotXL as shipped", ("HotshotXL",), frames=8, shipped=True, information="theirs gives every norm the whole clip"),
    Case(
        "AnimateLCM as shipped",
        ("AnimateLCM",),
        cfg=1.5,
        steps=4,
        sampler=("lcm", "sgm_uniform"),
        shipped=True,
        information="theirs is scaled linear, 50 steps; the authors' is linear, 100",
    ),
    Case("whole: prompts per frame", frames=42, context=Context(), prompts=True, golden=True),
    Case("whole: v2", ("v2",), frames=42, context=Context()),
    Case("whole: SDXL beta", ("SDXL-beta",), frames=42, context=Context()),
    *_windowed("views"),
    Case("views: v2", ("v2",), frames=42, context=Context("views")),
    Case("views: SDXL beta", ("SDXL-beta",), frames=42, context=Context("views")),
    Case("views: effect and scale as masks", frames=42, context=Context("views"), strength=Strength(Mask(0.2), Mask(0.6))),
    Case("whole: effect and scale as masks", frames=42, context=Context(), strength=Strength(Mask(0.2), Mask(0.6))),
    Case(
        "temporal against views",
        frames=42,
        context=Context("temporal"),
        information="temporal averages after each attention, views after both",
    ),
    Case("effect 0.7", strength=Strength(0.7), golden=True),
    Case("effect per frame", strength=Strength(PerFrame(0.2))),
    Case("effect as a mask", strength=Strength(Mask(0.2)), golden=True),
    Case("scale 1.3", strength=Strength(scale=1.3), golden=True),
    Case("scale per frame", strength=Strength(scale=PerFrame(0.6))),
    Case("scale as a mask", strength=Strength(scale=Mask(0.6))),
    Case("effect and scale as masks", strength=Strength(Mask(0.2), Mask(0.6)), golden=True),
    Case("effect 0.5, scale 1.2 from 0.4 of the steps on", steps=5, later={0.4: Strength(0.5, 1.2)}, golden=True),
    Case("per block: down 0.3, up 0.8", blocks={"down": Strength(0.3), "up": Strength(0.8)}, golden=True),
    Case("per block: v2, mid 0", ("v2",), blocks={"mid": Strength(0.0)}),
    Case("per block: one module, both attentions", blocks={"down.1.0": Strength(0.3), "up.2.1": Strength(scale=(1.4, 0.7))}),
    Case("from 0 to 0.6 of the steps", steps=5, span=(0.0, 0.6), golden=True),
    Case("from 0.3 to 1 of the steps", steps=5, span=(0.3, 1.0)),
    Case("MotionLoRA 0.8", ("v2",), motion_lora=0.8, golden=True),
    Case("LoRA on the image model 0.7", core_lora=0.7, golden=True),
    Case("v3, then v2", ("v3", "v2"), golden=True),
    Case("v2, then v3, views", ("v2", "v3"), frames=42, context=Context("views")),
    Case("FreeNoise, whole windows", frames=42, context=Context(), free_noise=True, golden=True),
    Case("FreeNoise, views", frames=42, context=Context("views"), free_noise=True),
    Case("heun, whole looped_uniform", frames=42, sampler=("heun", "normal"), context=Context(schedule="looped_uniform")),
    Case("dpm_2, views looped_uniform", frames=42, sampler=("dpm_2", "karras"), context=Context("views", "looped_uniform")),
)


class Models:
    """Image models and files of one width, made when they are first asked for."""

    def __init__(self, width: int):
        """Files go to ComfyUI's own model folders.

        Args:
            width: channels at the finest level; the real models have 320.
        """
        import folder_paths

        self.width = width
        self.modules = Path(folder_paths.models_dir) / "animatediff_models"
        self.loras = Path(folder_paths.models_dir) / "animatediff_motion_lora"
        self.image = functools.cache(self._image)
        self.module = functools.cache(self._module)
        self.motion_lora = functools.cache(self._motion_lora)

    def _image(self, base: str) -> Any:
        return image_model(base, self.width)

    def _module(self, family: str) -> str:
        self.modules.mkdir(parents=True, exist_ok=True)
        return motion_file(self.modules, family, self.width)

    def _motion_lora(self, family: str) -> str:
        self.loras.mkdir(parents=True, exist_ok=True)
        return motion_lora_file(self.loras, family, self.width)

    def styled(self, case: Case) -> Any:
        """The image model of a case, with its LoRA."""
        import comfy.sd

        model = self.image(case.base)
        if not case.core_lora:
            return model
        return comfy.sd.load_lora_for_models(model, None, core_lora(model), case.core_lora, 0)[0]


def sampled(model: Any, case: Case, seed: int = 1) -> Tensor:
    """The latents that ComfyUI's own KSampler makes: ``f 4 h w``."""
    import nodes

    latent = {"samples": torch.zeros(case.frames, 4, SIZE, SIZE)}
    prompts = case.frames if case.prompts else 1
    conditions = text(3, prompts), text(4, prompts)
    with torch.inference_mode():
        return nodes.KSampler().sample(model, seed, case.steps, case.cfg, *case.sampler, *conditions, latent)[0]["samples"]


def relative_difference(given: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest value, of two tensors of one shape ``f c h w``."""
    return float((given - wanted).abs().max() / wanted.abs().max())


def ours(case: Case, models: Models) -> Tensor:
    """This pack's frames, by its own nodes."""
    from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeLoadMotionModule
    from pack.nodes.motion.motion_lora import LongTakeApplyMotionLora
    from pack.nodes.motion.windows import LongTakeContextWindows
    from pack.nodes.noise.noise import LongTakeClipNoise

    model, strengths = (
        models.styled(case),
        {"keyframes": keyframes(case), "start_percent": case.span[0], "end_percent": case.span[1]},
    )
    for family in case.modules:
        motion = LongTakeLoadMotionModule.execute(motion_module=models.module(family)).result[0]
        model = LongTakeApplyMotionModule.execute(model=model, motion_module=motion, **strengths).result[0]
        if case.motion_lora:
            file = models.motion_lora(family)
            model = LongTakeApplyMotionLora.execute(model=model, lora_name=file, strength=case.motion_lora).result[0]
    if case.context is not None:
        model = LongTakeContextWindows.execute(model=model, **vars(case.context)).result[0]
    if case.free_noise and case.context is not None:
        window = {"length": case.context.length, "overlap": case.context.overlap}
        model = LongTakeClipNoise.execute(model=model, kind="freenoise", **window).result[0]
    return sampled(model, case)


def keyframes(case: Case) -> Any:
    """The strengths of a case as our keyframes, one at the start and one for each later change."""
    from pack.nodes.motion.motion import LongTakeMotionKeyframe

    made = None
    for percent, strength in {0.0: case.strength, **case.later}.items():
        inputs: dict[str, Any] = {}
        for name, value in vars(strength).items():
            if isinstance(value, Mask):
                inputs[f"{name}_mask"] = value.values(case.frames)
            elif isinstance(value, PerFrame):
                inputs[f"{name}_per_frame"] = ", ".join(map(str, value.values(case.frames)))
            else:
                inputs[name] = value
        blocks = "; ".join(rule(place, block) for place, block in case.blocks.items())
        made = LongTakeMotionKeyframe.execute(start_percent=percent, blocks=blocks, keyframes=made, **inputs).result[0]
    return made


def rule(place: str, strength: Strength) -> str:
    """What a part of the network gets, in words that Motion Keyframe reads."""
    scales = strength.scale if isinstance(strength.scale, tuple) else (strength.scale,) * 2
    return f"{place} effect={strength.effect} scale={','.join(map(str, scales))}"
