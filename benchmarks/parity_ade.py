"""This pack's frames against AnimateDiff-Evolved's: ``python benchmarks/parity_ade.py --ade PATH``.

Both packs' own nodes run in one process inside ComfyUI (0.3.68 or newer, which AnimateDiff-Evolved asks for; run with ComfyUI's
Python), on the same weights, seeds and settings. Models are random, of SD1.5's and SDXL's block structure; a row of the table is a row
of ``parity_cases.CASES``. A difference is ``max|ours - theirs| / max|theirs|`` over the final latents and has to be at most 1e-4.

Where AnimateDiff-Evolved departs from the authors of a module, it is set right by hand; rows called "as shipped" show by how much:

- norms: for AnimateDiff v1, its SDXL beta, HotshotXL and PIA it lets every norm of the model see all frames. In the releases only some do
  (``parity_models.FAMILIES``), so here its replacement is confined to those.
- AnimateLCM: its schedule is scaled linear with 50 steps, the authors' is linear with 100. It gets theirs through its own nodes.

Its motion modules come in the real widths only (320 channels and up). So that all rows take minutes, widths are divided where it
constructs them; ``--width 320`` runs the real ones, without that.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
import torch.nn.functional as F
from parity_cases import CASES, Case, Context, Mask, Models, PerFrame, Strength, ours, relative_difference, sampled
from parity_models import FAMILIES
from peers import Peer, start_comfyui
from safetensors.torch import save_file
from torch import Tensor, nn

LIMIT = 1e-4
REAL_WIDTH = 320
CONTEXTS = {
    "standard_static": "StandardStatic",
    "standard_uniform": "StandardUniform",
    "looped_uniform": "LoopedUniform",
    "batched": "Batched",
}


class Theirs:
    """AnimateDiff-Evolved, with motion modules of any width and norms that can be confined to some layers."""

    def __init__(self, checkout: Path, models: Models):
        """Import it."""
        self.peer = Peer("animatediff_evolved", checkout)
        self.models = models
        self.across: set[int] | None = None  # ids of the norms that see the whole clip; None for all, as it ships
        self._confine_norms()
        if models.width != REAL_WIDTH:
            self._divide_widths(models.width)
        for name in ("AnimateDiffEvo", "longtake"):  # which warns of clips shorter than those of training
            logging.getLogger(name).setLevel(logging.ERROR)

    def _divide_widths(self, width: int) -> None:
        file = self.peer.module("animatediff.motion_module_ad")
        original = file.MotionModule
        file.MotionModule = lambda channels, **options: original(channels * width // REAL_WIDTH, **options)

    def _confine_norms(self) -> None:
        """Where it makes every norm of the model run across frames, let only those in ``across`` do."""
        file = self.peer.module("animatediff.sampling")
        original = file.groupnorm_mm_factory

        def factory(*args: Any, **options: Any) -> Callable[[nn.GroupNorm, Tensor], Tensor]:
            over_clip = original(*args, **options)

            def forward(norm: nn.GroupNorm, x: Tensor) -> Tensor:
                if self.across is None or id(norm) in self.across:
                    return over_clip(norm, x)
                return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)

            return forward

        file.groupnorm_mm_factory = factory

    def frames(self, case: Case) -> Tensor:
        """Its frames."""
        call, group = self.peer.call, None
        for family in case.modules:
            loaded = call("ADE_LoadAnimateDiffModel", model_name=self.models.module(family))
            group = call("ADE_ApplyAnimateDiffModel", motion_model=loaded, prev_m_models=group, **self._strengths(case))
        model = call(
            "ADE_UseEvolvedSampling",
            model=self.models.styled(case),
            beta_schedule="autoselect",
            m_models=group,
            context_options=None if case.context is None else self._context(case.context),
            sample_settings=self._settings(case),
        )
        self.across = None if case.shipped else {id(norm) for norm in self._norms(FAMILIES[case.modules[0]].norms, model, group)}
        return sampled(model, case)

    def _norms(self, scope: str, model: Any, group: Any) -> list[nn.GroupNorm]:
        """The norms that see a whole clip in a family's training."""
        unet = model.model.diffusion_model
        if scope == "residual":
            blocks = [layer for layer in unet.modules() if hasattr(layer, "emb_layers")]
            return [unet.out[0], *(layer.in_layers[0] for layer in blocks), *(layer.out_layers[0] for layer in blocks)]
        if scope == "module":
            modules = [module for motion in group.models for module in motion.model.modules()]
            return [module.temporal_transformer.norm for module in modules if hasattr(module, "temporal_transformer")]
        return []

    def _strengths(self, case: Case) -> dict[str, Any]:
        call = self.peer.call
        inputs: dict[str, Any] = {
            "start_percent": case.span[0],
            "end_percent": case.span[1],
            **self._multivals(case.strength, case.frames),
        }
        for percent, strength in case.later.items():
            values = self._multivals(strength, case.frames)
            inputs["ad_keyframes"] = call(
                "ADE_AnimateDiffKeyframe", start_percent=percent, prev_ad_keyframes=inputs.get("ad_keyframes"), **values
            )
        if case.blocks:
            inputs["per_block"] = self._per_block(case.blocks)
        if case.motion_lora:
            file = self.models.motion_lora(case.modules[0])
            inputs["motion_lora"] = call("ADE_AnimateDiffLoRALoader", name=file, strength=case.motion_lora)
        return inputs

    def _multivals(self, strength: Strength, frames: int) -> dict[str, Any]:
        inputs = {}
        for name, value in vars(strength).items():
            if isinstance(value, Mask):
                made = self.peer.call("ADE_MultivalDynamic", float_val=1.0, mask_optional=value.values(frames))
            elif isinstance(value, PerFrame):
                made = self.peer.call("ADE_MultivalDynamicFloats", floats=value.values(frames))
            else:
                made = self.peer.call("ADE_MultivalDynamic", float_val=value)
            inputs[f"{name}_multival"] = made
        return inputs

    def _per_block(self, blocks: Mapping[str, Strength]) -> Any:
        whole = all("." not in place for place in blocks)
        parts = {place.replace(".", "_", 1).replace(".", "__"): self._block(strength) for place, strength in blocks.items()}
        return self.peer.call("ADE_PerBlockHighLevel" if whole else "ADE_PerBlock_SD15_LowLevel", **parts)

    def _block(self, strength: Strength) -> Any:
        scales = strength.scale if isinstance(strength.scale, tuple) else (strength.scale,) * 2
        return self.peer.call("ADE_ADBlockIndiv", effect=strength.effect, scale_0=scales[0], scale_1=scales[1])

    def _context(self, context: Context) -> Any:
        kind, whole = CONTEXTS[context.schedule], context.mode == "whole"
        name = "context" if whole else "view"
        inputs: dict[str, Any] = {f"{name}_length": context.length}
        if context.schedule != "batched":
            inputs |= {f"{name}_overlap": context.overlap, "fuse_method": context.fuse}
        if "uniform" in context.schedule:
            inputs[f"{name}_stride"] = context.stride
        if context.schedule == "looped_uniform":
            inputs["closed_loop"] = context.closed_loop
        if whole:
            return self.peer.call(f"ADE_{kind}ContextOptions", **inputs)
        return self.peer.call("ADE_ViewsOnlyContextOptions", view_opts_req=self.peer.call(f"ADE_{kind}ViewOptions", **inputs))

    def _settings(self, case: Case) -> Any:
        schedule, steps = None, FAMILIES[case.modules[0]].lcm_steps
        if steps and not case.shipped:
            schedule = self.peer.call(
                "ADE_RawSigmaSchedule",
                raw_beta_schedule="sqrt_linear",
                linear_start=0.00085,
                linear_end=0.012,
                sampling="lcm",
                lcm_original_timesteps=steps,
                zsnr=False,
            )
        kind = "FreeNoise" if case.free_noise else "default"
        return self.peer.call(
            "ADE_AnimateDiffSamplingSettings",
            batch_offset=0,
            noise_type=kind,
            seed_gen="comfy",
            seed_offset=0,
            sigma_schedule=schedule,
        )


def compared(case: Case, theirs: Theirs, models: Models) -> tuple[float, str]:
    """The relative difference, and the row of the table."""
    started = time.perf_counter()
    wanted = theirs.frames(case)
    between = time.perf_counter()
    difference = relative_difference(ours(case, models), wanted)
    seconds = f"{between - started:5.1f} {time.perf_counter() - between:5.1f}"
    verdict = f"({case.information})" if case.information else "" if difference <= LIMIT else f"OVER {LIMIT:g}"
    return difference, f"{case.name:52} {difference:8.1e} {seconds}  {verdict}"


def write(path: Path, theirs: Theirs, comfyui: str) -> None:
    """Store theirs for the cases that our tests repeat, in their small form."""
    frames = {case.name: theirs.frames(case.small()).contiguous() for case in CASES if case.golden}
    about = {
        "made by": "benchmarks/parity_ade.py --write",
        "width": str(theirs.models.width),
        "torch": torch.__version__,
        "ComfyUI": comfyui,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(frames, path, about)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ade", type=Path, required=True, help="AnimateDiff-Evolved's checkout")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's checkout; without it, the one that the tests use")
    parser.add_argument(
        "--width", type=int, default=32, help="channels at the finest level, a multiple of 32; the real models have 320"
    )
    parser.add_argument("--only", default="", help="only rows with this in their names")
    parser.add_argument("--small", action="store_true", help="half as many frames, as in the stored file")
    parser.add_argument("--write", type=Path, help="store their frames of the rows that our tests repeat, in this file")
    return parser.parse_args()


def main() -> int:
    """Print the table. Gives the number of rows over the limit."""
    given = arguments()
    start_comfyui(given.comfyui)
    import comfy.utils
    import comfyui_version

    comfy.utils.PROGRESS_BAR_ENABLED = False
    models = Models(given.width)
    models.module("v3")  # it complains where there is no file at all
    theirs = Theirs(given.ade, models)
    if given.write:
        write(given.write, theirs, comfyui_version.__version__)
    over = 0
    print(f"{'':52}     diff theirs ours (s)")
    for case in [case.small() if given.small else case for case in CASES if given.only in case.name]:
        difference, row = compared(case, theirs, models)
        over += difference > LIMIT and not case.information
        print(row, flush=True)
    return over


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(min(main(), 1))
