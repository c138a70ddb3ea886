"""Another frame rate by wanted frames alone, beside all frames of a common multiple: ``python benchmarks/retime.py``.

Inside ComfyUI, with random weights in the shapes of RIFE 4.6: *Interpolate To* against ComfyUI's FrameInterpolate, whose frames at the
wanted times are kept. Both results are compared before anything is said; then how many frames each made, their memory, and the time.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import parity_models
import torch
from peers import start_comfyui

RATES = ((16.0, 24.0), (16.0, 30.0), (24.0, 30.0))


def main() -> None:
    """Print a row for each pair of rates."""
    parser = argparse.ArgumentParser(description="Interpolate To against all frames of a common multiple.")
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI checkout; left out: the one that the tests would use")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128, help="of the pictures' sides")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    start_comfyui(given.comfyui)
    import comfy.model_patcher
    import nodes
    from comfy_extras.frame_interpolation_models.ifnet import IFNet
    from comfy_extras.nodes_frame_interpolation import FrameInterpolate
    from pack.modules.control.retiming import retimed
    from pack.nodes.keyframes.hints import LongTakeInterpolateTo

    nodes.NODE_CLASS_MAPPINGS.setdefault("FrameInterpolate", FrameInterpolate)
    network, cpu = IFNet().eval().requires_grad_(False), torch.device("cpu")
    for number, (name, weight) in enumerate(network.named_parameters()):
        weight.copy_(parity_models.drawn(name, tuple(weight.shape), number))
    model = comfy.model_patcher.CoreModelPatcher(network, load_device=cpu, offload_device=cpu)
    images = torch.rand(given.frames, given.size, given.size, 3, generator=torch.Generator().manual_seed(0))
    print("| fps | frames | made by multiples | made here | MB of frames | here | time, of multiples |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for before, after in RATES:
        times = retimed(given.frames, before, after)
        multiplier = max(moment.denominator for moment in times)

        def multiples(multiplier: int = multiplier, times: tuple = times) -> torch.Tensor:
            made = FrameInterpolate.execute(model, images, multiplier).args[0]
            return made[[int(moment * multiplier) for moment in times]]

        def ours(before: float = before, after: float = after) -> torch.Tensor:
            return LongTakeInterpolateTo.execute(images=images, from_fps=before, to_fps=after, interp_model=model).args[0]

        with torch.inference_mode():
            torch.testing.assert_close(ours(), multiples(), atol=1e-4, rtol=1e-4)
            taken: dict[str, list[float]] = {"multiples": [], "ours": []}
            for _ in range(given.rounds):
                for name, run in (("multiples", multiples), ("ours", ours)):
                    start = time.perf_counter()
                    run()
                    taken[name].append(time.perf_counter() - start)
        all_of_them, megabytes = (given.frames - 1) * multiplier + 1, images[0].numel() * 4 / 2**20
        made = sum(moment.denominator > 1 for moment in times)
        ratio = statistics.median(taken["ours"]) / statistics.median(taken["multiples"])
        cells = [f"{before:g} to {after:g}", str(len(times)), str((given.frames - 1) * (multiplier - 1)), str(made)]
        cells += [f"{all_of_them * megabytes:.1f}", f"{len(times) * megabytes:.1f}", f"{ratio:.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
