"""What users do wrong around motion: one table, each row refused in one sentence and before any model is called.

A row is done as a user does it: files lie in the model folders, the nodes' own ``execute`` is called, and what shows only in sampling
goes through ComfyUI's samplers. Whatever calls a U-Net on the way is counted. Rows about files alone need no ComfyUI.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pack import host
from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeLoadMotionModule, LongTakeMotionKeyframe
from pack.nodes.motion.motion_lora import LongTakeApplyMotionLora
from pack.nodes.motion.windows import LongTakeContextWindows, LongTakeShowPlan
from pack.nodes.noise.noise import LongTakeClipNoise, LongTakeFreeInit
from safetensors.torch import save_file
from tiny import video_model
from tiny_lora import adapter_state, lora_state
from tiny_motion import (
    PUBLISHED,
    SDXL_UNET,
    UNET,
    camera_state,
    image_model,
    ksample,
    motion_state,
    pia_conv_in,
    text,
    without_tables,
)

FRAMES = 6
NAN, INF = math.nan, math.inf
STRENGTH = "strength is (nan|inf): it must lie between -10 and 10; 1 is usual"
PREFIX = "down_blocks.0.motion_modules.0.temporal_transformer."
ATTENTION = PREFIX + "transformer_blocks.0.attention_blocks.0."
PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Entry not found</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 1672105\n"


@cache
def checkpoint(config: Any) -> Any:
    """Nodes work on clones, so one of each serves all rows."""
    return image_model(config=config)


class Desk:
    """What a user has: model folders, nodes, samplers. ``calls`` has an entry for each call of any U-Net."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written: list[Path] = []
        self.hooks: list[Any] = []

    def counted(self, model: Any) -> Any:
        """The model, whose calls count."""
        self.hooks.append(model.model.diffusion_model.register_forward_pre_hook(lambda *_: self.calls.append("called")))
        return model

    def left(self) -> None:
        """Everything as it was before."""
        for hook in self.hooks:
            hook.remove()
        for path in self.written:
            path.unlink(missing_ok=True)

    # files

    def file(self, content: Any, ending: str = "safetensors", kind: str = "motion_modules") -> str:
        """A file in the folder of a kind; tensors by key, bytes, or anything else for torch to save. Gives its name."""
        folder = host.model_directory(kind)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"given{len(self.written)}.{ending}"
        self.written.append(path)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif ending == "safetensors":
            save_file({key: value.contiguous() for key, value in content.items()}, path)
        else:
            torch.save(content, path)
        return path.name

    def module(self, content: Any = None, ending: str = "safetensors") -> Any:
        """Load Motion Module; without content a v3 module."""
        return LongTakeLoadMotionModule.execute(self.file(motion_state() if content is None else content, ending)).args[0]

    def cut(self, content: Any, ending: str, part: float) -> bytes:
        """The first part of a file's bytes."""
        name = self.file(content, ending)
        whole = (host.model_directory("motion_modules") / name).read_bytes()
        return whole[: int(part * len(whole))]

    def lora(self, content: Any, model: Any = None, ending: str = "safetensors", **options: Any) -> Any:
        """Apply Motion LoRA."""
        name = self.file(content, ending, "motion_loras")
        return LongTakeApplyMotionLora.execute(model=model, lora_name=name, **options).args[0]

    # models

    def model(self, config: Any = UNET) -> Any:
        """Load Checkpoint."""
        return self.counted(checkpoint(config))

    def apply(self, model: Any = None, module: Any = None, **options: Any) -> Any:
        """Apply Motion Module; without a model an SD1.5 one, without a module a v3 one."""
        return LongTakeApplyMotionModule.execute(
            model=self.model() if model is None else model, motion_module=self.module() if module is None else module, **options
        ).args[0]

    def keyed(self, **options: Any) -> Any:
        """Apply Motion Module with a Motion Keyframe."""
        return self.apply(keyframes=LongTakeMotionKeyframe.execute(**options).args[0])

    def windows(self, model: Any = None, **options: Any) -> Any:
        """Context Windows; without a model behind Apply Motion Module."""
        return LongTakeContextWindows.execute(model=self.apply() if model is None else model, **options).args[0]

    def noise(self, model: Any = None, **options: Any) -> Any:
        """Clip Noise; gives the model."""
        return LongTakeClipNoise.execute(model=self.model() if model is None else model, **options).args[0]

    def freeinit(self, model: Any = None, **options: Any) -> Any:
        """FreeInit."""
        return LongTakeFreeInit.execute(model=self.model() if model is None else model, **options).args[0]

    # samplers

    def sample(self, model: Any, frames: int = FRAMES, latent: Any = None) -> Any:
        """KSampler, on an empty latent."""
        return ksample(model, frames=frames, steps=2, latent=latent)

    def advanced(self, model: Any, add_noise: str = "enable", end: int = 3, leftover: str = "disable") -> Any:
        """KSampler (Advanced)."""
        import nodes

        latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        with torch.inference_mode():
            return nodes.KSamplerAdvanced().sample(
                model, add_noise, 0, 3, 2.0, "euler", "normal", text(3), text(4), latent, 0, end, leftover
            )

    def custom(self, model: Any, noise: Any, **latent: Any) -> Any:
        """SamplerCustomAdvanced."""
        import comfy.samplers
        from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(text(3), text(4))
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
        clip = {"samples": torch.zeros(FRAMES, 4, 8, 8), **latent}
        with torch.inference_mode():
            return SamplerCustomAdvanced().sample(noise, guider, comfy.samplers.sampler_object("euler"), sigmas, clip)

    # what other packs and ComfyUI itself do to a model

    def flow(self, model: Any) -> Any:
        """ModelSamplingSD3."""
        from comfy_extras.nodes_model_advanced import ModelSamplingSD3

        return ModelSamplingSD3().patch(model, 3.0)[0]

    def edm(self, model: Any) -> Any:
        """ModelSamplingContinuousEDM."""
        from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

        return ModelSamplingContinuousEDM().patch(model, "v_prediction", 120.0, 0.002)[0]

    def core_windows(self, model: Any, length: int) -> Any:
        """ComfyUI's Context Windows (Manual)."""
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode

        newer = {"freenoise": False} if "freenoise" in inspect.signature(ContextWindowsManualNode.execute).parameters else {}
        return ContextWindowsManualNode.execute(model, length, 4, "standard_static", 1, False, "pyramid", 0, **newer).args[0]

    def transformer(self) -> Any:
        """A model that is no U-Net, with a time axis of its own, as Wan and HunyuanVideo are."""
        import comfy.latent_formats

        made = image_model()
        made.model.latent_format = comfy.latent_formats.Wan21()
        made.model.diffusion_model = torch.nn.Linear(1, 1)
        return self.counted(made)


@dataclass(frozen=True)
class Slip:
    """What a user does, and a pattern of what is said to it."""

    name: str
    do: Callable[[Desk], Any] = field(repr=False)
    says: str
    bare: bool = False  # needs no ComfyUI
    wrong: str = ""  # what happens today instead

    def param(self) -> Any:
        marks = [] if self.bare else [pytest.mark.comfy]
        if self.wrong:
            marks.append(pytest.mark.xfail(strict=True, reason=self.wrong))
        return pytest.param(self, marks=marks, id=self.name)


class Hostile:
    def __reduce__(self):
        return print, ("code ran",)


def named(*keys: str) -> dict[str, torch.Tensor]:
    """Tensors of no matter what, for files that are known by their keys."""
    return {key: torch.zeros(2) for key in keys}


def without(key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in motion_state().items() if not name.startswith(key)}


def changed(state: dict[str, torch.Tensor], place: int, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors with one of them replaced."""
    return {**state, list(state)[place]: value}


def spoilt(state: dict[str, torch.Tensor], value: float) -> dict[str, torch.Tensor]:
    """The tensors with one number of the first replaced."""
    first = next(iter(state))
    broken = state[first].clone()
    broken.view(-1)[0] = value
    return {**state, first: broken}


def latent(*shape: int, value: float = 0.0) -> torch.Tensor:
    """Zeros, and a value in the third frame's first place."""
    made = torch.zeros(shape)
    made.view(-1)[2 * made.numel() // 6] = value
    return made


def module_slips() -> list[Slip]:
    """Into Load Motion Module, whatever lies in the folder."""
    other = "cannot be loaded as a motion module: it is "

    def slip(name: str, content: Any, says: str, ending: str = "safetensors", wrong: str = "") -> Slip:
        return Slip(name, lambda desk: desk.module(content() if callable(content) else content, ending), says, True, wrong)

    def cut(name: str, ending: str, part: float) -> Slip:
        return Slip(
            name,
            lambda desk: desk.module(desk.cut(motion_state(), ending, part), ending),
            r"cannot be read: it is cut short or no .* file.*download it again",
            bare=True,
        )

    return [
        slip("the v3 domain adapter", adapter_state, other + "a LoRA of an image model, for Apply Motion LoRA"),
        slip(
            "a style LoRA",
            named("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "lora_te_text_model_final_layer_norm.alpha"),
            other + "a LoRA of an image model, for Apply Motion LoRA or ComfyUI's LoRA loader; use an AnimateDiff",
        ),
        slip("a MotionLoRA", lora_state, other + "a MotionLoRA, for Apply Motion LoRA; use an AnimateDiff"),
        slip("a MotionLoRA of PEFT's", lambda: lora_state("PEFT"), other + "a MotionLoRA, for Apply Motion LoRA"),
        slip(
            "a SparseCtrl",
            lambda: motion_state() | named("conv_in.weight", "controlnet_cond_embedding.weight", "controlnet_mid_block.weight"),
            other + "a SparseCtrl encoder, for Load Sparse Control",
        ),
        slip(
            "a ControlNet",
            named("control_model.input_blocks.0.0.weight", "control_model.input_hint_block.0.weight"),
            other + "a ControlNet, for Load ControlNet Model",
        ),
        slip(
            "a whole checkpoint",
            named("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "first_stage_model.encoder.conv_in.weight"),
            other + "a whole checkpoint of an image model, for Load Checkpoint",
        ),
        slip("a bare U-Net", named("input_blocks.1.0.in_layers.0.weight"), other + "the U-Net of an image model, for Load Diff"),
        slip("a VAE", named("encoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight"), other + "a VAE, for Load VAE"),
        slip("a text encoder", named("text_model.final_layer_norm.weight"), other + "a text encoder, for Load CLIP"),
        slip("a picture encoder", named("vision_model.post_layernorm.weight"), other + "an image encoder, for Load CLIP Vision"),
        slip(
            "an IP-Adapter",
            named("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"),
            other + "an IP-Adapter, for Load Image Prompt",
        ),
        slip("a camera alone", camera_state, other + "a CameraCtrl camera module, which is grafted onto a motion module"),
        slip("MotionCtrl", lambda: motion_state() | named(PREFIX + "cc_projection.weight"), other + "a MotionCtrl camera module"),
        slip("tensors of nobody", named("weights", "more"), "its first keys are more, weights; use an AnimateDiff"),
        slip("no tensors", {}, "its first keys are none; use an AnimateDiff"),
        slip("a list instead of tensors", [1, 2], "its first keys are none; use an AnimateDiff", "ckpt"),
        slip("an empty file", b"", "cannot be read: it is cut short or no safetensors file .*download it again"),
        slip("an empty .ckpt", b"", "cannot be read: it is cut short or no PyTorch file; download it again", "ckpt"),
        slip("a web page", PAGE, "cannot be read: it is cut short or no safetensors file .*download it again"),
        slip("a web page as .ckpt", PAGE, "cannot be read: it is cut short or no PyTorch file; download it again", "ckpt"),
        slip("a Git LFS pointer", POINTER, "cannot be read: it is cut short or no safetensors file .*download it again"),
        slip(
            "a Git LFS pointer as .ckpt", POINTER, "cannot be read: it is cut short or no PyTorch file; download it again", "ckpt"
        ),
        cut("a file cut short", "safetensors", 0.7),
        cut("a .ckpt cut short", "ckpt", 0.7),
        slip(
            "a .ckpt with code in it",
            lambda: {"state_dict": motion_state(), "config": Hostile()},
            "Python objects beside its weights .*, which could run code or fill the memory and are not loaded: use a safetensors file",
            "ckpt",
        ),
        slip(
            "a missing weight", lambda: without(PREFIX + "proj_in.bias"), rf"1 weight is missing \({PREFIX}proj_in.bias\); down"
        ),
        slip(
            "a hole among the modules", lambda: without("up_blocks.1.motion_modules.1."), "1 of 10 modules are missing, first up"
        ),
        slip("no way up", lambda: without("up_blocks."), "2 of 6 modules are missing, first up_blocks.0.motion_modules.0; down"),
        slip(
            "a weight of another shape",
            lambda: motion_state() | {PREFIX + "proj_in.bias": torch.zeros(3)},
            r"is not what its other keys say: 1 weight is unknown or of another shape \(.*proj_in.bias\)",
        ),
        slip(
            "neither v1 nor v3",
            lambda: without_tables(motion_state()),
            "so how its norms ran is not known: set family to what it was trained as, one of v1, v2, v3, AnimateLCM",
        ),
        slip(
            "two modules in one file",
            lambda: PUBLISHED["AnimateLCM-I2V"]() | pia_conv_in(),
            "put together from two modules; use one of them",
        ),
        slip(
            "weights that are not finite",
            lambda: spoilt(motion_state(), NAN),
            "is broken: 1 weight is not made of finite .*; use the file as",
        ),
        slip(
            "whole numbers for weights",
            lambda: {key: value if key.endswith(".pe") else value.to(torch.int8) for key, value in motion_state().items()},
            "is broken: 260 weights are not made of finite floating-point numbers .*; use the file as its authors released it",
        ),
        Slip(
            "a video model of this pack",
            lambda desk: desk.module(video_file(desk)),
            other + "a LongTake video model, for Load Video Model",
            bare=True,
        ),
        Slip(
            "no such file",
            lambda desk: LongTakeLoadMotionModule.execute("mm.ckpt"),
            "there is no .*'mm.ckpt'.* put it|the file",
            True,
        ),
        Slip(
            "a file outside the folder",
            lambda desk: LongTakeLoadMotionModule.execute("../../outside.ckpt"),
            "there is no .*'../../outside.ckpt'",
            True,
        ),
    ]


def video_file(desk: Desk) -> bytes:
    """A video model of this pack, as bytes."""
    path = host.model_directory("motion_modules") / "video.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    desk.written.append(path)
    video_model().save(path)
    return path.read_bytes()


def lora_file_slips() -> list[Slip]:
    """Into Apply Motion LoRA, whatever lies in the folder."""

    def slip(name: str, content: Any, says: str, ending: str = "safetensors", **options: Any) -> Slip:
        return Slip(
            name, lambda desk: desk.lora(content() if callable(content) else content, None, ending, **options), says, True
        )

    def less(part: str) -> dict[str, torch.Tensor]:
        state = lora_state()
        gone = next(key for key in state if part in key)
        return {key: value for key, value in state.items() if key != gone}

    return [
        slip(
            "LoRA slot: a motion module",
            motion_state,
            "is no LoRA: it is a motion module, for Load Motion Module; use a MotionLo",
        ),
        slip("LoRA slot: a checkpoint", named("model.diffusion_model.out.0.weight"), "is no LoRA: it is a whole checkpoint"),
        slip("LoRA slot: a ControlNet", named("control_model.input_blocks.0.0.weight"), "is no LoRA: it is a ControlNet"),
        slip("LoRA slot: text renamed", b"zoom in, please", "cut short or no PyTorch file; download it again", "ckpt"),
        slip("LoRA slot: an empty file", b"", "cannot be read"),
        slip("LoRA: half of a pair", lambda: less(".down."), "is not complete: .* has no down matrix; download it again"),
        slip(
            "LoRA: pairs that do not fit",
            lambda: changed(lora_state(), 0, torch.zeros(32, 3)),
            "do not fit each other: .*download",
        ),
        slip(
            "LoRA: not finite",
            lambda: spoilt(lora_state(), NAN),
            "not made of finite floating-point numbers .*as its authors released it",
        ),
        slip(
            "LoRA: LoHa's matrices",
            lambda: lora_state() | named(f"{ATTENTION}to_q.hada_w1_a"),
            "holds .*hada_w1_a, which is no part of a plain LoRA",
        ),
        slip("LoRA: blocks without numbers", lora_state, "'up' changes nothing: add a number", blocks="up"),
        slip("LoRA: blocks of no U-Net", lora_state, "'left 0.5' names no part of the U-Net: start with all", blocks="left 0.5"),
        slip("LoRA: words for numbers", lora_state, "'much' in 'up much' is no number: write numbers", blocks="mid 1; up much"),
        slip("LoRA: a scale per block", lora_state, "sets a scale, which only motion modules have", blocks="up scale=0.5"),
    ]


def lora_slips() -> list[Slip]:
    """Apply Motion LoRA on a model."""

    def slip(name: str, content: Callable[[], Any], says: str, wrong: str = "", **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.lora(content(), desk.apply(), **options), says, wrong=wrong)

    return [
        Slip(
            "a MotionLoRA without a motion module",
            lambda desk: desk.lora(lora_state(), desk.model()),
            "is a MotionLoRA and the model has no motion module: put Apply Motion Module before this node",
        ),
        slip(
            "a MotionLoRA of another base",
            lambda: lora_state(levels=(64, 128)),
            "is a MotionLoRA for another base model than given0.safetensors: .*; use one that was trained on such a module",
        ),
        slip(
            "a MotionLoRA of deeper levels only",
            lambda: {key: value for key, value in lora_state(levels=(32, 64, 128)).items() if key.startswith("down_blocks.2")},
            "none of the 16 weights of .* are in .*: use a LoRA that was trained on such a module",
        ),
        slip(
            "an adapter of another base",
            lambda: named_lora("joint_blocks_0_x"),
            "none of its 2 weights are in this one .*: use one",
        ),
        slip(
            "an adapter by blocks", adapter_state, "has no motion modules to set one by one: leave blocks empty", blocks="up 0.5"
        ),
        slip("an adapter for a part", adapter_state, "cannot change during sampling: set start_percent to 0", end_percent=0.5),
        slip(
            "a LoRA that ends before it starts",
            lora_state,
            "start_percent is 0.5 and end_percent 0.5: the start must lie below the end",
            start_percent=0.5,
            end_percent=0.5,
        ),
        slip("a LoRA beyond the end", lora_state, "end_percent is 1.5: it must lie between 0 and 1", end_percent=1.5),
        slip("a LoRA from no number on", lora_state, "start_percent is nan: it must lie between 0 and 1", start_percent=NAN),
        slip(
            "a LoRA of no strength",
            lora_state,
            STRENGTH,
            strength=NAN,
        ),
        slip(
            "a LoRA of infinite strength",
            lora_state,
            STRENGTH,
            strength=INF,
        ),
        slip(
            "an adapter of no strength",
            adapter_state,
            STRENGTH,
            strength=NAN,
        ),
    ]


def named_lora(layer: str) -> dict[str, torch.Tensor]:
    return {f"lora_unet_{layer}.lora_{side}.weight": torch.zeros(2, 2) for side in ("up", "down")}


def apply_slips() -> list[Slip]:
    """Apply Motion Module and Motion Keyframe."""

    def slip(name: str, says: str, wrong: str = "", **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.apply(**options), says, wrong=wrong)

    def key(name: str, says: str, wrong: str = "", **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.sample(desk.keyed(**options)), says, wrong=wrong)

    def base(config: Any, family: str) -> Callable[[Desk], Any]:
        return lambda desk: desk.apply(desk.model(config), desk.module(PUBLISHED[family]()))

    return [
        Slip(
            "an SDXL module on SD1.5", base(UNET, "SDXL-beta"), "32, 64, 128 channels and the model is .*: load a checkpoint of"
        ),
        Slip("an SD1.5 module on SDXL", base(SDXL_UNET, "v2"), "levels of 32, 64 channels and the model is .* 32, 64, 128 chan"),
        Slip("HotshotXL on SD1.5", base(UNET, "HotshotXL"), "32, 64, 128 channels and the model is .*: load a checkpoint of"),
        Slip(
            "a second module that does not fit",
            lambda desk: desk.apply(desk.apply(), desk.module(PUBLISHED["SDXL-beta"]())),
            "is for a U-Net .* and the model is .*: load a checkpoint of the module's base model",
        ),
        Slip(
            "a transformer",
            lambda desk: desk.apply(desk.transformer()),
            "need a U-Net of Stable Diffusion's family .*; Linear is",
        ),
        Slip(
            "a flow model",
            lambda desk: desk.apply(desk.flow(desk.model())),
            "needs the discrete timesteps .*: use an SD1.5 or SDXL",
        ),
        Slip(
            "an EDM model",
            lambda desk: desk.apply(desk.edm(desk.model())),
            "needs the discrete timesteps .*: use an SD1.5 or SDXL",
        ),
        slip("less than no effect", "effect is -0.5: it must lie between 0 and 10; 1 is usual", effect=-0.5),
        slip("too much effect", "effect is 40: it must lie between 0 and 10", effect=40),
        slip("no number for effect", "effect is nan: it must lie between 0 and 10", effect=NAN),
        slip("no number for scale", "scale is nan: it must lie between 0 and 10", scale=NAN),
        slip(
            "a module that ends before it starts",
            "start_percent is 0.7 and end_percent 0.2: the start must lie below the end",
            start_percent=0.7,
            end_percent=0.2,
        ),
        slip("a module for no time", "start_percent is 0.5 and end_percent 0.5", start_percent=0.5, end_percent=0.5),
        slip("a module beyond the end", "end_percent is 50: it must lie between 0 and 1", end_percent=50),
        slip("a module from no number on", "start_percent is nan", start_percent=NAN),
        slip(
            "a schedule of no menu",
            "noise_schedule is 'sqrt_linear': choose one of authors, model, .*linear",
            noise_schedule="sqrt_linear",
        ),
        slip(
            "positions of no menu",
            "positions is 'squeeze': choose one of trained, stretch, extend",
            positions="squeeze",
        ),
        slip(
            "keyframes that are none",
            "keyframes",
            keyframes=[{"start_percent": 0.5}],
        ),
        slip("a mask for keyframes", "keyframes", keyframes=torch.ones(1, 8, 8)),
        Slip(
            "a path for a module",
            lambda desk: desk.apply(module="v3_sd15_mm.ckpt"),
            "'v3_sd15_mm.ckpt' was given for a motion module: connect Load Motion Module",
        ),
        key("a keyframe beyond the end", "start_percent is 2: it must lie between 0 and 1", start_percent=2),
        key("a keyframe of no effect number", "effect", effect=NAN),
        key("a keyframe of no scale number", "scale", scale=INF),
        key("a keyframe of huge effect", "effect", effect=1e6),
        key("words per frame", "'loud' in effect_per_frame is no number: write numbers", effect_per_frame="1, loud, 0"),
        key(
            "huge numbers per frame",
            "1e9 in scale_per_frame is out of range: use numbers between -10 and 10",
            scale_per_frame="1, 1e9",
        ),
        key("blocks of no U-Net", "'left 1' names no part of the U-Net: start with all, down", blocks="left 1"),
        key("blocks with another setting", "'gain=2' in 'up gain=2' is not understood: write a number", blocks="up gain=2"),
        key("a flat mask", "effect_mask has the shape", effect_mask=torch.ones(8)),
        key(
            "a picture for a mask",
            "effect_mask has the shape",
            effect_mask=torch.ones(1, 8, 8, 3),
        ),
        key("a mask of two axes", "scale_mask has the shape", scale_mask=torch.ones(8, 8)),
        key("a mask without frames", "effect_mask", effect_mask=torch.ones(0, 8, 8)),
        key("a mask that is not finite", "effect_mask", effect_mask=torch.full((1, 8, 8), NAN)),
        key("a number for a mask", "effect_mask", effect_mask=0.5),
    ]


def clip_slips() -> list[Slip]:
    """Latents and lengths that a model with motion cannot sample."""

    def clip(name: str, says: str, *shape: int, value: float = 0.0, wrong: str = "") -> Slip:
        return Slip(name, lambda desk: desk.sample(desk.apply(), latent=latent(*shape, value=value)), says, wrong=wrong)

    return [
        Slip(
            "one frame", lambda desk: desk.sample(desk.apply(), 1), "a clip of 1 frame and moves nothing: give the latent a batch"
        ),
        Slip("no frames", lambda desk: desk.sample(desk.apply(), 0), "a clip of 0 frame and moves nothing: give"),
        Slip(
            "too long for v3", lambda desk: desk.sample(desk.apply(), 33), "at most 32 frames and got 33: use at most 32 frames"
        ),
        Slip(
            "too long for v1",
            lambda desk: desk.sample(desk.apply(module=desk.module(PUBLISHED["v1"]())), 25),
            "at most 24 frames and got 25: use at most 24 frames, put Context Windows before the sampler, or set positions",
        ),
        Slip(
            "too long for one of two modules",
            lambda desk: desk.sample(desk.apply(desk.apply(), desk.module(PUBLISHED["v1"]())), 30),
            "at most 24 frames and got 30",
        ),
        Slip(
            "one frame through windows",
            lambda desk: desk.sample(desk.windows(length=4, overlap=1), 1),
            "a clip of 1 frame and moves nothing",
        ),
        clip(
            "a latent with a NaN",
            r"the latent is not finite \(NaN or infinite\) in frame 2: encode or load",
            6,
            4,
            8,
            8,
            value=NAN,
        ),
        clip("an infinite latent", r"the latent is not finite \(NaN or infinite\) in frame 2", 6, 4, 8, 8, value=INF),
        clip("a video latent", r"has the shape \[1, 4, 6, 8, 8\], and this model", 1, 4, 6, 8, 8),
        clip("a batch of video latents", "shape", 3, 4, 6, 8, 8, value=1.0),
        clip("sound", "shape", 6, 4, 64, value=1.0),
        clip("a latent of another model", "channels", 6, 16, 8, 8, value=1.0),
        Slip(
            "ComfyUI's windows, too long",
            lambda desk: desk.sample(desk.core_windows(desk.apply(), 40), 48),
            "at most 32 frames and got 4[01]",
        ),
    ]


def window_slips() -> list[Slip]:
    """Context Windows and Show Plan."""

    def slip(name: str, says: str, **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.windows(**options), says)

    def later(mode: str) -> Callable[[Desk], Any]:
        """Windows first, a module that knows fewer times afterwards."""
        return lambda desk: desk.sample(
            desk.apply(desk.windows(length=30, overlap=2, mode=mode), desk.module(PUBLISHED["v1"]())), 40
        )

    return [
        slip(
            "windows that are all overlap",
            "windows of 8 frames cannot overlap by 8: use an overlap of at most 7",
            length=8,
            overlap=8,
        ),
        slip("windows that overlap backwards", "overlap is -1: it must lie between 0 and 4095", length=8, overlap=-1),
        slip("windows longer than v3 knows", "longer than the 32 frames .*: use a length of at most 32", length=40),
        slip("whole windows longer than v3 knows", "longer than the 32 frames .*: use a length", length=40, mode="whole"),
        slip("windows of one frame", "length is 1: a window needs at least 2 frames, or 0", length=1, overlap=0),
        slip("windows of less than nothing", "length is -4: it must lie between 0 and 4096", length=-4, overlap=0),
        slip("no stride", "stride is 0: it must lie between 1 and 16", stride=0),
        slip("a closed loop of static windows", "standard_static cannot close a loop: choose looped_uniform", closed_loop=True),
        slip(
            "a window schedule of no menu",
            "schedule is 'uniform_v2': choose one of standard_st",
            schedule="uniform_v2",
        ),
        slip("a fuse method of no menu", "fuse is 'gauss': choose one of pyramid", fuse="gauss"),
        slip("a mode of no menu", "mode is 'fast': choose one of temporal, views, whole", mode="fast"),
        Slip(
            "windows without a motion module",
            lambda desk: desk.windows(desk.model()),
            "no motion module whose windows could slide: put Apply Motion Module before Context Windows, or use mode whole",
        ),
        Slip(
            "whole windows of a length from nowhere",
            lambda desk: desk.windows(desk.model(), mode="whole", length=0),
            "the window length is automatic and the model has no motion module to take it from: give a length",
        ),
        Slip(
            "whole windows on a video model",
            lambda desk: desk.windows(desk.transformer(), mode="whole", length=16),
            "a video model with a time axis of its own: use ComfyUI's Context Windows",
        ),
        Slip("temporal windows, then a shorter module", later("temporal"), "windows of 30 frames are longer than the 24 frames"),
        Slip("whole windows, then a shorter module", later("whole"), "at most 24 frames and got 30"),
        Slip(
            "the plan of sound",
            lambda desk: LongTakeShowPlan.execute(desk.windows(), {"samples": torch.zeros(1, 64, 100)}),
            r"latents have 4 axes, or 5 for video models; these have the shape \(1, 64, 100\)",
        ),
        Slip(
            "the plan of no steps",
            lambda desk: LongTakeShowPlan.execute(desk.windows(), {"samples": torch.zeros(6, 4, 8, 8)}, 0),
            "steps is 0: it must lie between 1 and 10000",
        ),
    ]


def noise_slips() -> list[Slip]:
    """Clip Noise and FreeInit."""

    def slip(name: str, says: str, **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.noise(**options), says)

    def again(name: str, says: str, **options: Any) -> Slip:
        return Slip(name, lambda desk: desk.freeinit(**options), says)

    def output(desk: Desk, noise: Any, **latent: Any) -> Any:
        """The noise output, into SamplerCustomAdvanced."""
        model, made = LongTakeClipNoise.execute(model=desk.model(), noise=noise).args
        return desk.custom(model, made, **latent)

    def seeded(desk: Desk) -> Any:
        from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

        return Noise_RandomNoise(1)

    return [
        slip(
            "FreeNoise that is all overlap",
            "windows of 8 frames cannot overlap by 8: use an overlap from 0 to 7",
            length=8,
            overlap=8,
        ),
        slip("FreeNoise of no length", "length is 0: it must lie between 1 and 4096", length=0, overlap=0),
        slip("more shared than there is", "share is 1.5: it must lie between 0 and 1", kind="mixed", share=1.5),
        slip("a share that is no number", "share is nan", kind="mixed", share=NAN),
        slip("less than no noise", "weight is -1: it must lie between 0 and 10", weight=-1),
        slip("a kind of noise of no menu", "kind is 'perlin': choose one of freenoise", kind="perlin"),
        slip("a source of no menu", "source is 'gpu': choose one of comfyui, per_frame", source="gpu"),
        slip("a combination of no menu", "combine is 'max': choose one of replace", combine="max"),
        slip("a flat noise mask", r"the mask has the shape \[8, 8\]: it must be frames, height, width", mask=torch.ones(8, 8)),
        slip("a noise mask above 1", "the mask has values outside 0 to 1: invert or clamp", mask=torch.full((1, 8, 8), 2.0)),
        slip("a noise mask that is not finite", "the mask has values outside 0 to 1", mask=torch.full((1, 8, 8), NAN)),
        slip(
            "noise mixed with itself",
            "would mix ComfyUI's noise of seed offset 0 with itself: set another seed_offset",
            combine="add",
        ),
        Slip(
            "masks for another clip",
            lambda desk: desk.sample(desk.noise(mask=torch.ones(5, 8, 8), source="per_frame")),
            "there are 5 masks for 6 frames: use one mask for all, or one per frame",
        ),
        Slip(
            "a noise mask without frames",
            lambda desk: desk.sample(desk.noise(mask=torch.ones(0, 8, 8), seed_offset=1)),
            "there are 0 masks",
        ),
        Slip(
            "a noise output without a seed", lambda desk: output(desk, None), "no seed for its noise output: connect RandomNoise"
        ),
        Slip(
            "frame numbers for another clip",
            lambda desk: output(desk, seeded(desk), batch_index=[0, 1]),
            "2 frame numbers were given for 6 frames: give one per frame",
        ),
        Slip(
            "a frame before the first",
            lambda desk: output(desk, seeded(desk), batch_index=[-1, 0, 1, 2, 3, 4]),
            "the frame number -1 was given: frames are counted from 0",
        ),
        again("FreeInit, no iterations", "iterations is 0: it must lie between 1 and 20", iterations=0),
        again("FreeInit, no order", "order is 0: it must lie between 1 and 100", order=0),
        again("FreeInit, keeping nothing", "spatial_stop is 0: it must lie between 0.01 and 1", spatial_stop=0.0),
        again("FreeInit, keeping too much", "temporal_stop is 1.5: it must lie between 0.01 and 1", temporal_stop=1.5),
        again("FreeInit, a stop that is no number", "temporal_stop is nan", temporal_stop=NAN),
        again("FreeInit, a filter of no menu", "filter is 'chebyshev': choose one of butterworth", filter="chebyshev"),
        Slip(
            "FreeInit, stopped half way",
            lambda desk: desk.advanced(desk.freeinit(), end=2, leftover="enable"),
            r"FreeInit needs finished frames, .* end at sigma .*: let it run to the last step",
        ),
        Slip(
            "FreeInit, no noise added",
            lambda desk: desk.advanced(desk.freeinit(), "disable"),
            "this sampler adds none: enable add_noise",
        ),
        Slip("FreeInit, a flow model", lambda desk: desk.sample(desk.freeinit(desk.flow(desk.model()))), "lower denoise, or use"),
    ]


SLIPS = [
    *module_slips(),
    *lora_file_slips(),
    *lora_slips(),
    *apply_slips(),
    *clip_slips(),
    *window_slips(),
    *noise_slips(),
]
BREAK = re.compile(r"[.!?]\s+[A-Z]")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "LONGTAKE_MODELS", str(tmp_path)
    )  # where the standalone host looks; ComfyUI here has a base directory of its own
    made = Desk()
    yield made
    made.left()


@pytest.mark.parametrize("slip", [slip.param() for slip in SLIPS])
def test_a_slip_is_refused_in_one_sentence_before_any_model_is_called(desk, capsys, slip):
    with pytest.raises(ValueError, match=slip.says) as error:
        slip.do(desk)
    said = str(error.value)
    assert error.type is ValueError, "some library's own"
    assert not desk.calls
    assert "\n" not in said and not BREAK.search(said) and 20 < len(said) < 400 and not said.endswith("."), said
    assert "code ran" not in capsys.readouterr().out


def test_there_are_enough_of_them_and_no_name_comes_twice():
    names = [slip.name for slip in SLIPS]
    assert len(set(names)) == len(names) and len([slip for slip in SLIPS if not slip.wrong]) >= 100


@pytest.mark.comfy
def test_calls_are_counted_where_nothing_is_wrong(desk):
    """Otherwise the rows would show nothing."""
    made = desk.sample(desk.freeinit(desk.noise(desk.windows(desk.keyed(effect=0.5), length=4, overlap=1)), iterations=2))
    assert made.isfinite().all() and len(desk.calls) == 2 * 2
