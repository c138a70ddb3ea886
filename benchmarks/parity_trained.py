"""What Train Motion writes, opened by AnimateDiff-Evolved: ``python benchmarks/parity_trained.py --ade PATH``.

A motion module in both layouts and a MotionLoRA in AnimateDiff's are trained for a few steps by this pack's node, and then sampled by both
packs' own nodes on the same image model, as ``parity_ade.py`` does it. (Theirs does not read PEFT's keys.) A difference is
``max|ours - theirs| / max|theirs|`` and has to be at most 1e-4; beside it stands how far what was trained moves the frames, which has to
be far more.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
from parity_ade import LIMIT, Theirs
from parity_cases import Case, Models, ours, relative_difference, text
from peers import start_comfyui
from torch import Tensor, nn

FRAMES, SIZE, WIDTH = 8, 64, 32
MOVES = 0.01  # at least, by what was trained


class Squares:
    """In the place of a VAE: eight pixels each way are one latent."""

    patch = 8

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels``: ``f h w c`` in 0..1. Returns ``f c h w``."""
        small = nn.functional.avg_pool2d(pixels.movedim(-1, 1), self.patch)
        return torch.cat([small, small.mean(1, keepdim=True)], 1) * 8 - 4

    def decode(self, latents: Tensor) -> Tensor:
        """``latents``: ``f c h w``. Returns ``f h w c`` in 0..1."""
        return nn.functional.interpolate((latents[:, :3] + 4) / 8, scale_factor=self.patch).movedim(1, -1).clamp(0, 1)


def trained(model: Any, what: str, name: str, layout: str, module: Any = None) -> str:
    """Train something on moving shapes. Gives the file's name in the menu of the node that loads it."""
    from pack.nodes.train.data import LongTakeShapesClips
    from pack.nodes.train.train_motion import LongTakeTrainMotion
    from pack.nodes.train.training_options import LongTakeTrainingOptions

    clips = LongTakeShapesClips.execute(count=4, frames=FRAMES, size=SIZE).args[0]
    options = LongTakeTrainingOptions.execute(
        layout=layout, warmup=1, sample_steps=1, sample_cfg=1.0, watch_every=0, ema=0.0
    ).args[0]
    inputs = {"what": what, "name": name, "steps": 4, "learning_rate": 0.02, "rank": 4, "options": options}
    with torch.inference_mode():
        return LongTakeTrainMotion.execute(
            model=model, clips=clips, vae=Squares(), conditioning=text(3, 1), motion_module=module, **inputs
        ).args[1]


def main() -> int:
    """Print the table. Gives the number of rows that are not as they should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ade", type=Path, required=True, help="AnimateDiff-Evolved's checkout")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's checkout; without it, the one that the tests use")
    given = parser.parse_args()
    start_comfyui(given.comfyui)
    import comfy.utils
    import folder_paths

    comfy.utils.PROGRESS_BAR_ENABLED = False
    models = Models(WIDTH)
    image, module = models.image("SD1.5"), models.module("v3")
    from pack.modules.checkpoints.motion import load_motion_module

    released = load_motion_module(Path(folder_paths.models_dir) / "animatediff_models" / module)
    rows = {
        f"{what}, {layout}": trained(image, what, f"{what}_{layout}", layout, released if what == "motion_lora" else None)
        for what in ("motion_module", "motion_lora")
        for layout in ("AnimateDiff", "diffusers")
        if (what, layout) != ("motion_lora", "diffusers")
    }
    theirs, wrong = Theirs(given.ade, models), 0
    still = ours(Case("the released module", frames=FRAMES), models)
    for row, file in rows.items():
        of_module = row.startswith("motion_module")
        vars(models).update(
            module=lambda family, file=file, of_module=of_module: file if of_module else module,
            motion_lora=lambda family, file=file: file,
        )
        case = Case(row, frames=FRAMES, motion_lora=0.0 if of_module else 1.0)
        mine, other = ours(case, models), theirs.frames(case)
        difference, moved = relative_difference(mine, other), relative_difference(mine, still)
        bad = difference > LIMIT or moved < MOVES
        wrong += bad
        print(f"{row:32} {difference:8.1e}  moves the frames by {moved:.2g}{'  WRONG' if bad else ''}", flush=True)
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(min(main(), 1))
