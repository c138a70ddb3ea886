"""Every sampler that finishes frames before its end, to disk: cancelled, gone on with, made longer, shown, and refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pack import host
from pack.modules.disk.lock import owned
from pack.nodes.forcing.recording import LongTakeRecord
from recorded import TAKES, cancel, cancelled, frames_in, video

FRAMES = 18


def params(names=tuple(TAKES)):
    return [pytest.param(name, marks=[pytest.mark.comfy] if TAKES[name].comfy else []) for name in names]


@pytest.fixture(params=params())
def take(request):
    return TAKES[request.param]


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture
def shown(monkeypatch):
    """What a node shows in the end: text, and names of files."""
    found = []
    monkeypatch.setattr(host, "show_files", lambda text, files: found.append((text, [file.name for file in files])))
    return found


def make_cancelled(take, folder, batch, **given):
    """Cancel before a batch is decoded. Gives the end, where there is one."""
    with cancelled():
        return take.make(folder, before=lambda count: cancel() if count == batch else None, **given)


def test_cancelled_shown_gone_on_with_and_made_longer(take, output, shown):
    """Bit for bit the frames, and the end as a LATENT, of takes that were never stopped."""
    expected, tail = {}, {}
    for frames in (FRAMES, 30):
        tail[frames] = take.make(f"whole {frames}", frames)
        expected[frames] = frames_in(output / f"whole {frames}")
        assert sorted(expected[frames]) == [f"frame_{number:05}.png" for number in range(take.pictures(frames))]
        assert tail[frames].shape[0 if take.each == 1 else 2] == 4 and torch.isfinite(tail[frames]).all()
    shown.clear()
    for batch in (0, 2):
        end = make_cancelled(take, "take", batch)
        (text, files) = shown.pop()
        there = sorted(frames_in(output / "take"))
        assert files == there[-4:] and f"{len(there)} frames in {output / 'take'}" in text, "what is on disk is what is shown"
        assert len(there) >= take.there(4 * (batch and 2)) * bool(batch)
        assert ("stopped by Cancel: queue the same job again and it goes on" in text) is (end is not None)
        assert end is None or 0 < end.shape[0 if take.each == 1 else 2] <= 4
    assert torch.equal(take.make("take", FRAMES), tail[FRAMES])
    assert frames_in(output / "take") == expected[FRAMES]
    assert "gone on at frame" in shown[-1][0]
    assert torch.equal(take.make("take", 30), tail[30]), "longer"
    assert frames_in(output / "take") == expected[30]


def test_nothing_of_an_old_take_goes_before_the_new_one_has_a_frame(take, output):
    """Seen before: resume off emptied the folder, and then the first call failed."""
    take.make("take", FRAMES)
    old = frames_in(output / "take")

    def fail(count):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        take.make("take", FRAMES, before=fail, resume=False, filename_prefix="other")
    assert frames_in(output / "take") == old, "another prefix is another take"
    with pytest.raises(ValueError, match="another decode_batch|decode_batch differ"):
        take.make("take", FRAMES, decode_batch=3)
    assert frames_in(output / "take") == old
    take.make("take", FRAMES, resume=False, decode_batch=3)
    (aside,) = [path for path in (output / "take").iterdir() if path.is_dir() and path.suffix != ".past"]
    assert frames_in(aside) == old
    assert len(frames_in(output / "take")) == take.pictures(FRAMES)


def test_a_second_writer_is_told_who_the_first_is(take, output, shown):
    refused = []

    def second(count):
        if count == 1:
            with pytest.raises(ValueError) as error:
                take.make("take")
            refused.append(str(error.value))

    take.make("whole")
    take.make("take", before=second)
    assert len(refused) == 1
    assert f"the take frame in {output / 'take'} is being written by process {os.getpid()} on " in refused[0]
    assert refused[0].endswith(": wait until it is done, stop it, or give another name")
    assert frames_in(output / "take") == frames_in(output / "whole")


def test_a_model_whose_weights_are_others_is_another_one(output):
    """Through the take's facts: weights, what is patched into them, VAE, and numbers that guidance has bound."""
    model, vae = video()
    other, _ = video()
    network = other.model if host.name == "comfyui" else other.unet
    marks = [host.identity(model), host.identity(vae)]
    assert marks == [host.identity(part) for part in video()], "the same in another object"
    with torch.no_grad():
        next(parameter for parameter in network.parameters() if parameter.numel() > 1).view(-1)[0] += 1e-3
    assert host.identity(other) != marks[0]


@pytest.mark.comfy
def test_patches_and_what_hangs_on_a_model_tell_it_from_others():
    from tiny_motion import image_model

    model = image_model()
    key = next(iter(model.model.state_dict()))
    seen = {host.identity(model)}
    for strength in (0.5, 0.25):
        patched = model.clone()
        patched.add_patches({key: (torch.ones_like(model.model.state_dict()[key]),)}, strength)
        seen.add(host.identity(patched))
    wrapped = model.clone()
    wrapped.set_model_sampler_cfg_function(lambda args: args["cond"] * 0.9)
    seen.add(host.identity(wrapped))
    shifted = model.clone()
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_sigmas(model.get_model_object("model_sampling").sigmas * 1.01)
    shifted.add_object_patch("model_sampling", sampling)
    seen.add(host.identity(shifted))
    assert len(seen) == 5
    assert host.identity(model.clone()) in seen


def test_a_goal_s_numbers_are_another_run(output):
    """Seen before: closures were told apart by their names, so a goal of .1 went on as one of .9."""
    from pack.nodes.forcing.stream import LongTakeStream
    from pack.nodes.guidance.reconstruction import LongTakeGoalGuidance

    model, vae = video()

    def goal(value):
        return LongTakeGoalGuidance.execute(goal="brightness", value=value).args[0]

    given = {"model": model, "vae": vae, "frames": 8, "steps": 4, "lag": 1.0, "decode_batch": 4}
    LongTakeStream.execute(**given, guidance=goal(0.1))
    LongTakeStream.execute(**given, guidance=goal(0.1))
    with pytest.raises(ValueError, match=r"\(guidance differ\)"):
        LongTakeStream.execute(**given, guidance=goal(0.9))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ({"folder": "C:\\x"}, "the mark ':', U\\+003A"),
        ({"folder": "*"}, "the mark '\\*'"),
        ({"folder": "a/../b"}, "begins or ends with a dot"),
        ({"folder": "/etc"}, "it is empty"),
        ({"folder": "a\0b"}, "U\\+0000"),
        ({"filename_prefix": "CON"}, "Windows keeps it for a device"),
        ({"filename_prefix": "con.x"}, "Windows keeps it for a device"),
        ({"filename_prefix": "a\nb"}, "U\\+000A"),
        ({"filename_prefix": "a\u202eb"}, "U\\+202E"),
        ({"filename_prefix": "a\ud800"}, "U\\+D800"),
        ({"filename_prefix": "a."}, "begins or ends with a dot"),
        ({"filename_prefix": "a" * 228}, "228 bytes long, and what is added to it leaves room for 191"),
        ({"filename_prefix": "é" * 96}, "192 bytes long"),
    ],
    ids=str,
)
def test_names_are_refused_before_any_work(name, sentence, output):
    with pytest.raises(ValueError, match=sentence) as error:
        LongTakeRecord.execute(vae=video()[1], **name)
    assert "\n" not in str(error.value)
    assert not output.exists()


@pytest.mark.parametrize("name", ["é" * 95, "a" * 191, "夏の海", "a.b (2)"])
def test_the_longest_name_that_is_taken_can_be_written(name, output):
    """Temporary files, states, locks and the folder that it is set aside in: all of them have room."""
    take = TAKES["Stream"]
    take.make("take", FRAMES, filename_prefix=name)
    take.make("take", FRAMES, filename_prefix=name, resume=False)
    (aside,) = [path for path in (output / "take").iterdir() if path.is_dir()]
    assert len(frames_in(aside)) == len(frames_in(output / "take")) == FRAMES


def test_a_killed_writer_holds_no_lock(output):
    """Its file stays and is no lock: whoever comes next takes it over."""
    path = output / "take" / ".frame.lock"
    path.parent.mkdir(parents=True)
    root = Path(__file__).resolve().parents[2]
    program = (
        "import os, sys; sys.path[:0] = [sys.argv[2]]\n"
        "from pathlib import Path\nfrom modules.disk.lock import owned\n"
        "with owned(Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, path, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert writer.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"is being written by process {writer.pid} on "), owned(path, "the take"):
        pass
    writer.kill()
    writer.communicate()
    assert json.loads(path.read_text())["process"] == writer.pid
    TAKES["Stream"].make("take")
    assert not path.exists()
    assert len(frames_in(path.parent)) == FRAMES


@pytest.mark.comfy
@pytest.mark.parametrize("format", ["png", "mp4"])
def test_after_a_cancel_the_editor_is_shown_what_is_on_disk(format, monkeypatch):
    """Seen before: 190 frames on disk, and an empty node. The message is the one that a node sends which came to its end."""
    import server

    sent = []

    class Told:
        last_node_id, last_prompt_id, client_id = "7", "some prompt", "an editor"

        def send_sync(self, event, data, client):
            sent.append((event, data, client))

        def send_progress_text(self, text, node_id, sid=None):
            """What a sampling costs, while it runs."""

    monkeypatch.setattr(server.PromptServer, "instance", Told(), raising=False)
    make_cancelled(TAKES["Stream"], f"shown_{format}", 2, format=format)
    monkeypatch.undo()
    ((_, data, client),) = [message for message in sent if message[0] == "executed"]
    assert (client, data["node"], data["display_node"], data["prompt_id"]) == ("an editor", "7", "7", "some prompt")
    numbers = range(8, 12) if format == "png" else [8]
    assert data["output"]["images"] == [
        {"filename": f"frame_{number:05}.{format}", "subfolder": f"shown_{format}", "type": "output"} for number in numbers
    ]
    assert data["output"].get("animated") == ([True] if format == "mp4" else None)
    assert all((host.output_directory() / f"shown_{format}" / image["filename"]).is_file() for image in data["output"]["images"])
