"""Train an autoencoder: ``python -m modules.train.train_autoencoder --out mine.safetensors`` from the pack's folder.

Without ``--clips`` it trains on procedural postcards.
"""

import argparse
from dataclasses import replace

from ..data.postcard_scenes import SIDE
from .command_line import add_settings, given_settings
from .options import BasicSettings
from .session import Session
from .tasks.autoencoder import DEFAULTS, LEARNING_RATE, STEPS, AutoencoderChoices, make
from .terminal import Lines, about_clips, about_run, clips_of, device_of, files_of, program, trained

BASIC, CHOICES = BasicSettings(steps=STEPS, learning_rate=LEARNING_RATE), AutoencoderChoices()


def options() -> argparse.ArgumentParser:
    """The command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m modules.train.train_autoencoder", description=about)
    about_run(parser, BASIC, DEFAULTS)
    shape = parser.add_argument_group("autoencoder")
    add_settings(shape, CHOICES)
    shape.add_argument("--start", default="", help="autoencoder file to start from instead of random weights")
    shape.add_argument(
        "--decoder-only", action="store_true", help="train the decoder of --start alone: latents, and models of them, stay good"
    )
    strength = "what it counts that edges are as strong as the true ones: 1 for sharper pictures"
    shape.add_argument("--contrast", type=float, default=CHOICES.contrast, help=strength)
    about_clips(parser.add_argument_group("data"), "procedural postcards", (SIDE, SIDE))
    return parser


def prepared(given: argparse.Namespace) -> Session:
    """The training that the command line asks for."""
    options, files = given_settings(DEFAULTS, given), files_of(given)
    settings = replace(options.run(given_settings(BASIC, given)), sharded=given.sharded)
    choices = given_settings(CHOICES, given, start=given.start, decoder_only=given.decoder_only, contrast=given.contrast)
    task = make(options, settings, choices, dataset=clips_of(given), device=device_of(given))
    return Session(task, files, options, Lines(), restart=given.restart)


def main() -> int:
    """Train, print a line every 50 steps, write the file."""
    return trained(options().parse_args(), prepared)


if __name__ == "__main__":
    program(main)
