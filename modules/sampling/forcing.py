"""The Diffusion Forcing sampler as hosts run it: a schedule, its window, and the frames that are given, as one object."""

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .job import Job, Step, check_finite, check_sigmas
from .known_frames import only_at_the_start
from .plan import ClipPlan, together
from .rollout import Rollout, collected, rollout
from .stepping import ORDERS, corrects

log = logging.getLogger("longtake")


@dataclass(frozen=True)
class Forcing(Rollout):
    """The rollout of a clip as hosts run it, an ``Algorithm``.

    Attributes:
        plan: when each frame moves.
        known_frames: samples of a LATENT, the frames that ``plan`` takes as known, or a whole clip that has them in their places; None
            where the job's latent holds them.
    """

    plan: ClipPlan
    known_frames: Tensor | None = None

    @property
    def uniform(self) -> bool:
        """Whether all new frames are at one noise level all along."""
        return self.plan.rows_total == self.plan.steps

    def one_level(self, *, masked: bool) -> bool:
        """As ``OneLevel``: known frames are shown clean."""
        return self.uniform and not masked and not bool(self.plan.known.any())

    def shown(self, frames: int, trained: int) -> int:
        """Most frames in a call, for a clip of so many on a model that was trained on so many."""
        return min(frames, self.window or trained or frames)

    @property
    def model_calls(self) -> int:
        """How often the model is called for the whole clip."""
        rows = self.plan.rows_total
        if ORDERS[self.order].calls == 1:
            return rows
        return rows + sum(map(corrects, self.plan.rows(self.plan.in_flight() + self.sink_frames, self.sink_frames)))

    def calls(self, frames: int, steps: int, trained: int) -> int:  # noqa: ARG002  the plan says it
        """As ``job.Counted``, exactly."""
        return self.model_calls

    def given(self, latent: Tensor, encode: Callable[[Tensor], Tensor] = lambda samples: samples) -> Tensor:
        """The clip with its known frames in place: ``latent``: ``f ...``. Returns ``f ...``.

        Raises:
            ValueError: there are more or fewer known frames than the noise levels say, or they are of another size.
        """
        if self.known_frames is None:
            return latent
        frames, known = encode(self.known_frames).to(latent), self.plan.known.to(latent.device)
        frames = frames.index_select(0, places(self.plan, len(frames)).to(frames.device))
        if frames.shape[1:] != latent.shape[1:]:
            raise ValueError(
                f"the known frames have the shape {list(frames.shape[1:])} each and the latent's {list(latent.shape[1:])}: they must agree"
            )
        clip = latent.clone()
        clip[known] = frames
        return clip

    def restored(self, clip: Tensor, latent: Tensor, encode: Callable[[Tensor], Tensor] = lambda samples: samples) -> Tensor:
        """The result with its known frames as they were given, bit for bit, where a host scaled them on the way.

        Args:
            clip: ``f ...``, the result.
            latent: ``f ...``, what the host was given.
            encode: the samples of a LATENT as ``clip`` has them.

        Returns:
            clip: ``f ...``.
        """
        if not self.plan.known.any():
            return clip
        known = self.plan.known.to(clip.device).reshape(-1, *(1,) * (clip.ndim - 1))
        return torch.where(known, self.given(latent, encode).to(clip), clip)

    def given_frames(self, job: Job) -> tuple[Tensor, Tensor]:
        """As ``Rollout.given_frames``, wherever the frames come from. Returns ``k`` and ``k ...``."""
        return super().given_frames(replace(job, latent=self._checked(job)))

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it."""
        clip = self._checked(job)
        return collected(job, rollout(replace(job, latent=clip), self, job.state), clip)

    def _checked(self, job: Job) -> Tensor:
        """The clip that is begun with. Returns ``f ...``."""
        check_lengths(job.latent, self.plan, job.sigmas)
        self._check_known(job)
        for sentence in self.remarks(job):
            log.warning(sentence)
        return self.given(job.latent, job.encode)

    def remarks(self, job: Job) -> list[str]:
        """What a user should know who expects known frames to lead those before them."""
        if only_at_the_start(self.plan.known):
            return []
        if not job.ahead:
            return [
                "frames behind those that are made are known, and no frame of this model sees later ones, so they lead nothing: use a"
                " model that sees both ways, such as the bundled longtake_shapes_both_ways"
            ]
        return out_of_sight(self.plan.out_of_sight(job.window(self.window), self.sink_frames))

    def _check_known(self, job: Job) -> None:
        known = self.plan.known
        if job.known is not None and not torch.equal(job.known.cpu(), known):
            masked = int(job.known.sum())
            raise ValueError(
                f"the latent's mask leaves {masked} frames alone and the noise levels are for {int(known.sum())} known ones, or for others:"
                f" set known of Noise Levels to {masked}, or mask the same frames"
            )
        if job.noise is None or not known.any() or self.known_frames is not None or job.known is not None:
            return
        if not job.latent[known.to(job.latent.device)].any():
            raise ValueError(
                f"the noise levels are for {int(known.sum())} known frames and the latent is empty there: connect known_frames, or a latent"
                " that holds them"
            )


def out_of_sight(frames: Mapping[int, tuple[int, int]]) -> list[str]:
    """What ``ClipPlan.out_of_sight`` found, in a sentence."""
    if not frames:
        return []
    number, (rows, blind) = next(iter(frames.items()))
    more = f" ({len(frames) - 1} more are like it)" if len(frames) > 1 else ""
    return [
        f"known frame {number} is out of sight of {blind} of the {rows} calls that make the frames before it{more}: use the schedule"
        " trapezoid, a larger window or known frames that are closer together"
    ]


def check_lengths(latent: Tensor, plan: ClipPlan, sigmas: Tensor) -> None:
    """Refuse what does not fit together: ``latent``: ``f ...``, ``sigmas``: ``l``.

    Raises:
        ValueError: one sentence.
    """
    if len(latent) != plan.frames:
        raise ValueError(
            f"the latent has {len(latent)} frames and the noise levels are for {plan.frames}: set frames of Noise Levels to {len(latent)}"
            ", or the length of the latent"
        )
    check_sigmas(sigmas, plan.steps, together=together(plan))
    check_finite(latent)


def take(plan: ClipPlan, known: Tensor | None, like: Tensor) -> Tensor:
    """The clip that a take starts from: known frames in their places, zeros elsewhere.

    Args:
        plan: of the take.
        known: ``k ...``, or ``k`` in the third axis where the layout is that of video models, see ``places``; None for none.
        like: ``r ...``, a clip of any length with frames of the same size, in the same layout.

    Returns:
        clip: ``m ...``, laid out as ``like`` is, as long as the take.

    Raises:
        ValueError: there are more or fewer known frames than ``plan`` says, or it is no clip.
    """
    if like.ndim not in (4, 5):
        raise ValueError(
            f"the latent has the shape {list(like.shape)}: this sampler takes frames, channels, height, width, or a batch of videos with"
            " frames in the third axis"
        )
    axis = frame_axis(like)
    chosen = places(plan, 0 if known is None else known.shape[axis])
    shape = [plan.frames if place == axis else size for place, size in enumerate(like.shape)]
    clip = like.new_zeros(shape)
    if known is None:
        return clip
    mine = plan.known.nonzero().flatten().to(clip.device)
    return clip.index_copy_(axis, mine, known.index_select(axis, chosen.to(known.device)))


def places(plan: ClipPlan, given: int) -> Tensor:
    """Which of so many given frames are the known ones: all, in order, or of a whole clip those in their places. Returns ``k``.

    Raises:
        ValueError: there are more or fewer.
    """
    count = int(plan.known.sum())
    if given == count:
        return torch.arange(count)
    if given == plan.frames and count:
        return plan.known.nonzero().flatten()
    raise ValueError(
        f"the noise levels are for {count} known frames and {given or 'none'} are connected: connect that many, or a whole clip of"
        f" {plan.frames}, or set known of Noise Levels to {given}"
    )


def frame_axis(latent: Tensor) -> int:
    """Where frames lie in a host's latent: first for image models, third for video models. ``latent``: ``r ...``."""
    return 2 if latent.ndim == 5 else 0
