"""What a training is resumed in: the same weights, patches and texts, whatever process built them, and no others."""

import pytest
import torch
from pack.modules.train.checkpoint import differences
from tiny_motion import image_model, text
from tiny_trainables import QUICK, Squares, Words, folders_in, shapes_of

described = pytest.importorskip("pack.host.comfyui.training_checks", reason="no ComfyUI", exc_type=ImportError).described
text_encoder = pytest.importorskip("pack.host.comfyui.training_encoders", reason="no ComfyUI", exc_type=ImportError).text_encoder

pytestmark = pytest.mark.comfy


def patched(seed=0, strength=1.0, by=0):
    """A MODEL with a LoRA on one of its layers, made anew."""
    with torch.inference_mode():
        model = image_model(seed)
        key = next(key for key in model.model.state_dict() if key.endswith("to_q.weight"))
        made = model.clone()
        change = torch.randn(model.model.state_dict()[key].shape, generator=torch.Generator().manual_seed(by))
        made.add_patches({key: ("diff", (change,))}, strength)
        return made


def test_equal_models_are_equal_and_others_are_named(comfyui):
    import comfy.model_management

    plain = described(image_model(0))
    assert differences(plain, described(image_model(0))) == []
    assert differences(plain, described(image_model(1))) == ["weights"]
    one = patched()
    told = described(one)
    assert differences(plain, told) == ["LoRAs and other patches of weights"] == differences(told, described(patched(by=1)))
    assert differences(told, described(patched(strength=0.5))) == ["LoRAs and other patches of weights"]
    assert differences(told, described(patched())) == [], "whatever name its patches have in this process"
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([one])
        try:
            assert described(one) == told, "wherever it is loaded"
        finally:
            comfy.model_management.unload_all_models()


def test_a_text_encoder_with_a_lora_has_the_same_key_at_each_start(comfyui):
    def encoder(by=None):
        torch.manual_seed(0)
        words = Words()
        if by is not None:
            words.patcher.add_patches({"weight": ("diff", (torch.full((1, 1), by),))}, 1.0)
        return text_encoder(image_model(0), words)

    assert encoder(0.5).key == encoder(0.5).key, "before, it was drawn anew, which broke resume and the cache"
    assert len({encoder().key, encoder(0.5).key, encoder(0.25).key}) == 3


def test_a_run_on_another_base_is_refused_with_what_differs(tmp_path, monkeypatch, comfyui):
    from pack.nodes.train.train_motion import LongTakeTrainMotion

    folders_in(monkeypatch, tmp_path)
    clips = shapes_of(16)

    def teach(model):
        with torch.inference_mode():
            given = {"vae": Squares(), "conditioning": text(), "clip": torch_words(), "options": QUICK, "steps": 1, "rank": 2}
            return LongTakeTrainMotion.execute(model=model, clips=clips, what="domain_adapter", **given).args[-1]

    teach(image_model(0))
    with pytest.raises(ValueError, match=r"belongs to another run \(base\.weights differ\)"):
        teach(image_model(1))
    with pytest.raises(ValueError, match=r"another run \(base\.LoRAs and other patches of weights differ\)"):
        teach(patched())
    assert "1 steps" in teach(image_model(0))


def torch_words():
    torch.manual_seed(0)
    return Words()
