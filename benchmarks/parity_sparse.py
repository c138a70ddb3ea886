"""SparseCtrl: this pack's frames against Advanced-ControlNet's: ``python benchmarks/parity_sparse.py --acn PATH --ade PATH``.

Advanced-ControlNet takes SparseCtrl's temporal modules from AnimateDiff-Evolved, so both are needed; ComfyUI 0.3.68 or newer, with its
Python. One small file of the authors' layout goes through either pack's loader. A difference is ``max|ours - theirs| / max|theirs|``
over the final latents of ComfyUI's KSampler and has to be at most 1e-4.

Their loaders know base models of the real widths only. So that rows take seconds, ComfyUI's table of those is told of the small one,
and widths of temporal modules are divided as in ``parity_ade.py``.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
from parity_cases import SIZE, Models, relative_difference, uniform
from parity_models import BASES, CONTEXT, drawn, text
from peers import load, start_comfyui
from safetensors.torch import save_file
from torch import Tensor

LIMIT, WIDTH, FRAMES = 1e-4, 32, 8


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: of the row.
        rgb: whether the file takes latents; else pixels.
        frames: keyframes.
        strength: of all frames.
        hint: times the strength in keyframes.
        other: times the strength in other frames.
        motion: whether the temporal modules act.
        span: start and end percent.
    """

    name: str
    rgb: bool = True
    frames: tuple[int, ...] = (0, 7)
    strength: float = 1.0
    hint: float = 1.0
    other: float = 1.0
    motion: bool = True
    span: tuple[float, float] = (0.0, 1.0)


CASES = (
    Case("rgb, first and last"),
    Case("rgb, one in the middle", frames=(3,)),
    Case("scribble, first", rgb=False, frames=(0,)),
    Case("scribble, three", rgb=False, frames=(0, 3, 7)),
    Case("rgb, weaker", strength=0.6),
    Case("rgb, multipliers", hint=0.5, other=1.5),
    Case("rgb, without its motion", motion=False),
    Case("rgb, from 20 to 70 percent", span=(0.2, 0.7)),
)


def config(*, rgb: bool) -> Any:
    """The encoder of the small base model."""
    from pack.modules.control.sparsectrl import STEM, SparseConfig
    from pack.modules.nets.unet_config import UNetConfig

    shape = BASES["SD1.5"]
    unet = UNetConfig(
        model_channels=WIDTH,
        channel_mult=shape.mults,
        num_res_blocks=(2,) * len(shape.mults),
        transformer_depth=shape.depth,
        transformer_depth_output=shape.depth_output,
        transformer_depth_middle=shape.depth_middle,
        context_dim=CONTEXT,
    )
    return SparseConfig(unet) if rgb else SparseConfig(unet, condition=3, stem=STEM)


def sparse_file(folder: Path, *, rgb: bool) -> Path:
    """A file in the authors' layout, always the same."""
    from pack.modules.checkpoints.sparsectrl import released_state
    from pack.modules.control.sparsectrl import SparseControl
    from pack.modules.temporal.positions import sinusoid

    network = SparseControl(config(rgb=rgb))
    state = {key: drawn(key, tuple(value.shape), 3) for key, value in released_state(network).items()}
    for name in network.motion.names:
        table = sinusoid(torch.arange(32), network.slot_widths[name])[None]
        state[f"{name}.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"] = table
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sparse_{'rgb' if rgb else 'scribble'}.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def pictures(case: Case) -> Tensor:
    """Keyframes ``k h w c`` that stay as they are however a pack prepares them: grey from black to white, at the latents' size."""
    grey = uniform(len(case.frames), 8 * SIZE, 8 * SIZE, 1)
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return ((grey - low) / (high - low)).expand(-1, -1, -1, 3).contiguous()


class Vae:
    """Stands in for a VAE: means of eight by eight pixels."""

    def spacial_compression_encode(self) -> int:
        """Pixels to a latent, each way."""
        return 8

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels``: ``k h w c``. Returns ``k 4 p q``."""
        colours = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8) * 8 - 4
        return torch.cat([colours, -colours[:, :1]], dim=1)


def sampled(model: Any, conditions: tuple[Any, Any]) -> Tensor:
    """The latents that ComfyUI's own KSampler makes: ``f 4 h w``."""
    import nodes

    latent = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}
    with torch.inference_mode():
        return nodes.KSampler().sample(model, 1, 4, 3.0, "euler", "normal", *conditions, latent)[0]["samples"]


def ours(case: Case, models: Models, folder: Path) -> Tensor:
    """This pack's frames, by its own nodes."""
    from pack import host
    from pack.modules.checkpoints.sparsectrl import load_sparse_control
    from pack.modules.control.keyframes import Keyframes
    from pack.nodes.keyframes.sparsectrl import LongTakeApplySparseControl

    count = len(case.frames)
    positive, negative = LongTakeApplySparseControl.execute(
        positive=text(3),
        negative=text(4),
        sparse_control=host.sparse_control(load_sparse_control(sparse_file(folder, rgb=case.rgb))),
        keyframes=Keyframes(pictures(case), case.frames, (1.0,) * count, (0,) * count),
        vae=Vae(),
        clip_frames=FRAMES,
        strength=case.strength,
        hint_multiplier=case.hint,
        other_multiplier=case.other,
        start_percent=case.span[0],
        end_percent=case.span[1],
        motion=case.motion,
    ).result
    return sampled(models.image("SD1.5"), (positive, negative))


class Theirs:
    """Advanced-ControlNet on AnimateDiff-Evolved, for small models."""

    def __init__(self, acn: Path, ade: Path, models: Models):
        """Import both."""
        import comfy.model_detection
        import parity_ade

        parity_ade.Theirs(ade, models)
        load("advanced_controlnet", acn / "__init__.py")
        self.control = sys.modules["advanced_controlnet.adv_control.control"]
        self.sparse = sys.modules["advanced_controlnet.adv_control.control_sparsectrl"]
        unet = {**config(rgb=True).unet.comfyui(), "dtype": torch.float32}
        comfy.model_detection.unet_config_from_diffusers_unet = lambda *_: dict(unet)
        self.models = models

    def frames(self, case: Case, folder: Path) -> Tensor:
        """Its frames."""
        settings = self.sparse.SparseSettings(
            self.sparse.SparseIndexMethod(list(case.frames)),
            use_motion=case.motion,
            sparse_hint_mult=case.hint,
            sparse_nonhint_mult=case.other,
        )
        control = self.control.load_sparsectrl(str(sparse_file(folder, rgb=case.rgb)), sparse_settings=settings)
        hint = pictures(case)
        shown = self.sparse.PreprocSparseRGBWrapper(Vae().encode(hint)) if case.rgb else hint.movedim(-1, 1)
        control.set_cond_hint(shown, case.strength, case.span)
        conditions = [[[text(seed)[0][0], {"control": control, "control_apply_to_uncond": False}]] for seed in (3, 4)]
        return sampled(self.models.image("SD1.5"), (conditions[0], conditions[1]))


def main() -> int:
    """Print the table. Gives the number of rows over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--acn", type=Path, required=True, help="Advanced-ControlNet's checkout")
    parser.add_argument("--ade", type=Path, required=True, help="AnimateDiff-Evolved's checkout")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's checkout; without it, the one that the tests use")
    parser.add_argument("--write", type=Path, help="store their frames in this file, for the tests")
    given = parser.parse_args()
    base = start_comfyui(given.comfyui)
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    models, folder = Models(WIDTH), base / "models" / "controlnet"
    models.module("v3")  # AnimateDiff-Evolved complains where there is no file at all
    theirs = Theirs(given.acn, given.ade, models)
    plain = sampled(models.image("SD1.5"), (text(3), text(4)))
    over, stored = 0, {}
    for case in CASES:
        wanted = theirs.frames(case, folder)
        stored[case.name] = wanted.contiguous()
        difference, effect = relative_difference(ours(case, models, folder), wanted), relative_difference(plain, wanted)
        over += difference > LIMIT
        print(f"{case.name:30} {difference:8.1e} (the control changes {effect:.2g})", flush=True)
    if given.write:
        save_file(stored, given.write, {"made by": "benchmarks/parity_sparse.py --write", "width": str(WIDTH)})
    return over


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(min(main(), 1))
