"""What this pack does on a GPU, in one call of under ten minutes: ``python benchmarks/gpu.py [LINE ...]``, JSON lines.

Each line runs in a process of its own, within its share of the time, so one that fails or runs out of memory takes no other with it.
Without CUDA nothing is measured; ``--small`` runs every line with small sizes on the CPU, to see that it works.

- ``causal``: a network of Wan 2.1 1.3B's shape with random weights at 480x832 in bfloat16: seconds a block and peak memory of Causal Take
  (a cache for 12 frames with 3 sink frames) and of ComfyUI's own ``ar_video`` sampler, for takes that double in length until the time is
  over or ComfyUI's runs out of memory. Needs ComfyUI 0.33 (``COMFYUI_PATH``).
- ``attention``: temporal attention and local windows, by shape: PyTorch's, ComfyUI's chosen one and xFormers' where they are installed;
  their results are compared first, and the fastest is named.
- ``compile``: a temporal transformer, as it is and by ``torch.compile``.
- ``steps``, ``memory``, ``fifo``: ``steps.py``, ``memory.py`` and ``fifo_memory.py``, as they are.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "helpers")]

import torch
import torch.nn.functional as F
from torch import Tensor

NO_CUDA = "gpu.py measures on a CUDA device and there is none: run it on a machine with one, or with --small on this one"
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}  # of the largest entry, between two attentions
WAN = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "text_dim": 4096, "num_heads": 12, "num_layers": 30}
Results = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Where:
    """What a line runs on.

    Attributes:
        small: whether sizes are small.
        seconds: that it may take.
    """

    small: bool
    seconds: float

    @property
    def device(self) -> str:
        """Of torch."""
        return "cpu" if self.small else "cuda"

    def measured(self, work: Callable[[], object], rounds: int = 1) -> dict[str, float]:
        """Seconds of one of some rounds, and the most memory in GB."""
        if not self.small:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(rounds):
            work()
        if not self.small:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / rounds
        peak = {} if self.small else {"peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)}
        return {"seconds": float(f"{seconds:.3g}"), **peak}


def causal(where: Where) -> Results:  # noqa: PLR0915  two samplers and what they run on
    """Ours and ComfyUI's, take by take."""
    import conftest  # noqa: F401  makes the pack and ComfyUI importable
    import tiny_wan
    from pack import host
    from pack.modules.sampling.causal import CausalTake
    from pack.modules.sampling.causal_systems import SYSTEMS

    if host.name != "comfyui":
        raise ValueError("this line needs ComfyUI: set COMFYUI_PATH")
    import comfy.model_base
    import comfy.samplers

    shape, dtype, size = (tiny_wan.SHAPE, torch.float32, (4, 6)) if where.small else (WAN, torch.bfloat16, (60, 104))
    given = {"dtype": dtype, "device": where.device, "text_len": 512, **shape}
    prompt = [[torch.randn(1, 512, shape["text_dim"]), {}]]
    system = SYSTEMS["LongLive 1.0"]
    sigmas = torch.cat([system.sigmas().flip(0)])

    def ours(model: Any, frames: int) -> None:
        take = CausalTake.of(system.plan(frames))
        host.sample(
            host.apply_causal(model, system.cache),
            prompt,
            None,
            cfg=1.0,
            latent=torch.zeros(1, 16, frames, *size),
            algorithm=take,
            seed=1,
            sigmas=system.sigmas(),
        )

    def theirs(model: Any, frames: int) -> None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(prompt, prompt)
        guider.set_cfg(1.0)
        sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": system.block})
        latent = torch.zeros(1, 16, frames, *size)
        guider.sample(torch.randn(latent.shape), latent, sampler, sigmas, seed=1, disable_pbar=True)

    runs: dict[str, tuple[Callable[[Any, int], None], Any]] = {"Causal Take": (ours, tiny_wan.wan_model(**given))}
    if hasattr(comfy.model_base, "WAN21_CausalAR"):
        runs["ComfyUI's ar_video"] = theirs, tiny_wan.wan_model(kind="WAN21_CausalAR", **given)
    deadline = time.perf_counter() + where.seconds
    for run, model in runs.values():
        run(model, system.block)  # loads and warms up
    frames = 6 if where.small else 21
    while runs and time.perf_counter() < deadline:
        for name, (run, model) in list(runs.items()):
            row = {"sampler": name, "frames": frames, "pictures": 4 * frames - 3}
            try:
                found = where.measured(partial(run, model, frames))
            except torch.OutOfMemoryError:
                del runs[name]
                yield {**row, "out_of_memory": True}
                continue
            yield {**row, **found, "seconds_a_block": float(f"{found['seconds'] * system.block / frames:.3g}")}
        if where.small and frames >= 12:
            return
        frames *= 2


def attention(where: Where) -> Results:
    """Backends by shape: ``(rows, tokens, heads, width)``, over as many keys or more."""
    dtype = torch.float32 if where.small else torch.float16
    temporal = [(4096, 16, 8, 40), (4096, 32, 8, 40), (1024, 16, 8, 80), (256, 16, 8, 160)]
    shapes = {f"temporal {shape}": (*shape, shape[1]) for shape in temporal}
    shapes |= {"window of 16 in 48": (4096 * 5, 16, 8, 40, 16), "causal block over a cache of 12": (1, 4680, 12, 128, 18720)}
    for name, (rows, tokens, heads, width, keys) in shapes.items():
        rows, tokens, keys = (max(1, number // 64) if where.small and number > 64 else number for number in (rows, tokens, keys))
        sizes = [(rows, heads, count, width) for count in (tokens, keys, keys)]
        q, k, v = (torch.randn(size, device=where.device, dtype=dtype) for size in sizes)
        expected, seconds = None, {}
        for backend, call in backends().items():
            try:
                made = call(q, k, v)
            except (RuntimeError, NotImplementedError, ValueError) as error:
                seconds[backend] = f"refuses: {str(error).splitlines()[0][:80]}"
                continue
            expected = made if expected is None else expected
            off = float((made - expected).abs().max() / expected.abs().max())
            assert off < CLOSE[dtype], f"{backend} is {off:.2g} away from PyTorch's attention for {name}"
            for _ in range(2):
                call(q, k, v)
            seconds[backend] = where.measured(partial(call, q, k, v), 3 if where.small else 20)["seconds"]
        times = {backend: taken for backend, taken in seconds.items() if isinstance(taken, float)}
        yield {"shape": name, **seconds, "fastest": min(times, key=times.__getitem__)}


def backends() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Attentions over ``b h n d``."""
    found: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"torch": F.scaled_dot_product_attention}
    import conftest

    if conftest.COMFYUI:
        from comfy.ldm.modules.attention import optimized_attention

        found["comfyui"] = lambda q, k, v: optimized_attention(q, k, v, q.shape[1], skip_reshape=True, skip_output_reshape=True)
    if importlib.util.find_spec("xformers"):
        import xformers.ops  # pyright: ignore[reportMissingImports]

        def xformers_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return xformers.ops.memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

        found["xformers"] = xformers_attention
    return found


def compiled(where: Where) -> Results:
    """A temporal transformer of SD1.5's finest level."""
    import conftest  # noqa: F401  makes the pack importable
    from pack.modules.temporal.frames import Frames
    from pack.modules.temporal.transformer import TemporalConfig, TemporalTransformer

    channels, side = (32, 4) if where.small else (320, 64)
    dtype = torch.float32 if where.small else torch.float16
    block = TemporalTransformer(channels, TemporalConfig(groups=8 if where.small else 32)).to(where.device, dtype).eval()
    x, frames = (
        torch.randn(16, channels, side, side, device=where.device, dtype=dtype),
        Frames(16, torch.arange(16, device=where.device)),
    )
    fast = torch.compile(block, backend="eager" if where.small else "inductor")
    with torch.inference_mode():
        plain = block(x, frames)
        off = float((fast(x, frames) - plain).abs().max() / plain.abs().max())
        assert off < CLOSE[dtype], f"compiled results are {off:.2g} away"
        for name, call in (("plain", block), ("compiled", fast)):
            call(x, frames)
            yield {"run": name, **where.measured(partial(call, x, frames), 3 if where.small else 30)}


COMMANDS = {  # what is run as it is: arguments in full and in small
    "steps": (
        ["steps.py", "--rounds", "2", "--modes", "temporal"],
        ["steps.py", "--rounds", "1", "--width", "32", "--steps", "2", "--modes", "temporal", "0"],
    ),
    "memory": (["memory.py"], None),
    "fifo": (["fifo_memory.py", "--frames", "600"], ["fifo_memory.py", "--frames", "600"]),
}
LINES: dict[str, tuple[Callable[[Where], Results], float]] = {
    "causal": (causal, 200.0),
    "attention": (attention, 40.0),
    "compile": (compiled, 60.0),
}
SECONDS = {"steps": 90.0, "memory": 60.0, "fifo": 60.0}


def main() -> int:
    """Run the lines. Gives 1 if one of them failed, 2 where there is nothing to run on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lines", nargs="*", choices=[[], *LINES, *COMMANDS], help="left out: all")
    parser.add_argument("--small", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--here", action="store_true", help="in this process, for one line")
    given = parser.parse_args()
    if not given.small and not torch.cuda.is_available():
        print(NO_CUDA)
        return 2
    if given.here:
        (name,) = given.lines
        run, seconds = LINES[name]
        for row in run(Where(given.small, seconds)):
            print(json.dumps({"line": name, **row}), flush=True)
        return 0
    failed = 0
    for name in given.lines or [*LINES, *COMMANDS]:
        own = ["gpu.py", name, "--here", *(["--small"] if given.small else [])]
        command = own if name in LINES else COMMANDS[name][given.small]
        if command is None:
            continue
        seconds = 1.5 * LINES[name][1] if name in LINES else SECONDS[name]
        try:
            ended = subprocess.run([sys.executable, HERE / command[0], *command[1:]], timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:g} s"
        if ended:
            failed = 1
            print(json.dumps({"line": name, "ended": ended}), flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
