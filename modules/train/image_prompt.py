"""Training an image prompt: projection, keys and values learn to say what is in a picture, while the base model stays as it is.

Stage 1 of MoonShot (Zhang et al., arXiv:2401.01827, Section 4.1) and IP-Adapter (Ye et al., arXiv:2308.06721, Section 3.2): clips, or
single pictures as clips of one frame, are to be denoised by a model that is told what an image encoder sees in one of their frames.
Keys and values start as those of the text. It is a row upon ``task.Denoising``: any network on a U-Net of Stable Diffusion's family will
do, this pack's own or a host's.

Differs from the reference: whether the picture is left out is drawn independently of whether the text is (there 5% each and 5% both).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..image_prompt import CrossLayer, ImagePromptModel, KeyValue, Mixture, PromptShape, cross_layers, heads_apart, widths_of
from ..noise import NoiseSchedule, frame_seed
from ..temporal.slots import BlockedUNet, swap
from .denoising import Batch, Network, Objective, Source
from .settings import RunSettings
from .task import Denoising

SEEN = "seen"  # in a batch's ``extra``: ``n ... e``, what the image encoder sees of each clip


def new_image_prompt(unet: BlockedUNet, clip: int, kind: str = "plain", tokens: int = 4) -> ImagePromptModel:
    """A network for an image prompt of a U-Net, whose keys and values are those of the text to begin with.

    Args:
        unet: of the base model.
        clip: features of the image encoder.
        kind: a name in ``image_prompt.KINDS``.
        tokens: that a picture becomes (plain, plus).
    """
    widths, context = widths_of(cross_layers(unet))
    hidden = {"hidden": context, "depth": 4, "heads": max(1, context // 64)} if kind == "plus" else {}
    shape = PromptShape(kind, clip, context, 0 if kind == "full" else tokens, widths, **hidden)
    return ImagePromptModel(shape).like(unet)


def image_prompt_task(
    network: Network,
    unet: BlockedUNet,
    prompt: ImagePromptModel,
    source: Source,
    objective: Objective,
    schedule: NoiseSchedule,
    settings: RunSettings,
    facts: Mapping[str, Any],
    *,
    dropout: float = 0.1,
    nothing: Tensor | None = None,
) -> Denoising:
    """Train an image prompt upon a frozen network.

    Args:
        network: on ``unet``, made before this is called: what is put into the U-Net here goes around what is there.
        unet: whose attentions to the text look at the picture too from now on.
        prompt: what is trained.
        source: of clips, with ``SEEN`` in ``extra``.
        objective: what is asked.
        schedule: noise of the network's timesteps.
        settings: seed and batch are read.
        facts: what a checkpoint must agree with.
        dropout: share of clips that are shown no picture, so that the negative condition means something.
        nothing: ``... e``, what the image encoder sees of no picture; None for zeros.

    Raises:
        ValueError: the prompt does not fit the U-Net, or the share is none.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}: it must lie between 0, every clip is shown its picture, and 1, none is")
    widths, context = widths_of(cross_layers(unet))
    if (widths, context) != (prompt.shape.widths, prompt.shape.context):
        raise ValueError(
            f"the image prompt has {len(prompt.shape.widths)} layers of {prompt.shape.context} features and the U-Net {len(widths)} of"
            f" {context}: make it with new_image_prompt of this U-Net"
        )
    parameters = {f"image_prompt.{name}": parameter for name, parameter in prompt.named_parameters()}
    about = {**facts, "image_prompt": prompt.shape.kind, "dropout": dropout}
    shown = with_pictures_left_out(source, dropout, settings.seed, nothing)
    return Denoising(beside_text(network, unet, prompt), parameters, shown, objective, schedule, settings, about)


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


def beside_text(network: Network, unet: BlockedUNet, prompt: ImagePromptModel) -> Network:
    """The network, which looks at ``SEEN`` of its batch beside the text."""
    gaze = Gaze()
    for layer, pair in zip(cross_layers(unet), prompt.layers(), strict=True):
        swap(layer.attention, gaze.around(layer, pair))

    def looking(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        tokens = prompt.tokens(batch.extra[SEEN])
        shares = torch.eye(len(tokens), device=tokens.device).repeat_interleave(x.shape[1], dim=0)
        with gaze.at(Mixture(tokens, shares, torch.ones(len(shares), device=tokens.device))):
            return network(x, sigma, batch)

    return looking


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
                        " compute again a few frames at a time; turn recomputing off"
                    )
                project: Any = attention.to_out
                seen = self.mixture.attended(attention.to_q(x), pair, attention.heads, heads_apart)  # type: ignore[operator, arg-type]
                return text + project(seen) - project(torch.zeros_like(seen[:1, :1]))

            return forward

        return swapped
