"""What the Diffusion Forcing sampler itself takes of a step: ``python benchmarks/forcing_share.py``, or ``bench.py forcing``."""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from modules.checkpoints.video_model import VideoModelInfo, clean_prediction, new_networks, slot_subset
from modules.nets.unet_config import UNetConfig
from modules.noise.levels import NoiseSchedule
from modules.noise.seeded import frame_noise
from modules.sampling.context_noise import ContextNoise
from modules.sampling.job import Job
from modules.sampling.model_view import View
from modules.sampling.noise_levels import NoiseLevels
from modules.sampling.stepping import Stepper
from modules.temporal.motion import MotionModel
from modules.temporal.slots import fill
from modules.temporal.transformer import TemporalConfig

OWN_SHARE = 0.02  # what is promised


def main() -> int:
    """What the sampler itself takes of a step: 64 frames of a tiny model, everything in ``Stepper.step`` but the model call.

    CPU time of one thread, the median over rows. Gives 1 if it is 2 % or more; with eta 1 most of it is the drawing of noise, frame by
    frame from seeds of their own.
    """
    status, threads = 0, torch.get_num_threads()
    torch.set_num_threads(1)
    for eta in (0.0, 1.0):
        share, milliseconds = own_share(eta)
        print(
            json.dumps({"case": "forcing", "eta": eta, "share": round(share, 4), "step_ms": round(milliseconds, 2)}), flush=True
        )
        status |= int(share >= OWN_SHARE)
    torch.set_num_threads(threads)
    return status


@torch.inference_mode()
def own_share(eta: float, frames: int = 64, rows: int = 24) -> tuple[float, float]:
    """The sampler's share of a step, and how long a step takes in milliseconds."""
    unet, motion = tiny()
    schedule, levels = NoiseSchedule.named("cosine"), NoiseLevels.named("full_sequence", frames, rows)
    inside = [0.0]

    def denoise(view: View) -> Tensor:
        began = time.process_time()
        with motion.during(motion.frames_for(view.ids)):
            clean = clean_prediction(unet, view.x, view.sigma, schedule, "v")
        inside[0] += time.process_time() - began
        return clean

    x, measured = frame_noise((48, 4, 4), 0, range(frames)) * 80, []
    stepper = Stepper(Job(denoise, x, schedule.levels(rows)), eta, context_noise=ContextNoise(0.2))
    for number, row in enumerate(levels.rows(frames)):
        inside[0], began = 0.0, time.process_time()
        x, _ = stepper.step(x, row, number)
        whole = time.process_time() - began
        measured.append(((whole - inside[0]) / whole, whole * 1e3))
    return tuple(statistics.median(values) for values in zip(*measured, strict=True))


def tiny() -> tuple[torch.nn.Module, MotionModel]:
    """The small networks of this pack's tests, with random weights."""
    torch.manual_seed(0)
    config = UNetConfig(48, 48, 32, (1, 2), (1, 1), (0, 1), (0, 0, 1, 1), 2, groups=8)
    temporal = TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", mask="causal")
    info = VideoModelInfo(config, temporal, slot_subset(config), patch=4, frames=8, size=(16, 16))
    unet, motion = new_networks(info)
    fill(unet, motion.slot_functions())
    return unet.eval(), motion.eval()


if __name__ == "__main__":
    raise SystemExit(main())
