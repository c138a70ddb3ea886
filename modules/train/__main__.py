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
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from ..data.captions import NEEDED, NOT_NEEDED
from ..data.clips import ClipDataset
from ..data.find import Search, find_clips
from ..data.settings import ClipSettings
from .command_line import add_settings, given_settings
from .distributed import processes, rank
from .native_models import Architecture
from .native_task import NativeChoices
from .options import BasicSettings
from .session import Files, Progress, Session, in_words
from .tasks.video_model import DEFAULTS, LEARNING_RATE, STEPS, make

log = logging.getLogger("longtake")
BASIC = BasicSettings(steps=STEPS, learning_rate=LEARNING_RATE)
MODEL, CHOICES, CLIPS = Architecture(), NativeChoices(), ClipSettings()
ELSEWHERE = ("noise_schedule", "train_blocks", "crops_per_video", "file_format")  # what native models have no use for


def arguments() -> argparse.Namespace:
    """The command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m modules.train", description=about)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="video model file to write when training ends")
    add("--checkpoint", type=Path, help="resumed from if it exists; default: in the folder of --out, ending in .run.safetensors")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="", help="such as cuda or cpu; default: a GPU if there is one")
    run = parser.add_argument_group("run")
    run.add_argument("--sharded", action="store_true", help="spread the optimizer's moments over the processes")
    add_settings(run, BASIC, ("name",))
    add_settings(run, DEFAULTS, ELSEWHERE)
    add_settings(parser.add_argument_group("model"), MODEL)
    asked = parser.add_argument_group("what is asked of it")
    add_settings(asked, CHOICES)
    asked.add_argument("--start", default="", help="video model file to start from instead of random weights")
    asked.add_argument("--wrong-outlines", type=float, default=0.0, help="share of the shapes shown with another outline")
    about_data(parser.add_argument_group("data"))
    return parser.parse_args()


def about_data(group: argparse._ArgumentGroup) -> None:
    """Options that say what is trained on."""
    add = group.add_argument
    add("--clips", type=Path, help="folder, CSV or video to train on, on pixels; default: the procedural shapes")
    add("--frames", type=int, default=CLIPS.frames, help="of a clip of --clips")
    add("--stride", type=int, default=CLIPS.stride, help="frames of the video from one frame of a clip to the next")
    add("--size", type=int, nargs=2, default=(32, 32), metavar=("WIDTH", "HEIGHT"), help="of the clips of --clips")
    add("--caption", default="", help="for videos of --clips that have none")


def prepared(given: argparse.Namespace) -> Session:
    """The training that the command line asks for."""
    options, folder = given_settings(DEFAULTS, given), given.out.absolute().parent
    files = Files(given.out.stem, folder, folder, given.checkpoint)
    if given.restart:
        files.restart()
    choices = given_settings(CHOICES, given, start=given.start, wrong_outlines=given.wrong_outlines)
    settings = replace(options.run(given_settings(BASIC, given)), sharded=given.sharded)
    task = make(
        *(options, settings, files.folder, given_settings(MODEL, given), choices),
        dataset=dataset(given),
        device=given.device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    return Session(task, files, options, Lines())


class Lines:
    """A line of the log every so many steps."""

    def __init__(self, every: int = 50):
        self.every, self.recent = every, 0.0

    def __call__(self, progress: Progress) -> None:
        """Say how far it is, in the first process."""
        step = progress.step
        self.recent = step.loss if self.recent == 0 else 0.98 * self.recent + 0.02 * step.loss
        if step.step % self.every == 0 and rank() == 0:
            log.info(
                *("step %d of %d: loss %.4f, %.0f s, %s left", step.step, step.total, self.recent),
                *(step.seconds, in_words(step.left)),
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
        session = prepared(given)
        if rank() == 0:
            log.info("%d of %d steps are done, %d processes", session.run.done, given.steps, processes())
        session.train()
        if rank() == 0:
            log.info("wrote %s", session.save())
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")
