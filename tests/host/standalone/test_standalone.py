"""The standalone host: workflows are checked before they run, run once, and leave whole files or none."""

import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from pack.host import errors
from pack.host.standalone import core_nodes, folders, models, sampling, schema, session, ui
from pack.host.standalone import schema as io
from pack.host.standalone.executor import Executor, without_classes
from pack.modules.checkpoints.video_model import clean_prediction, new_networks
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.job import Step
from pack.modules.sampling.model_view import View
from PIL import Image

quiet = {"report": lambda report: None}


class Counted(io.ComfyNode):
    """Gives a number, and counts how often it was asked."""

    runs = []

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Counted",
            inputs=[
                io.Int.Input("value", default=3, min=1, max=9),
                io.Combo.Input("kind", options=["plain", "fancy"], optional=True),
                io.Boolean.Input("flag", optional=True),
            ],
            outputs=[io.Int.Output(), io.Image.Output()],
        )

    @classmethod
    def execute(cls, value, kind="plain", flag=False):
        Counted.runs.append(value)
        if value == 9:
            raise ValueError("nine is too many")
        return io.NodeOutput(value, torch.full((2, 4, 6, 3), value / 10))


class Shown(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Shown",
            inputs=[io.Int.Input("number", default=0), io.Float.Input("factor", default=1.0)],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, number, factor):
        Counted.runs.append("shown")
        return io.NodeOutput(ui=ui.PreviewText(f"{number * factor:g}"))


class Changing(io.ComfyNode):
    fingerprint = 0

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Changing", outputs=[io.Int.Output()])

    @classmethod
    def fingerprint_inputs(cls):
        return Changing.fingerprint

    @classmethod
    def execute(cls):
        Counted.runs.append("changing")
        return io.NodeOutput(1)


NODES = core_nodes.core_nodes() | {"Counted": Counted, "Shown": Shown, "Changing": Changing}


@pytest.fixture(autouse=True)
def no_runs_yet():
    Counted.runs.clear()


@pytest.fixture
def executor(tmp_path):
    folders = {name: tmp_path / name for name in ("output", "input", "temp")}
    folders["input"].mkdir()
    return Executor(NODES, **folders, **quiet)


def graph(**changes):
    nodes = {
        "1": {"class_type": "Counted", "inputs": {"value": 4}},
        "2": {"class_type": "Shown", "inputs": {"number": ["1", 0], "factor": 2.0}},
    }
    return nodes | changes


def texts(results):
    return [text for result in results for text in result.texts]


# What is wrong with a workflow


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"1": {"class_type": "Nonsense", "inputs": {}}}, ["node 1 (Nonsense)", "no such node"]),
        ({"1": {"inputs": {}}}, ["node 1", "class_type"]),
        ({"1": {"class_type": "Counted", "inputs": {}}}, ["node 1 (Counted)", "'value'", "missing", "3"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": 1}}}, ["node 2 (Shown)", "'factor'", "missing"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["7", 0], "factor": 1}}}, ["node 2 (Shown)", "'number'", "node 7"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", 2], "factor": 1}}}, ["'number'", "output 2", "has 2"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", -1], "factor": 1}}}, ["'number'", "output -1"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1"], "factor": 1}}}, ["'number'", "a link is"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": ["1", 1], "factor": 1}}}, ["'number'", "takes INT", "IMAGE"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 0}}}, ["'value'", "0", "least is 1"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 10}}}, ["'value'", "most is 9"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": "many"}}}, ["'value'", "'many'", "whole number"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": None}}}, ["'value'", "whole number"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 1, "kind": "odd"}}}, ["'kind'", "'odd'", "plain, fancy"]),
        ({"1": {"class_type": "Counted", "inputs": {"value": 1, "flag": "false"}}}, ["'flag'", "true or false"]),
        ({"2": {"class_type": "Shown", "inputs": {"number": 1, "factor": math.nan}}}, ["'factor'", "finite"]),
        ({"2": {"class_type": "Shown", "inputs": []}}, ["node 2 (Shown)", "inputs"]),
        ({"2": {"class_type": "SaveImage", "inputs": {"images": 3, "filename_prefix": "x"}}}, ["'images'", "a link", "IMAGE"]),
    ],
)
def test_a_bad_workflow_is_refused_before_anything_runs(executor, changes, words):
    with pytest.raises(errors.WorkflowError) as caught:
        executor.run(graph(**changes))
    assert len(caught.value.problems) == 1
    assert all(word in str(caught.value) for word in words), caught.value
    assert Counted.runs == []


def test_all_problems_are_collected(executor):
    bad = graph(
        **{"1": {"class_type": "Counted", "inputs": {"value": 0}}, "2": {"class_type": "Shown", "inputs": {"number": ["1", 0]}}}
    )
    assert len(executor.check(bad)) == 2


def test_cycles_name_their_nodes(executor):
    def through(source):
        return {"class_type": "ImageScaleBy", "inputs": {"image": [source, 0], "upscale_method": "area", "scale_by": 1.0}}

    cycle = {"1": through("2"), "2": through("1"), "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    (problem,) = executor.check(cycle)
    assert "node 1 (ImageScaleBy)" in problem
    assert "node 2 (ImageScaleBy)" in problem


def test_nothing_to_run_is_said(executor):
    assert executor.check({}) == ["the workflow has no nodes"]
    assert "saves and shows nothing" in executor.check({"1": {"class_type": "Counted", "inputs": {"value": 4}}})[0]


def test_a_long_chain_is_no_problem(executor):
    step = {"upscale_method": "area", "scale_by": 1.0}
    chain = {"0": {"class_type": "Counted", "inputs": {"value": 4}}}
    chain |= {
        str(i): {"class_type": "ImageScaleBy", "inputs": {"image": [str(i - 1), int(i == 1)], **step}} for i in range(1, 3000)
    }
    chain["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["2999", 0]}}
    assert executor.check(chain) == []


def test_video_nodes_without_pyav_say_what_to_install(tmp_path):
    bare = Executor({"Counted": Counted}, tmp_path, **quiet)
    assert "pip install av" in bare.check({"1": {"class_type": "CreateVideo", "inputs": {}}})[0]


# Running


def test_a_workflow_runs_and_says_its_result(executor):
    assert texts(executor.run(graph())) == ["8"]
    assert Counted.runs == [4, "shown"]


def test_notes_and_unused_nodes_do_not_run(executor):
    executor.run(graph(_note="for people", lonely={"class_type": "Counted", "inputs": {}}))
    assert Counted.runs == [4, "shown"]


def test_unchanged_nodes_are_not_run_again(executor):
    executor.run(graph())
    again = executor.run(graph())
    assert Counted.runs == [4, "shown"]
    assert texts(again) == ["8"] and not again[0].ran

    executor.run(graph(**{"2": {"class_type": "Shown", "inputs": {"number": ["1", 0], "factor": 3.0}}}))
    assert Counted.runs == [4, "shown", "shown"]
    executor.run(graph(**{"1": {"class_type": "Counted", "inputs": {"value": 5}}}))
    assert Counted.runs == [4, "shown", "shown", 5, "shown"]


def test_a_changed_fingerprint_runs_a_node_again(executor):
    changing = graph(**{"1": {"class_type": "Changing", "inputs": {}}})
    for Changing.fingerprint in (1, 1, 2, math.nan, math.nan):
        executor.run(changing)
    assert Counted.runs.count("changing") == 4


def test_a_node_outlives_its_id(executor):
    executor.run(graph())
    moved = {"first": graph()["1"], "2": {"class_type": "Shown", "inputs": {"number": ["first", 0], "factor": 2.0}}}
    executor.run(moved)
    assert Counted.runs == [4, "shown"]


def test_a_failing_node_is_named(executor):
    with pytest.raises(errors.NodeError) as caught:
        executor.run(graph(**{"1": {"class_type": "Counted", "inputs": {"value": 9}}}))
    assert str(caught.value) == "node 1 (Counted) failed: nine is too many"
    assert isinstance(caught.value.__cause__, ValueError)
    assert texts(executor.run(graph())) == ["8"]


def test_without_classes_takes_what_depends_on_them():
    kept, gone = without_classes({**graph(), "3": {"class_type": "Shown", "inputs": {"number": 1}}}, ["Counted"])
    assert list(kept) == ["3"]
    assert gone == ["1", "2"]


def test_cancel_stops_the_run_and_the_next_run_is_free(executor):
    executor.report = executor.session.report = lambda report: executor.cancel()

    class Slow(Shown):
        @classmethod
        def execute(cls, number, factor):
            session.Progress(2).update(1)
            Counted.runs.append("too far")

    executor.nodes = NODES | {"Shown": Slow}
    with pytest.raises(session.Interrupted):
        executor.run(graph())
    assert Counted.runs == [4]
    executor.nodes = NODES
    assert texts(executor.run(graph())) == ["8"]


def test_sessions_of_threads_do_not_mix(tmp_path):
    seen = {}

    def look(name):
        with session.Session(output=tmp_path / name).active():
            seen[name] = session.output_directory().name

    threads = [threading.Thread(target=look, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "a", "b": "b"}
    assert session.output_directory().name == "output"


# Files


def save(prefix="clip", **more):
    return graph(**{"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 1], "filename_prefix": prefix}}}, **more)


def test_pictures_are_numbered_as_comfyui_does(executor, tmp_path):
    output = tmp_path / "output"
    (result,) = executor.run(save())
    assert [path.name for path in result.files] == ["clip_00001_.png", "clip_00002_.png"]
    (output / "clip_00041_.webp").touch()
    (output / "clip_other_00090_.png").touch()
    (output / "clip_7x.png").touch()
    executor.run(save(**{"1": {"class_type": "Counted", "inputs": {"value": 5}}}))
    assert (output / "clip_00043_.png").exists()
    assert not list(output.glob(".*"))


def test_prefixes_may_hold_folders_and_sizes(executor, tmp_path):
    (result,) = executor.run(save("deep/%width%x%height%_%batch_num%"))
    assert [path.relative_to(tmp_path / "output").as_posix() for path in result.files] == [
        "deep/6x4_0_00001_.png",
        "deep/6x4_1_00002_.png",
    ]


@pytest.mark.parametrize("prefix", ["../out", "/etc/x", "", "folder/", "a/../../b", "."])
def test_prefixes_cannot_leave_the_folder(executor, prefix):
    with pytest.raises(errors.NodeError, match="prefix"):
        executor.run(save(prefix))


def test_pictures_hold_their_workflow_and_pixels(executor):
    workflow = save()
    (result,) = executor.run(workflow, extra_pnginfo={"workflow": {"of": "the editor"}})
    with Image.open(result.files[0]) as picture:
        assert json.loads(picture.info["prompt"]) == workflow
        assert json.loads(picture.info["workflow"]) == {"of": "the editor"}
        assert np.asarray(picture).shape == (4, 6, 3)
        assert (np.asarray(picture) == 102).all()


def test_a_cancel_in_the_middle_of_saving_leaves_no_file(executor, tmp_path, monkeypatch):
    written = []

    def cancelling():
        written.append(1)
        if len(written) == 2:
            raise session.Interrupted

    monkeypatch.setattr(ui, "check_interrupt", cancelling)
    with pytest.raises(session.Interrupted):
        executor.run(save())
    assert list((tmp_path / "output").iterdir()) == []


def test_a_failing_encoder_leaves_no_file(executor, tmp_path, monkeypatch):
    def half(self, path, *args, **kwargs):
        path.write_bytes(b"RIFF")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(errors.NodeError, match=r"node 2 \(SaveAnimatedWEBP\).*no space"):
        executor.run(graph(**{"2": webp()}))
    assert list((tmp_path / "output").iterdir()) == []


def webp(**changes):
    inputs = {"images": ["1", 1], "filename_prefix": "anim", "fps": 8.0, "lossless": True, "quality": 80, "method": "fastest"}
    return {"class_type": "SaveAnimatedWEBP", "inputs": inputs | changes}


def test_animations_have_the_frames_and_the_rate(tmp_path):
    frames = torch.stack([torch.full((8, 8, 3), i / 10) for i in range(7)])
    with session.Session(output=tmp_path).active():
        core_nodes.SaveAnimatedWEBP.execute(images=frames, filename_prefix="anim", fps=8.0)
    with Image.open(tmp_path / "anim_00001_.webp") as animation:
        assert animation.n_frames == 7
        for index in range(7):
            animation.seek(index)
            animation.load()
            assert animation.info["duration"] == 125
            assert (np.asarray(animation.convert("RGB")) == int(index / 10 * 255)).all()


def test_animations_hold_their_workflow(executor):
    workflow = graph(**{"2": webp()})
    (result,) = executor.run(workflow)
    with Image.open(result.files[0]) as animation:
        assert animation.getexif()[0x0110] == "prompt:" + json.dumps(workflow)


def test_videos_can_be_read(executor):
    av = pytest.importorskip("av")
    made = {"class_type": "CreateVideo", "inputs": {"images": ["1", 1], "fps": 12.0}}
    saved = {
        "class_type": "SaveVideo",
        "inputs": {"video": ["2", 0], "filename_prefix": "film", "format": "auto", "codec": "auto"},
    }
    workflow = graph(**{"2": made, "3": saved})
    (result,) = executor.run(workflow)
    assert [path.name for path in result.files] == ["film_00001_.mp4"]
    with av.open(str(result.files[0])) as container:
        assert json.loads(container.metadata["prompt"]) == workflow
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12
    assert len(frames) == 2
    assert np.abs(frames[0].astype(int) - 102).max() <= 3


def test_odd_videos_are_refused():
    with pytest.raises(ValueError, match=r"5x4.*even"):
        core_nodes.SaveVideo.execute(video=core_nodes.video.Clip(torch.zeros(2, 4, 5, 3), 8))


def test_pictures_come_back_as_saved(executor, tmp_path):
    image = torch.rand(1, 4, 6, 3, generator=torch.Generator().manual_seed(0)).mul(255).floor() / 255
    transparent = (np.concatenate([image[0].numpy(), np.full((4, 6, 1), 0.2)], axis=2) * 255).round().astype(np.uint8)
    Image.fromarray(transparent).save(tmp_path / "input" / "a.png")
    with executor.session.active():
        loaded, mask = core_nodes.LoadImage.execute(image="a.png").args
        assert torch.allclose(loaded, image, atol=1e-6)
        assert torch.allclose(mask, torch.full((1, 4, 6), 0.8), atol=1e-6)
        assert core_nodes.LoadImage.validate_inputs("../input/b.png") is not True


def test_a_missing_picture_is_refused_before_anything_runs(executor):
    workflow = {"1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}}, "2": graph()["2"]}
    workflow |= {"2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    (problem,) = executor.check(workflow)
    assert "node 1 (LoadImage)" in problem and "none.png" in problem


def test_a_changed_picture_is_read_again(executor, tmp_path):
    workflow = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    workflow |= {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}}}
    for colour in ("red", "blue", "blue"):
        Image.new("RGB", (4, 4), colour).save(tmp_path / "input" / "a.png")
        executor.run(workflow)
    assert len(list((tmp_path / "output").iterdir())) == 2


@pytest.mark.parametrize("method", core_nodes.ImageScaleBy.METHODS)
def test_scaling_keeps_flat_pictures_flat(method):
    (scaled,) = core_nodes.ImageScaleBy.execute(image=torch.full((2, 4, 6, 3), 0.4), upscale_method=method, scale_by=1.5).args
    assert scaled.shape == (2, 6, 9, 3)
    assert torch.allclose(scaled, torch.full_like(scaled, 0.4), atol=1e-6)


def test_files_of_a_kind(tmp_path, monkeypatch):
    (tmp_path / "animatediff_models" / "old").mkdir(parents=True)
    for name in ("mine.safetensors", "no.txt", "animatediff_models/old/v1.ckpt"):
        (tmp_path / name).touch()
    monkeypatch.setenv(folders.VARIABLE, str(tmp_path))
    assert "mine.safetensors" in folders.files("video_models")
    assert folders.files("motion_modules") == ["old/v1.ckpt"]
    assert folders.file("video_models", "mine.safetensors") == tmp_path / "mine.safetensors"
    with pytest.raises(ValueError, match=r"no video model 'other.safetensors': there is .*mine"):
        folders.file("video_models", "other.safetensors")
    with pytest.raises(ValueError, match="'sounds'"):
        folders.files("sounds")


def test_schemas_refuse_an_id_twice():
    class Twice(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Twice", inputs=[io.Int.Input("a"), io.Float.Input("a")])

    with pytest.raises(ValueError, match=r"Twice.*'a'"):
        Twice.GET_SCHEMA()


def test_output_nodes_are_told_their_workflow():
    assert core_nodes.SaveImage.GET_SCHEMA().hidden == [schema.Hidden.prompt, schema.Hidden.extra_pnginfo]


# Sampling


def conditioning(y):
    return [[torch.zeros(1, 1, 1), {} if y is None else {"pooled_output": y}]]


def labels(*values):
    return torch.tensor([values], dtype=torch.float32)


def once(sigma, seen=None):
    """A sampler of one call: from noise at these sigmas straight to the model's guess."""

    def algorithm(job):
        noise = frame_noise(job.latent.shape[1:], 1, range(len(job.latent)))
        x = job.latent + sigma[:, None, None, None] * noise
        clean = job.denoise(View.plain(x, sigma))
        if seen is not None:
            seen.append(x)
        yield Step(1, 1, clean)
        return clean

    return algorithm


SIGMA = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0, 8.0])


def sampled(model, *, cfg=1.0, positive=None, negative=None, sigma=SIGMA):
    latent = torch.linspace(-1, 1, len(sigma) * 48 * 16).reshape(len(sigma), 48, 4, 4)
    positive = conditioning(labels(1, 0, 0, 1)) if positive is None else positive
    return sample(model, positive, negative, cfg=cfg, latent=latent, algorithm=once(sigma))


def sample(model, positive, negative=None, **given):
    """``sampling.sample`` with a seed and sigmas that do not matter to these algorithms."""
    return sampling.sample(model, positive, negative, seed=1, sigmas=torch.tensor([0.0, 1.0]), **given)


def by_hand(video, y, sigma=SIGMA):
    """The same without the host: the file's own networks, one condition."""
    unet, motion = video.build()
    latent = torch.linspace(-1, 1, len(sigma) * 48 * 16).reshape(len(sigma), 48, 4, 4)
    x = latent + sigma[:, None, None, None] * frame_noise((48, 4, 4), 1, range(len(sigma)))
    with torch.no_grad(), motion.during(motion.frames_for(torch.arange(len(sigma)))):
        schedule = NoiseSchedule.named(video.info.noise_schedule)
        return clean_prediction(unet, x, sigma, schedule, video.info.prediction, y=y.expand(len(sigma), -1))


def test_a_model_without_guidance(tiny_video_model):
    y = labels(1, 0, 0, 1)
    assert torch.allclose(sampled(models.video_model(tiny_video_model)), by_hand(tiny_video_model, y), atol=1e-6)


def test_guidance_is_what_the_formula_says(tiny_video_model):
    one, other = labels(1, 0, 0, 1), labels(0, 1, 1, 0)
    positive, negative = by_hand(tiny_video_model, one), by_hand(tiny_video_model, other)
    assert not torch.allclose(positive, negative, atol=1e-3)
    given = sampled(models.video_model(tiny_video_model), cfg=2.5, positive=conditioning(one), negative=conditioning(other))
    assert torch.allclose(given, negative + 2.5 * (positive - negative), atol=1e-4)


def test_clean_frames_stay_under_guidance(tiny_video_model):
    latent = torch.linspace(-1, 1, len(SIGMA) * 48 * 16).reshape(len(SIGMA), 48, 4, 4)
    given = sampled(models.video_model(tiny_video_model), cfg=3.0, negative=conditioning(None))
    assert torch.equal(given[0], latent[0])


def test_no_label_means_anything(tiny_video_model):
    model = models.video_model(tiny_video_model)
    assert torch.equal(sampled(model, positive=conditioning(None)), sampled(model, positive=conditioning(labels(0, 0, 0, 0))))


def test_labels_may_change_with_the_frame(tiny_video_model):
    model = models.video_model(tiny_video_model)
    same = labels(1, 0, 0, 1).repeat(len(SIGMA), 1)
    assert torch.equal(sampled(model), sampled(model, positive=conditioning(same)))
    other = same.clone()
    other[3:] = labels(0, 1, 1, 0)
    changed = sampled(model, positive=conditioning(other))
    assert torch.equal(changed[:3], sampled(model)[:3])  # the tiny model is causal
    assert not torch.allclose(changed[3:], sampled(model)[3:])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"positive": conditioning(labels(1, 0))}, "positive label vector is 1 rows of 2"),
        ({"positive": conditioning(labels(1, 0, 0, 0).repeat(2, 1))}, "2 rows of 4.*per frame \\(6\\)"),
        ({"positive": conditioning(None) * 2}, "holds 2 conditions"),
        ({"positive": []}, "holds 0 conditions"),
        ({"cfg": 2.0}, "no negative condition"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(tiny_video_model, given, words):
    with pytest.raises(ValueError, match=words):
        sampled(models.video_model(tiny_video_model), **given)


def test_models_that_share_a_network_do_not_hear_of_each_other(tiny_video_model):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    assert torch.equal(sampled(model.clone()), before)
    other = replace(model, motions=())
    assert not torch.allclose(sampled(other), before)
    with pytest.raises(ValueError, match="conditions"):
        sampled(other, positive=[])
    assert torch.equal(sampled(model), before)


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_nothing_is_left_behind_after_an_error(tiny_video_model, error):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    closed = []

    def algorithm(job):
        try:
            yield Step(1, 2, job.denoise(View.plain(job.latent, torch.ones(len(job.latent)))))
            raise error
        finally:
            closed.append(True)

    with pytest.raises(type(error)):
        sample(model, conditioning(None), cfg=1.0, latent=torch.zeros(3, 48, 4, 4), algorithm=algorithm)
    assert closed == [True]
    assert not [module for module in model.unet.modules() if "forward" in vars(module)]
    assert all(motion.frames is None for motion in model.motions)
    assert torch.equal(sampled(model), before)


def test_cancel_closes_the_sampler(tiny_video_model):
    model, run, closed = models.video_model(tiny_video_model), session.Session(), []
    run.report = lambda report: run.cancel() if report.done == 2 else None

    def rows():
        try:
            for row in range(1, 6):
                yield Step(row, 5)
        finally:
            closed.append(row)

    held = rows()  # so that nothing but an explicit close ends it
    with run.active(), pytest.raises(session.Interrupted):
        latent = torch.zeros(3, 48, 4, 4)
        sample(model, conditioning(None), cfg=1.0, latent=latent, algorithm=lambda job: held)
    assert closed == [2]


def test_the_vae_of_a_pixel_model_only_folds(tiny_video_model):
    vae = models.vae(tiny_video_model.info)
    pixels = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert vae.encode(pixels).shape == (2, 48, 4, 4)
    assert torch.allclose(vae.decode(vae.encode(pixels)), pixels, atol=1e-6)
    with pytest.raises(ValueError, match="VAE"):
        models.vae(replace(tiny_video_model.info, patch=0))


def test_only_our_models_say_what_they_are(tiny_video_model):
    assert models.video_info(models.video_model(tiny_video_model)) == tiny_video_model.info
    assert models.video_info(object()) is None


def test_progress_draws_on_terminals_only(capsys):
    class Terminal:
        text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    bar = session.Bar(terminal)
    for done in (1, 2):
        bar(session.Report("node 5 (X)", done, 2))
    assert "node 5 (X) [############............] 1/2" in terminal.text
    assert terminal.text.endswith("\n")
    session.Bar()(session.Report("", 1, 2))
    assert capsys.readouterr().err == ""


def module_for(info, **changes):
    """A motion module for the tiny model's slots."""
    from pack.modules.checkpoints.motion import MotionModule
    from tiny import seeded

    with seeded(3):
        _, network = new_networks(info)
    channels = {name: network.at(name).proj_in.in_features for name in network.names}
    values = {"name": "m.safetensors", "family": "v3", "widths": channels, "config": info.temporal}
    values |= {"state": network.state_dict(), "noise_schedule": "linear", "clip_norms": False, "max_frames": 32}
    return MotionModule(**(values | changes))


def test_a_motion_module_works_on_the_clone_only(tiny_video_model):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    moved = models.apply_motion(model, module_for(tiny_video_model.info))
    after = sampled(moved)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(sampled(model), before)
    assert torch.equal(sampled(moved), after)
    assert torch.equal(models.noise_schedule(moved).sigmas, NoiseSchedule.named("linear").sigmas)
    assert torch.equal(models.noise_schedule(model).sigmas, NoiseSchedule.named("cosine").sigmas)


def test_a_module_that_changes_nothing_changes_nothing(tiny_video_model):
    model = models.video_model(tiny_video_model)
    module = module_for(tiny_video_model.info, noise_schedule="cosine")
    zero = {key: torch.zeros_like(value) if ".proj_out." in key else value for key, value in module.state.items()}
    assert torch.equal(sampled(models.apply_motion(model, replace(module, state=zero))), sampled(model))


def test_modules_for_other_networks_are_refused(tiny_video_model):
    model, module = models.video_model(tiny_video_model), module_for(tiny_video_model.info)
    with pytest.raises(ValueError, match="first generation"):
        models.apply_motion(model, replace(module, clip_norms=True))
    other = {name.replace("down_blocks.0", "down_blocks.7"): width for name, width in module.widths.items()}
    state = {key.replace("down_blocks.0", "down_blocks.7"): value for key, value in module.state.items()}
    with pytest.raises(ValueError, match="is for a U-Net with levels of 64, 32 channels"):
        models.apply_motion(model, replace(module, widths=other, state=state))
    assert not [layer for layer in model.unet.modules() if "forward" in vars(layer)]
