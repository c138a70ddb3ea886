"""A recurrent module: a convolutional GRU that goes through the frames of a clip and keeps a picture of what it saw.

The recurrent model of Diffusion Forcing (arXiv:2407.01392, Section 3.2) put into slots: the latent state of frame ``t`` comes from that
of frame ``t - 1`` and from the noisy frame ``t``, and what is made of the frame is read from it. There one state stands beside a whole
U-Net; here every slot has one, so the U-Net stays that of an image model.

It has no window: with the state after frame ``k - 1`` at hand, frames from ``k`` on come out as if all frames before were there
(``past.py``). The group norm sees one frame at a time, so nothing leaks from later frames to earlier ones.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..nets.unet import Attention
from .config import TemporalConfig
from .frames import Frames, Gain, Hint
from .past import SlotPast


class ConvGRU(nn.Module):
    """A gated recurrent unit whose products are convolutions of 3x3 (Ballas et al., arXiv:1511.06432, Section 3.1).

    Args:
        channels: of its input and of its state.
        ops: where the layers come from.
    """

    def __init__(self, channels: int, ops: Any = nn):
        super().__init__()
        self.inputs = ops.Conv2d(channels, 3 * channels, 3, padding=1)
        self.gates = ops.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.candidate = ops.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, told: Tensor, state: Tensor) -> Tensor:
        """One step.

        Args:
            told: ``b k h w``, what ``inputs`` makes of the frame; it does not depend on the state, so it is done for all frames at once.
            state: ``b s h w``, after the frame before.

        Returns:
            state: ``b s h w``, after this frame.
        """
        update, reset, new = told.chunk(3, dim=1)
        more_update, more_reset = self.gates(state).chunk(2, dim=1)
        reset = torch.sigmoid(reset + more_reset)
        new = torch.tanh(new + self.candidate(reset * state))
        return torch.lerp(state, new, torch.sigmoid(update + more_update))


class Recurrent(nn.Module):
    """What one slot holds."""

    member = "recurrent"
    past_only = True
    recalls = True

    def __init__(
        self,
        channels: int,
        config: TemporalConfig,
        ops: Any = nn,
        attention: Attention | None = None,  # noqa: ARG002  it has none
    ):
        super().__init__()
        hidden = config.hidden or channels
        self.norm = ops.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = ops.Conv2d(channels, hidden, 1)
        self.gru = ConvGRU(hidden, ops)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.proj_out = ops.Conv2d(hidden, channels, 1)

    def zero(self) -> None:
        """Become the identity."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self, x: Tensor, frames: Frames, gain: Gain | None = None, hint: Hint | None = None, past: SlotPast | None = None
    ) -> Tensor:
        """Go through the frames of each clip in the order in which they stand.

        Args:
            x: ``n c h w``, where ``n`` is ``(b f)``.
            frames: how ``n`` divides; windows and masks are nothing to a module that sees one frame and a state.
            gain: how strongly its change is added; there is no attention whose temperature could be set. None for 1.
            hint: must be None.
            past: states of earlier calls, and where those of this call's frames are kept; None to begin anew and keep nothing.

        Returns:
            x: ``n c h w``.

        Raises:
            ValueError: ``n`` is no multiple of the frame count, there is a hint, or ``past`` is of other clips.
        """
        frames.check(len(x))
        if hint is not None:
            raise ValueError("camera features were given to a recurrent module: they are for temporal transformers only")
        told = rearrange(self.gru.inputs(self.proj_in(self.norm(x))), "(b f) k h w -> b f k h w", f=frames.count)
        states = self._states(told, frames, past)
        return x + (gain or Gain()).applied(self.proj_out(states.flatten(0, 1)))

    def _states(self, told: Tensor, frames: Frames, past: SlotPast | None) -> Tensor:
        """The state after each frame: ``told``: ``b f k h w``. Returns ``b f s h w``."""
        together = told[:, : frames.count - frames.alone]
        clip, *others = together.chunk(frames.streams, dim=1)
        state = self.start.to(told)[None, :, None, None].expand(len(told), -1, *told.shape[-2:])
        before, after = [], []
        for place, frame in enumerate(clip.unbind(1)):
            before.append(state if past is None else past.before(place, state))
            state = self.gru(frame, before[-1])
            after.append(state)
        if past is not None:
            past.keep(after)
        done = [torch.stack(after, dim=1)]
        for stream in others:
            beside = self.gru(stream.flatten(0, 1), torch.stack(before, dim=1).flatten(0, 1))
            done.append(beside.unflatten(0, stream.shape[:2]))
        if frames.alone:  # a picture is a clip of one frame
            pictures = told[:, -frames.alone :]
            first = self.start.to(told)[None, :, None, None].expand(pictures.shape[0] * frames.alone, -1, *told.shape[-2:])
            done.append(self.gru(pictures.flatten(0, 1), first).unflatten(0, pictures.shape[:2]))
        return torch.cat(done, dim=1)
