"""Gradients through a MODEL while it is sampled: what a guide of this pack may ask for, and what ComfyUI has to be brought to.

ComfyUI runs nodes in inference mode, and whatever a loader made there can be no part of a graph. So for the length of a sampling every
layer gives out a copy of its weights when gradients are on, as ``ModelPatcher.add_weight_wrapper`` would have it do, but without loading
the model anew for that and again afterwards; conditions are copied for the call. The weights themselves are never touched.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy.conds import CONDRegular
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ....modules.guidance.goals import unfolded
from ....modules.guidance.steering import Space
from ....modules.temporal.chunks import spatial_layers
from ....modules.temporal.gradients import Gradients, checkpointed, normal
from ..attach.attachment import IN_UNET
from ..attach.attachment import KEY as OURS
from ..attach.motion_call import MOTION
from ..attach.video import video_info
from ..attached import InUNet, attached_to
from ..layout import Layout
from ..options import GRADIENT_CHECKPOINTING

AFTER_SKIP = "input_block_patch_after_skip"  # ComfyUI's place for what goes on once a U-Net's block has left its skip
PAST = ("causal", "local_causal")  # masks with which a frame sees itself and those before it


def space_of(model: ModelPatcher, latent: Tensor, *, levels: bool) -> Space:
    """What guides have to know of a MODEL.

    Args:
        model: that is sampled.
        latent: ``r ...``, what is sampled.
        levels: whether the sampler has a noise level per frame.
    """
    layout, sampling = Layout.of(latent), model.get_model_object("model_sampling")
    return Space(
        encode=lambda samples: layout.frames_first(model.model.process_latent_in(samples)),
        pixels=colours_of(model),
        at_percent=lambda percent: float(sampling.percent_to_sigma(percent)),
        mixing=mixing_of(model),
        frames=layout.frames,
        levels=levels,
    )


def mixing_of(model: ModelPatcher) -> str | None:
    """Which frames a frame hangs on: a word of ``Space.mixing``, or None where another pack may have a hand in it."""
    motions = attached_to(model)
    if motions:
        return "past" if all(motion.model.config.mask in PAST for motion in motions) else "all"
    image_model = all(hasattr(model.model.diffusion_model, name) for name in ("input_blocks", "middle_block", "output_blocks"))
    untouched = not model.injections.keys() - {OURS} and not model.get_nested_additional_models()
    return "none" if image_model and untouched and model.model.latent_format.latent_dimensions == 2 else None


def colours_of(model: ModelPatcher) -> Callable[[Tensor], Tensor] | None:
    """The quick way from a MODEL's latents to colours that previews take, ``n ...`` to ``n 3 h w`` in 0..1; None if there is none."""
    info = video_info(model)
    if info is not None and info.patch:
        return unfolded(info.patch)
    format = model.model.latent_format
    factors = getattr(format, "latent_rgb_factors", None)
    if factors is None or getattr(format, "latent_rgb_factors_reshape", None) is not None:
        return None
    with torch.inference_mode(False):
        weights, bias = torch.tensor(factors), torch.tensor(getattr(format, "latent_rgb_factors_bias", None) or (0.0, 0.0, 0.0))

    def colours(clean: Tensor) -> Tensor:
        pictures = clean.flatten(0, -4) if clean.ndim > 4 else clean
        mixed = torch.einsum("nchw,cd->ndhw", pictures, weights.to(pictures))
        return mixed / 2 + 0.5 + bias.to(pictures).view(3, 1, 1) / 2

    return colours


@contextmanager
def differentiable(networks: Iterable[nn.Module]) -> Iterator[None]:
    """While open, networks give copies of their weights to layers that gradients go through; afterwards they are as before.

    Args:
        networks: loaded, whatever they were made in.
    """
    with ExitStack() as stack:
        if hasattr(
            comfy.model_management, "in_training"
        ):  # ComfyUI's own switch from kernels that have no gradient to those that have
            stack.enter_context(_changed(vars(comfy.model_management), "in_training", True))
        for module in (module for network in networks for module in network.modules()):
            for name in ("weight", "bias"):
                if hasattr(module, f"{name}_function"):
                    stack.enter_context(
                        _changed(vars(module), f"{name}_function", [*getattr(module, f"{name}_function"), own_copy])
                    )
            for held in (module._parameters, module._buffers):
                for name, tensor in _raw(module, held):
                    with torch.inference_mode(False):
                        copy = tensor.clone()
                    stack.enter_context(_changed(held, name, nn.Parameter(copy, False) if held is module._parameters else copy))
        yield


def _raw(module: nn.Module, held: Any) -> list[tuple[str, Tensor]]:
    """What a module uses as it is, and was made in inference mode."""
    cast = {name for name in ("weight", "bias") if hasattr(module, f"{name}_function")}
    return [(name, tensor) for name, tensor in held.items() if tensor is not None and name not in cast and tensor.is_inference()]


def own_copy(weight: Tensor) -> Tensor:
    """A weight that a graph may keep: what layers are given may be a buffer that the next layer's weights go into."""
    return weight.detach().clone() if torch.is_grad_enabled() else weight


def apart_from_skip(h: Tensor, _: Any) -> Tensor:
    """What the next block gets, apart from the skip, to which ComfyUI adds what a control gives in place."""
    return h.clone() if torch.is_grad_enabled() else h


@contextmanager
def _changed(held: Any, name: str, value: Any) -> Iterator[None]:
    """While open, an entry has another value; afterwards it is as it was, unless somebody else has changed it since."""
    there, before = name in held, held.get(name)
    held[name] = value
    try:
        yield
    finally:
        if held.get(name) is value:
            if there:
                held[name] = before
            else:
                held.pop(name)


def predicted(
    guider: Any, predict: Callable[..., Tensor], wish: Gradients, x: Tensor, sigma: Tensor, options: Any, seed: Any
) -> Tensor:
    """A guider's prediction that can be differentiated with respect to ``x``.

    Args:
        guider: whose conditions and scale are used.
        predict: its prediction, ``(x, sigma, options, seed) -> clean``.
        wish: what the guides ask for.
        x: ``r ...``.
        sigma: ``...``.
        options: ComfyUI's.
        seed: the user's.

    Returns:
        clean: ``r ...``.
    """
    given = options.get("transformer_options", {})
    patches = given.get("patches", {})
    patches = {**patches, AFTER_SKIP: [*patches.get(AFTER_SKIP, []), apart_from_skip]}
    options = {
        **options,
        "transformer_options": {**given, GRADIENT_CHECKPOINTING: wish.gradient_checkpointing, "patches": patches},
    }
    call = partial(predict, x, normal(sigma), options, seed)
    conds, cfg = guider.conds, guider.cfg
    guider.conds = {name: _normal_conds(several) for name, several in conds.items()}
    try:
        with ExitStack() as stack:
            stack.enter_context(differentiable(_late_networks(conds, guider.loaded_models)))
            if wish.gradient_checkpointing:
                stack.enter_context(_checkpointed(guider.inner_model.diffusion_model, guider.loaded_models))
            if not wish.conditional or cfg == 1:
                return call()
            with torch.no_grad():
                whole = call()
            guider.cfg = 1.0
            conditional = call()
            return conditional + (whole - conditional).detach()
    finally:
        guider.conds, guider.cfg = conds, cfg


def _late_networks(conds: dict[str, Any], loaded: Sequence[Any]) -> list[nn.Module]:
    """Networks of controls that ComfyUI puts together when sampling has begun (Control-LoRA), so that they are not among the loaded."""
    there = {id(patcher.model) for patcher in loaded}
    found: dict[int, nn.Module] = {}
    for cond in (cond for several in conds.values() for cond in several or ()):
        control = cond.get("control")
        while control is not None:
            network = getattr(control, "control_model", None)
            if isinstance(network, nn.Module) and id(network) not in there:
                found[id(network)] = network
            control = control.previous_controlnet
    return list(found.values())


def _normal_conds(conds: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    def item(value: Any) -> Any:
        if isinstance(value, CONDRegular):
            return value._copy_with(normal(value.cond))
        return {name: item(part) for name, part in value.items()} if isinstance(value, dict) else normal(value)

    return conds and [
        {name: value if name in ("control", "hooks") else item(value) for name, value in cond.items()} for cond in conds
    ]


def _checkpointed(network: Any, loaded: Sequence[Any]) -> Any:
    """Layers compute again, those that frames go through a few at a time in the same portions."""
    inside: InUNet | None = vars(network).get(IN_UNET, {}).get(MOTION)
    holders = [patcher.model for patcher in loaded]
    if inside is None:
        return checkpointed(network, holders=holders)
    across = any(motion.about.clip_norms for motion in inside.motions)
    motions = [motion.model for motion in inside.motions]
    parted = [] if any(motion.inside for motion in motions) else spatial_layers(network, clip_norms=across)
    return checkpointed(network, motions, [inside.chunks, *holders], parted)
