"""Big models without big memory: tensors that have shapes but no contents, and a count of the bytes they would take.

``peak_of`` runs a function whose tensors live on PyTorch's ``meta`` device and follows every storage from the operation that makes it
to the moment when nothing refers to it any more. That is what a GPU's allocator sees, down to what it adds itself: rounding, gaps
between blocks, and the workspaces of its libraries. Attention is taken to need its result and nothing else, as PyTorch's fused kernels
do.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.chunks import Chunks, spatial_layers
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.memory import MemoryPlan, estimate
from pack.modules.temporal.memory_moments import Call
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import empty, fill, widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.temporal.windows import WindowPlan
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
SDXL = UNetConfig(
    channel_mult=(1, 2, 4),
    num_res_blocks=(2, 2, 2),
    transformer_depth=(0, 0, 2, 2, 10, 10),
    transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    transformer_depth_middle=10,
    num_heads=10,
    context_dim=2048,
    label_channels=2816,
)
ARCHITECTURES = {"SD1.5": UNetConfig(context_dim=768), "SDXL": SDXL}


class Tracker(TorchDispatchMode):
    """While open, bytes of the storages that operations make: those alive ``now``, and the most that ever were.

    Args:
        weights: what exists already; an operation that gives a view of it makes nothing.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self.known:
            self.known.add(place)
            self.now += size
            weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """``scaled_dot_product_attention`` that needs only its result, which lies in memory as its queries do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def peak_of(run: Callable[[], Any], weights: Iterable[Tensor]) -> int:
    """Bytes beyond the weights, which exist already."""
    tracker = Tracker(weights)
    with torch.no_grad(), FusedAttention(), tracker:
        run()
    return tracker.peak


def measured(run: Callable[[], Any], device: torch.device) -> int:
    """Bytes beyond what is allocated already on a CUDA device, of a second run: the first sets its libraries up."""
    with torch.no_grad():
        run()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
    return torch.cuda.max_memory_allocated(device) - before


def moved(frames: Frames, device: torch.device) -> Frames:
    """The same on another device."""
    groups = tuple(replace(group, index=group.index.to(device), positions=group.positions.to(device)) for group in frames.groups)
    places, weights = (None if x is None else x.to(device) for x in (frames.places, frames.weights))
    return replace(frames, positions=frames.positions.to(device), groups=groups, places=places, weights=weights)


class Rig:
    """A U-Net of full size with a motion model in all its slots, in half precision.

    Args:
        unet: on ``device``.
        config: of the U-Net.
        clip_norms: whether residual blocks take whole clips.
        device: ``meta`` for shapes without contents, or a GPU for a measurement.
    """

    def __init__(self, unet: Any, config: UNetConfig, *, clip_norms: bool = False, device: torch.device = META):
        self.unet, self.config, self.clip_norms, self.device = unet, config, clip_norms, device
        with device:
            self.motion = MotionModel(widths(unet), TemporalConfig()).half().requires_grad_(False)
        self.chunks = Chunks()
        ours = isinstance(unet, UNet)
        self.options: dict[str, Any] = {} if ours else {"transformer_options": {"optimized_attention_override": _fused}}

    def plan(
        self, frames: int, height: int, width: int, *, conds: int = 1, chunk: int | None = None, windows: WindowPlan | None = None
    ) -> MemoryPlan:
        """The estimate of what ``peak`` counts."""
        call = Call(
            *(frames, height, width, conds),
            context=77 * (self.config.context_dim or 0),
            windows=self.told(frames, windows),
            clip_norms=self.clip_norms,
            device=self.device.type,
        )
        return estimate(self.unet, self.motion.names, call, chunk)

    def _inputs(self, conds: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        count = conds * frames
        y = self.config.label_channels
        shapes = {"x": (count, 4, height, width), "t": (count,), "context": (count, 77, self.config.context_dim or 0)}
        shapes |= {"y": (count, y)} if y else {}
        return {name: torch.zeros(shape, device=self.device, dtype=torch.float16) for name, shape in shapes.items()}

    def told(self, frames: int, windows: WindowPlan | None) -> Frames:
        """What the motion model is told of a clip."""
        return self.motion.frames_for(torch.arange(frames), None, windows.windows(frames, 0) if windows else None)

    def peak(
        self, frames: int, height: int, width: int, *, conds: int = 1, chunk: int | None = None, windows: WindowPlan | None = None
    ) -> int:
        """Bytes above the weights in one call."""
        told = self.told(frames, windows)
        self.chunks.size, self.chunks.conds = chunk, conds
        fill(self.unet, self.motion.slot_functions(), self.chunks.around, spatial_layers(self.unet, clip_norms=self.clip_norms))

        def call() -> None:
            given = self._inputs(conds, frames, height, width)
            self.unet(given.pop("x"), given.pop("t"), **given, **self.options)

        try:
            with self.motion.during(moved(told, self.device)):
                if self.device == META:
                    return peak_of(call, chain(self.unet.parameters(), self.motion.parameters()))
                return measured(call, self.device)
        finally:
            empty(self.unet)


def _fused(func: Any, q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``FusedAttention`` for ComfyUI's network, which chooses a kernel by the device."""
    return torch.empty_like(q)


def our_unet(config: UNetConfig, device: torch.device = META) -> nn.Module:
    """``modules/nets/unet.py``'s."""
    with device:
        return UNet(config).half().requires_grad_(False)


def comfy_unet(config: UNetConfig) -> nn.Module:
    """ComfyUI's."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    made = UNetModel(**config.comfyui(), device=META, dtype=torch.float16, operations=comfy.ops.disable_weight_init)
    return made.requires_grad_(False)
