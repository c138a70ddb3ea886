"""SkyReels-V2's Diffusion Forcing models on ComfyUI's Wan network: whole timesteps, the frame rate, attention that is causal by blocks.

All of it is done in a wrapper around a call of the network, through ``patches_replace`` of its blocks and ``optimized_attention_override``,
on copies of the transformer options; what other packs have put there is called from here.
"""

from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.temporal.skyreels import block_causal, whole_timesteps
from ..options import call_options, frame_numbers, with_options
from ..parts.frame_levels import TIMESTEPS, check_frame_levels, check_no_more_frames
from .wan_blocks import around_blocks, with_self_attention

KEY = "longtake_skyreels"


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
        options = around_blocks(given, len(network.blocks), lambda _, args: self._changed(args, blocks))
        if TIMESTEPS in given:
            options[TIMESTEPS] = whole_timesteps(given[TIMESTEPS])
        args, kwargs = with_options(args, kwargs, options)
        return executor(x, whole_timesteps(timestep), *args, **kwargs)

    def _changed(self, args: dict[str, Any], blocks: Tensor | None) -> dict[str, Any]:
        """What a block of the network gets; ``blocks``: ``f``, the causal block of each frame, or None."""
        if self.fps is not None:
            args["vec"] = args["vec"] + self.fps.to(args["vec"])
        if blocks is None:
            return args
        return with_self_attention(args, lambda attention, q, k, v: block_causal(attention, q, k, v, blocks))
