"""Big models without big memory: tensors that have shapes but no contents, and a count of the bytes they would take.

``peak_of`` runs a function whose tensors live on PyTorch's ``meta`` device and follows every storage from the operation that makes it to the
moment when nothing refers to it any more. That is what a GPU's allocator sees, down to what it adds itself: rounding, gaps between blocks,
and the workspaces of its libraries. Attention is taken to need its result and nothing else, as PyTorch's fused kernels do.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from pack.modules.temporal.chunks import Chunks, spatial_layers
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import empty, fill, widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.unet import UNet, UNetConfig
from pack.modules.windows import WindowPlan
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
    """While open, bytes of the storages that operations make: those alive ``now``, and the most that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

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


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes beyond what exists already."""
    tracker = Tracker()
    with torch.no_grad(), FusedAttention(), tracker:
        run()
    return tracker.peak


def on_meta(frames: Frames) -> Frames:
    """The same without contents."""
    changed = {name: getattr(frames, name).to(META) for name in ("positions", "places", "weights") if getattr(frames, name) is not None}
    groups = tuple(replace(group, index=group.index.to(META), positions=group.positions.to(META)) for group in frames.groups)
    return replace(frames, **changed, groups=groups)


class Rig:
    """A U-Net of full size with a motion model in all its slots, both without contents.

    Args:
        unet: on ``meta``, in half precision.
        config: of the U-Net.
        middle: whether the middle block has a motion module.
        clip_norms: whether residual blocks take whole clips.
    """

    def __init__(self, unet: Any, config: UNetConfig, *, middle: bool = False, clip_norms: bool = False):
        self.unet, self.config, self.clip_norms = unet, config, clip_norms
        slots = {name: width for name, width in widths(unet).items() if middle or "mid" not in name}
        with META:
            self.motion = MotionModel(slots, TemporalConfig()).half().requires_grad_(False)
        self.chunks = Chunks()

    def inputs(self, conds: int, frames: int, height: int, width: int) -> dict[str, Tensor]:
        count = conds * frames
        y = self.config.label_channels
        made = {
            "x": torch.empty(count, 4, height, width, device=META, dtype=torch.float16),
            "t": torch.empty(count, device=META),
            "context": torch.empty(count, 77, self.config.context_dim or 0, device=META, dtype=torch.float16),
        }
        return made | ({"y": torch.empty(count, y, device=META, dtype=torch.float16)} if y else {})

    def peak(self, frames: int, height: int, width: int, *, conds: int = 1, chunk: int | None = None, windows: WindowPlan | None = None) -> int:
        """Bytes above the weights in one call."""
        ids = torch.arange(frames)
        told = on_meta(self.motion.frames_for(ids, None, windows.windows(frames, 0) if windows else None))
        self.chunks.size, self.chunks.conds = chunk, conds
        fill(self.unet, self.motion.slot_functions(), self.chunks.around, spatial_layers(self.unet, clip_norms=self.clip_norms))

        def call() -> None:
            given = self.inputs(conds, frames, height, width)
            self.unet(given.pop("x"), given.pop("t"), **given)

        try:
            with self.motion.during(told):
                return peak_of(call)
        finally:
            empty(self.unet)


def our_unet(config: UNetConfig) -> nn.Module:
    """``modules/unet.py``'s."""
    with META:
        return UNet(config).half().requires_grad_(False)


def comfy_unet(config: UNetConfig) -> nn.Module:
    """ComfyUI's."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    made = UNetModel(**config.comfyui(), device=META, dtype=torch.float16, operations=comfy.ops.disable_weight_init)
    return made.requires_grad_(False)
