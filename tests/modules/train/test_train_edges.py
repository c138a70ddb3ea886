"""What a trainer's weights hang on and no other test touched: averages that warm up, captions that are dropped, labels."""

from dataclasses import replace

import pytest
import torch
from lines import SHORT, Line
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.denoising import Batch, Objective, losses, without_conditions
from pack.modules.train.engine import Run
from tiny import info


@pytest.mark.parametrize("ema", [0.999, 0.15])
def test_averages_warm_up(ema):
    """The first steps count more: decay (1 + n) / (10 + n), as far as that is below the one that is set."""
    run = Run(Line(), replace(SHORT, ema=ema))
    wanted = run.parameters["weight"].detach().clone()
    for step in run.steps():
        decay = min(ema, step.step / (step.step + 9))
        wanted = decay * wanted + (1 - decay) * run.parameters["weight"].detach()
        torch.testing.assert_close(run.average["weight"], wanted)


@pytest.mark.parametrize("dropout", [0.0, 0.25, 1.0])
def test_so_many_clips_are_shown_without_their_conditions(dropout):
    shown = []

    def network(x, sigma, batch):
        shown.append(batch)
        return x

    count = 2000
    batch = Batch(torch.zeros(count, 1, 1, 1, 1), context=torch.ones(count, 1, 1), labels=torch.ones(count, 2))
    batch = replace(batch, extra={"no_context": torch.full((count, 1, 1), 5.0)})
    told = Objective(dropout=dropout), NoiseSchedule.named("linear")
    losses(network, batch, *told, seed=0, step=0, places=range(count), total=count)
    dropped = (shown[0].context == 5).float().mean().item()
    assert dropped == pytest.approx(dropout, abs=0.03), "and not the others"
    assert torch.equal(shown[0].labels[:, 0] == 0, shown[0].context[:, 0, 0] == 5), "words and labels go together"


def test_what_is_kept_is_kept():
    batch = Batch(torch.zeros(2, 1, 1, 1, 1), context=torch.ones(2, 3, 4))
    assert without_conditions(batch, torch.tensor([True, False])).context.sum(dim=(1, 2)).tolist() == [12.0, 0.0]


def test_a_label_vector_is_one_number_per_label():
    about = info()
    one, two, *rest = about.labels
    assert about.label_vector(f"{two}:0.5 {one}").tolist() == [1.0, 0.5, *(0.0 for _ in rest)]
    assert about.label_vector("").shape == (len(about.labels),)
