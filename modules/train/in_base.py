"""What is at hand where something is trained in a frozen model, and what all that is trained there have in common."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ..data.cache import EncodedClips, weights_key
from ..temporal.motion import MotionModel
from .base import Base
from .denoising import Batch, Network, Source
from .encoded import NOTHING, conditioned, source_of
from .held_out import DRAWS, Shown
from .options import Options
from .samples import guided, sample_clip
from .settings import PRECISIONS, RunSettings
from .trainable import TaskContext, Trainable, Weights, known_of


@dataclass(frozen=True)
class Setup:
    """What is at hand.

    Attributes:
        base: to train in.
        clips: to learn from.
        decode: latents ``f c h w`` of a VAE to pictures ``f h w c`` in 0..1.
        options: how.
        settings: of the run.
        facts: what a checkpoint must agree with beside the base and the objective; JSON-able.
        each: called whenever clips are asked for and before each call for a sample, such as to see whether the user cancelled.
    """

    base: Base
    clips: EncodedClips
    decode: Callable[[Tensor], Tensor]
    options: Options
    settings: RunSettings
    facts: Mapping[str, Any]
    each: Callable[[], None] = lambda: None

    def source(self, batch: int, read_ahead: int = 0) -> Source:
        """The clips, so many at a step."""
        return source_of(self.clips, batch, self.base.to_model, self.each, read_ahead)

    @cached_property
    def training(self) -> Source:
        """The clips of each step, read ahead."""
        return self.source(self.settings.batch, self.options.read_ahead)

    @cached_property
    def shown(self) -> Shown | None:
        """The clips of each step, and those that are not trained on; None where all are."""
        held, batch = self.clips.held, self.settings.batch
        if held is None:
            return None
        other = source_of(held, batch, self.base.to_model, self.each)
        return Shown(self.training, other, max(DRAWS, len(held.dataset)))

    def context(self, network: Network, motions: Sequence[MotionModel], loss: str = "mse") -> TaskContext:
        """What a trainable is given in a base whose ``network`` has these motion models; ``loss`` is what is usual for it."""
        moved = {"motion": weights_key(motions[-1].state_dict())} if motions else {}  # as they are before anything trains
        return TaskContext(
            network,
            self.shown or self.training,
            self.base.schedule,
            self.options.objective(self.base.prediction, loss),
            self.settings,
            {**self.base.facts, **self.facts, **moved},
        )

    def finished(
        self,
        trainable: Trainable,
        network: Network,
        example: Callable[[], Batch] | None = None,
    ) -> Trainable:
        """The trainable with its samples, and whatever else hangs on the base.

        Args:
            trainable: made with a ``context`` of this.
            network: that samples go through.
            example: where samples take their size, their words and whatever else they are told from, a clip alone; None for the
                first clip.
        """
        self.base.holders.extend(trainable.holders)
        first = example or partial(self.source(1), 0, range(1))
        sampled = lambda weights: self._sampled(trainable, network, first(), weights)  # noqa: E731
        return replace(trainable, sampled=sampled, data=self.clips.report, known=known_of(self.clips.dataset), shown=self.shown)

    def _sampled(self, trainable: Trainable, network: Network, told: Batch, weights: Weights) -> Tensor:
        """A clip by these weights, always from the same noise. Returns ``f h w c`` in 0..1."""
        options, base = self.options, self.base
        if options.sample_prompt:
            said = conditioned(told.clips, [self.clips.text(options.sample_prompt)], self.clips.text(NOTHING))
            told = replace(said, extra={**told.extra, **said.extra})
        told = told.to(base.device)
        dtype = PRECISIONS[self.settings.precision]
        with ExitStack() as stack:
            stack.enter_context(trainable.with_weights(weights))
            if dtype is not None:
                stack.enter_context(torch.autocast(base.device.type, dtype))
            clip = sample_clip(
                guided(network, told, options.sample_cfg),
                told.clips[0],
                base.schedule,
                steps=options.sample_steps,
                seed=self.settings.seed,
                each=self.each,
            )
        return self.decode(base.to_vae(clip.float().cpu()))
