"""A noise level per frame for models with a time axis of their own, such as Wan: latents ``b c f h w``, noise levels ``b f``.

ComfyUI knows one noise level per clip, and its Wan network takes one per latent frame. In between lies a pair of wrappers: ComfyUI gets
the level of the noisiest frame for all its bookkeeping, the network gets the timestep of each frame, and what comes back is made
into each frame's own guess. A sampler asks for that by handing the guider noise levels ``b f`` and the model options of
``with_frame_levels``. The wrappers, and what a call is told, lie in copies of the transformer options that are made for the call: the
MODEL is never touched, and nothing is left to remove behind it.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from comfy.ldm.wan.model import WanModel
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.control.timed_prompts import SHOT
from ..options import CLIP, Clip, call_options, frame_numbers, with_options
from .conds import Conds, of_shot
from .telling import telling_options
from .windows import PartHandler

KEY = "longtake_frame_levels"
LEVELS = "longtake_levels"  # in transformer_options: sigma of each frame of this call, ``b f``
TIMESTEPS = "longtake_timesteps"  # in transformer_options: what the network is told of each frame, ``n f``
APPENDED = ("time_dim_concat", "context_latents")  # inputs that the network puts behind the frames, where no timestep is theirs


def with_frame_levels(model: ModelPatcher, options: dict[str, Any]) -> dict[str, Any]:
    """Model options with which a guider of ``model`` takes noise levels ``b f``.

    Args:
        model: of the guider.
        options: the model options so far.

    Raises:
        ValueError: the model cannot take them, or there are context windows on it. One sentence.
    """
    check_frame_levels(model)
    return with_parts(options)


def with_parts(options: dict[str, Any]) -> dict[str, Any]:
    """Model options with which a call about some frames of a video gets what belongs to these.

    Raises:
        ValueError: there are context windows on the model. One sentence.
    """
    if "context_handler" in options and not isinstance(options["context_handler"], VideoHandler):
        raise ValueError(
            "the model has context windows of the whole clip, and this sampler shows it other frames in every call, or frames at noise"
            " levels of their own: remove them, the samplers of this pack slide a window of their own over the frames"
        )
    return telling_options({**options, "context_handler": VideoHandler()})


def takes_frame_levels(model: ModelPatcher) -> bool:
    """Whether the network of a video model takes a timestep per frame."""
    network = model.model.diffusion_model
    return isinstance(network, WanModel) and type(network).forward_orig is WanModel.forward_orig and network.patch_size[0] == 1


def one_level(model: ModelPatcher, sigma: Tensor) -> Tensor:
    """The noise level that all frames have, for a model that knows no more than one: ``sigma``: ``b f``. Returns ``b``.

    Raises:
        ValueError: they have several. One sentence.
    """
    if bool((sigma != sigma[:, :1]).any()):
        check_frame_levels(model)
    return sigma[:, 0]


def check_frame_levels(model: ModelPatcher) -> None:
    """Refuse a model that cannot take a noise level per frame.

    Raises:
        ValueError: its network takes one timestep for the whole clip, or it is no flow model. One sentence.
    """
    kind = type(model.model).__name__
    if not takes_frame_levels(model):
        raise ValueError(
            f"{kind} takes one timestep for the whole clip, so all frames must be at one noise level: use full_sequence or VDM Sampler"
            " without clean known frames, or a Wan model for text or image to video, such as SkyReels-V2-DF"
        )
    _check_flow(model.get_model_object("model_sampling"), kind)


def _check_flow(sampling: Any, kind: str) -> None:
    if getattr(type(sampling), "calculate_denoised", None) is not CONST.calculate_denoised:
        raise ValueError(
            f"the model sampling of this {kind} is not that of a flow model: remove what changed it; ModelSamplingSD3 is for its shift"
        )


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """APPLY_MODEL: ``x``: ``n c f h w`` at the noisiest frame's level ``t``: ``n``; gives each frame's own clean guess, ``n c f h w``."""
    options = call_options((t, *args), kwargs)
    if options.get(LEVELS) is None:
        return executor(x, t, *args, **kwargs)
    sampling = executor.class_obj.model_sampling
    _check_flow(sampling, type(executor.class_obj).__name__)
    sigma = _rows(options[LEVELS].to(x.device, torch.float32), len(x))
    args, kwargs = with_options(args, kwargs, {**options, TIMESTEPS: sampling.timestep(sigma).float()})
    clean = executor(x, t, *args, **kwargs)
    # x - t * velocity came back, and x - sigma * velocity is meant; at sigma 0 this is x, bit for bit
    share = sigma / t.float().view(-1, 1)
    return torch.lerp(x.to(clean), clean, share.to(clean)[:, None, :, None, None])


def around_network(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """DIFFUSION_MODEL: the timestep of each frame, ``n f``, in the place of the one that ComfyUI computed.

    Raises:
        ValueError: the network adds frames to the clip, for which nobody says how noisy they are.
    """
    times = call_options((timestep, *args), kwargs).get(TIMESTEPS)
    if times is None:
        return executor(x, timestep, *args, **kwargs)
    check_no_more_frames(executor.class_obj, args, kwargs, "a noise level per frame")
    return executor(x, times.to(timestep.device), *args, **kwargs)


def check_no_more_frames(network: WanModel, args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> None:
    """Refuse conditions that put frames of their own beside the clip's: ``args`` are those of a call behind ``timestep``."""
    given = {**kwargs, "time_dim_concat": args[2]} if len(args) > 2 else kwargs
    more = [name for name in APPENDED if given.get(name) is not None]
    if network.ref_conv is not None and given.get("reference_latent") is not None:
        more.append("reference_latent")
    if more:
        raise ValueError(
            f"the conditioning puts reference frames beside the clip ({more[0]}), which do not go with {what}: remove the node that adds"
            " them, and give known frames to the sampler instead"
        )


@dataclass(frozen=True)
class VideoHandler(PartHandler):
    """Takes noise levels ``b f`` where ComfyUI has one for all frames, and gives every condition the frames of the call.

    Where all frames have one level ComfyUI is called as its own samplers call it.
    """

    dim = 2
    context_length = inf

    def should_use_context(self, model: Any, conds: Conds, x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> bool:
        """Whether there is a noise level per frame, or less than the clip: ``x_in``: ``b c f h w``, ``timestep``: ``...``."""
        return timestep.ndim == 2 or x_in.shape[2] < model_options.get("transformer_options", {}).get(CLIP, Clip.of(x_in)).frames

    def control(self, given: Any, ids: Tensor) -> Any:
        """Refuse a control.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a ControlNet is told one noise level for all frames and has hints for the whole clip, and cannot follow a video model that is"
            " shown some frames at a time, or a noise level per frame: remove it from the conditioning"
        )

    def execute(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: Conds,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """ComfyUI's signature: one clean guess per entry of ``conds``, each as ``x_in``: ``b c f h w``; ``timestep``: ``...``."""
        options = model_options.get("transformer_options", {})
        ids = frame_numbers(options, x_in.shape[2], axis=2)
        if timestep.ndim == 1:
            return calc_cond_batch(model, self.of_frames(conds, ids), x_in, timestep, model_options)
        needed = self.conds(of_shot(conds, options.get(SHOT, 0)), ids, timestep)
        told = {**options, LEVELS: timestep, "wrappers": _wrapped(options.get("wrappers", {}))}
        return calc_cond_batch(model, needed, x_in, noisiest(timestep), {**model_options, "transformer_options": told})


def _wrapped(wrappers: dict[str, Any]) -> dict[str, Any]:
    """The wrappers of a call with the pair among them."""
    pair = {WrappersMP.APPLY_MODEL: around_call, WrappersMP.DIFFUSION_MODEL: around_network}
    return {**wrappers, **{kind: {**wrappers.get(kind, {}), KEY: [wrapper]} for kind, wrapper in pair.items()}}


def noisiest(sigma: Tensor) -> Tensor:
    """The one level that stands for all frames, never 0: ``sigma``: ``b f``. Returns ``b``."""
    top = sigma.amax(dim=1)
    return torch.where(top > 0, top, torch.ones_like(top))


def _rows(sigma: Tensor, rows: int) -> Tensor:
    """Levels for a call in which several conditions stand one after the other: ``sigma``: ``b f``. Returns ``n f``."""
    return sigma.repeat(rows // len(sigma), 1)
