"""A MotionLoRA and a domain adapter that begin with a file go on from its weights; a file that does not fit is refused at once."""

from dataclasses import replace

import pytest
import torch
from pack import host
from pack.modules.train.tasks import TRAINABLES
from pack.nodes.train import train_motion
from pack.nodes.train.train_motion import LongTakeTrainMotion
from safetensors.torch import load_file
from tiny import info, video_model
from tiny_trainables import QUICK, WORDS, folders_in, same, shapes_of

pytestmark = pytest.mark.skipif(
    host.name != "standalone", reason="native models as an image model exist on the standalone host only"
)
FOLDERS = {"motion_lora": "motion_loras", "motion_lora_dual": "motion_loras", "domain_adapter": "loras"}


@pytest.fixture
def teach(tmp_path, monkeypatch):
    """The node, on a model with or without a motion module; files it has made may be chosen to start from."""
    model = host.video_model(video_model(labels=WORDS, unet=replace(info().unet, label_channels=len(WORDS))))
    folders_in(monkeypatch, tmp_path)
    monkeypatch.setattr(train_motion, "lora_file", lambda name: next(tmp_path.rglob(name)))

    def run(what, name, **inputs):
        own = model if TRAINABLES[what].beside_module else replace(model, motions=(), settings=())
        given = {"vae": host.vae(info()), "steps": 2, "learning_rate": 1e-2, "rank": 2, "options": QUICK, "seed": 1}
        made = LongTakeTrainMotion.execute(model=own, clips=shapes_of(16), what=what, name=name, **given | inputs).args
        return tmp_path / FOLDERS.get(what, "motion_modules") / made[1], made[-1]

    return run


@pytest.mark.parametrize("what", FOLDERS)
def test_it_goes_on_from_the_file(teach, what):
    first, _ = teach(what, "first")
    still, _ = teach(what, "still", start="first.safetensors", learning_rate=1e-8, steps=1)
    one, other = load_file(first), load_file(still)
    assert one.keys() == other.keys()
    assert all(torch.allclose(value, other[key], atol=1e-6) for key, value in one.items()) and any(v.any() for v in one.values())
    further, _ = teach(what, "further", start="first.safetensors", seed=2)
    assert not same(one, load_file(further))
    with pytest.raises(ValueError, match=r"another run \(.*start.* differ"):
        teach(what, "still", start="further.safetensors", learning_rate=1e-8, steps=1)


def test_files_that_do_not_fit_are_one_sentence_and_its_remedy_works(teach, tmp_path):
    teach("motion_lora", "motion"), teach("domain_adapter", "looks")
    with pytest.raises(ValueError, match="rank is 4 and the file to start from has 2: set rank to 2"):
        teach("motion_lora", "x", rank=4, start="motion.safetensors")
    with pytest.raises(ValueError, match="holds nothing of a motion lora"):
        teach("motion_lora", "x", start="looks.safetensors")
    with pytest.raises(ValueError, match="change other layers .* same train_blocks"):
        teach("motion_lora", "x", start="motion.safetensors", options=replace(QUICK, train_blocks="up.1"))
    with pytest.raises(ValueError, match="motion.safetensors is a LoRA, and a motion module is trained: connect the module"):
        teach("motion_module", "x", start="motion.safetensors")
    assert not list(tmp_path.rglob("x.*"))
