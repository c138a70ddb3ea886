"""Training an image prompt: projection, keys and values learn to say what is in a picture, while the base model stays as it is.

Stage 1 of MoonShot (Zhang et al., arXiv:2401.01827, Section 4.1) and IP-Adapter (Ye et al., arXiv:2308.06721, Section 3.2): clips, or
single pictures as clips of one frame, are to be denoised by a model that is told what an image encoder sees in one of their frames.
Keys and values start as those of the text. Any network on a U-Net of Stable Diffusion's family will do, this pack's own or a host's.

Differs from the reference: whether the picture is left out is drawn independently of whether the text is (there 5% each and 5% both).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...control.image_prompt import (
    CrossLayer,
    ImagePromptModel,
    KeyValue,
    Mixture,
    PromptShape,
    cross_layers,
    heads_apart,
    widths_of,
)
from ...data.cache import EncodedClips
from ...noise.seeded import frame_seed
from ...temporal.slots import BlockedUNet, swap
from ..denoising import Batch, Network, Source
from ..in_base import Setup
from ..trainable import State, TaskContext, Trainable, Weights
from .row import Row

PARAMETERS = "image_prompt"  # what names of parameters begin with
SHOWN = 3  # frames of a clip that an image encoder looks at: both ends and the middle
SEEN = "seen"  # in a batch's ``extra``: ``n ... e``, what the image encoder sees of each clip


def new_image_prompt(unet: BlockedUNet, clip: int, kind: str = "plain", tokens: int = 4, seed: int = 0) -> ImagePromptModel:
    """A network for an image prompt of a U-Net, whose keys and values are those of the text to begin with.

    Args:
        unet: of the base model.
        clip: features of the image encoder.
        kind: a name in ``image_prompt.KINDS``.
        tokens: that a picture becomes (plain, plus).
        seed: of the other weights.
    """
    widths, context = widths_of(cross_layers(unet))
    hidden = {"hidden": context, "depth": 4, "heads": max(1, context // 64)} if kind == "plus" else {}
    shape = PromptShape(kind, clip, context, 0 if kind == "full" else tokens, widths, **hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ImagePromptModel(shape).like(unet)


def image_prompt(
    context: TaskContext,
    prompt: ImagePromptModel,
    gaze: "Gaze",
    *,
    dropout: float = 0.1,
    nothing: Tensor | None = None,
) -> Trainable:
    """Train an image prompt; what it looks at pictures for stays as it is.

    Args:
        context: whose network looks at pictures (``beside_text``), and whose source has ``SEEN`` in ``extra``.
        prompt: what is trained.
        gaze: of the network.
        dropout: share of clips that are shown no picture, so that the negative condition means something.
        nothing: ``... e``, what the image encoder sees of no picture; None for zeros.

    Raises:
        ValueError: the share is none.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}: it must lie between 0, every clip is shown its picture, and 1, none is")
    shown = replace(context, source=with_pictures_left_out(context.source, dropout, context.settings.seed, nothing))
    parameters = {f"{PARAMETERS}.{name}": parameter for name, parameter in prompt.named_parameters()}
    task = shown.task(parameters, image_prompt=prompt.shape.kind, tokens=prompt.shape.tokens, dropout=dropout)

    def write(weights: Weights, _format: str, about: Mapping[str, Any]) -> State:
        about = {"steps": about.get("steps", context.settings.steps), "kind": prompt.shape.kind}
        return {name.removeprefix(f"{PARAMETERS}."): value for name, value in weights.items()}, {"trained": json.dumps(about)}

    return Trainable("image_prompt", task, context.settings, write, ("IP-Adapter",), told=[gaze])


def with_pictures_left_out(source: Source, share: float, seed: int, nothing: Tensor | None = None) -> Source:
    """The same clips, some of which are shown no picture; which, depends on seed, step and place alone.

    Args:
        source: of clips, with ``SEEN`` in ``extra``.
        share: of clips without a picture.
        seed: of the run.
        nothing: ``... e``, what the image encoder sees of no picture; None for zeros.
    """

    def left_out(step: int, places: range) -> Batch:
        batch = source(step, places)
        seen = batch.extra[SEEN]
        empty = torch.zeros_like(seen[0]) if nothing is None else nothing.to(seen)
        drawn = [torch.rand((), generator=_generator(seed, step, place)) for place in places]
        dropped = (torch.stack(drawn) < share).view(-1, *(1,) * (seen.ndim - 1)).to(seen.device)
        return replace(batch, extra={**batch.extra, SEEN: torch.where(dropped, empty, seen)})

    return left_out


def _generator(seed: int, step: int, place: int) -> torch.Generator:
    return torch.Generator().manual_seed(frame_seed(seed, place, f"picture {step}"))


def beside_text(network: Network, unet: BlockedUNet, prompt: ImagePromptModel) -> tuple[Network, "Gaze"]:
    """The network, which looks at ``SEEN`` of its batch beside the text, and what holds that for a call.

    Args:
        network: on ``unet``, made before this is called: what is put into the U-Net here goes around what is there.
        unet: whose attentions to the text look at the picture too from now on.
        prompt: how.

    Raises:
        ValueError: the prompt does not fit the U-Net.
    """
    widths, context = widths_of(cross_layers(unet))
    if (widths, context) != (prompt.shape.widths, prompt.shape.context):
        raise ValueError(
            f"the image prompt has {len(prompt.shape.widths)} layers of {prompt.shape.context} features and the U-Net {len(widths)} of"
            f" {context}: make it with new_image_prompt of this U-Net"
        )
    gaze = Gaze()
    for layer, pair in zip(cross_layers(unet), prompt.layers(), strict=True):
        swap(layer.attention, gaze.around(layer, pair))

    def looking(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        tokens = prompt.tokens(batch.extra[SEEN])
        shares = torch.eye(len(tokens), device=tokens.device).repeat_interleave(x.shape[1], dim=0)
        with gaze.at(Mixture(tokens, shares, torch.ones(len(shares), device=tokens.device))):
            return network(x, sigma, batch)

    return looking, gaze


class Gaze:
    """What the attentions of a U-Net look at during a call; nothing otherwise."""

    def __init__(self) -> None:
        self.mixture: Mixture | None = None

    @contextmanager
    def at(self, mixture: Mixture) -> Iterator[None]:
        """While open, they look at this."""
        self.mixture = mixture
        try:
            yield
        finally:
            self.mixture = None

    def around(self, place: CrossLayer, pair: KeyValue) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        """What ``slots.swap`` puts around an attention to the text.

        The output projection is linear, so what is seen of the picture goes through it on its own, without the bias a second time.
        """
        attention: nn.Module = place.attention

        def swapped(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                text = inner(x, *args, **kwargs)
                if self.mixture is None:
                    return text
                if len(x) != len(self.mixture.gain):
                    raise ValueError(
                        f"an attention got {len(x)} frames of {len(self.mixture.gain)}: an image prompt cannot be trained with layers that"
                        " compute again a few frames at a time; turn gradient_checkpointing off"
                    )
                project: Any = attention.to_out
                seen = self.mixture.attended(attention.to_q(x), pair, attention.heads, heads_apart)  # type: ignore[operator, arg-type]
                return text + project(seen) - project(torch.zeros_like(seen[:1, :1]))

            return forward

        return swapped


def shown_frames(frames: int) -> list[int]:
    """Which frames of a clip an image encoder looks at, of which one is shown at a time.

    >>> shown_frames(16), shown_frames(1)
    ([0, 8, 15], [0])
    """
    count = min(SHOWN, frames)
    return sorted({round(place * (frames - 1) / max(1, count - 1)) for place in range(count)})


def with_seen(source: Source, seen: EncodedClips, batch: int, seed: int) -> Source:
    """The same clips, each with what an image encoder sees in one of its frames; which one, depends on seed, step and place alone.

    Args:
        source: of clips.
        seen: what it sees in ``shown_frames`` of each, ``s ... e``.
        batch: clips per step.
        seed: of the run.
    """

    def seeing(step: int, places: range) -> Batch:
        some, every = source(step, places), seen.batch(step, batch, places).latents
        chosen = [frame_seed(seed, place, f"seen {step}") % every.shape[1] for place in places]
        rows = torch.stack([clip[at].float() for clip, at in zip(every, chosen, strict=True)])
        return replace(some, extra={**some.extra, SEEN: rows})

    return seeing


def check_text(unet: BlockedUNet) -> None:
    """Refuse a model without attention to the text.

    Raises:
        ValueError: it has none.
    """
    sides = [(layer.attention.to_q.in_features, layer.attention.to_k.in_features) for layer in cross_layers(unet)]
    if all(own == told for own, told in sides):  # without text the second attention of a block is to the picture itself
        raise ValueError("the model has no attention to the text, beside which a picture could be looked at: use SD1.5 or SDXL")


def make(setup: Setup, kind: str, tokens: int, seen: EncodedClips, nothing: Tensor) -> Trainable:
    """An image prompt for a base; ``dropout`` of the options holds for pictures as for words.

    Args:
        setup: what is at hand; clips of one frame are pictures.
        kind: a name in ``image_prompt.KINDS``.
        tokens: that a picture becomes (plain, plus).
        seen: what the image encoder sees in ``shown_frames`` of each clip, ``s ... e``.
        nothing: ``... e``, what it sees of no picture.

    Raises:
        ValueError: the base has no attention to the text.
    """
    base, settings = setup.base, setup.settings
    prompt = new_image_prompt(base.unet, nothing.shape[-1], kind, tokens, settings.seed).to(base.device)
    network, gaze = beside_text(base.network(base.motions), base.unet, prompt)
    context = setup.context(network, base.motions)
    context = replace(context, source=with_seen(context.source, seen, settings.batch, settings.seed))
    trainable = image_prompt(context, prompt, gaze, dropout=setup.options.dropout, nothing=nothing)
    first = with_seen(setup.source(1), seen, 1, settings.seed)

    def example() -> Batch:
        told = first(0, range(1))
        return replace(told, extra={**told.extra, f"no_{SEEN}": nothing[None].float()})

    return setup.finished(trainable, network, example)


ROW = Row("image_prompts", make)
