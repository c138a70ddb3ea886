"""The smallest training as a session: a line, its file, its folders."""

from dataclasses import replace
from pathlib import Path

import torch
from lines import SHORT, Line
from pack.modules.train.options import Options
from pack.modules.train.run_files import Files
from pack.modules.train.session import Session
from pack.modules.train.trainable import Trainable

STEADY = replace(SHORT, decay="constant")
QUICK = Options(save_every=2, watch_every=0)


class Stopped(Exception):
    """What is shown stopped a training."""


def stop_at(step):
    """What stops a training when so many steps are done."""

    def show(progress):
        if progress.step.step == step:
            raise Stopped

    return show


def line_session(folder: Path, name="mine", *, settings=STEADY, task=None, show=lambda progress: None, restart=False, **options):
    """A session, everything of which lies below ``folder``."""
    made = Trainable(
        *("motion_lora", task or Line(), settings, lambda weights, _, about: (dict(weights), {"own": "text"}), ("AnimateDiff",)),
        sampled=lambda weights: torch.zeros(1, 8, 8, 3),
        known={"trigger": "my word", "size": "16x16"},
    )
    return Session(made, Files(name, folder, folder / "models"), replace(QUICK, **options), show, restart=restart)
