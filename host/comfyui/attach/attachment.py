"""What hangs on a MODEL, in one way: an ``Attachment``; and one account of each model call, which all of them get: a ``CallInfo``.

A MODEL has a tuple of attachments, one of each kind, and one set of wrappers for all. What belongs to a kind (its networks, its settings)
lies on the patcher; what is known of one sampling in a ``Sampling``, which travels in that sampling's own transformer options and ends
with it; what is in a U-Net lies on that U-Net, from the patcher in hand, so clones and several GPUs each have their own. Attachments
themselves hold nothing.

What ComfyUI's lifecycle asks of this (measured on 0.3.64 and 0.33.0): the U-Net object is shared by all clones of a MODEL and stays
injected after sampling until another clone is loaded, and a clone may eject what it never injected. So injecting is idempotent and
undoes itself when it fails, and ejecting tolerates anything.
"""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor

from ..attached import unet_of
from ..options import CLIP, SAMPLING, Clip, call_options, with_options
from ..parts.areas import AREA
from ..parts.telling import tells
from .call_info import CallInfo, Sampling

KEY = "longtake"  # attachment of a MODEL, its injection and wrappers
IN_UNET = "_longtake"  # on the U-Net while it is injected: what each attachment has put there, by its key


class Attachment(Protocol):
    """One kind of thing that hangs on a MODEL. What it does not need it leaves as it is here.

    Attributes:
        key: of what it keeps, and of its networks among the MODEL's additional models.
        first: whether it is told of a call before those that are there.
    """

    key: str
    first: bool = False

    def begin(self, sampling: Sampling) -> AbstractContextManager[None]:
        """Open for the length of a sampling: refuse what cannot work before anything is loaded or computed, keep what holds for it."""
        return nullcontext()

    def call(self, info: CallInfo) -> AbstractContextManager[None]:
        """Open during a call of the model: tell the networks what it is about, and forget it afterwards."""
        return nullcontext()

    def inject(self, patcher: ModelPatcher) -> Any:
        """Put what belongs there into the U-Net of ``patcher``. Returns what calls need, which they find in ``CallInfo.inside``."""
        return None

    def eject(self, patcher: ModelPatcher) -> None:
        """Leave no trace in the U-Net; whether anything was there does not matter."""


def attachments(model: ModelPatcher) -> tuple[Attachment, ...]:
    """What hangs on a MODEL, in the order in which it was put there."""
    return model.get_attachment(KEY) or ()


def hang(model: ModelPatcher, attachment: Attachment) -> None:
    """Put an attachment on a MODEL that is being put together; one of its kind that is there already serves for both."""
    there = attachments(model)
    if attachment in there:
        return
    model.set_attachments(KEY, (attachment, *there) if attachment.first else (*there, attachment))
    if not there:
        model.set_injections(KEY, [PatcherInjection(inject, eject)])
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
        tells(model)


def take_off(model: ModelPatcher, key: str) -> None:
    """Take an attachment, by its key, and its networks off a MODEL that is being put together; nothing happens where it is not there."""
    left = tuple(attachment for attachment in attachments(model) if attachment.key != key)
    model.set_attachments(KEY, left)
    model.remove_additional_models(key)
    if not left:
        model.remove_injections(KEY)
        for wrapper in (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL):
            model.remove_wrappers_with_key(wrapper, KEY)


def inject(patcher: ModelPatcher) -> None:
    """Put everything that hangs on ``patcher`` into its U-Net."""
    eject(patcher)
    inside: dict[Attachment, Any] = {}
    try:
        for attachment in attachments(patcher):
            inside[attachment] = attachment.inject(patcher)
        unet_of(patcher).__dict__[IN_UNET] = inside
    except BaseException:
        eject(patcher)
        raise


def eject(patcher: ModelPatcher) -> None:
    """Leave no trace in the U-Net; whether anything was there does not matter."""
    for attachment in attachments(patcher):
        attachment.eject(patcher)
    unet_of(patcher).__dict__.pop(IN_UNET, None)


def around_sampling(executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: everything that hangs on the MODEL begins, and ends whatever happens."""
    guider = executor.class_obj
    if latent_image.is_nested or latent_image.ndim != 4:
        raise ValueError(
            f"the latent has the shape {list(latent_image.shape)}, and this model takes frames, channels, height, width: use Empty Latent"
            " Image with a batch size, or VAE Encode with this model's VAE"
        )
    options = guider.model_options.setdefault("transformer_options", {})
    clip = Clip.of(noise)
    if getattr(sampler, "slides_windows", False):
        clip = clip._replace(frames=sampler.length(guider.model_patcher, noise))
    sampling = Sampling(guider, sampler, latent_image, clip, options)
    with ExitStack() as stack:
        for key, value in ((SAMPLING, sampling), (CLIP, sampling.clip)):
            options[key] = value
            stack.callback(options.pop, key, None)
        for attachment in attachments(sampling.model):
            stack.enter_context(attachment.begin(sampling))
        made = executor(noise, latent_image, sampler, *args, **kwargs)
        return sampler.restored(made, latent_image) if sampling.slides else made


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL: what is in the U-Net is told of the call, and forgets it afterwards."""
    base = executor.class_obj
    inside: dict[Attachment, Any] | None = base.diffusion_model.__dict__.get(IN_UNET)
    if inside is None:
        raise RuntimeError(
            "what LongTake put into the model is not there although the model is being sampled: another node has removed it"
        )
    area = kwargs.pop(AREA, None)
    info = CallInfo.of(x, t, dict(call_options((t, *args), kwargs)), base, area)
    info.given.update(zip(("c_concat", "c_crossattn"), args, strict=False))
    info.given.update((name, value) for name, value in kwargs.items() if name not in ("control", "transformer_options"))
    info.inside.update({attachment.key: part for attachment, part in inside.items()})
    with ExitStack() as stack:
        for attachment in inside:
            stack.enter_context(attachment.call(info))
        args, kwargs = with_options(*_with_inputs(args, kwargs, info.inputs), info.options)
        return executor(x, t, *args, **kwargs)


def _with_inputs(args: tuple[Any, ...], kwargs: dict[str, Any], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The rest of a call, behind its timestep, with other inputs; the first of them is ``c_concat``."""
    if args and "c_concat" in inputs:
        return (inputs["c_concat"], *args[1:]), {
            **kwargs,
            **{name: value for name, value in inputs.items() if name != "c_concat"},
        }
    return args, {**kwargs, **inputs}
