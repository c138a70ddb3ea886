"""``extend_video`` on the bundled model, as a user without ComfyUI runs it: guidance makes what comes before a clip lead up to it."""

import numpy as np
import pytest
from pack import host
from sheets import cells, pictures

pytestmark = pytest.mark.skipif(
    host.name != "standalone", reason="the nodes run on ComfyUI here; test_nodes.py checks them there"
)
BEFORE, CLIP, AFTER = 8, 16, 2


def frames(folder, weight):
    settings = [f"Before.weight={weight}", "Before.steps=12", "Before.corrector_steps=0"]
    settings += ["Clip.steps=6", "After.steps=4", f"After.new_frames={AFTER}", f"Contact sheet.count={BEFORE + CLIP + AFTER}"]
    sheet = pictures("extend_video", settings, folder)["Save contact sheet"]
    return np.stack(cells(sheet, 8)[: BEFORE + CLIP + AFTER]).astype(float) / 255


def test_a_clip_is_extended_at_both_ends(tmp_path):
    """Without guidance the background changes where the clip begins; with it the step is no larger than others."""
    plain, guided = (frames(tmp_path / str(weight), weight) for weight in (0, 2))
    assert np.array_equal(plain[BEFORE : BEFORE + CLIP], guided[BEFORE : BEFORE + CLIP]), "the clip itself is as it was"
    steps = {name: (np.diff(clip, axis=0) ** 2).mean(axis=(1, 2, 3)) for name, clip in (("plain", plain), ("guided", guided))}
    usual = steps["guided"][BEFORE : BEFORE + CLIP - 1].mean()
    assert steps["plain"][BEFORE - 1] > 4 * usual
    assert steps["guided"][BEFORE - 1] < 2 * usual
    assert steps["guided"][BEFORE + CLIP - 1] < 3 * usual, "what follows goes on from the clip's end"
