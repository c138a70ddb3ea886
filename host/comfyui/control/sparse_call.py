"""One call of a SparseCtrl: the frames that the model sees, or a window's share of the whole clip."""

from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..attach.call_info import CallInfo
from ..attach.video import label_rows
from ..attached import motion_sampling
from ..options import WHOLE
from ..parts.controls import cycled
from ..parts.windows import Whole


@dataclass(eq=False)
class CachedResiduals:
    """What was computed for a whole clip at one step, for the windows that still want it."""

    sigma: Tensor
    entries: list[tuple[tuple[int, ...], tuple[Tensor | None, ...], list[Tensor]]] = field(default_factory=list)

    def of(self, size: tuple[int, ...], told: tuple[Tensor | None, ...]) -> list[Tensor] | None:
        """The residuals, ``f c h w`` each, of a condition of this size with these tensors."""
        return next((made for wide, other, made in self.entries if wide == size and all(map(_same, told, other))), None)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one, other)


@dataclass(frozen=True, eq=False)
class ControlCall:
    """One call of a control.

    Attributes:
        control: whose, a ``SparseCtrl``.
        x: ``n c h w``.
        cond: what the model is told.
        info: what the call is about.
    """

    control: Any
    x: Tensor
    cond: dict[str, Any]
    info: CallInfo

    def told(self) -> tuple[Tensor | None, Tensor | None]:
        """Text and label of each row: ``n l d`` and ``n m``, or None."""
        text = self.cond.get("crossattn_controlnet", self.cond.get("c_crossattn"))
        knows = self.control.encoder.file.config.unet.label_channels
        return text, label_rows(self.cond["y"], self.info) if knows else None

    def computed(self) -> list[Tensor]:
        """Residuals of the frames that the model sees: ``n c h w`` each."""
        known = motion_sampling(self.info.options)
        chunk = 0 if known is None or known.chunk is None else known.chunk  # of the memory plan
        return self._run(self.info.ids.cpu(), self.info.sigma, *self.told(), self.info.clips, chunk)

    def cut_out(self) -> list[Tensor]:
        """The same as part of the whole clip's, which is computed when its first window asks."""
        whole: Whole = self.info.options[WHOLE]
        known = self.control.known
        if known is None or not _same(known.sigma, whole.sigma):
            known = self.control.known = CachedResiduals(whole.sigma.clone())
        parts, keep = [], comfy.model_management.intermediate_device()
        text = self.told()[0]
        tokens, ids = 0 if text is None else text.shape[1], self.info.ids
        for uuid in self.info.names:
            told = self._told_all(whole, uuid, tokens)
            made = known.of(self.x.shape[-2:], told)
            if made is None:
                every = torch.arange(len(whole.sigma))
                made = [rows.to(keep) for rows in self._run(every, whole.sigma.to(self.info.sigma), *told, 1, len(ids))]
                known.entries.append((self.x.shape[-2:], told, made))
            parts.append([rows[ids.to(keep)].to(self.x.device) for rows in made])
        return [torch.cat(same) for same in zip(*parts, strict=True)]

    def _told_all(self, whole: Whole, uuid: Any, tokens: int) -> tuple[Tensor | None, Tensor | None]:
        """Text and label of every frame of the clip: ``f l d``, of so many tokens, and ``f m``, or None."""
        every = torch.arange(len(whole.sigma))
        text = whole.told("crossattn_controlnet", uuid)
        text = whole.told("c_crossattn", uuid) if text is None else text
        label = whole.told("y", uuid) if self.control.encoder.file.config.unet.label_channels else None
        label = None if label is None else label.flatten(0, -2)
        if text is not None:
            text = cycled(text, every)
            text = text.repeat(1, tokens // text.shape[1], 1)
        return text, None if label is None else cycled(label, every)

    def _run(self, ids: Tensor, t: Tensor, text: Tensor | None, label: Tensor | None, rows: int, chunk: int) -> list[Tensor]:
        control, device = self.control, self.x.device
        encoder, network = control.encoder, control.encoder.patcher.model
        hints = control.hints(*self.x.shape[-2:]).to(device, encoder.dtype)
        condition, strength = control.settings.conditions(hints, ids.to(device), masked=encoder.file.config.masked)
        frames = control.frames_for(ids, self.info.options, t[: len(ids)], device)
        return network(
            condition.repeat(rows, 1, 1, 1),
            control.base.model_sampling.timestep(t).float(),
            None if text is None else text.to(device, encoder.dtype),
            None if label is None else label.to(device, encoder.dtype),
            strength=None if strength is None else strength.repeat(rows),
            frames=frames,
            chunk=chunk,
        )
