"""SparseCtrl's frames against Advanced-ControlNet's, kept in a file by ``benchmarks/parity_sparse.py --write``.

The model, the encoder, seeds and settings are drawn anew here, so nothing of the other packs is needed.
"""

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "data" / "acn_sparse.safetensors"
sys.path.append(str(ROOT / "benchmarks"))

from parity_cases import Models, relative_difference  # noqa: E402
from parity_sparse import CASES, LIMIT, WIDTH, ours  # noqa: E402

pytestmark = pytest.mark.comfy
BY_NAME = {case.name: case for case in CASES}
REPEATED = ("rgb, first and last", "scribble, three", "rgb, multipliers", "rgb, from 20 to 70 percent")


@pytest.fixture(scope="module")
def models(comfyui):
    return Models(WIDTH)


def test_the_file_holds_every_case():
    assert set(load_file(GOLDEN)) == set(BY_NAME)
    assert GOLDEN.stat().st_size < 100_000


@pytest.mark.parametrize("name", REPEATED)
def test_frames_are_advanced_controlnets(name, models, tmp_path):
    assert relative_difference(ours(BY_NAME[name], models, tmp_path), load_file(GOLDEN)[name]) < LIMIT
