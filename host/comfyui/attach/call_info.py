"""What is known of a sampling of a MODEL, a ``Sampling``, and of each call of the model in it, a ``CallInfo``: one account for all
attachments, checked against the clip.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.temporal.picture_part import PicturePart
from ..options import CLIP, CLIPS, NAMES, OWN_UUIDS, SAMPLING, TIMES, Clip, known_frames, step_of

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
        condition_area: height, width, top and left of the area that the call's conditions are for; None for the whole picture.
        clip: that is sampled; None outside a sampling.
        model: ComfyUI's, that is called.
        inside: what an attachment has put into the U-Net, by key.
        sampling: that is under way, or None.
        options: transformer options of this call alone, to which an attachment may add.
        inputs: of the model by name, in place of what it was given; an attachment may add to them.
        given: the model's inputs by name, without controls and options.
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
    condition_area: tuple[int, int, int, int] | None
    clip: Clip | None
    model: Any = None
    inside: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, x: Tensor, t: Tensor, options: dict[str, Any], model: Any = None, area: tuple[int, int, int, int] | None = None
    ) -> "CallInfo":
        """The account of a call.

        Args:
            x: ``n c h w``.
            t: ``...``, its noise levels.
            options: its transformer options.
            model: ComfyUI's, that is called.
            area: that its conditions are for.

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
            area,
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

    def part(self, what: str) -> PicturePart | None:
        """Which part of the picture the call shows, for something whose ``what`` belongs to places; None for all of it.

        Raises:
            ValueError: it is not known which. One sentence.
        """
        clip = self.clip
        if clip is None or self.area == clip[1:]:
            return None
        if self.condition_area is None or self.condition_area[:2] != self.area:
            raise ValueError(f"{self._partial(what, clip)} (a tiled sampler)")
        return PicturePart(*self.condition_area[2:], *self.area, clip[1:])

    def check_whole(self, what: str) -> None:
        """Refuse a call about a part of the picture, for something that is about the whole of it.

        Raises:
            ValueError: the call shows latents of another size than those that are sampled. One sentence.
        """
        if self.clip is not None and self.area != self.clip[1:]:
            raise ValueError(
                f"{self._partial(what, self.clip)} (a tiled sampler, or Conditioning Set Area, in whose place Conditioning Set Mask works)"
            )

    def _partial(self, what: str, clip: Clip) -> str:
        return (
            f"{what} is about the whole picture of {clip.height}x{clip.width} latents and the model is shown"
            f" {self.area[0]}x{self.area[1]} of it: leave out the node that shows it a part"
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
