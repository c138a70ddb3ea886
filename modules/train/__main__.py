"""Train a video model on the procedural shapes: ``python -m modules.train --out models/mine.safetensors`` from the pack's folder."""

import argparse
import logging
import sys
from pathlib import Path

import torch

from .loop import Run, TrainSettings, train
from .objective import METHODS
from .recipes import TEMPORAL, shapes_model

log = logging.getLogger("longtake")


def arguments() -> argparse.Namespace:
    """The command line."""
    defaults = TrainSettings()
    parser = argparse.ArgumentParser(prog="python -m modules.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="video model file to write when training ends")
    parser.add_argument(
        "--checkpoint", type=Path, help="resumed from if it exists; default: beside --out, ending in .run.safetensors"
    )
    parser.add_argument("--method", choices=list(METHODS), default=defaults.method)
    parser.add_argument("--temporal", choices=list(TEMPORAL), default="transformer", help="what sits in the model's slots")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch, help="clips per step")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--start", default=defaults.start, help="video model file to start from instead of random weights")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    return parser.parse_args()


def main() -> int:
    """Train, print a line every 50 steps, write the model."""
    given = arguments()
    torch.set_num_threads(given.threads)
    settings = TrainSettings(
        method=given.method,
        steps=given.steps,
        batch=given.batch,
        learning_rate=given.learning_rate,
        seed=given.seed,
        start=given.start,
    )
    run = Run(shapes_model(temporal=given.temporal), settings, given.checkpoint or given.out.with_suffix(".run.safetensors"))
    recent = 0.0
    for step in train(run, given.every):
        recent = step.loss if recent == 0 else 0.98 * recent + 0.02 * step.loss
        if step.step % 50 == 0:
            log.info("step %d of %d: loss %.4f, %.0f s", step.step, step.total, recent, step.seconds)
    run.model().save(given.out, torch.float16 if given.half else None)
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
