"""Trainings that are killed, run out of disk or are begun twice end as those that are not: ``python benchmarks/kill_trainers.py``.

A row for everything that can be trained, on small models with random weights. Killed: signal 9 again and again, right before one of the
run's writes reaches the disk or gets its name; each time the training is begun again and goes on. Full: files may not become as large as
a checkpoint, then they may, and the training is begun again. Twice: a second process begins the same training while the first one is at
it. The finished file, checkpoint (weights, averages, moments, losses) and log are compared bit for bit with those of an undisturbed run;
the exit status is 1 if any differ, if something is left half-written, or if a sentence is missing. What the cache of latents has left
is not counted: others may be writing there, so it is swept when it is a day old.
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "helpers")]
import conftest  # noqa: F401  makes the pack importable under the name ``pack``
import torch
from pack import host
from pack.modules.checkpoints.video_model import new_networks
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.denoising import Batch, Objective
from pack.modules.train.native import frozen, native_network
from pack.modules.train.native_models import Architecture
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.options import BasicSettings, Options
from pack.modules.train.run_files import Files
from pack.modules.train.session import Session
from pack.modules.train.tasks import TRAINABLES, autoencoder, video_model
from pack.modules.train.tasks.image_prompt import SEEN, beside_text, image_prompt, new_image_prompt
from pack.modules.train.trainable import TaskContext
from pack.nodes.train.train_motion import LongTakeTrainMotion
from pack.nodes.train.train_sparse import LongTakeTrainSparseControl
from safetensors.torch import load_file
from tiny import config, info, seeded
from tiny import video_model as tiny_model
from tiny_trainables import WORDS, shapes_of

STEPS, NAME = 6, "run"
QUICK = Options(
    batch=2, micro_batch=0, warmup=1, sample_steps=1, sample_cfg=1.0, watch_every=0, ema=0.5, save_every=1, dropout=0.0
)
CLIPS = shapes_of(16)
Show = Callable[[int], None]  # is told of every step


def by_node(node: Any, model: Any, show: Show, **inputs: Any) -> None:
    """A training through its node."""

    class Bar:
        def __init__(self, total: int):
            self.total = total

        def update(self, done: int, preview: Any = None) -> None:  # noqa: ARG002  as the host's
            show(done) if self.total == STEPS else None

    host.Progress = Bar  # type: ignore[misc, assignment]
    given = {"vae": host.vae(info()), "name": NAME, "steps": STEPS, "learning_rate": 1e-2, "options": QUICK}
    node.execute(model=model, clips=CLIPS, **given | inputs)


def by_session(make: Callable[[Any], Any], show: Show) -> None:
    """A training without a model around it."""
    folder = host.output_directory() / "longtake_training"
    settings = QUICK.run(BasicSettings(steps=STEPS, learning_rate=1e-2))
    session = Session(make(settings), Files(NAME, folder, host.model_directory("it")), QUICK, lambda made: show(made.step.step))
    session.train()
    session.save()


def new_prompt(settings: Any) -> Any:
    """An image prompt on random networks and clips of one colour."""
    about = info(prediction="x0", unet=config(in_channels=48, out_channels=48, context_dim=16), labels=())
    with seeded(1):
        unet, _ = new_networks(about)
    frozen(unet)

    def source(step: int, places: range) -> Batch:
        drawn = [torch.randn(6, generator=torch.Generator().manual_seed(1000 * step + place)) for place in places]
        clips = torch.stack(drawn).repeat(1, 8)[:, None, :, None, None].expand(-1, 2, -1, 4, 4)
        return Batch(clips, context=torch.ones(len(clips), 4, 16), extra={SEEN: torch.stack(drawn)})

    prompt = new_image_prompt(unet, 6, "plain")
    network, gaze = beside_text(native_network(about, unet), unet, prompt)
    schedule = NoiseSchedule.named(about.noise_schedule)
    return image_prompt(TaskContext(network, source, schedule, Objective("x0", dropout=0.0), settings), prompt, gaze)


def trainers() -> dict[str, Callable[[Show], None]]:
    """What trains each row of ``TRAINABLES``."""
    video = host.video_model(tiny_model(labels=WORDS, unet=replace(info().unet, label_channels=len(WORDS))))
    still = replace(video, motions=(), settings=())
    moved = {what: video if row.beside_module else still for what, row in TRAINABLES.items() if row.in_motion}
    found = {what: partial(by_node, LongTakeTrainMotion, model, what=what, rank=4) for what, model in moved.items()}
    found["sparse_control"] = partial(by_node, LongTakeTrainSparseControl, video)
    found["image_prompt"] = partial(by_session, new_prompt)
    small = Architecture(width=16), NativeChoices()
    found["video_model"] = partial(
        by_session, lambda settings: video_model.make(QUICK, settings, host.output_directory(), *small)
    )
    tiny = autoencoder.AutoencoderChoices(latent=4, width=8)
    found["autoencoder"] = partial(by_session, lambda settings: autoencoder.make(QUICK, settings, tiny))
    return found


def forked(folder: Path, work: Callable[[], object], limit: int = 0) -> int:
    """A process that trains below a folder and ends with status 0, or with 1 and its sentence in ``sentence.txt``."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress
    host.output_directory = lambda: folder / "output"  # type: ignore[assignment]
    host.model_directory = lambda kind: folder / "models"  # type: ignore[assignment]
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work()
    except ValueError as error:
        os.write(os.open(folder / "sentence.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), str(error).encode()[: limit or None])
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """How a process ended: its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing(before: int) -> None:
    """Let this process be killed before it brings something to the disk, or gives it its name, for the ``before``-th time."""
    left = [before]
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def counted(*given: Any, real: Any = real, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **more)

        setattr(os, name, counted)


def log_of(folder: Path) -> list[str]:
    """The log without times."""
    path = folder / "output" / "longtake_training" / f"{NAME}.jsonl"
    return [line.partition(', "seconds"')[0] for line in path.read_text().splitlines()] if path.exists() else []


def differing(one: Path, other: Path) -> str:
    """What two trainings have left otherwise, or half-written; nothing where all is equal."""
    wrong = []
    for part in (f"models/{NAME}.safetensors", f"output/longtake_training/{NAME}.run.safetensors"):
        first, second = load_file(one / part), load_file(other / part)
        same = first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
        wrong += [] if same else [part]
    wrong += [] if log_of(one) == log_of(other) else ["log"]
    left = [path.name for ending in ("partial", "lock") for path in other.rglob(f"*.{ending}") if "cache" not in path.parts]
    return ", ".join(wrong + left)


def sentence(folder: Path) -> str:
    """What the last process that ended with one said."""
    return (folder / "sentence.txt").read_text().replace(str(folder), "FOLDER")


def killed(folder: Path, train: Callable[[Show], None], kills: int, moments: random.Random) -> str:
    """Kill a training again and again. Gives after how many steps of its log."""
    at: list[int] = []
    while len(at) < kills:
        before = moments.randrange(1, 16)

        def work(before: int = before) -> None:
            killing(before)
            train(lambda step: None)

        if ended(forked(folder, work)) != -signal.SIGKILL:
            break  # it was done sooner
        at.append(len(log_of(folder)))
    return " ".join(map(str, at)) if ended(forked(folder, lambda: train(lambda step: None))) == 0 else sentence(folder)


def filled(folder: Path, train: Callable[[Show], None], size: int) -> str:
    """Let no file become as large as a checkpoint, then let it. Gives the sentence."""
    if ended(forked(folder, lambda: train(lambda step: None), limit=size // 2)) != 1:
        return "no sentence"
    said = sentence(folder)
    return said if ended(forked(folder, lambda: train(lambda step: None))) == 0 else f"not resumed: {sentence(folder)}"


def twice(folder: Path, train: Callable[[Show], None]) -> str:
    """Begin a training a second time in the middle of it. Gives the second one's sentence."""

    def second(step: int) -> None:
        if step == STEPS // 2:
            ended(forked(folder, lambda: train(lambda step: None)))

    return sentence(folder) if ended(forked(folder, lambda: train(second))) == 0 else f"stopped: {sentence(folder)}"


def main() -> int:
    """Print a row for each. Gives 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", default=[], help="names in TRAINABLES")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made, wrong = trainers(), False
    print("| trained | killed after steps | full disk | begun twice | all equal |\n|---|---|---|---|---|")
    for what in given.only or TRAINABLES:
        train = made[what]
        with tempfile.TemporaryDirectory() as name:
            whole, *others = (Path(name) / part for part in ("whole", "killed", "full", "twice"))
            for folder in (whole, *others):
                folder.mkdir()
            if ended(forked(whole, partial(train, lambda step: None))):
                raise SystemExit(f"{what}: {sentence(whole)}")
            size = (whole / "output" / "longtake_training" / f"{NAME}.run.safetensors").stat().st_size
            said = [
                killed(others[0], train, given.kills, random.Random(f"{given.seed} {what}")),
                filled(others[1], train, size),
                twice(others[2], train),
            ]
            different = " ".join(filter(None, (differing(whole, other) for other in others)))
            told = "cannot be written (File too large)" in said[1] and "is being written by process" in said[2]
            wrong |= bool(different) or not told
            print(f"| {what} | {' | '.join(said)} | {different or 'yes'} |", flush=True)
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
