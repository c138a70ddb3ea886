"""ControlNets and T2I adapters of ComfyUI for some frames of a clip: each frame gets its own hint and its own start and end.

ComfyUI's controls hold one hint per frame and give the first ``n`` of them to any call of ``n`` frames, and they look at the first
frame's noise level to know whether they act. Here the control is shown, for the length of one call, the hints of the frames that the
call is about. A control of another pack that has a ``get_control`` of its own is left to see to it itself: the window is in the
transformer options, as with ComfyUI's own context windows.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import torch
from torch import Tensor

from ..options import CLIP, CONTEXT_WINDOW, IDS

Features = dict[str, list[Tensor | None]]
Conditioning = list[list[Any]]
Conditions = dict[str, Any]  # keyword arguments of one model call: tensors of one row per frame and cond, and others


@dataclass(frozen=True, eq=False)
class FrameControl:
    """Stands in for a control in the calls about some frames.

    Attributes:
        control: what is shown other hints; after each call it is as it was before.
        ids: ``n``, int64, absolute frame numbers.
        chunk: frames that go through the control at once, or None for all.
    """

    control: Any
    ids: Tensor
    chunk: int | None = None

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Conditions, batched_number: int, transformer_options: dict[str, Any]
    ) -> Features | None:
        """ComfyUI's signature; ``x_noisy``: ``(conds n) c h w``, ``t``: ``(conds n)``."""
        if self.chunk is None or len(self.ids) <= self.chunk or not all(map(hints_are_ours, chain(self.control))):
            with showing(self.control, self.ids, t, t):
                return self.control.get_control(x_noisy, t, cond, batched_number, transformer_options)
        parts, rows = [], torch.arange(len(x_noisy), device=x_noisy.device).view(batched_number, -1)
        for part, ids in zip(rows.split(self.chunk, dim=1), self.ids.split(self.chunk), strict=True):
            row = part.flatten()
            some = {name: _some_rows(value, row, len(x_noisy)) for name, value in cond.items()}
            with showing(self.control, ids, t[row], t):
                features = self.control.get_control(x_noisy[row], t[row], some, batched_number, transformer_options)
            parts.append(_by_cond(features, batched_number, len(ids)))
        return joined(parts)

    def get_instance_for_device(self, device: torch.device) -> "FrameControl":
        """The same for the control's copy on another device (several GPUs)."""
        return FrameControl(self.control.get_instance_for_device(device), self.ids, self.chunk)


def chained(positive: Conditioning, negative: Conditioning, make: Callable[[], Any]) -> tuple[Conditioning, Conditioning]:
    """Both conditionings with one more control in each condition; those that a condition had go on before it.

    Args:
        positive: ComfyUI's conditioning.
        negative: the same for guidance.
        make: a control. It is called once for all conditions that had the same one, so that they go on sharing model calls.
    """
    links: dict[Any, Any] = {}

    def one_more(conditioning: Conditioning) -> Conditioning:
        made = []
        for tokens, values in conditioning:
            before = values.get("control")
            if before not in links:
                links[before] = make()
                links[before].set_previous_controlnet(before)
            made.append([tokens, {**values, "control": links[before], "control_apply_to_uncond": False}])
        return made

    return one_more(positive), one_more(negative)


def check_length(ids: Tensor, clip: int, options: dict[str, Any], node: str) -> None:
    """Refuse a clip of another length than keyframes were laid out for, as far as a call shows it.

    Args:
        ids: ``f``, frame numbers of the call.
        clip: frames that it should have.
        options: transformer options.
        node: which to set it in.
    """
    if IDS in options:
        return  # a sampler may show frames beyond the end that it drops later
    total = (
        options[CLIP].frames if CLIP in options else getattr(options.get(CONTEXT_WINDOW), "total_frames", 0)
    )  # of newer versions
    windowed = CONTEXT_WINDOW in options and not total
    frames = total or max(len(ids), int(ids.max()) + 1)
    if frames > clip or (frames < clip and not windowed):
        raise ValueError(
            f"the clip has {frames} frames{' or more' if windowed else ''} and its keyframes were laid out for {clip}: set"
            f" clip_frames of {node}"
        )


def chain(control: Any) -> Iterator[Any]:
    """A control and those before it."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def hints_are_ours(control: Any) -> bool:
    """Whether a control takes its hints as ComfyUI's do, so that it has to be shown the right ones."""
    return type(control).get_control.__module__ == comfy.controlnet.__name__ and "get_control" not in vars(control)


def cycled(rows: Tensor, ids: Tensor, axis: int = 0) -> Tensor:
    """The rows of some frames, where a clip longer than ``rows``: ``...`` starts over, as ComfyUI lets it. Returns ``...``."""
    return rows.index_select(axis, (ids % rows.shape[axis]).to(rows.device))


@contextmanager
def showing(control: Any, ids: Tensor, sigma: Tensor, everywhere: Tensor) -> Iterator[None]:
    """While open, a chain of controls holds the hints of some frames.

    Args:
        control: the last of the chain.
        ids: ``n``, int64, absolute frame numbers.
        sigma: ``(conds n)``, of these frames.
        everywhere: ``r``, of all frames whose features will be put together.
    """
    with ExitStack() as stack:
        for link in filter(hints_are_ours, chain(control)):
            state, changes = vars(link), _shown(link, ids, sigma, everywhere)
            stack.callback(state.update, {name: state[name] for name in changes})
            state.update(changes)
        yield


def _shown(control: Any, ids: Tensor, sigma: Tensor, everywhere: Tensor) -> dict[str, Any]:
    """What changes in one control."""
    acting = _acting(control, everywhere)
    some = bool(acting.any() and not acting.all())
    hints = control.cond_hint_original
    if len(hints) == 1 and not some:  # one for all frames: what was prepared from it stays good
        return {}
    changes: dict[str, Any] = {name: None for name in ("cond_hint", "control_input") if hasattr(control, name)}
    changes["cond_hint_original"] = cycled(hints, ids)
    changes["extra_concat_orig"] = [cycled(rows, ids % len(hints)) for rows in control.extra_concat_orig]
    if some:  # ComfyUI would ask the first frame; a strength per frame says it for each
        changes["timestep_range"] = None
        levels = sigma[:1] if len(ids) == 1 else sigma  # an adapter gives one row for all conds then
        changes["strength"] = control.strength * _acting(control, levels).to(sigma).view(-1, 1, 1, 1)
    return changes


def _acting(control: Any, sigma: Tensor) -> Tensor:
    """Between start and end: ``sigma``: ``r``. Returns ``r``, bool."""
    if control.timestep_range is None:
        return torch.ones_like(sigma, dtype=torch.bool)
    start, end = control.timestep_range
    return (sigma <= start) & (sigma >= end)


def _some_rows(value: Any, row: Tensor, rows: int) -> Any:
    return value[row] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value


def _by_cond(features: Features | None, conds: int, frames: int) -> Features | None:
    """``(conds n) c h w`` as ``conds n c h w``; adapters give a single row where there is one hint for all."""
    return features and {
        place: [rows if rows is None else rows.expand(conds * frames, -1, -1, -1).unflatten(0, (conds, frames)) for rows in same]
        for place, same in features.items()
    }


def joined(parts: list[Features | None]) -> Features | None:
    """The features of all frames, from those of a few frames each: ``conds k c h w`` to ``(conds n) c h w``."""
    first = parts[0]
    return first and {
        place: [_joined(rows) for rows in zip(*(part[place] for part in parts if part), strict=True)] for place in first
    }


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors, dim=1).flatten(0, 1) if tensors else None
