"""The standalone host's own files: what nodes save is whole or not there, and under ComfyUI's names."""

import json

import numpy as np
import pytest
import torch
from counted import executor_in, graph
from pack.host.run import errors
from pack.host.standalone import core_nodes, folders, schema, session, ui
from pack.host.standalone import schema as io
from PIL import Image


@pytest.fixture
def executor(tmp_path):
    return executor_in(tmp_path)


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
