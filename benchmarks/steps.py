"""The time of a sampling step with motion modules, as a ratio to the bare image model in the same run: ``python benchmarks/steps.py``.

Inside ComfyUI, through its own KSampler, on a random model of SD1.5's shape (``--width 320`` is its size) with a random AnimateDiff v3
module; with ``--ade PATH`` AnimateDiff-Evolved is timed beside them. Before anything is timed, results are compared: ours with one motion
module after the other computed window by window, written out below, and with AnimateDiff-Evolved's where it does the same.

A step is what lies between two of the sampler's callbacks; the figure is the median over all of them. What is timed takes turns, so a
busy machine disturbs all of it alike.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import parity_models
import torch
from peers import Peer, start_comfyui
from torch import Tensor

parity_models.TOKENS, parity_models.CONTEXT = 77, 768  # a real prompt's size, since the bare model's time is what counts
CFG = 1.0


@dataclass(frozen=True)
class Setting:
    """One row: a clip of ``frames`` frames of ``size`` latent pixels a side; ``limit`` is what is promised of temporal windows."""

    name: str
    frames: int
    size: int
    length: int = 0  # 0: one window
    overlap: int = 0
    limit: float = 2.0


SETTINGS = (
    Setting("16 frames, 128x128, one window", 16, 16, limit=1.46),
    Setting("48 frames, 64x64, windows 16/8", 48, 8, 16, 8, limit=1.42),
    Setting("256 frames, 64x64, windows 16/8", 256, 8, 16, 8, limit=1.42),
)


class Clock:
    """The times between a sampler's callbacks."""

    now: Callable[[], float] = staticmethod(time.perf_counter)
    steps = 3

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def sample(self, model: Any, setting: Setting) -> Tensor:
        """Latents after ``steps`` steps of Euler's method, ``f c h w``; the first step is not timed, since models are loaded there."""
        import comfy.sample
        import comfy.samplers

        latent = torch.zeros(setting.frames, 4, setting.size, setting.size)
        noise = comfy.sample.prepare_noise(latent, 1)
        marks: list[float] = []
        with torch.inference_mode():
            result = comfy.sample.sample(
                model,
                noise,
                Clock.steps,
                CFG,
                "euler",
                "normal",
                parity_models.text(3),
                parity_models.text(4),
                latent,
                callback=lambda *_: marks.append(Clock.now()),
                disable_pbar=True,
                seed=1,
            )
        self.seconds += [after - before for before, after in zip(marks, marks[1:], strict=False)]
        return result


def build(width: int, folder: Path) -> tuple[Any, Any]:
    """(MODEL, loaded motion module)."""
    from pack.modules.checkpoints.motion import load_motion_module

    model = parity_models.image_model("SD1.5", width)
    return model, load_motion_module(folder / parity_models.motion_file(folder, "v3", width))


def scheduled(model: Any, like: Any) -> Any:
    """The bare model with another's noise schedule."""
    patched = model.clone()
    patched.add_object_patch("model_sampling", like.get_model_object("model_sampling"))
    return patched


def ours(model: Any, motion: Any, setting: Setting, mode: str) -> Any:
    """The model with motion, and windows if the setting has them."""
    from pack import host
    from pack.modules.temporal.windows import WindowPlan, fused_at

    animated = host.apply_motion(model, motion)
    if not setting.length:
        return animated
    return host.context_windows(
        animated, WindowPlan(length=setting.length, overlap=setting.overlap, fuse_at=fused_at(mode)), mode
    )


def theirs(peer: Peer, file: str, model: Any, setting: Setting, mode: str) -> Any:
    """AnimateDiff-Evolved's, with context or view options."""
    call = peer.call
    group = call("ADE_ApplyAnimateDiffModelSimple", motion_model=call("ADE_LoadAnimateDiffModel", model_name=file))
    context = None
    sizes = (setting.length, setting.overlap)
    if setting.length and mode == "whole":
        context = call(
            "ADE_StandardStaticContextOptions", context_length=sizes[0], context_overlap=sizes[1], fuse_method="pyramid"
        )
    elif setting.length:
        views = call("ADE_StandardStaticViewOptions", view_length=sizes[0], view_overlap=sizes[1], fuse_method="pyramid")
        context = call("ADE_ViewsOnlyContextOptions", view_opts_req=views)
    return call("ADE_UseEvolvedSampling", model=model, beta_schedule="autoselect", m_models=group, context_options=context)


@contextmanager
def written_out(model: Any, motion: Any, setting: Setting) -> Iterator[None]:
    """The model with motion modules computed plainly after their layers: every window projected anew, pixels all at once."""
    from pack import host
    from pack.modules.temporal.slots import slots
    from pack.modules.temporal.windows import WindowPlan

    network, count = motion.build(), setting.frames
    plan = WindowPlan(length=setting.length or count, overlap=setting.overlap)
    windows = plan.windows(count, 0)
    pairs = (
        [(torch.arange(count), torch.ones(count))]
        if windows is None
        else [(row, worth) for index, weight in windows.groups for row, worth in zip(index, weight, strict=True)]
    )

    def attended(x: Tensor, attend: Any) -> Tensor:
        x = attend.pos_encoder.add(x, torch.arange(x.shape[1]))
        q, k, v = (project(x).unflatten(2, (8, -1)).transpose(1, 2) for project in (attend.to_q, attend.to_k, attend.to_v))
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        return attend.to_out((weights @ v).transpose(1, 2).flatten(2))

    def after(module: Any) -> Callable[..., Tensor]:
        def hook(_layer: Any, _inputs: Any, h: Tensor) -> Tensor:
            block, size = module.transformer_blocks[0], h.shape[-1]
            tokens = module.proj_in(module.norm(h).unflatten(0, (-1, count)).permute(0, 3, 4, 1, 2).flatten(0, 2))
            for attend, norm in zip(block.attention_blocks, block.norms, strict=True):
                fused, normed = torch.zeros_like(tokens), norm(tokens)
                for row, worth in pairs:
                    fused[:, row] += worth[:, None] * attended(normed[:, row], attend)
                tokens = tokens + fused
            tokens = module.proj_out(tokens + block.ff(block.ff_norm(tokens)))
            return h + tokens.unflatten(0, (-1, size, size)).permute(0, 3, 4, 1, 2).flatten(0, 1)

        return hook

    places = slots(host.unet_of(model))
    hooks = [places[name].register_forward_hook(after(network.at(name))) for name in network.names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def measure(setting: Setting, width: int, rounds: int, peer: Peer | None, folder: Path, modes: tuple[str, ...]) -> dict[str, Any]:
    """One row, as JSON's types."""
    model, motion = build(width, folder)
    modes = modes if setting.length else ("temporal",)
    models = {f"ours, {mode}" if setting.length else "ours": ours(model, motion, setting, mode) for mode in modes}
    first = next(iter(models))
    bare = scheduled(model, models[first])
    if peer is not None:
        shown = [mode for mode in modes if mode != "temporal"] or ["whole"]
        models |= {f"ADE, {mode}" if setting.length else "ADE": theirs(peer, motion.name, model, setting, mode) for mode in shown}
    clocks = {name: Clock() for name in ("bare", *models)}
    frames = {name: clocks[name].sample(each, setting) for name, each in models.items()}
    clocks["bare"].sample(bare, setting)  # takes the others' modules out of the layers
    with written_out(model, motion, setting):
        error = apart(frames[first], Clock().sample(bare, setting))
    assert error < 1e-4, f"{setting.name}: ours and the plain computation are {error:.1e} apart"
    pairs = [("ours", "ADE"), ("ours, views", "ADE, views"), ("ours, whole", "ADE, whole")]
    errors = {theirs_: apart(frames[name], frames[theirs_]) for name, theirs_ in pairs if name in frames and theirs_ in frames}
    assert all(value < 1e-4 for value in errors.values()), f"{setting.name}: {errors}"
    for clock in clocks.values():
        clock.seconds.clear()
    for _ in range(rounds):
        clocks["bare"].sample(bare, setting)
        for name, each in models.items():
            clocks[name].sample(each, setting)
    medians = {name: statistics.median(clock.seconds) for name, clock in clocks.items()}
    ratios = {name: round(value / medians["bare"], 3) for name, value in medians.items() if name != "bare"}
    row = {
        "case": setting.name,
        "bare_s": round(medians["bare"], 3),
        **ratios,
        "limit": setting.limit,
        "error": f"{error:.0e}",
        "error_ade": {name: f"{value:.0e}" for name, value in errors.items()},
        "clock": Clock.now.__name__,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return {**row, "within": ratios[first] <= setting.limit}


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line per setting. Gives 1 if a ratio is above its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ade", type=Path, help="an AnimateDiff-Evolved checkout")
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI checkout; left out: the one that the tests would use")
    parser.add_argument("--width", type=int, default=320, help="channels at the finest level")
    parser.add_argument("--rounds", type=int, default=3, help="samplings of each")
    parser.add_argument("--steps", type=int, default=3, help="of each sampling, at least 2; the first is not timed")
    parser.add_argument("--modes", default="temporal,views,whole", help="of windows, the first always temporal")
    parser.add_argument("--threads", type=int, help="of torch; left out: its own choice")
    parser.add_argument(
        "--busy", action="store_true", help="count one thread's CPU time, for a machine that does other things too"
    )
    parser.add_argument("rows", type=int, nargs="*", help="which settings, from 0; left out: all")
    given = parser.parse_args(arguments)
    if given.busy:
        Clock.now = staticmethod(time.process_time)
    if given.threads or given.busy:
        torch.set_num_threads(1 if given.busy else given.threads)
    Clock.steps = given.steps
    base = start_comfyui(given.comfyui)
    folder = base / "models" / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    peer = None if given.ade is None else Peer("animatediff_evolved", given.ade)
    rows = [SETTINGS[place] for place in given.rows] if given.rows else SETTINGS
    within = True
    for setting in rows:
        row = measure(setting, given.width, given.rounds, peer, folder, tuple(given.modes.split(",")))
        within &= row.pop("within")
        print(json.dumps(row), flush=True)
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
