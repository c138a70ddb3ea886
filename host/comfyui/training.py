"""Training in a MODEL: its image model frozen, gradients through it, what trains in plain torch beside it.

ComfyUI runs nodes in inference mode, where nothing can be trained, so all of a training is outside of it. The MODEL is loaded as for a
sampling, with its LoRAs in its weights; layers give out copies of their weights where gradients are on (``gradients.differentiable``).
ComfyUI may take it out of memory meanwhile, for a VAE that makes a preview, say, or because somebody asked for it: it is loaded again
before the next call. Nothing of the shared model is changed for longer than ``trainable`` is open.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...modules.nets.gradient_checkpointing import Forward, as_now, recomputed, shadowed
from ...modules.noise.levels import NoiseSchedule
from ...modules.temporal.gradients import blocks_of, normal
from ...modules.temporal.motion import MotionModel, functions_of
from ...modules.temporal.slots import empty, fill, norms, swap, widths
from ...modules.train.base import Base
from ...modules.train.denoising import Added, Batch, Network
from ...modules.train.native import frames_of, frozen, per_frame
from ...modules.train.settings import PRECISIONS
from .attach.attachment import take_off
from .attach.model_sampling import schedule
from .attach.motion import MODELS
from .attach.motion_call import over_the_clip
from .attached import KEY, attached_to, unet_of
from .sampling.gradients import differentiable
from .training_checks import check, described, prediction_of

COPIES = 3  # times what a call takes without gradients, where layers are computed again


@contextmanager
def trainable(
    model: ModelPatcher,
    noise_schedule: str = MODELS,
    *,
    precision: str = "float32",
    gradient_checkpointing: bool = True,
    shape: Sequence[int] = (1, 4, 64, 64),
) -> Iterator[Base]:
    """While open, something can be trained in a MODEL; afterwards it is as it was, whatever happened.

    Args:
        model: any with a U-Net of Stable Diffusion's family.
        noise_schedule: ``model`` for the MODEL's own, or a name in ``noise.NOISE_SCHEDULES``.
        precision: a name in ``settings.PRECISIONS``, of the frozen model's layers.
        gradient_checkpointing: whether layers keep their input only and compute again for gradients.
        shape: of the largest batch that goes through at once, ``(frames, channels, height, width)``.

    Raises:
        ValueError: the MODEL is of a kind that nothing can be trained in. One sentence each.
    """
    with torch.inference_mode(False), torch.enable_grad():
        check(model)
        patched = prepared(model, noise_schedule, precision)
        sampling = patched.get_model_object("model_sampling")
        inside = InTraining(patched, gradient_checkpointing, shape)
        base = Base(
            unet=unet_of(model),
            network=inside.network,
            schedule=NoiseSchedule(normal(sampling.sigmas).detach().float().cpu()),
            prediction=prediction_of(model),
            device=model.load_device,
            motions=tuple(plain_copy(model, item.model) for item in attached_to(model)),
            to_model=model.model.process_latent_in,
            to_vae=model.model.process_latent_out,
            facts={"base": described(model), "noise_schedule": noise_schedule},
            holders=inside.holders,
        )
        frozen(*base.motions)
        try:
            inside.ready()  # before slots are filled: whoever makes room for it may empty them
            yield base
        finally:
            inside.close()


def prepared(model: ModelPatcher, noise_schedule: str, precision: str) -> ModelPatcher:
    """A clone that computes in a precision, over other sigmas, without its motion models."""
    patched = model.clone()
    take_off(patched, KEY)
    if noise_schedule != MODELS:
        schedule(patched, noise_schedule)
    computed = model.model.manual_cast_dtype or model.model.get_dtype()
    wanted = PRECISIONS[precision] or torch.float32
    if computed != wanted:
        patched.set_model_compute_dtype(wanted)
    return patched


def plain_copy(model: ModelPatcher, motion: MotionModel) -> MotionModel:
    """A motion model of ComfyUI's layers in plain torch, float32, where the MODEL is computed."""
    there = widths(unet_of(model))
    copy = MotionModel({name: there[name] for name in motion.names}, motion.config)
    copy.load_state_dict({key: value.detach().clone().float() for key, value in motion.state_dict().items()})
    return copy.to(model.load_device)


class InTraining:
    """A MODEL while something is trained in it.

    Args:
        patched: a clone for this purpose.
        gradient_checkpointing: see ``trainable``.
        shape: see ``trainable``.
    """

    def __init__(self, patched: ModelPatcher, gradient_checkpointing: bool, shape: Sequence[int]):
        self.patched, self.gradient_checkpointing, self.shape = patched, gradient_checkpointing, shape
        self.holders: list[Any] = []
        self.loaded, self.layers, self.open = ExitStack(), ExitStack(), False
        self.options = patched.model_options.get("transformer_options", {})

    def network(self, motions: Sequence[MotionModel], *, clip_norms: bool = False, added: Added | None = None) -> Network:
        """See ``base.WithMotion``."""
        self.layers.close()
        unet = unet_of(self.patched)
        self.holders[:] = motions
        self.layers.callback(empty, unet)
        fill(unet, {name: _precise(function) for name, function in functions_of(motions).items()})
        if clip_norms:
            for norm in norms(unet):
                swap(norm, over_the_clip(motions[-1]))
        if self.gradient_checkpointing:
            self.layers.enter_context(shadowed(blocks_of(unet), self._again))

        def network(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
            self.ready()
            with ExitStack() as stack:
                for motion in motions:
                    stack.enter_context(motion.during(frames_of(motion, x.shape[1], batch.images, x.device)))
                return self.clean(x, sigma, batch, added)

        return network

    def clean(self, x: Tensor, sigma: Tensor, batch: Batch, added: Added | None = None) -> Tensor:
        """What the MODEL takes the clean frames to be.

        Args:
            x: ``n f c h w``.
            sigma: ``n f``.
            batch: its conditions are read.
            added: what a control adds to skips and middle; None for no control.

        Returns:
            clean: ``n f c h w``.
        """
        frames, rows = x.shape[1], x.flatten(0, 1)
        conds: dict[str, Any] = {}
        if batch.context is not None:
            conds["c_crossattn"] = per_frame(batch.context, frames, 3)
        vector = label_rows(self.patched, rows, per_frame(batch.labels, frames, 2))
        if vector is not None:
            conds["y"] = vector
        if added is not None:
            *skips, middle = added(sigma, batch)
            conds["control"] = {"output": skips, "middle": [middle]}
        options = {**self.options, "cond_or_uncond": [0], "sigmas": sigma.flatten()}
        clean = self.patched.model.apply_model(rows, sigma.flatten(), transformer_options=options, **conds)
        return clean.unflatten(0, x.shape[:2])

    def ready(self) -> None:
        """Load the MODEL where it is not loaded, or where another clone is instead."""
        if self._there():
            return
        self._rest()
        needed = COPIES * self.patched.memory_required(list(self.shape))
        with torch.inference_mode():  # as for a sampling
            comfy.model_management.load_models_gpu([self.patched], memory_required=needed)
        self.patched.pre_run()
        self.loaded.callback(self.patched.cleanup)
        self.loaded.enter_context(differentiable([self.patched.model]))
        self.loaded.enter_context(_without_gradients(self.patched.model))
        self.open = True

    def close(self) -> None:
        """Leave no trace: only the weights stay where they are, as after a sampling."""
        self.layers.close()
        self._rest()
        self.patched.unpatch_model(unpatch_weights=False)

    def _rest(self) -> None:
        self.open = False
        self.loaded.close()

    def _there(self) -> bool:
        base, patches = self.patched.model, self.patched.object_patches
        same = base.current_weight_patches_uuid == self.patched.patches_uuid
        return self.open and same and all(_at(base, name) is value for name, value in patches.items())

    def _again(self, inner: Forward) -> Forward:
        return lambda *args, **kwargs: recomputed(inner, *args, again=as_now(self.holders), **kwargs)


def _at(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def _precise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Temporal modules have their weights in float32, whatever the layers around them compute in."""
    return lambda x: function(x.float()).to(x)


@contextmanager
def _without_gradients(network: nn.Module) -> Iterator[None]:
    """While open, no weight of a network asks for gradients."""
    asked = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            with torch.inference_mode(parameter.is_inference()):
                parameter.requires_grad_(True)


def label_rows(model: ModelPatcher, x: Tensor, labels: Tensor | None) -> Tensor | None:
    """What a U-Net takes beside text, made from pooled text embeddings as for a sampling.

    Args:
        model: any.
        x: ``n c h w``, what goes through it.
        labels: ``n l``, or None.

    Returns:
        y: ``n m``; None for models that take none.

    Raises:
        ValueError: the embeddings are of another size than the model takes.
    """
    base = model.model
    if not base.adm_channels:
        return None
    ratio = getattr(base.latent_format, "spacial_downscale_ratio", 8)
    height, width = (ratio * side for side in x.shape[-2:])
    known = {} if labels is None else {"pooled_output": labels}
    y = base.encode_adm(**known, height=height, width=width, noise=x, device=x.device, prompt_type="positive")
    if y.shape[-1] != base.adm_channels:
        raise ValueError(
            f"the text encoder gives {0 if labels is None else labels.shape[-1]} numbers per caption, from which this model's"
            f" {base.adm_channels} cannot be made: connect the CLIP of the same checkpoint"
        )
    return y.to(x).expand(len(x), -1)
