"""AnimateLCM's sampling on models that predict the noise, v or the clean frames: one consistency function."""

import pytest
import torch
from tiny_motion import image_model, motion_state, without_tables
from weight_files import saved

pytestmark = pytest.mark.comfy

# what a model that knows the answer gives, of the clean frames, the noise and the level, and ComfyUI's name for it
ANSWERS = {
    "eps": lambda clean, noise, sigma: noise,
    "v_prediction": lambda clean, noise, sigma: (noise - sigma * clean) / (sigma**2 + 1) ** 0.5,
    "x0": lambda clean, noise, sigma: clean,
}


@pytest.mark.parametrize("prediction", ANSWERS)
def test_the_clean_frames_do_not_depend_on_what_a_model_predicts(tmp_path, prediction):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
    from pack import host
    from pack.modules.checkpoints.motion import load_motion_module

    module = load_motion_module(saved(tmp_path / "lcm.safetensors", without_tables(motion_state(middle=True))))
    assert module.family == "AnimateLCM"
    model = ModelSamplingDiscrete().patch(image_model(), prediction, False)[0]
    sampling = host.apply_motion(model, module).get_model_object("model_sampling")
    sigmas = sampling.sigmas[[0, 40, 99]].double()
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    level = sigmas.view(-1, 1, 1, 1)
    noisy = clean + level * noise
    scaled = 10 * torch.tensor([9.0, 409, 999], dtype=torch.float64).view(-1, 1, 1, 1)  # every tenth timestep was distilled
    wanted = scaled / (scaled**2 + 0.25).sqrt() * clean + 0.25 / (scaled**2 + 0.25) * noisy
    given = sampling.calculate_denoised(sigmas, ANSWERS[prediction](clean, noise, level), noisy)
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)
