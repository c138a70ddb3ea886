"""A motion model: the temporal modules of one checkpoint, and the call they are in.

The modules live outside the U-Net's tree, so a host can load and move them on their own. Each is reached by the slot's name
(``slots.py``), and each learns from ``during`` how the batch axis of the present call divides into frames.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.unet import Attention
from .config import TemporalConfig
from .frames import Frames, Gain, Group, Hint, way_back
from .kinds import TemporalModule, class_of
from .masks import MASKS, local, with_sink_frames
from .past import Past
from .picture_part import PicturePart
from .positions import POSITIONS, STRETCHES
from .slots import BlockedUNet, swap
from .windows import Windows


class HintModel(nn.Module):
    """A network that comes with a motion module and tells its slots something of a whole clip, such as where a camera is."""

    def hints(
        self,
        path: Any,
        height: int,
        width: int,
        *,
        strength: float,
        device: torch.device | str,
        part: PicturePart | None = None,
    ) -> dict[str, Hint]:
        """What each slot is told: ``path`` of all frames of a clip, whose latents are ``height`` by ``width``."""
        raise NotImplementedError


class MotionModel(nn.Module):
    """Temporal modules of one kind by slot; transformers have the state-dict layout of AnimateDiff's release.

    Args:
        widths: channels of each slot that is filled, such as ``{"down_blocks.0.motion_modules.0": 320, ...}``.
        config: what the modules have in common.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.

    Raises:
        ValueError: the configuration is of a kind that this pack does not know, or contradicts itself.
    """

    inside = False  # whether its layers stand inside those of the U-Net, so that none of these sees a frame by itself

    def __init__(
        self,
        widths: Mapping[str, int],
        config: TemporalConfig,
        ops: Any = nn,
        attention: Attention = F.scaled_dot_product_attention,
    ):
        super().__init__()
        kind = class_of(config)
        self.config, self.member = config, kind.member
        self.recalls = kind.recalls  # frames of earlier calls matter: who shows a clip in windows gives it a ``Past``
        self.names = tuple(widths)
        self.frames: Frames | None = None
        self.gains: Mapping[str, Gain | None] = {}
        self.ran: Tensor | None = None
        self.hints: Mapping[str, Hint] = {}
        self.past: Past | None = None
        self.reach: int | None = None  # frames to either side that a frame sees at most; None for what the mask says
        self.first_seen = False  # whether every frame sees the first one all the same
        self.camera: HintModel | None = None  # a CameraCtrl module that a host may ask for hints
        self.input_layer: nn.Module | None = None  # PIA's, for noisy latents and what is given beside them
        self.picture_encoder: nn.Module | None = None  # AnimateLCM-I2V's, which a host may ask for features
        self.channels: Tensor | None = None
        self.features: Mapping[str, Tensor] = {}
        for name, channels in widths.items():
            _grow(self, f"{name}.{kind.member}", kind(channels, config, ops, attention))

    def zero(self) -> "MotionModel":
        """Make every module the identity, as training starts: the model then changes nothing. Returns itself."""
        for name in self.names:
            self.at(name).zero()
        return self

    def at(self, name: str) -> TemporalModule:
        """The module of one slot."""
        return self.get_submodule(f"{name}.{self.member}")  # type: ignore[return-value]

    def looking(self, window: int = 0, *, first: bool = False) -> "MotionModel":
        """Let each frame see the ``window`` frames around it at most, 0 for as many as it was trained with, and ``first`` the first one
        besides. Returns itself.

        Raises:
            ValueError: the window is even or negative.
        """
        check_window(window)
        self.reach, self.first_seen = (window // 2 if window else None), first
        return self

    def join(self, unet: BlockedUNet) -> None:
        """Put what is in no slot where it belongs in a U-Net whose slots are filled, until ``slots.empty``: here an input layer."""
        if self.input_layer is not None:
            swap(next(unet.input_blocks[0].children()), self._input)

    def _input(self, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            return inner(x) if self.channels is None else self.input_layer(x, self.channels)  # type: ignore[misc]

        return forward

    def slot_functions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What ``slots.fill`` wants: for each slot a function of its features; the identity while no call is under way."""
        return {name: self._function(self.at(name), place) for place, name in enumerate(self.names)}

    def _function(self, module: TemporalModule, place: int) -> Callable[[Tensor], Tensor]:
        name = self.names[place]

        def run(x: Tensor) -> Tensor:
            if self.frames is None:
                return x
            gain = self.gains.get(name, FULL)
            if self.ran is not None:
                self.ran[place] += 1  # a tensor, not a number: compiled code would be made anew for every count
            if gain is None:
                return x
            if name in self.features:
                x = x + gain.applied(self.features[name].to(x).repeat(len(x) // self.frames.count, 1, 1, 1))
            return module(x, self.frames, gain, self.hints.get(name), None if self.past is None else self.past.at(name))

        return run

    def frames_for(
        self,
        ids: Tensor,
        sink_frames: Tensor | None = None,
        windows: Windows | None = None,
        positions: str = "trained",
        most: int = 0,
    ) -> Frames:
        """What these frames are to this model: their times, who sees whom, and in which windows.

        Absolute position tables count from the first frame of the window, since that is what they were trained on; relative
        encodings take the frame numbers themselves.

        Args:
            ids: ``f``, absolute frame numbers, in the order of the batch axis.
            sink_frames: ``k``, frame numbers that every frame may see whatever the mask says.
            windows: over the ``f`` frames of this call; None for one that holds them all.
            positions: a name in ``STRETCHES``, what happens to absolute times beyond those that were trained.
            most: how many times were trained, for ``positions``; 0 for any number.
        """
        whole = Frames(len(ids), self._times(ids, positions, most, seen=windows is None), self._mask(ids, sink_frames))
        if windows is None:
            return whole
        alike = _alike(windows.groups, len(ids), ids.device)
        groups = [
            Group(index, self._times(_unrolled(index[0], ids), positions, most), self._masks(ids[index], sink_frames))
            for index, _ in alike
        ]
        places, weights = way_back(alike, len(ids))
        return replace(whole, groups=tuple(groups), places=places, weights=weights, fuse_at=windows.fuse_at)

    def _times(self, ids: Tensor, positions: str, most: int, *, seen: bool = True) -> Tensor:
        if not POSITIONS[self.config.positions].absolute:
            return ids
        times = STRETCHES[positions](torch.arange(len(ids), device=ids.device), most)
        if seen and self.config.table and float(times.max()) > self.config.table - 1:
            raise ValueError(
                f"the motion module has a table of its own with {self.config.table} times and sees {len(ids)} frames at once: set"
                " positions to stretch, or put Context Windows with shorter ones on the model"
            )
        return times

    def _mask(self, ids: Tensor, sink_frames: Tensor | None) -> Tensor | None:
        mask = None if self.config.mask == "full" else MASKS[self.config.mask](ids, self.config.mask_frames)
        mask = mask if self.reach is None else local(ids, self.reach, inside=mask)
        if self.first_seen and mask is not None:
            mask = with_sink_frames(mask, ids, torch.zeros(1, dtype=ids.dtype, device=ids.device))
        return mask if sink_frames is None or mask is None else with_sink_frames(mask, ids, sink_frames)

    def _masks(self, ids: Tensor, sink_frames: Tensor | None) -> Tensor | None:
        """``ids``: ``w l``. Returns ``w l l``."""
        if self.config.mask == "full" and self.reach is None:
            return None
        return torch.stack([mask for row in ids if (mask := self._mask(row, sink_frames)) is not None])

    @contextmanager
    def during(
        self,
        frames: Frames,
        gains: Mapping[str, Gain | None] | None = None,
        ran: Tensor | None = None,
        past: Past | None = None,
    ) -> Iterator[None]:
        """While open, the modules work on clips of these frames; afterwards they are as before, whatever happened.

        Args:
            frames: of the clips.
            gains: by slot how strongly its module acts, fully where it is not named; None rests it.
            ran: ``m``, one entry per slot in the order of ``names``, to which every run of a slot's module adds 1.
            past: what recurrent modules know of earlier calls; None for clips that begin here.
        """
        before = self.frames, self.gains, self.ran, self.past
        self.frames, self.gains, self.ran, self.past = frames, gains or {}, ran, past
        try:
            yield
        finally:
            self.frames, self.gains, self.ran, self.past = before

    @contextmanager
    def pictured(self, channels: Tensor | None, features: Mapping[str, Tensor]) -> Iterator[None]:
        """While open, the network is told of a picture; afterwards it is as before, whatever happened.

        Args:
            channels: ``f d h w``, what the input layer gets beside each frame's noisy latents; None for the U-Net's own layer.
            features: ``f c p q`` by slot, what is added before its module.
        """
        before = self.channels, self.features
        self.channels, self.features = channels, features
        try:
            yield
        finally:
            self.channels, self.features = before

    @contextmanager
    def hinted(self, hints: Mapping[str, Hint]) -> Iterator[None]:
        """While open, the modules of these slots are told so much besides; afterwards they are as before, whatever happened."""
        before, self.hints = self.hints, hints
        try:
            yield
        finally:
            self.hints = before


FULL = Gain()


def check_window(window: int) -> None:
    """Refuse a width of a frame's view that has no middle."""
    if window < 0 or (window and window % 2 == 0):
        raise ValueError(
            f"the attention window is {window} frames: it must be odd, the frame itself and as many on either side, such as 5, or 0"
            f" for all"
        )


def functions_of(motions: Iterable[MotionModel]) -> dict[str, Callable[[Tensor], Tensor]]:
    """What ``slots.fill`` wants of several motion models: those of one slot work one after the other, in this order."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {}
    for motion in motions:
        for name, function in motion.slot_functions().items():
            functions[name] = _in_turn(functions[name], function) if name in functions else function
    return functions


def _in_turn(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _alike(groups: Sequence[tuple[Tensor, Tensor]], count: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """The same windows (index and weight, ``w l`` each), divided further so that those of one group step through time alike."""
    divided: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for index, weight in groups:
        for row, worth in zip(index, weight, strict=True):
            divided.setdefault(tuple((row.diff() % count).tolist()), []).append((row, worth))
    return [
        (torch.stack([row for row, _ in rows]).to(device), torch.stack([worth for _, worth in rows]).to(device))
        for rows in divided.values()
    ]


def _unrolled(index: Tensor, ids: Tensor) -> Tensor:
    """Times along a window that may run past the clip's end into its beginning: ``index``: ``l``, ``ids``: ``f``. Returns ``l``."""
    return ids[index[0]] + torch.cat([index.new_zeros(1), (index.diff() % len(ids)).cumsum(0)])


def _grow(root: nn.Module, path: str, leaf: nn.Module) -> None:
    *parents, last = path.split(".")
    for name in parents:
        child = root._modules.get(name)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        root = child
    root.add_module(last, leaf)
