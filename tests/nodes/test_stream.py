"""Endless takes: a rollout's frames as they come, also after a kill, a cancel or a full disk, in memory that does not grow."""

import errno
import math
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from living import living_bytes
from pack import host, run
from pack.modules.disk.frame_files import encoded
from pack.modules.disk.take_file import load
from pack.modules.sampling.schedules import ENDLESS
from pack.modules.temporal.transformer import TemporalConfig
from pack.nodes.forcing.forcing import LongTakeRollout
from pack.nodes.forcing.stream import LongTakeStream, beginning
from pack.nodes.models.models import LongTakeLabelPrompt
from recorded import cancel, cancelled
from tiny import video_model


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# The node, on whichever host is there


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return host.video_model(video_model())


WATCHED = weakref.WeakKeyDictionary()


class Vae:
    """The pixel VAE, which counts what it decodes and may do something first."""

    def __init__(self, model, before=lambda count: None):
        self.vae = host.vae(host.video_info(model))
        WATCHED[self] = before, []  # beside it: whoever looks at it is no other VAE

    @property
    def batches(self):
        return WATCHED[self][1]

    def decode(self, latents):
        WATCHED[self][0](len(self.batches))
        self.batches.append(len(latents))
        return self.vae.decode(latents)


FRAMES = 18
STATES = ("frame.open.safetensors", "frame.state.safetensors", "frame.state.safetensors.before")
OPTIONS = {"frames": FRAMES, "steps": 4, "lag": 1.0, "seed": 5, "decode_batch": 4, "save_every": 5}


def stream(model, vae=None, **changes):
    return LongTakeStream.execute(model=model, vae=vae or Vae(model), **(OPTIONS | changes)).args[:3]


def frames_in(folder, ending="png"):
    paths = sorted(Path(folder).glob(f"frame_*.{ending}"))
    return {path.name: path.read_bytes() for path in paths}


def unbroken(model, folder="unbroken", **changes):
    """The files of a take that nothing stopped."""
    _, where, _ = stream(model, folder=folder, **changes)
    return frames_in(where)


def test_it_writes_the_frames_of_rollout(model, output):
    positive = LongTakeLabelPrompt.execute(model=model, prompt="red square").args[0]
    negative = LongTakeLabelPrompt.execute(model=model, prompt="").args[0]
    settings = {"positive": positive, "negative": negative, "cfg": 1.7, "eta": 0.3}
    images, folder, report = stream(model, **settings)
    same = {key: OPTIONS[key] for key in ("frames", "steps", "lag", "seed")}
    clip = host.vae(host.video_info(model)).decode(LongTakeRollout.execute(model=model, **same, **settings).args[0]["samples"])
    assert torch.equal(images, clip[-4:])
    files = frames_in(folder)
    assert list(files) == [f"frame_{i:05}.png" for i in range(FRAMES)]
    assert all(files[f"frame_{i:05}.png"] == encoded(clip[i], "png") for i in range(FRAMES))
    assert Path(folder) == output / "endless_take"
    assert report.startswith(f"{FRAMES} frames in {folder}, seed 5, 1 model calls per frame, ")
    assert names_in(folder) == sorted([*files, *STATES]), "nothing half-written"


def test_frames_are_decoded_in_batches_as_they_come(model, output):
    vae = Vae(model)
    images, _, _ = stream(model, vae)
    assert vae.batches == [4, 4, 4, 4, 2, 4], "and the last ones once more, to be handed on"
    assert len(images) == 4
    seen = []
    late = Vae(model, lambda count: seen.append(len(frames_in(output / "second"))))
    stream(model, late, folder="second")
    assert seen == [0, 4, 8, 12, 16, 18]


def test_known_frames_are_written_first_and_lead_the_take(model):
    known = torch.rand(6, 48, 4, 4)
    _, folder, report = stream(model, known_frames={"samples": known})
    same = {key: OPTIONS[key] for key in ("frames", "steps", "lag", "seed")}
    clip = LongTakeRollout.execute(model=model, known_frames={"samples": known}, **same).args[0]["samples"]
    pictures = host.vae(host.video_info(model)).decode(clip)
    files = frames_in(folder)
    assert all(files[f"frame_{i:05}.png"] == encoded(pictures[i], "png") for i in range(FRAMES))
    assert "gone on" not in report


@pytest.mark.parametrize("schedule", [name for name in ENDLESS if name != "pyramid"])
def test_every_schedule_streams(model, schedule):
    settings = {"schedule": schedule, "block": 2, "frames": 11, "lag": 2.0}
    _, folder, _ = stream(model, **settings)
    clip = LongTakeRollout.execute(model=model, steps=4, seed=5, **settings).args[0]["samples"]
    pictures = host.vae(host.video_info(model)).decode(clip)
    assert frames_in(folder) == {f"frame_{i:05}.png": encoded(pictures[i], "png") for i in range(11)}


@pytest.mark.parametrize("format", ["webp", "mp4"])
def test_other_formats(model, format):
    if format == "mp4":
        pytest.importorskip("av")
    _, folder, _ = stream(model, format=format, fps=10.0)
    names = sorted(frames_in(folder, format))
    assert names == [f"frame_{i:05}.{format}" for i in (range(FRAMES) if format == "webp" else range(0, FRAMES, 4))]
    if format == "mp4":
        import av

        with av.open(str(Path(folder) / names[-1])) as video:
            assert sum(1 for _ in video.decode(video=0)) == 2
            assert video.streams.video[0].average_rate == 10
    again = frames_in(folder, format)
    assert stream(model, format=format, fps=10.0)[2].startswith(f"{FRAMES} frames in {folder}, gone on at frame {FRAMES}")
    assert frames_in(folder, format) == again


def test_a_finished_take_is_not_made_again(model, output):
    images, folder, _ = stream(model)
    before = {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}

    class Never:
        def __getattr__(self, name):
            raise AssertionError("the model was used")

    vae = Vae(model)
    again, _, report = stream(model, vae)
    assert torch.equal(again, images)
    assert vae.batches == [4]
    assert f"gone on at frame {FRAMES}" in report
    assert {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()} == before


# Interrupted


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_cancelled_take_goes_on(model, batch):
    expected = unbroken(model)
    with cancelled():
        stream(model, Vae(model, lambda count: cancel() if count == batch else None))
    folder = host.output_directory() / "endless_take"
    state = load(folder / "frame.state.safetensors")
    assert state.written == len(frames_in(folder)) == 4 * (batch + 1)
    assert state.finished >= state.written, "what was finished and not yet written is in the state"
    images, _, report = stream(model)
    assert f"gone on at frame {state.finished}" in report
    assert frames_in(folder) == expected
    assert torch.equal(images, stream(model, folder="unbroken")[0])


@pytest.mark.parametrize(("writes", "known"), [(1, 0), (2, 6), (3, 0), (9, 0), (14, 0)])
def test_a_full_disk_leaves_the_state_whole(model, writes, known, monkeypatch):
    given = {"known_frames": {"samples": torch.full((known, 48, 4, 4), 0.3)}} if known else {}
    expected = unbroken(model, **given)
    whole, done = Path.write_bytes, []

    def full(path, content):
        done.append(path)
        if len(done) > writes:
            whole(path, content[: len(content) // 2])  # as much as there is room for
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\).*make room and try again"):
            stream(model, **given)
    folder = host.output_directory() / "endless_take"
    assert not [path for path in folder.iterdir() if path.suffix == ".partial"], "nothing half-written stays"
    load(folder / "frame.state.safetensors")
    stream(model, **given)
    assert frames_in(folder) == expected


def test_a_model_that_fails_leaves_a_state(model):
    expected = unbroken(model)

    def fail(count):
        if count == 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        stream(model, Vae(model, fail))
    assert "gone on at frame 16" in stream(model)[2]
    assert frames_in(host.output_directory() / "endless_take") == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_a_killed_take_goes_on_with_the_same_frames(model, seed, output):
    """kill -9 at random moments, again and again, until the take comes to its end."""
    expected = unbroken(model, frames=40)
    moments, folder, kills = random.Random(seed), output / "endless_take", 0
    for _ in range(4):
        goal = len(frames_in(folder)) + moments.randrange(1, 10)
        child = os.fork()
        if child == 0:
            try:
                stream(model, frames=40)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 60
        while len(frames_in(folder)) < goal and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(moments.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        written = load(folder / "frame.state.safetensors").written
        assert set(list(expected)[:written]) <= set(frames_in(folder)), "what the state says is on disk"
    assert kills >= 2
    stream(model, frames=40)
    assert frames_in(folder) == expected
    assert names_in(folder) == sorted([*expected, *STATES])


def test_an_endless_take_can_be_given_an_end(model):
    expected = unbroken(model, frames=30)
    with cancelled():
        stream(model, Vae(model, lambda count: cancel() if count == 4 else None), frames=0)
    stream(model, frames=30)
    folder = host.output_directory() / "endless_take"
    assert frames_in(folder) == expected
    with pytest.raises(
        ValueError, match=r"was to have 30 frames as its end, and is too far on for another end \(30 are finished\)"
    ):
        stream(model, frames=20)


@pytest.mark.parametrize("format", ["png", "mp4"])
def test_a_finished_take_can_be_made_longer(model, format):
    """And longer again: as if it had been so long from the beginning, bit for bit."""
    if format == "mp4":
        pytest.importorskip("av")
    folder = host.output_directory() / "endless_take"
    for frames in (18, 30, 31, 50):
        _, _, report = stream(model, frames=frames, format=format)
        assert frames_in(folder, format) == frames_in(
            stream(model, folder=f"unbroken {frames}", frames=frames, format=format)[1], format
        )
        assert frames == 18 or "made longer, for which its frames from " in report


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed"),
        ({"steps": 5}, "steps, sigmas"),
        ({"schedule": "rolling"}, "schedule"),
        ({"context_noise": 0.0}, "context_noise"),
        ({"context_noise_frames": "known"}, "context_noise"),
        ({"decode_batch": 5}, "decode_batch"),
        ({"format": "webp"}, "format"),
        ({"known_frames": {"samples": torch.zeros(2, 48, 4, 4)}}, "known, known_frames"),
    ],
    ids=str,
)
def test_settings_of_another_run_are_one_sentence(model, change, named):
    stream(model, frames=6)
    with pytest.raises(
        ValueError, match=rf"was made with other settings \({named} differ\): choose another folder or prefix, or turn resume"
    ):
        stream(model, **{"frames": 6} | change)
    images, folder, _ = stream(model, **{"frames": 6} | change, resume=False)
    assert len(images) == min(OPTIONS["decode_batch"] if "decode_batch" not in change else 5, 6)
    assert len(frames_in(folder, "webp" if "format" in change else "png")) == 6
    assert len([path for path in Path(folder).iterdir() if path.suffix in (".png", ".webp")]) == 6, "the old take has made room"
    (aside,) = [path for path in Path(folder).iterdir() if path.is_dir()]
    assert len(frames_in(aside)) == 6, "and is kept"
    stream(model, frames=6, folder=f"endless_take/{aside.name}")  # as it was: nothing is made again


def test_other_prompts_are_another_run_and_another_cfg_s_negative_is_not(model):
    prompts = {word: LongTakeLabelPrompt.execute(model=model, prompt=word).args[0] for word in ("red", "blue")}
    stream(model, frames=6, positive=prompts["red"])
    stream(model, frames=6, positive=prompts["red"], negative=prompts["blue"])  # not looked at when cfg is 1
    with pytest.raises(ValueError, match=r"\(positive differ\)"):
        stream(model, frames=6, positive=prompts["blue"])


def test_frames_that_were_lost_are_said(model):
    _, folder, _ = stream(model)
    expected = frames_in(folder)
    (Path(folder) / "frame_00009.png").unlink()  # of a batch that has to be made again
    (Path(folder) / "frame_00002.png").write_bytes(b"")
    (Path(folder) / "frame_00017.png").write_bytes(expected["frame_00017.png"][:-20])  # of one whose latents are kept
    vae = Vae(model)
    assert "frame_00002.png and 2 more had gone or were not whole, and were made again" in stream(model, vae)[2]
    assert vae.batches == [4, 4, 2, 4], "two batches, the last two, and the last frames to hand them on"
    assert frames_in(folder) == expected
    for name in STATES:
        (Path(folder) / name).unlink()
    with pytest.raises(
        ValueError, match="cannot go on, and what is there is left as it is: it has frames and no state to go on from"
    ):
        stream(model)
    stream(model, resume=False)
    assert len(frames_in(folder)) == FRAMES


def test_the_host_s_memory_does_not_grow_either(model):
    """Through the node: decoded pictures, states and progress included."""
    held = {}

    def note(count):
        if count in (4, 14):
            held[count] = living_bytes()

    stream(model, Vae(model, note), frames=64, save_every=1)
    assert abs(held[14] - held[4]) < 10_000


def test_a_recurrent_model_remembers_what_it_needs(output):
    """What has left the window still acts through the states that it left behind: they are in the state file."""
    temporal = TemporalConfig(kind="recurrent", groups=8, mask="causal", hidden=4)
    recurrent = host.video_model(video_model(temporal=temporal))
    expected = unbroken(recurrent)
    with cancelled():
        stream(recurrent, Vae(recurrent, lambda count: cancel() if count == 2 else None))
    folder = output / "endless_take"
    memory = load(folder / "frame.state.safetensors").state.memory
    assert len(memory) > 4
    stream(recurrent)
    assert frames_in(folder) == expected
    # and it matters: without them other frames come
    with cancelled():
        stream(recurrent, Vae(recurrent, lambda count: cancel() if count == 2 else None), folder="bare")
    path = output / "bare" / "frame.state.safetensors"
    saved = load(path)
    replace(saved, state=replace(saved.state, memory={})).save(path)
    stream(recurrent, folder="bare")
    assert frames_in(output / "bare") != expected


@pytest.mark.parametrize("known", [0, 3, 20])
def test_a_video_model_s_take_begins_with_its_known_frames(known, monkeypatch):
    monkeypatch.setattr(host, "video_info", lambda model: None)  # as of Wan, whose latents have a time axis
    given = torch.rand(1, 16, known, 8, 8)
    start, count = beginning(None, {"samples": given} if known else None, {"samples": torch.zeros(1, 16, 1, 8, 8)}, 6)
    assert count == known and start.shape == (1, 16, max(6, known + 1), 8, 8)
    assert torch.equal(start[:, :, :known], given) and not start[:, :, known:].any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cfg": 2.0}, "no negative conditioning is connected"),
        ({"frames": -1}, "frames is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"lag": 0.0}, "for a take without an end use a larger lag"),
        ({"schedule": "trapezoid"}, "schedule is 'trapezoid': choose one of pyramid, autoregressive, chunked"),
        ({"window": 2}, "window holds 2 frames"),
        ({"sink_frames": 9}, "4 in flight and 9 sink frames"),
        ({"context_noise": -2.0}, "context_noise is -2: it must lie between -1 and 10"),
        ({"context_noise_frames": "some"}, "context_noise_frames is 'some': choose one of all, known, generated"),
        ({"order": "heun", "eta": 0.5}, "heun"),
        ({"folder": "../elsewhere"}, "cannot be a file name"),
        ({"folder": " "}, "it is empty"),
        ({"filename_prefix": "a/b"}, "cannot be a file name"),
        ({"format": "gif"}, "choose one of png, webp, mp4"),
        ({"decode_batch": 0}, "decode_batch is 0"),
        ({"save_every": 0}, "save_every is 0"),
        ({"known_frames": {"samples": torch.zeros(FRAMES, 48, 4, 4)}}, "nothing is left to generate"),
        ({"known_frames": {"samples": torch.full((2, 48, 4, 4), torch.nan)}}, "not finite"),
        ({"known_frames": {"samples": torch.zeros(1, 48, 3, 4, 4)}}, "frames in the batch axis"),
        ({"known_frames": {"samples": torch.zeros(1, 7, 4, 4)}}, "the latent has 7 channels and this model takes 48: encode"),
        ({"tempo": 3}, "no input 'tempo'"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence_and_nothing_is_written(model, change, sentence, output):
    with pytest.raises(ValueError, match=sentence):
        stream(model, **change)
    assert not frames_in(output / "endless_take")


def test_nothing_runs_again_that_is_on_disk(output):
    """ComfyUI keeps a node's result while this stays the same."""
    mark = LongTakeStream.fingerprint_inputs
    assert mark(folder="a", filename_prefix="f", seed=1) == "none"
    (output / "a").mkdir()
    (output / "a" / "f.state.safetensors").touch()
    first = mark(folder="a", filename_prefix="f")
    assert first == mark(folder="a", filename_prefix="f") != "none"
    assert math.isnan(mark(folder=None, filename_prefix="f")), "a name from another node: it runs, and finds what is there"


def test_progress_and_previews(model, monkeypatch):
    told = []
    real = host.Progress.update

    def update(self, done, preview=None):
        told.append((done, self.total, None if preview is None else tuple(preview.shape)))
        return real(self, done, preview)

    monkeypatch.setattr(host.Progress, "update", update)
    stream(model)
    assert [done for done, _, _ in told] == list(range(1, FRAMES + 4))
    assert {total for _, total, _ in told} == {FRAMES + 3}
    assert [shape for _, _, shape in told if shape] == [(16, 16, 3)] * 4
    told.clear()
    stream(model, folder="quiet", preview=False)
    assert all(shape is None for _, _, shape in told)


@pytest.mark.comfy
def test_a_vae_that_needs_the_model_s_memory_gets_it(model):
    """ComfyUI unloads one model to load another: the take's is back before its next call, with what is injected into it."""
    import comfy.model_management

    expected = unbroken(model)
    stream(model, Vae(model, lambda count: comfy.model_management.unload_all_models()))
    assert frames_in(host.output_directory() / "endless_take") == expected


@pytest.mark.comfy
def test_latents_come_to_the_vae_in_its_own_scale():
    """A model that scales its latents: the sampler works on scaled ones, a VAE on those of LATENT."""
    import comfy.latent_formats

    scaled = host.video_model(video_model(seed=2))
    latent_format = scaled.model.latent_format
    latent_format.scale_factor = 0.5
    assert isinstance(latent_format, comfy.latent_formats.LatentFormat)
    known = torch.rand(5, 48, 4, 4)
    _, folder, _ = stream(scaled, known_frames={"samples": known})
    same = {key: OPTIONS[key] for key in ("frames", "steps", "lag", "seed")}
    clip = LongTakeRollout.execute(model=scaled, known_frames={"samples": known}, **same).args[0]["samples"]
    pictures = host.vae(host.video_info(scaled)).decode(clip)
    assert frames_in(folder) == {f"frame_{i:05}.png": encoded(pictures[i], "png") for i in range(FRAMES)}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_the_shipped_workflow_survives_kill_9(tmp_path):
    """``python run.py endless_take``, as a program of its own that is killed at random moments and started again."""
    root = Path(run.__file__).parent
    settings = {"frames": 40, "steps": 4, "lag": 1.0, "decode_batch": 4, "save_every": 6}
    given = [word for name, value in settings.items() for word in ("--set", f"LongTakeStream.{name}={value}")]

    def start(output):
        command = [sys.executable, root / "run.py", "endless_take", "--host", "standalone", "--output", output, *given]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    moments, folder = random.Random(7), tmp_path / "killed" / "endless_take"
    for _ in range(3):
        goal, process = len(frames_in(folder)) + moments.randrange(1, 9), start(tmp_path / "killed")
        while process.poll() is None and len(frames_in(folder)) < goal:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.communicate()
    last, whole = start(tmp_path / "killed"), start(tmp_path / "whole")
    said = last.communicate()[0], whole.communicate()[0]
    assert (last.returncode, whole.returncode) == (0, 0)
    assert "gone on at frame" in said[0]
    assert "gone on at frame" not in said[1]
    assert len(frames_in(folder)) == 40
    assert frames_in(folder) == frames_in(tmp_path / "whole" / "endless_take")
