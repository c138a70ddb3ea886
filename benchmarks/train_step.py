"""What a step of training a motion module takes, against diffusers: ``python benchmarks/train_step.py``, one JSON line.

The same motion module in the same frozen image model with the same weights, 16 frames, both in single precision on this machine.
diffusers' side is the plain loop that is written with it: ``UNetMotionModel``, frozen but for its motion modules, noise
prediction, AdamW; its motion modules' first norm is put per frame, as AnimateDiff has it, and the two outputs are compared first.
Ours is this pack's engine with clips from its cache.

``step_ratio`` is the time of their step over ours, both on latents. ``clips_per_second_ratio`` is the same where their loop
encodes its clips every time, as such loops do, with a VAE of SD1.5's proportions to the image model; ours reads them from the
disk. Text is encoded beforehand on both sides. ``peak_ratio`` is the memory beyond the weights of our step with layers that
compute again over theirs, at its most; every storage is followed from its making to its end (``tests/helpers/simulated.py``). The
promises are at least 1.5 for clips per second and at most 0.6 for memory.
"""

import json
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import conftest  # noqa: F401, makes the pack importable under the name ``pack``
import torch
from pack.modules.checkpoints.export import motion_state
from pack.modules.checkpoints.video_model import VideoModelInfo
from pack.modules.data.cache import EncodedClips
from pack.modules.data.clips import ClipDataset
from pack.modules.data.procedural import moving_shapes
from pack.modules.data.settings import ClipSettings
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.train.denoising import Batch, Objective
from pack.modules.train.encoded import source_of
from pack.modules.train.engine import Run
from pack.modules.train.native import frozen, named_parameters, native_network
from pack.modules.train.settings import RunSettings
from pack.modules.train.task import Denoising
from simulated import Tracker
from torch import Tensor, nn
from torch.utils.benchmark import Timer

FRAMES, SIDE, TOKENS, WIDTH = 16, 16, 77, 64
FASTER, LEANER = 1.5, 0.6
CONFIG = UNetConfig(
    model_channels=WIDTH,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    transformer_depth=(1, 0),
    transformer_depth_output=(1, 1, 0, 0),
    context_dim=WIDTH,
)
SETTINGS = RunSettings(steps=10**6, batch=1, learning_rate=1e-5, warmup=1, decay="constant", ema=0.0)


class PerFrame(nn.Module):
    """A group norm over ``b c f h w`` that sees one frame at a time, as AnimateDiff's own code does."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(x.transpose(1, 2).flatten(0, 1))
        return flat.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


@dataclass
class Pair:
    """The same networks twice."""

    info: VideoModelInfo
    unet: UNet
    motion: MotionModel
    theirs: Any


def pair() -> Pair:
    """The image model and its motion module, and diffusers' with the same weights."""
    from diffusers import UNetMotionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    torch.manual_seed(0)
    unet, config = UNet(CONFIG), TemporalConfig()
    slots = {name: width for name, width in widths(unet).items() if name != "mid_block.motion_modules.0"}
    motion = MotionModel(slots, config)
    theirs = UNetMotionModel(
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        cross_attention_dim=WIDTH,
        use_motion_mid_block=False,
    )
    spatial = {f"model.diffusion_model.{key}": value for key, value in unet.state_dict().items()}
    theirs.load_state_dict(
        {**convert_ldm_unet_checkpoint(spatial, theirs.config), **motion_state(motion.state_dict(), 32, "diffusers")}
    )
    for module in theirs.modules():
        if type(module).__name__ == "AnimateDiffTransformer3D":
            module.norm = PerFrame(module.norm)
    frozen(unet)
    theirs.freeze_unet2d_params()
    info = VideoModelInfo(CONFIG, config, tuple(slots), "eps", "linear", patch=0, frames=FRAMES)
    return Pair(info, unet, motion.train(), theirs.train())


def our_step(made: Pair, source: Callable[[int, range], Batch], *, gradient_checkpointing: bool = False) -> Callable[[], float]:
    """A step of the engine."""
    network = native_network(made.info, made.unet, [made.motion], gradient_checkpointing=gradient_checkpointing)
    schedule = NoiseSchedule.named(made.info.noise_schedule)
    task = Denoising(network, named_parameters(motion=made.motion), source, Objective("eps", dropout=0.0), schedule, SETTINGS, {})
    steps = Run(task, SETTINGS).steps()
    return lambda: next(steps).loss


def their_step(made: Pair, latents: Callable[[], Tensor], context: Tensor) -> Callable[[], float]:
    """The plain loop's step: ``latents`` gives ``1 f c h w``, ``context``: ``1 k d``."""
    kept = 1 / (NoiseSchedule.named("linear").sigmas ** 2 + 1)
    parameters = [parameter for parameter in made.theirs.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    tokens = context.repeat_interleave(FRAMES, dim=0)

    def step() -> float:
        clean = latents().transpose(1, 2)
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (1,))
        noisy = kept[t].sqrt().view(-1, 1, 1, 1, 1) * clean + (1 - kept[t]).sqrt().view(-1, 1, 1, 1, 1) * noise
        loss = (made.theirs(noisy, t, encoder_hidden_states=tokens).sample - noise).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


def compared(made: Pair, latents: Tensor, context: Tensor) -> float:
    """The largest difference of the two outputs, relative: ``latents``: ``1 f c h w``, ``context``: ``1 k d``."""
    network, sigma = native_network(made.info, made.unet, [made.motion]), torch.full((1, FRAMES), 2.0)
    tokens = context.repeat_interleave(FRAMES, dim=0)
    t = NoiseSchedule.named("linear").timestep(sigma[:, 0])
    with torch.no_grad():
        ours = (latents - network(latents, sigma, Batch(latents, context=context))) / 2.0
        theirs = made.theirs(latents.transpose(1, 2) / 5**0.5, t, encoder_hidden_states=tokens).sample.transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def vae() -> Any:
    """SD1.5's in the image model's proportions, with random weights."""
    from diffusers import AutoencoderKL

    base = 32 * max(1, round(WIDTH * 128 / 320 / 32))
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(base, 2 * base, 4 * base, 4 * base),
        layers_per_block=2,
        latent_channels=4,
    ).eval()


def seconds(step: Callable[[], float]) -> float:
    """The median of a step."""
    step()
    return Timer("f()", globals={"f": step}, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=2).median


def peak(made: Pair, step: Callable[[], float]) -> int:
    """Bytes beyond the weights and the optimizer's moments that a step takes at its most."""
    step()
    weights = [*made.unet.parameters(), *made.motion.parameters(), *made.theirs.parameters()]
    tracker = Tracker(weights)
    with tracker:
        step()
    return tracker.peak


def main() -> int:
    """Print the line. Gives 1 if a promise is not kept."""
    torch.set_num_threads(1)
    try:
        made, encoder = pair(), vae()
    except ImportError as error:
        print(f"train: left out, its baseline is not installed ({error})", flush=True)
        return 0
    settings = ClipSettings(frames=FRAMES, stride=1, width=8 * SIDE, height=8 * SIDE, variants=1)
    dataset = ClipDataset(moving_shapes(4, settings.pace.needed(), 8 * SIDE), settings)
    context = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def encode(pixels: Tensor) -> Tensor:
        return encoder.encode(pixels).latent_dist.mean * 0.18215

    with tempfile.TemporaryDirectory() as folder:
        clips = EncodedClips(
            dataset, encode, lambda caption: {"context": context[0]}, folder=Path(folder), video_key="vae", text_key="text"
        )
        list(clips.fill())
        source = source_of(clips, 1)
        number = iter(range(10**9))
        known = source(0, range(1)).clips
        difference = compared(made, known, context)

        def encoded_anew() -> Tensor:
            return encode(dataset.batch(next(number), 1).pixels[0])[None]

        ours, theirs = our_step(made, source), their_step(made, lambda: known, context)
        times = seconds(ours), seconds(theirs), seconds(their_step(made, encoded_anew, context))
        peaks = {
            "ours": peak(made, ours),
            "ours_recompute": peak(made, our_step(made, source, gradient_checkpointing=True)),
            "diffusers": peak(made, theirs),
        }
    line = {
        "case": "train",
        "step_ratio": round(times[1] / times[0], 2),
        "clips_per_second_ratio": round(times[2] / times[0], 2),
        "peak_ratio": round(peaks["ours_recompute"] / peaks["diffusers"], 3),
        "peak_ratio_kept": round(peaks["ours"] / peaks["diffusers"], 3),
        "ours_ms": round(times[0] * 1e3, 1),
        "diffusers_ms": round(times[1] * 1e3, 1),
        "diffusers_with_vae_ms": round(times[2] * 1e3, 1),
        "peak_mib": {name: round(size / 2**20, 1) for name, size in peaks.items()},
        "largest_difference": difference,
        "torch": torch.__version__,
        "device": platform.machine(),
    }
    print(json.dumps(line), flush=True)
    return int(line["clips_per_second_ratio"] < FASTER or line["peak_ratio"] > LEANER)


if __name__ == "__main__":
    raise SystemExit(main())
