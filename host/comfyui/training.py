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
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...modules.data.cache import Tensors, weights_key
from ...modules.nets.gradient_checkpointing import Forward, as_now, recomputed, shadowed
from ...modules.noise.levels import NoiseSchedule
from ...modules.temporal.gradients import blocks_of, normal
from ...modules.temporal.motion import MotionModel, functions_of
from ...modules.temporal.settings import PLAIN
from ...modules.temporal.slots import empty, fill, norms, swap, widths
from ...modules.train.base import Base, Encoder, only_in_slots, refuse_hints
from ...modules.train.denoising import Added, Batch, Network
from ...modules.train.encoded import CONTEXT, LABELS, by_labels
from ...modules.train.native import frames_of, frozen, per_frame
from ...modules.train.settings import PRECISIONS
from .attach.image_prompt import given, see
from .attach.model_sampling import with_schedule
from .attach.motion import MODELS
from .attach.motion_call import over_the_clip
from .attach.motion_lora import SCHEDULED
from .attach.video import video_info
from .attached import KEY, attached_to, unet_of
from .sampling.gradients import differentiable

# ComfyUI's class for what a network predicts -> our name; the first that fits
PREDICTED: tuple[tuple[type, str], ...] = (
    (comfy.model_sampling.EDM, ""),
    (comfy.model_sampling.V_PREDICTION, "v"),
    (comfy.model_sampling.IMG_TO_IMG, ""),
    (comfy.model_sampling.X0, "x0"),
    (comfy.model_sampling.EPS, "eps"),
)
COPIES = 3  # times what a call takes without gradients, where layers are computed again


@contextmanager
def trainable(
    model: ModelPatcher,
    noise_schedule: str = MODELS,
    *,
    precision: str = "float32",
    recompute: bool = True,
    shape: Sequence[int] = (1, 4, 64, 64),
) -> Iterator[Base]:
    """While open, something can be trained in a MODEL; afterwards it is as it was, whatever happened.

    Args:
        model: any with a U-Net of Stable Diffusion's family.
        noise_schedule: ``model`` for the MODEL's own, or a name in ``noise.NOISE_SCHEDULES``.
        precision: a name in ``settings.PRECISIONS``, of the frozen model's layers.
        recompute: whether layers keep their input only and compute again for gradients.
        shape: of the largest batch that goes through at once, ``(frames, channels, height, width)``.

    Raises:
        ValueError: the MODEL is of a kind that nothing can be trained in. One sentence each.
    """
    with torch.inference_mode(False), torch.enable_grad():
        check(model)
        patched = prepared(model, noise_schedule, precision)
        sampling = patched.get_model_object("model_sampling")
        held = Held(patched, recompute, shape)
        base = Base(
            unet=unet_of(model),
            network=held.network,
            schedule=NoiseSchedule(normal(sampling.sigmas).detach().float().cpu()),
            prediction=prediction_of(model),
            device=model.load_device,
            motions=tuple(plain_copy(model, item.model) for item in attached_to(model)),
            to_model=model.model.process_latent_in,
            to_vae=model.model.process_latent_out,
            facts={"base": described(model), "noise_schedule": noise_schedule},
            holders=held.holders,
        )
        frozen(*base.motions)
        try:
            held.ready()  # before slots are filled: whoever makes room for it may empty them
            yield base
        finally:
            held.close()


def check(model: ModelPatcher) -> None:
    """Refuse a MODEL that nothing can be trained in."""
    widths(unet_of(model))
    prediction_of(model)
    config, takes = model.model.model_config.unet_config, model.model.latent_format.latent_channels
    if config.get("in_channels", takes) != takes:
        raise ValueError(
            f"this MODEL takes {config['in_channels']} channels and its latents have {takes}, as inpainting models do: train on the"
            " ordinary checkpoint of the same base"
        )
    refuse_hints(video_info(model))
    scheduled = bool(model.get_additional_models_with_key(SCHEDULED))
    for patcher in model.get_additional_models_with_key(KEY):
        traits = patcher.get_attachment(KEY)
        if patcher.patches or traits.settings != PLAIN or scheduled:
            raise ValueError(
                f"the motion module {traits.name} of this MODEL has a MotionLoRA on it or does not act as it was trained: connect the MODEL"
                " without that"
            )
        if not only_in_slots(patcher.model) or traits.clip_norms:
            raise ValueError(
                f"the motion module {traits.name} of this MODEL works on more than its slots: connect the checkpoint as the MODEL, and the"
                " module as the motion module"
            )


def prediction_of(model: ModelPatcher) -> str:
    """What a MODEL's network predicts, a name in ``noise.PREDICTIONS``.

    Raises:
        ValueError: something else, as flow models do.
    """
    sampling = model.get_model_object("model_sampling")
    found = next((name for kind, name in PREDICTED if isinstance(sampling, kind)), "")
    if not found or not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise ValueError(
            f"{type(model.model).__name__} adds noise or predicts otherwise than Stable Diffusion does, and motion modules are trained on"
            " its steps: use an SD1.5 or SDXL checkpoint, or a LongTake video model, without such a patch"
        )
    return found


def described(model: ModelPatcher) -> dict[str, Any]:
    """What of a MODEL a checkpoint must agree with: its shape, not its weights, which are other ones with every LoRA."""
    config = model.model.model_config.unet_config
    return {
        "kind": type(model.model).__name__,
        "context": config.get("context_dim"),
        "widths": widths(unet_of(model)),
        "prediction": prediction_of(model),
    }


def prepared(model: ModelPatcher, noise_schedule: str, precision: str) -> ModelPatcher:
    """A clone that computes in a precision, over other sigmas, without its motion models."""
    patched = model.clone()
    if attached_to(model):
        patched.remove_injections(KEY)
        patched.remove_additional_models(KEY)
    if noise_schedule != MODELS:
        patched.add_object_patch("model_sampling", with_schedule(model.get_model_object("model_sampling"), noise_schedule))
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


class Held:
    """A MODEL while something is trained in it.

    Args:
        patched: a clone for this purpose.
        recompute: see ``trainable``.
        shape: see ``trainable``.
    """

    def __init__(self, patched: ModelPatcher, recompute: bool, shape: Sequence[int]):
        self.patched, self.recompute, self.shape = patched, recompute, shape
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
        if self.recompute:
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


def clip_encoder(vae: Any) -> Encoder:
    """A VAE as a trainer uses it.

    Raises:
        ValueError: what is given is no VAE.
    """
    network = getattr(vae, "first_stage_model", None)
    if network is None and not hasattr(vae, "patch"):
        raise ValueError(f"{vae!r} was given for a VAE: connect Load VAE, the checkpoint's VAE, or that of Load Video Model")
    key = f"pixels {vae.patch}" if network is None else f"{weights_key(network.state_dict())} {vae.vae_dtype}"

    def encode(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            latents = vae.encode((pixels.movedim(1, -1) + 1) / 2)
        if latents.ndim != 4 or len(latents) != len(pixels):
            raise ValueError(
                f"this VAE makes latents of the shape {list(latents.shape)} from {len(pixels)} frames, and an image model takes them frame"
                " by frame: connect the VAE of the image model"
            )
        return normal(latents).float().cpu()

    return Encoder(encode, key)


def image_encoder(clip_vision: Any, kind: str) -> tuple[Encoder, Tensor]:
    """(an image encoder as a trainer uses it: pixels ``f c h w`` in -1..1 to ``f ... e``; ``... e``, what it sees of no picture).

    Args:
        clip_vision: ComfyUI's CLIP_VISION.
        kind: of image prompt, a name in ``image_prompt.KINDS``.

    Raises:
        ValueError: what is given is no image encoder, or does not give what this kind looks at.
    """
    if not hasattr(clip_vision, "encode_image"):
        raise ValueError(f"{clip_vision!r} was given for a CLIP vision model: connect Load CLIP Vision")
    network = getattr(clip_vision, "model", None)
    key = "" if network is None else f"{weights_key(network.state_dict())} {kind}"  # without one it cannot be told from others

    def encode(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            seen = given(clip_vision.encode_image((pixels.movedim(1, -1) + 1) / 2), kind)
        return normal(seen).half().cpu()

    with torch.inference_mode():
        nothing = see(clip_vision, torch.zeros(1, 8, 8, 3), kind)[1]
    return Encoder(encode, key), normal(nothing)[0].float().cpu()


def text_encoder(model: ModelPatcher, clip: Any = None, conditioning: Any = None) -> Encoder:
    """What a MODEL takes of captions, by its own words, by a CLIP, or the same conditioning for all.

    Raises:
        ValueError: neither is given and the model takes text, or what is given is of another size.
    """
    info = video_info(model)
    if info is not None and info.labels:
        return Encoder(by_labels(info), f"labels {' '.join(info.labels)}")
    takes = model.model.model_config.unet_config.get("context_dim")
    if takes is None and not model.model.adm_channels:
        return Encoder(lambda caption: {}, "nothing")
    if conditioning is not None:
        return _constant(model, conditioning)
    if clip is None:
        raise ValueError(
            "this model takes text and there is none: connect the checkpoint's CLIP for the captions, or one conditioning for all clips"
        )
    patches = f"{clip.patcher.patches_uuid}" if clip.patcher.patches else ""
    key = f"{weights_key(clip.cond_stage_model.state_dict())} {clip.layer_idx} {patches}"

    def encode(caption: str) -> Tensors:
        with torch.inference_mode():
            tokens, pooled = clip.encode_from_tokens(clip.tokenize(caption), return_pooled=True)
        return _fitting(model, normal(tokens), normal(pooled))

    return Encoder(encode, key)


def _constant(model: ModelPatcher, conditioning: Any) -> Encoder:
    if len(conditioning) != 1:
        raise ValueError(f"the conditioning holds {len(conditioning)} conditions: a trainer takes exactly 1, for all clips")
    tokens, facts = conditioning[0]
    same = _fitting(model, normal(tokens), normal(facts.get("pooled_output")))
    nothing = {name: torch.zeros_like(value) for name, value in same.items()}
    return Encoder(lambda caption: same if caption else nothing, f"conditioning {weights_key(same)}")


def _fitting(model: ModelPatcher, tokens: Tensor, pooled: Tensor | None) -> Tensors:
    """``tokens``: ``1 k d``, ``pooled``: ``1 l`` or None."""
    takes = model.model.model_config.unet_config.get("context_dim")
    if takes is not None and tokens.shape[-1] != takes:
        raise ValueError(
            f"the text has {tokens.shape[-1]} numbers per token and the model takes {takes}: connect the CLIP of the same checkpoint"
        )
    if model.model.adm_channels and pooled is None:
        raise ValueError("the model takes a pooled text embedding and the text has none: connect the CLIP of the same checkpoint")
    found: Tensors = {} if takes is None else {CONTEXT: tokens[0].float().cpu()}
    return found | ({LABELS: pooled[0].float().cpu()} if model.model.adm_channels and pooled is not None else {})
