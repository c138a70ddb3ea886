"""The training engine on a task that is known exactly: resumes bit for bit, batches that may be cut up and spread, and what it survives."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pack
import pytest
import torch
from full_disk import largest_file
from lines import SHORT, Line
from pack.modules.disk.state import state_before
from pack.modules.train.engine import Diverged, Run, train
from pack.modules.train.settings import DECAYS, OPTIMIZERS, RunSettings
from sparing import sparing
from torch import nn

ROOT = Path(pack.__file__).parent


def finished(settings=SHORT, path=None, task=None):
    run = Run(task or Line(), settings, path)
    return run, list(train(run, every=2))


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(tmp_path, optimizer, stop):
    size = 4
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
        size = 64  # it leaves small tensors in 32 bits
    settings = replace(SHORT, optimizer=optimizer)
    whole, _ = finished(settings, task=Line(size))
    path = tmp_path / "run.safetensors"
    steps = train(Run(Line(size), settings, path), every=100)
    for step in steps:
        if step.step == stop:
            steps.close()
    resumed = Run(Line(size), settings, path)
    assert resumed.done == stop
    list(train(resumed))
    assert same(whole.weights(), resumed.weights()) and same(dict(whole.parameters), dict(resumed.parameters))
    assert resumed.losses == whole.losses


def test_the_gradient_is_the_batch_s_however_it_is_cut_up():
    whole, steps = finished()
    for micro in (1, 3):
        cut, cut_steps = finished(replace(SHORT, micro_batch=micro))
        for name, value in whole.weights().items():
            torch.testing.assert_close(cut.weights()[name], value, rtol=1e-5, atol=1e-6)
        assert [s.loss for s in cut_steps] == pytest.approx([s.loss for s in steps], rel=1e-5)


def test_the_first_step_is_adamw_s_own():
    run, _ = finished(replace(SHORT, steps=1, warmup=0))
    task = Line()
    optimizer = torch.optim.AdamW([task.weight, task.bias], lr=0.05, betas=(0.9, 0.99), weight_decay=0.01)
    task.losses(0, range(4)).mean().backward()
    nn.utils.clip_grad_norm_([task.weight, task.bias], 1.0)
    optimizer.step()
    torch.testing.assert_close(run.parameters["weight"], task.weight)


def test_lion_follows_its_paper():
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = OPTIMIZERS["lion"]([parameter], RunSettings(learning_rate=0.1, weight_decay=0.5))
    momentum, value = torch.zeros(2), parameter.detach().clone()
    for gradient in (torch.tensor([0.3, -0.1]), torch.tensor([-4.0, 0.2])):
        parameter.grad = gradient.clone()
        optimizer.step()
        value = value - 0.1 * (torch.sign(0.9 * momentum + 0.1 * gradient) + 0.5 * value)
        momentum = 0.99 * momentum + 0.01 * gradient
        torch.testing.assert_close(parameter.detach(), value)


@pytest.mark.parametrize("decay", DECAYS)
def test_rates_rise_then_fall(decay):
    settings = replace(SHORT, steps=100, warmup=10, decay=decay)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[0] < rates[9] and max(rates) <= settings.learning_rate
    assert decay == "constant" or rates[-1] < 0.05 * settings.learning_rate


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    run = Run(Line(breaks_at=4), SHORT, path)
    with pytest.raises(Diverged, match="diverged at step 5.*the last checkpoint stands"):
        list(train(run, every=3))
    kept = Run(Line(), SHORT, path)
    assert kept.done == 3
    assert all(torch.isfinite(value).all() for value in kept.weights().values())


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(tmp_path):
    path = tmp_path / "run.safetensors"
    run = Run(Line(), SHORT, path)
    steps = train(run, every=2)
    next(steps), next(steps)
    before = path.read_bytes()
    with largest_file(len(before) // 2), pytest.raises(ValueError, match="what was there before is kept: make room"):
        list(steps)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert Run(Line(), SHORT, path).done == 2


def test_a_disk_that_is_really_full(tmp_path):
    """A file system with room for one and a half checkpoints, where this process may make one."""
    list(train(Run(Line(128), SHORT, tmp_path / "alone.safetensors"), every=2))
    room, disk = (tmp_path / "alone.safetensors").stat().st_size * 3 // 2, tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        path = disk / "run.safetensors"
        with pytest.raises(ValueError, match="No space left on device.*what was there before is kept"):
            list(train(Run(Line(128), SHORT, path), every=2))
        assert list(disk.iterdir()) == [path] and Run(Line(128), SHORT, path).done == 2
        subprocess.run([mount, "-o", f"remount,size={4 * room}", disk], check=True)
        run = Run(Line(128), SHORT, path)
        list(train(run, every=2))
        assert same(run.weights(), Run(Line(128), SHORT, tmp_path / "alone.safetensors").weights())
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # a mapped checkpoint keeps it busy


@pytest.mark.parametrize("change", [{"optimizer": "lion"}, {"seed": 3}])
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change):
    path = tmp_path / "run.safetensors"
    finished(path=path)
    with pytest.raises(ValueError, match=f"{next(iter(change))} differ"):
        Run(Line(), replace(SHORT, **change), path)
    with pytest.raises(ValueError, match="size differ"):
        Run(Line(4), SHORT, path)
    Run(Line(), replace(SHORT, micro_batch=2), path)


def test_a_broken_checkpoint_is_not_the_last_one(tmp_path):
    """The one before it is gone on from, to the same weights; where that is broken too, it is said."""
    path = tmp_path / "run.safetensors"
    run = Run(Line(), SHORT, path)
    list(train(run, every=4))
    path.write_bytes(path.read_bytes()[:100])
    again = Run(Line(), SHORT, path)
    assert again.done == 4
    list(train(again, every=4))
    assert same(run.weights(), again.weights())
    for broken in (path, state_before(path)):
        broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match="^run.safetensors cannot be read: it is cut short"):
        Run(Line(), SHORT, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0: it must be from 1e-09 to 1 .usual values"),
        ({"learning_rate": 5.0}, "learning_rate is 5.0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"decay": "stairs"}, "choose one of cosine"),
        ({"optimizer": "sgd9"}, "choose one of adamw"),
        ({"precision": "int3"}, "choose one of float32"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_bad_settings_are_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SHORT, **change)


TOGETHER = """
import json, sys
sys.path.insert(0, {tests!r})
import conftest, torch, torch.distributed as dist
from dataclasses import replace
from lines import SHORT, Line
from pack.modules.train.distributed import rank
from pack.modules.train.engine import Run, train
dist.init_process_group("gloo")
run = Run(Line(), replace(SHORT, sharded={sharded}), __import__("pathlib").Path({path!r}))
list(train(run, every=2))
if rank() == 0:
    print(json.dumps({{name: value.flatten().tolist() for name, value in run.weights().items()}}))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("sharded", sparing([False, True], True))
def test_two_processes_give_the_weights_of_one_with_the_whole_batch(tmp_path, sharded):
    script = tmp_path / "together.py"
    path = tmp_path / "run.safetensors"
    script.write_text(TOGETHER.format(tests=str(ROOT / "tests"), sharded=sharded, path=str(path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    environment = {**__import__("os").environ, "COMFYUI_PATH": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-2000:]
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    for name, value in finished()[0].weights().items():
        torch.testing.assert_close(torch.tensor(theirs[name]), value.flatten(), rtol=1e-5, atol=1e-6)
    assert same(
        Run(Line(), SHORT, path).weights(), {k: torch.tensor(v).view_as(Line().parameters()[k]) for k, v in theirs.items()}
    )
