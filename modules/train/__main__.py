"""Train a video model: ``python -m modules.train --out models/mine.safetensors`` from the pack's folder.

Without ``--clips`` it trains on the procedural shapes. Several processes share a batch:
``torchrun --nproc-per-node 2 -m modules.train ...``.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from ..data.captions import NEEDED, NOT_NEEDED
from ..data.clips import ClipDataset
from ..data.find import Search, find_clips
from ..data.settings import ClipSettings
from ..noise.levels import PREDICTIONS
from ..temporal.normalise import QK_NORMS
from .attention_watch import WatchSettings
from .engine import processes, rank
from .levels import LEVELS
from .losses import LOSSES, LossSettings
from .methods import METHODS
from .native_task import NativeChoices
from .plan import DEFAULTS, Architecture, native_training
from .recipes import TEMPORAL
from .recorder import LOGS
from .session import Manner, Place, Training, in_words
from .settings import DECAYS, OPTIMIZERS, PRECISIONS, RunSettings
from .weights import WEIGHTS, WeightSettings

log = logging.getLogger("longtake")
MODEL, CHOICES, MANNER, CLIPS = Architecture(), NativeChoices(), Manner(), ClipSettings()


def arguments() -> argparse.Namespace:
    """The command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m modules.train", description=about)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="video model file to write when training ends")
    add("--checkpoint", type=Path, help="resumed from if it exists; default: beside --out, ending in .run.safetensors")
    add("--method", choices=list(METHODS), default=CHOICES.method)
    add("--temporal", choices=list(TEMPORAL), default=MODEL.temporal, help="what sits in the model's slots")
    add("--width", type=int, default=MODEL.width, help="channels of the model's first level")
    add("--prediction", choices=list(PREDICTIONS), default=MODEL.prediction)
    add("--qk-norm", choices=list(QK_NORMS), default="", help="normalise queries and keys of temporal attentions")
    add("--skip-scale", type=float, default=MODEL.skip_scale, help="what skips of each deeper level are multiplied with")
    add("--start", default=CHOICES.start, help="video model file to start from instead of random weights")
    about_data(parser.add_argument_group("data"))
    about_run(parser.add_argument_group("how"))
    about_objective(parser.add_argument_group("objective"))
    about_files(parser.add_argument_group("what is kept and shown"))
    return parser.parse_args()


def about_data(group: argparse._ArgumentGroup) -> None:
    """Options that say what is trained on."""
    add = group.add_argument
    add("--clips", type=Path, help="folder, CSV or video to train on, on pixels; default: the procedural shapes")
    add("--frames", type=int, default=CLIPS.frames, help="of a clip of --clips")
    add("--stride", type=int, default=CLIPS.stride, help="frames of the video from one frame of a clip to the next")
    add("--size", type=int, nargs=2, default=(32, 32), metavar=("WIDTH", "HEIGHT"), help="of the clips of --clips")
    add("--caption", default="", help="for videos of --clips that have none")


def about_run(group: argparse._ArgumentGroup) -> None:
    """Options that say how it is trained."""
    add = group.add_argument
    add("--steps", type=int, default=DEFAULTS.steps)
    add("--batch", type=int, default=DEFAULTS.batch, help="clips per step, over all processes")
    add("--at-once", type=int, default=DEFAULTS.micro, help="most clips in the network at once; 0: all")
    add("--learning-rate", type=float, default=DEFAULTS.learning_rate)
    add("--warmup", type=int, default=DEFAULTS.warmup)
    add("--decay", choices=list(DECAYS), default=DEFAULTS.decay)
    add("--ema", type=float, default=DEFAULTS.ema)
    add("--optimizer", choices=list(OPTIMIZERS), default=DEFAULTS.optimizer)
    add("--precision", choices=list(PRECISIONS), default=DEFAULTS.precision)
    add("--sharded", action="store_true", help="spread the optimizer's moments over the processes")
    add("--recompute", action="store_true", help="less memory, a third slower")
    add("--seed", type=int, default=DEFAULTS.seed)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="", help="such as cuda or cpu; default: a GPU if there is one")


def about_objective(group: argparse._ArgumentGroup) -> None:
    """Options that say what is asked of the model."""
    add = group.add_argument
    add("--levels", choices=list(LEVELS), default=CHOICES.levels, help="default: the method's")
    add("--loss", choices=list(LOSSES), default=CHOICES.loss.kind)
    add("--loss-share", type=float, default=CHOICES.loss.share, help="of differences, in blend and second_difference")
    add("--weight", choices=list(WEIGHTS), default=CHOICES.weight.kind)
    add("--images", type=int, default=CHOICES.images, help="single pictures beside each clip")
    add("--noise-offset", type=float, default=CHOICES.noise_offset)
    add("--dropout", type=float, default=CHOICES.dropout, help="share of clips shown without their labels")
    add(
        "--own-guesses",
        type=float,
        default=CHOICES.own_guesses,
        help="share of clips made of the model's own guesses, as in a rollout",
    )
    add("--wrong-outlines", type=float, default=CHOICES.wrong_outlines, help="share of the shapes shown with another outline")
    add("--sigma-reparam", action="store_true", help="temporal attention weights have learned lengths while training")


def about_files(group: argparse._ArgumentGroup) -> None:
    """Options that say what is kept and shown."""
    add = group.add_argument
    add("--every", type=int, default=MANNER.save_every, help="steps between checkpoints")
    add("--log", choices=list(LOGS), default=MANNER.log)
    add("--sample-every", type=int, default=MANNER.sample_every, help="steps between sample clips; 0: none")
    add("--sample-prompt", default=MANNER.sample_prompt)
    add("--watch-every", type=int, default=0, help="steps between looks at the temporal attentions; 0: none")
    add("--lower-rate", action="store_true", help="halve the learning rate when attentions are about to collapse")
    add("--half", action="store_true", help="store the weights in half precision")


def prepared(given: argparse.Namespace) -> Training:
    """The training that the command line asks for."""
    settings = RunSettings(
        **{
            name: getattr(given, name)
            for name in ("steps", "batch", "warmup", "decay", "ema", "optimizer", "precision", "seed", "sharded")
        },
        micro=given.at_once,
        learning_rate=given.learning_rate,
    )
    choices = NativeChoices(
        *(given.method, given.levels, WeightSettings(given.weight), LossSettings(given.loss, given.loss_share), given.images),
        *(given.noise_offset, given.dropout, given.sigma_reparam, given.recompute, given.start),
        own_guesses=given.own_guesses,
        wrong_outlines=given.wrong_outlines,
    )
    return native_training(
        Architecture(given.temporal, given.width, given.prediction, given.qk_norm, given.skip_scale),
        choices,
        settings,
        Place(given.out.absolute().parent, given.out.stem, given.checkpoint),
        Manner(
            *(given.every, given.log, given.sample_every, given.sample_prompt),
            WatchSettings.asked(given.watch_every, lower=given.lower_rate),
        ),
        dataset=dataset(given),
        device=given.device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )


def dataset(given: argparse.Namespace) -> ClipDataset | None:
    """The clips that are asked for; None for the shapes."""
    if given.clips is None:
        return None
    settings = ClipSettings(
        frames=given.frames,
        stride=given.stride,
        width=given.size[0],
        height=given.size[1],
        sizes="crop",
        seed=given.seed,
        missing=NEEDED if given.caption else NOT_NEEDED,
        caption=given.caption,
    )
    found = find_clips(given.clips, Search(stills=given.frames == 1))
    return ClipDataset(found, settings)


@contextmanager
def together() -> Iterator[None]:
    """While open, this process is one of those that ``torchrun`` started, if it did."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield
        dist.barrier()  # the first process still writes the model: gloo aborts in one that is left by the other
    finally:
        dist.destroy_process_group()


def main() -> int:
    """Train, print a line every 50 steps, write the model."""
    given = arguments()
    torch.set_num_threads(given.threads)
    with together():
        training = prepared(given)
        if rank() == 0:
            log.info("%d of %d steps are done, %d processes", training.run.done, given.steps, processes())
        recent = 0.0
        for shown in training.steps():
            step = shown.step
            recent = step.loss if recent == 0 else 0.98 * recent + 0.02 * step.loss
            if step.step % 50 == 0 and rank() == 0:
                log.info(
                    "step %d of %d: loss %.4f, %.0f s, %s left", step.step, step.total, recent, step.seconds, in_words(step.left)
                )
        if rank() == 0:
            training.model().save(given.out, torch.float16 if given.half else None)
            log.info("wrote %s", given.out)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")
