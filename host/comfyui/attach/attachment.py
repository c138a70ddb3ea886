"""What hangs on a MODEL, in one way: an ``Attachment``; and one account of each model call, which all of them get: a ``CallInfo``.

A MODEL has a tuple of attachments, one of each kind, and one set of wrappers for all. What belongs to a kind (its networks, its settings)
lies on the patcher; what is known of one sampling in a ``Sampling``, which travels in that sampling's own transformer options and ends
with it; what is in a U-Net lies on that U-Net, from the patcher in hand, so clones and several GPUs each have their own. Attachments
themselves hold nothing.

What ComfyUI's lifecycle asks of this (measured on 0.3.64 and 0.33.0): the U-Net object is shared by all clones of a MODEL and stays
injected after sampling until another clone is loaded, and a clone may eject what it never injected. So injecting is idempotent and
undoes itself when it fails, and ejecting tolerates anything.
"""

from collections.abc import Hashable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor

from ..attached import unet_of
from ..options import CLIP, CLIPS, NAMES, OWN_UUIDS, SAMPLING, TIMES, Clip, call_options, known_frames, step_of, with_options
from ..parts.telling import tells

KEY = "longtake"  # attachment of a MODEL, its injection and wrappers
IN_UNET = "_longtake"  # on the U-Net while it is injected: what each attachment has put there, by its key
UNCOND = 1  # ComfyUI's number for the negative condition


@dataclass(frozen=True, eq=False)
class CallInfo:
    """What one call of the model is about, checked against what is known of the clip. The batch is ``(copies conds variants f)``.

    Attributes:
        ids: ``f``, absolute frame numbers.
        times: ``f``, when the motion models are told each of them is.
        sigma: ``n``, noise level of each row of the batch.
        kinds: of each condition its number, ``UNCOND`` for the negative one.
        names: of each condition ComfyUI's name in this run.
        variants: the names of the variants of the same frames.
        copies: parts of the picture that a tiled sampler puts into one call; 1 for a call about whole frames.
        step: of the sampler.
        area: height and width of what is shown, in latents.
        clip: that is sampled; None outside a sampling.
        model: ComfyUI's, that is called.
        inside: what an attachment has put into the U-Net, by key.
        sampling: that is under way, or None.
        options: transformer options of this call alone, to which an attachment may add.
        inputs: of the model by name, in place of what it was given; an attachment may add to them.
    """

    ids: Tensor
    times: Tensor
    sigma: Tensor
    kinds: tuple[int, ...]
    names: tuple[Hashable, ...]
    variants: tuple[Hashable, ...]
    copies: int
    step: int
    area: tuple[int, int]
    clip: Clip | None
    model: Any = None
    inside: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Tensor, t: Tensor, options: dict[str, Any], model: Any = None) -> "CallInfo":
        """The account of a call: ``x``: ``n c h w``, ``t``: ``...``, its noise levels.

        Raises:
            ValueError: the batch is not what was announced. One sentence.
        """
        kinds, names = zip(*conditions(options), strict=True)
        variants = tuple(options.get(NAMES, range(options.get(CLIPS, 1))))
        clip: Clip | None = options.get(CLIP)
        clips, ids = len(kinds) * len(variants), known_frames(options)
        if ids is None:
            ids = torch.arange(len(x) // clips if clip is None else clip.frames)
        copies = _copies(x, clips, len(ids), clip)
        ids = ids.to(x.device)
        sigma = t.reshape(-1)
        return cls(
            ids,
            options.get(TIMES, ids).to(x.device),
            sigma if len(sigma) == len(x) else sigma[:1].expand(len(x)),
            kinds,
            names,
            variants,
            copies,
            step_of(options, sigma, getattr(model, "model_sampling", None)),
            (x.shape[-2], x.shape[-1]),
            clip,
            model,
            options=options,
        )

    @property
    def clips(self) -> int:
        """How many clips of the same frames are in the batch."""
        return self.copies * len(self.kinds) * len(self.variants)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """Whose each clip of the batch is: of which condition, and which variant; the same in every call of a sampling.

        ComfyUI may run conditions together or one by one, in any order. Each has a name of its own beside its being positive or negative.
        """
        return [(*cond, variant) for cond in zip(self.kinds, self.names, strict=True) for variant in self.variants] * self.copies

    @property
    def sampling(self) -> "Sampling | None":
        """The sampling that the call belongs to."""
        return self.options.get(SAMPLING)

    @cached_property
    def levels(self) -> Tensor:
        """The noise level of each frame, which all variants must agree on: ``f``. Who reads it asks for ``ALONE``."""
        each = self.sigma.view(self.clips, -1)
        if len(self.variants) > 1 and bool((each != each[0]).any()):
            raise RuntimeError("variants of the same frames at other noise levels came in one call: they must come one by one")
        return each[0]

    def each(self, values: Tensor) -> Tensor:
        """Something that there is one of per frame, for every row of the batch: ``values``: ``f ...``. Returns ``n ...``."""
        return values.repeat(self.clips, *(1,) * (values.ndim - 1))

    def check_whole(self, what: str) -> None:
        """Refuse a call about a part of the picture, for something that is about the whole of it.

        Raises:
            ValueError: the call shows latents of another size than those that are sampled. One sentence.
        """
        if self.clip is not None and self.area != self.clip[1:]:
            raise ValueError(
                f"{what} is about the whole picture of {self.clip.height}x{self.clip.width} latents and the model is shown"
                f" {self.area[0]}x{self.area[1]} of it: leave out the node that shows it a part (a tiled sampler, or Conditioning Set Area,"
                " in whose place Conditioning Set Mask works)"
            )


def conditions(options: dict[str, Any]) -> list[tuple[int, Hashable]]:
    """The conditions of a call, in the order of its batch: number, ``UNCOND`` for the negative one, and ComfyUI's name in this run."""
    kinds = options.get("cond_or_uncond") or (0,)
    own, called = options.get(OWN_UUIDS, {}), options.get("uuids") or ()
    names = [own.get(name, name) for name in called] if len(called) == len(kinds) else range(len(kinds))
    return list(zip(kinds, names, strict=True))


def _copies(x: Tensor, clips: int, frames: int, clip: Clip | None) -> int:
    """How many parts of the picture stand one after the other in a batch; ``x``: ``n c h w``."""
    copies, rest = divmod(len(x), clips * frames)
    parts = clip is not None and tuple(x.shape[-2:]) != clip[1:]
    if rest or not copies or (copies > 1 and not parts):
        raise ValueError(
            f"{len(x)} latents came to the model in a call about {frames} frames of {clips} conditions: another node cuts the batch up or"
            " puts more into it, and which rows are which frames is not known; leave that node out"
        )
    return copies


@dataclass(eq=False)
class Sampling:
    """One sampling of a MODEL with attachments.

    Attributes:
        guider: ComfyUI's.
        sampler: ComfyUI's, or one of this pack.
        latent: ``r ...``, what is sampled.
        clip: its size.
        options: the sampling's transformer options.
        kept: what attachments know for its length, by key.
    """

    guider: Any
    sampler: Any
    latent: Tensor
    clip: Clip
    options: dict[str, Any]
    kept: dict[str, Any] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sampling":
        return self  # some versions copy model options deeply; this is one sampling's, whoever holds it

    @property
    def model(self) -> ModelPatcher:
        """The MODEL."""
        return self.guider.model_patcher

    @property
    def slides(self) -> bool:
        """Whether the sampler shows the model a few frames at a time, on its own."""
        return getattr(self.sampler, "slides_windows", False)


class Attachment(Protocol):
    """One kind of thing that hangs on a MODEL. What it does not need it leaves as it is here.

    Attributes:
        key: of what it keeps, and of its networks among the MODEL's additional models.
    """

    key: str

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
    model.set_attachments(KEY, (*there, attachment))
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
    info = CallInfo.of(x, t, dict(call_options((t, *args), kwargs)), base)
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
