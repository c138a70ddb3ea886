"""What guidance by gradients takes of the memory: ``python benchmarks/guidance_memory.py``, one JSON line per case.

Bytes beyond the weights at their most, over samplings of 16 frames with CFG: plain, guided, and guided without computing again
(``checkpoint`` off). Every storage is followed from its making to its end (``tests/helpers/simulated.py``), on any machine. The
small models are sampled in earnest by the host that is there, ComfyUI where it is found (``COMFYUI_PATH``); of SD1.5 with a
motion module in half precision, one call is gone through with tensors that have shapes and no contents, at 512x512.

``ratio`` is guided over plain and must be at most 1.3 for the small models. ``kept_ratio`` is the same without computing again.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import conftest
import torch
from pack import host
from pack.modules.guidance.reconstruction import Known, ReconstructionGuidance
from pack.modules.sampling.model_view import Guide, plain
from pack.modules.sampling.vdm import VdmSampler
from pack.modules.temporal.chunks import spatial_layers
from pack.modules.temporal.gradients import Gradients, checkpointed
from pack.modules.temporal.slots import empty, fill
from pack.modules.temporal.transformer import TemporalConfig
from simulated import ARCHITECTURES, Rig, Tracker, our_unet
from torch import Tensor

FRAMES, KNOWN, LIMIT = 16, 4, 1.3
KINDS = {"guided": Gradients(), "positive_only": Gradients("positive"), "kept": Gradients(gradient_checkpointing=False)}


def peak_of_sampling(networks: list[torch.nn.Module], run: Callable[[Guide], Any], guide: Guide) -> int:
    """Bytes beyond the weights that a sampling takes at its most; the first run loads what there is to load."""
    run(guide)
    tracker = Tracker(parameter for network in networks for parameter in network.parameters())
    with tracker:
        run(guide)
    return tracker.peak


def small_video_model() -> dict[str, Any]:
    """This pack's own kind of model, with motion modules that see the whole clip."""
    from tiny import video_model

    shape = {"heads": 2, "attentions": 1, "groups": 8, "positions": "rotary", "mask": "full"}
    model = host.video_model(video_model(temporal=TemporalConfig(**shape)))
    label = [[torch.zeros(1, 1, 1), {"pooled_output": torch.zeros(1, 4)}]]
    return {"model": model, "conditions": (label, label), "shape": (48, 8, 8)}


def small_image_model() -> dict[str, Any]:
    """ComfyUI's SD1.5 in small with an AnimateDiff module."""
    import tempfile

    from pack.modules.checkpoints.motion import load_motion_module
    from tiny_motion import image_model, motion_file, text

    with tempfile.TemporaryDirectory() as folder:
        model = host.apply_motion(image_model(), load_motion_module(motion_file(Path(folder))))
    return {"model": model, "conditions": (text(3), text(4)), "shape": (4, 16, 16)}


def sampled(name: str, model: Any, conditions: tuple[list, list], shape: tuple[int, ...]) -> dict[str, Any]:
    """The line of a small model."""
    latent, sigmas = torch.zeros(FRAMES, *shape), host.level_sigmas(model, 1)
    networks = [host.unet_of(model), *host.motion_models(model)]

    def run(guide: Guide) -> Tensor:
        with torch.inference_mode():
            return host.sample(
                *(model, *conditions), cfg=2.0, latent=latent, algorithm=VdmSampler(), seed=1, sigmas=sigmas, guide=guide
            )

    known = Known(tuple(range(KNOWN)), torch.zeros(KNOWN, *shape))
    peaks = {"plain": peak_of_sampling(networks, run, plain)}
    peaks |= {
        kind: peak_of_sampling(networks, run, ReconstructionGuidance(2.0, known, gradients=wish)) for kind, wish in KINDS.items()
    }
    return line(f"{name}, {host.name}", peaks)


class Fused(torch.autograd.Function):
    """Attention that keeps what PyTorch's fused kernels keep: its arguments and its result."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q``, ``k`` and ``v``: ``b heads n d``. Returns ``b heads n d``."""
        result = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, result)
        return result

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        """As ``q``, ``k`` and ``v``."""
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def simulated(name: str, size: int) -> dict[str, Any]:
    """The line of a model of full size: one call for both conditions, at pictures of ``size`` pixels a side."""
    config = ARCHITECTURES[name]
    rig = Rig(our_unet(config), config)
    for module in (*rig.unet.modules(), *rig.motion.modules()):
        if hasattr(module, "attention"):
            module.attention = Fused.apply
    return line(
        f"{name} with motion, {size}x{size}, fp16",
        {kind: call_of(rig, size // 8, wish) for kind, wish in {"plain": None, **KINDS}.items()},
    )


def call_of(rig: Rig, side: int, wish: Gradients | None) -> int:
    """Bytes beyond weights and inputs of one call, and of the gradient that comes back through it if one is wished for."""
    recompute = wish is not None and wish.gradient_checkpointing
    conds = 1 if wish is not None and wish.conditional else 2
    chunks, layers = rig.chunks, spatial_layers(rig.unet)
    chunks.size, chunks.conds, chunks.gradient_checkpointing = None, conds, recompute
    fill(rig.unet, rig.motion.slot_functions(), chunks.around, layers)
    given = rig._inputs(conds, FRAMES, side, side)
    tracker = Tracker([*rig.unet.parameters(), *rig.motion.parameters(), *given.values()])
    try:
        with ExitStack() as stack:
            stack.enter_context(rig.motion.during(rig.motion.frames_for(torch.arange(FRAMES, device=rig.device))))
            if recompute:
                stack.enter_context(checkpointed(rig.unet, [rig.motion], [chunks, rig.motion], layers))
            stack.enter_context(torch.set_grad_enabled(wish is not None))
            stack.enter_context(tracker)
            x = given["x"][:FRAMES].detach().requires_grad_(wish is not None)
            guess = rig.unet(x.repeat(conds, 1, 1, 1), given["t"], given["context"])
            if wish is not None:
                branches = guess.chunk(conds)
                torch.autograd.grad((branches[-1] + 7.5 * (branches[0] - branches[-1]))[:KNOWN].square().sum(), x)
    finally:
        empty(rig.unet)
    return tracker.peak


def line(name: str, peaks: dict[str, int]) -> dict[str, Any]:
    """What is printed of a model."""
    ratios = {f"{kind}_ratio" if kind != "guided" else "ratio": round(peaks[kind] / peaks["plain"], 3) for kind in KINDS}
    return {"model": name, "frames": FRAMES, **{f"{kind}_mb": round(peak / 2**20, 2) for kind, peak in peaks.items()}, **ratios}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small models")
    given = parser.parse_args()
    torch.set_num_threads(1)
    small = {"small video model": small_video_model} | (
        {"small SD1.5 with motion": small_image_model} if conftest.COMFYUI else {}
    )
    for name, make in small.items():
        found = sampled(name, **make())
        print(json.dumps(found), flush=True)
        assert found["ratio"] <= LIMIT, f"{name} takes {found['ratio']} times as much with guidance, more than {LIMIT}"
    if not given.small:
        print(json.dumps(simulated("SD1.5", 512)), flush=True)


if __name__ == "__main__":
    main()
