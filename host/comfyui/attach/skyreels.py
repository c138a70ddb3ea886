"""SkyReels-V2's Diffusion Forcing models on ComfyUI's Wan network: whole timesteps, the frame rate, attention that is causal by blocks.

All of it is done in a wrapper around a call of the network, through ``patches_replace`` of its blocks and ``optimized_attention_override``,
on copies of the transformer options; what other packs have put there is called from here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.temporal.skyreels import block_causal, whole_timesteps
from ..options import call_options, frame_numbers, with_options
from ..parts.frame_levels import TIMESTEPS, check_frame_levels, check_no_more_frames

KEY = "longtake_skyreels"
OVERRIDE = "optimized_attention_override"


def apply_skyreels(model: ModelPatcher, causal_block_size: int = 0, fps: Tensor | None = None) -> ModelPatcher:
    """A clone of ``model`` that is run as SkyReels-V2's authors run theirs; what an earlier call said is replaced.

    Args:
        model: a Wan model.
        causal_block_size: latent frames that see each other and those before them; 0 for all frames seeing all.
        fps: ``6 d``, what is added to the time modulation, or None.

    Raises:
        ValueError: it is no such model, or ``fps`` is for one of another width. One sentence.
    """
    check_frame_levels(model)
    width = model.model.diffusion_model.dim
    if causal_block_size < 0:
        raise ValueError(f"causal_block_size is {causal_block_size}: it must be at least 0, which lets all frames see each other")
    if fps is not None and fps.shape[-1] != width:
        raise ValueError(
            f"the file's frame-rate embedding is for a model of width {fps.shape[-1]} and this one has {width}: choose the file that the"
            " model itself was loaded from as fps_file"
        )
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, SkyReels(causal_block_size, fps))
    return patched


@dataclass(frozen=True, eq=False)
class SkyReels:
    """A DIFFUSION_MODEL wrapper.

    Attributes:
        block: see ``apply_skyreels``.
        fps: ``6 d``, or None.
    """

    block: int
    fps: Tensor | None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SkyReels":
        return self  # some versions copy model options deeply; nothing here ever changes

    def __call__(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's signature; ``x``: ``n c f h w``, ``timestep``: ``n`` or ``n f``. Returns ``n c f h w``."""
        network, given = executor.class_obj, call_options((timestep, *args), kwargs)
        blocks = None
        if self.block:
            check_no_more_frames(network, args, kwargs, "causal attention")
            blocks = frame_numbers(given, x.shape[2], axis=2).div(self.block, rounding_mode="floor")
        options = {**given, "patches_replace": self._replaced(given, len(network.blocks), blocks)}
        if TIMESTEPS in given:
            options[TIMESTEPS] = whole_timesteps(given[TIMESTEPS])
        args, kwargs = with_options(args, kwargs, options)
        return executor(x, whole_timesteps(timestep), *args, **kwargs)

    def _replaced(self, options: dict[str, Any], layers: int, blocks: Tensor | None) -> dict[str, Any]:
        others = options.get("patches_replace", {})
        dit = dict(others.get("dit", {}))
        for layer in range(layers):
            place = "double_block", layer
            dit[place] = self._around_block(dit.get(place), blocks)
        return {**others, "dit": dit}

    def _around_block(self, other: Callable[..., Any] | None, blocks: Tensor | None) -> Callable[..., Any]:
        def around(args: dict[str, Any], extra: dict[str, Any]) -> Any:
            args = dict(args)
            if self.fps is not None:
                args["vec"] = args["vec"] + self.fps.to(args["vec"])
            if blocks is not None:
                options = args["transformer_options"]
                args["transformer_options"] = {**options, OVERRIDE: causal(options.get(OVERRIDE), blocks)}
            return extra["original_block"](args) if other is None else other(args, extra)

        return around


def causal(other: Callable[..., Tensor] | None, blocks: Tensor) -> Callable[..., Tensor]:
    """An attention for one block of the network, whose first call, its self-attention, is causal: ``blocks``: ``f``."""
    calls = 0

    def override(function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return function(q, k, v, *args, **kwargs) if other is None else other(function, q, k, v, *args, **kwargs)

        return block_causal(attention, q, k, v, blocks) if calls == 1 else attention(q, k, v)

    return override
