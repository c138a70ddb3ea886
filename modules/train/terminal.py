"""A training from a terminal, whatever is trained: the options that all have, a line of the log now and then, several processes."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from ..data.captions import NEEDED, NOT_NEEDED
from ..data.clips import ClipDataset
from ..data.find import Search, find_clips
from ..data.postcard_clips import PostcardSettings
from ..data.settings import ClipSettings
from .command_line import add_settings
from .distributed import processes, rank
from .options import BasicSettings, Options
from .report import in_words
from .run_files import Files
from .session import Progress, Session

log = logging.getLogger("longtake")
CLIPS = ClipSettings()
ELSEWHERE = ("noise_schedule", "train_blocks", "crops_per_video", "file_format")  # what this pack's own networks have no use for


def about_run(parser: argparse.ArgumentParser, basic: BasicSettings, options: Options) -> None:
    """Options that every training has; ``basic`` and ``options`` are what is usual."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file to write when training ends")
    add("--checkpoint", type=Path, help="resumed from if it exists; default: in the folder of --out, ending in .run.safetensors")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="", help="such as cuda or cpu; default: a GPU if there is one")
    run = parser.add_argument_group("run")
    run.add_argument("--sharded", action="store_true", help="spread the optimizer's moments over the processes")
    add_settings(run, basic, ("name",))
    add_settings(run, options, ELSEWHERE)


def about_clips(group: argparse._ArgumentGroup, usual: str, size: tuple[int, int]) -> None:
    """Options that say what is trained on; ``usual`` is what it is without them."""
    add = group.add_argument
    add("--clips", type=Path, help=f"folder, CSV or video to train on, on pixels; default: {usual}")
    add("--postcards", type=int, default=0, help="train on so many procedural postcards of 64x64 pixels instead")
    add("--frames", type=int, default=CLIPS.frames, help="of a clip of --clips or --postcards")
    add("--stride", type=int, default=CLIPS.stride, help="frames of the video from one frame of a clip to the next")
    add("--size", type=int, nargs=2, default=size, metavar=("WIDTH", "HEIGHT"), help="of the clips of --clips")
    add("--caption", default="", help="for videos of --clips that have none")


def clips_of(given: argparse.Namespace) -> ClipDataset | None:
    """The clips that are asked for; None where none are."""
    if given.clips is None:
        return PostcardSettings(given.postcards, given.frames, seed=given.seed).clips() if given.postcards else None
    if given.postcards:
        raise ValueError(f"--clips and --postcards {given.postcards} are given: leave one of them out")
    settings = ClipSettings(
        frames=given.frames,
        stride=given.stride,
        width=given.size[0],
        height=given.size[1],
        sizes="crop",
        seed=given.seed,
        missing_captions=NEEDED if given.caption else NOT_NEEDED,
        caption=given.caption,
    )
    return ClipDataset(find_clips(given.clips, Search(stills=given.frames == 1)), settings)


def files_of(given: argparse.Namespace) -> Files:
    """Where it keeps what."""
    folder = given.out.absolute().parent
    return Files(given.out.stem, folder, folder, given.checkpoint)


def device_of(given: argparse.Namespace) -> str:
    """Where to train."""
    return given.device or ("cuda" if torch.cuda.is_available() else "cpu")


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


def trained(given: argparse.Namespace, prepared: Callable[[argparse.Namespace], Session]) -> int:
    """Train to the end, print a line every 50 steps, write the file. Returns the exit status."""
    torch.set_num_threads(given.threads)
    with together():
        session = prepared(given)
        if rank() == 0:
            log.info("%d of %d steps are done, %d processes", session.run.done, given.steps, processes())
        session.train()
        if rank() == 0:
            log.info("wrote %s", session.save())
    return 0


def program(main: Callable[[], int]) -> None:
    """A command as a program: it ends with a sentence where something cannot be, or where it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")
