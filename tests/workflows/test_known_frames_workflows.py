"""The workflows around known frames, as a user without ComfyUI runs them: what is known is in the result as it was."""

import numpy as np
import pytest
from pack import host
from sheets import cells, pictures

pytestmark = pytest.mark.skipif(
    host.name != "standalone", reason="the nodes run on ComfyUI here; test_nodes.py checks them there"
)


def test_a_clip_goes_on_from_its_picture(tmp_path):
    settings = ["Noise levels.frames=8", "Noise levels.lag=6", "A clip of one frame.steps=8", "Contact sheet.count=8"]
    made = pictures("image_to_video", settings, tmp_path)
    frames = cells(made["Save contact sheet"], 8)
    assert len(frames) == 8
    assert np.array_equal(frames[0], made["The picture"])
    assert all(np.abs(frame.astype(int) - frames[0]).max() > 40 for frame in frames[1:]), "and it moves"


def test_what_is_filled_in_lies_between_the_known_frames(tmp_path):
    made = pictures("inbetween", ["Noise levels.steps=6"], tmp_path)
    filled, given = cells(made["Save contact sheet"], 8), cells(made["The take that the ends are from"], 8)
    same = [np.array_equal(one, other) for one, other in zip(filled, given, strict=True)]
    assert [index for index, equal in enumerate(same) if equal] == [0, 1, 14, 15]
