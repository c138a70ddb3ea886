"""What the memory plan says against what a call takes: ``python benchmarks/memory.py``, one JSON line per case.

The U-Net and motion modules are of full size, in half precision. Their tensors have shapes but no contents, and every storage is
followed from its making to its end (``tests/helpers/simulated.py``), so any machine can run this. Where there is a CUDA device,
the same calls are then made on it and PyTorch's own peak is taken. ComfyUI's network is put in this pack's place where ComfyUI is
found (``COMFYUI_PATH``).

A plan has to be within 15 % of the peak. ``all_at_once_mb`` is the peak without chunks, ``saved`` how many times the chunked one
that is.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import conftest
import torch
from pack.modules.temporal.windows import WindowPlan
from simulated import ARCHITECTURES, META, Rig, comfy_unet, our_unet

LIMIT = 0.15
HALF, DENSE = WindowPlan(length=16, overlap=8), WindowPlan(length=16, overlap=14)
VIEWS = WindowPlan(length=16, overlap=12, fuse_at="module")


@dataclass(frozen=True)
class Case:
    """A call: ``size`` is the picture's, (height, width) in pixels."""

    base: str
    frames: int
    size: tuple[int, int]
    chunk: int
    conds: int = 1
    windows: WindowPlan | None = None
    clip_norms: bool = False


CASES = (
    Case("SD1.5", 256, (512, 512), 16),
    Case("SD1.5", 256, (512, 512), 16, conds=2),
    Case("SD1.5", 256, (512, 512), 16, windows=HALF),
    Case("SD1.5", 256, (512, 512), 1),
    Case("SD1.5", 48, (512, 768), 8, conds=2, windows=DENSE),
    Case("SD1.5", 64, (256, 256), 16, windows=VIEWS),
    Case("SD1.5", 24, (512, 512), 8, clip_norms=True),
    Case("SDXL", 64, (1024, 1024), 4),
    Case("SDXL", 32, (768, 1344), 2, conds=2, windows=HALF),
)


def measure(case: Case, make: Any, device: torch.device) -> dict[str, Any]:
    """One line."""
    config = ARCHITECTURES[case.base]
    rig = Rig(make(config) if device == META else make(config, device), config, clip_norms=case.clip_norms, device=device)
    shape = case.frames, case.size[0] // 8, case.size[1] // 8
    plan = rig.plan(*shape, conds=case.conds, chunk=case.chunk, windows=case.windows)
    peak = rig.peak(*shape, conds=case.conds, chunk=case.chunk, windows=case.windows)
    whole = rig.peak(*shape, conds=case.conds, windows=case.windows)
    assert abs(plan.bytes / peak - 1) <= LIMIT, f"{case}: planned {plan.bytes}, took {peak}"
    windows = case.windows and f"{case.windows.length}/{case.windows.overlap} fused at {case.windows.fuse_at}"
    return {
        **{name: value for name, value in vars(case).items() if name != "windows"},
        "windows": windows,
        "network": make.__name__,
        "device": device.type,
        "plan_mb": plan.bytes >> 20,
        "peak_mb": peak >> 20,
        "ratio": round(plan.bytes / peak, 3),
        "all_at_once_mb": whole >> 20,
        "saved": round(whole / peak, 2),
    }


def main() -> None:
    """Print the table."""
    runs = [(our_unet, META), *([(comfy_unet, META)] if conftest.COMFYUI else [])]
    runs += [(our_unet, torch.device("cuda"))] if torch.cuda.is_available() else []
    for make, device in runs:
        for case in CASES:
            print(json.dumps(measure(case, make, device)), flush=True)


if __name__ == "__main__":
    main()
