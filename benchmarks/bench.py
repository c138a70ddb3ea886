"""Time this pack against named baselines, in one process: ``python benchmarks/bench.py [--ade PATH] [case ...]``.

A case gives two callables, ours and the baseline. Their results are compared first; then both are timed in turn, and one JSON line is
printed. ``ratio`` is the baseline's time over ours: it travels between machines, milliseconds do not. A case whose baseline is not
installed says so and is left out.

``forcing`` is what the sampler itself takes of a step (``forcing_share.py``). ``steps`` is the time of a sampling step with motion modules
against the bare image model (``steps.py``): ComfyUI's own sampling, so it runs in a process of ComfyUI's Python, and beside
AnimateDiff-Evolved where its checkout is given. ``train`` is a step of training a motion module against diffusers, and its memory
(``train_step.py``), and what a step waits for clips that are read ahead (``read_ahead.py``).
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import forcing_share
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from modules.sampling.noise_levels import NoiseLevels
from modules.temporal.frames import Frames
from modules.temporal.transformer import TemporalConfig, TemporalTransformer

Case = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def matrix() -> Case:
    """The pyramid's matrix against a double loop over rows and frames, as Diffusion Forcing's release writes it."""
    steps, frames = 50, 64

    def loop() -> Tensor:
        levels = torch.zeros(steps + frames, frames, dtype=torch.int64)
        for row in range(steps + frames):
            for frame in range(frames):
                levels[row, frame] = min(max(steps + frame - row, 0), steps)
        return levels

    return lambda: NoiseLevels.named("pyramid", frames, steps).matrix(), loop


def calls() -> Case:
    """The plan of a 2,000-frame take, call by call, against slicing windows out of its whole matrix."""
    levels, window = NoiseLevels.named("pyramid", 2000, 12, lag=3), 16

    def ours() -> Tensor:
        return torch.tensor(
            [
                (int(call.ids[0]), int(call.ids[-1]) + 1, int(call.before.sum()), int(call.after.sum()))
                for call in levels.rows(window)
            ]
        )

    def sliced() -> Tensor:
        states = levels.matrix()
        rows = []
        for before, after in zip(states[:-1], states[1:], strict=True):
            moving = (before != after).nonzero()
            low, high = max(0, int(moving[0]) - (window - 4)), int(moving[-1]) + 1
            rows.append((low, high, int(before[low:high].sum()), int(after[low:high].sum())))
        return torch.tensor(rows)

    return ours, sliced


def temporal() -> Case:
    """One temporal transformer of SD1.5's size, 16 frames of 16x16, against diffusers' module with the norm put per frame."""
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    torch.manual_seed(0)
    channels, frames, size = 320, 16, 16
    mine = TemporalTransformer(channels, TemporalConfig()).eval()
    theirs = AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=channels // 8,
        in_channels=channels,
        norm_num_groups=32,
        activation_fn="geglu",
        attention_bias=False,
        double_self_attention=True,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    ).eval()
    source = mine.state_dict()
    block = "transformer_blocks.0."
    names = {f"{block}norm3.": f"{block}ff_norm.", f"{block}norm1.": f"{block}norms.0.", f"{block}norm2.": f"{block}norms.1."}
    names |= {f"{block}attn{i + 1}.": f"{block}attention_blocks.{i}." for i in (0, 1)}

    def renamed(key: str) -> str:
        for theirs_name, ours_name in names.items():
            if key.startswith(theirs_name):
                return ours_name + key.removeprefix(theirs_name)
        return key

    theirs.load_state_dict(
        {key: value if key.endswith("pos_embed.pe") else source[renamed(key)] for key, value in theirs.state_dict().items()}
    )
    norm = theirs.norm
    theirs.norm = PerFrame(norm)
    x = torch.randn(frames, channels, size, size)
    shown = Frames.of(frames)

    @torch.inference_mode()
    def ours() -> Tensor:
        return mine(x, shown)

    @torch.inference_mode()
    def baseline() -> Tensor:
        return theirs(x, num_frames=frames)

    return ours, baseline


class PerFrame(torch.nn.Module):
    """A group norm over ``b c f h w`` that sees one frame at a time, as AnimateDiff's own code does."""

    def __init__(self, norm: torch.nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        flat = self.norm(x.transpose(1, 2).flatten(0, 1))
        return flat.unflatten(0, (count, -1)).transpose(1, 2)


CASES: dict[str, Callable[[], Case]] = {case.__name__: case for case in (matrix, calls, temporal)}


def measure(name: str) -> dict:
    ours, baseline = CASES[name]()
    torch.testing.assert_close(ours(), baseline(), rtol=1e-4, atol=1e-4)
    times = [
        Timer("f()", globals={"f": f}, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=1).median
        for f in (ours, baseline)
    ]
    return {
        "case": name,
        "ratio": round(times[1] / times[0], 2),
        "ours_ms": round(times[0] * 1e3, 3),
        "baseline_ms": round(times[1] * 1e3, 3),
        "torch": torch.__version__,
        "device": platform.machine(),
    }


def steps(ade: Path | None) -> int:
    """Run ``steps.py`` with the Python of the ComfyUI that the tests would use. Gives its exit status."""
    from host import find

    checkout = find.find(ROOT)
    if checkout is None:
        print("steps: left out, no ComfyUI is found (set COMFYUI_PATH)", flush=True)
        return 0
    command = [str(find.python_of(checkout)), str(ROOT / "benchmarks" / "steps.py"), "--comfyui", str(checkout)]
    return subprocess.run([*command, *(["--ade", str(ade)] if ade else [])], check=False).returncode


def train(ade: Path | None) -> int:  # noqa: ARG001  rows of one table share a signature
    """Run ``train_step.py`` and ``read_ahead.py``, which import the pack in their own way, each in a process. Gives the worst status."""
    scripts = [str(ROOT / "benchmarks" / name) for name in ("train_step.py", "read_ahead.py")]
    return max(subprocess.run([sys.executable, script], check=False).returncode for script in scripts)


# cases that print their own line: (AnimateDiff-Evolved's checkout or None) -> exit status
APART: dict[str, Callable[[Path | None], int]] = {"forcing": lambda ade: forcing_share.main(), "steps": steps, "train": train}


def main() -> int:
    """Print the cases asked for, or all. Gives 1 if a promised ratio is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ade", type=Path, help="an AnimateDiff-Evolved checkout, for the case steps")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES, *APART], help="left out: all")
    given = parser.parse_args()
    status = 0
    for name in given.cases or [*CASES, *APART]:
        if name in APART:
            status |= APART[name](given.ade)
            continue
        try:
            print(json.dumps(measure(name)), flush=True)
        except ImportError as error:
            print(f"{name}: left out, its baseline is not installed ({error})", flush=True)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
