"""Train a video model: ``python -m modules.train --out models/mine.safetensors`` from the pack's folder.

Without ``--clips`` it trains on the procedural shapes. Several processes share a batch:
``torchrun --nproc-per-node 2 -m modules.train ...``.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ..checkpoints.autoencoder import AutoencoderVae, load_autoencoder
from .command_line import add_settings, given_settings
from .native_models import Architecture
from .native_task import NativeChoices
from .options import BasicSettings
from .session import Session
from .tasks.video_model import DEFAULTS, LEARNING_RATE, STEPS, PictureSide, make
from .terminal import Lines, about_clips, about_run, clips_of, device_of, files_of, program, trained

BASIC = BasicSettings(steps=STEPS, learning_rate=LEARNING_RATE)
MODEL, CHOICES = Architecture(), NativeChoices()


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m modules.train", description=(__doc__ or "").splitlines()[0])
    about_run(parser, BASIC, DEFAULTS)
    add_settings(parser.add_argument_group("model"), MODEL)
    asked = parser.add_argument_group("what is asked of it")
    add_settings(asked, CHOICES)
    asked.add_argument("--start", default="", help="video model file to start from instead of random weights")
    wrong = "share of the procedural clips shown with another shape's outline, or another traveller and time of day"
    asked.add_argument("--wrong-outlines", type=float, default=0.0, help=wrong)
    asked.add_argument("--autoencoder", type=Path, help="file of modules.train.train_autoencoder, for a model of its latents")
    about_clips(parser.add_argument_group("data"), "the procedural shapes", (32, 32))
    return parser


def prepared(given: argparse.Namespace) -> Session:
    """The training that the command line asks for."""
    options, files = given_settings(DEFAULTS, given), files_of(given)
    choices = given_settings(CHOICES, given, start=given.start, wrong_outlines=given.wrong_outlines)
    settings = replace(options.run(given_settings(BASIC, given)), sharded=given.sharded)
    task = make(
        *(options, settings, files.folder, given_settings(MODEL, given), choices),
        dataset=clips_of(given),
        vae=None if given.autoencoder is None else PictureSide.of(AutoencoderVae(load_autoencoder(given.autoencoder))),
        device=device_of(given),
    )
    return Session(task, files, options, Lines(), restart=given.restart)


def main() -> int:
    """Train, print a line every 50 steps, write the file."""
    return trained(options().parse_args(), prepared)


if __name__ == "__main__":
    program(main)
