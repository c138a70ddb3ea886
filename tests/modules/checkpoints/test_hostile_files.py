"""Damaged and hostile files of every kind that a node loads: each is refused in one sentence or read right, at once and in little memory.

What is changed is drawn from the number of the change (``helpers/mutations.py``), so a failure is seen again with the same number.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest
import small_pseudo3d
import small_skyreels
import tiny
import tiny_lora
import tiny_prompt
import tiny_sparse
import torch
from mutations import Named, mutate, packed
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.checkpoints.motion_lora import load_motion_lora
from pack.modules.checkpoints.pseudo3d import load_pseudo3d
from pack.modules.checkpoints.skyreels import fps_modulation, read_fps
from pack.modules.checkpoints.sparsectrl import load_sparse_control, saved_state
from pack.modules.checkpoints.video_model import load_video_model
from pack.modules.nets.unet import UNet
from safetensors.torch import save_file
from tiny_motion import PUBLISHED, UNET, camera_state

SMALL = (32,)
LEVELS = {"HotshotXL": (32, 32, 32)}  # which say that it is SDXL's


def state_of(network):
    return dict(network.state_dict())


def lora_weights(lora):
    return {f"{key}.{side}": getattr(delta, side) for key, delta in lora.deltas.items() for side in ("up", "down")} | dict(
        lora.spatial
    )


def build_all(*networks):
    return {f"{place}.{key}": value for place, network in enumerate(networks) for key, value in state_of(network).items()}


def sparse(config, **changes):
    """With one level of one block."""
    one = {"channel_mult": (1,), "num_res_blocks": (1,), "transformer_depth": (1,), "transformer_depth_output": (1, 1)}
    return tiny_sparse.replace(config, unet=tiny_sparse.replace(tiny_sparse.HEADS, **one, **changes))


def pixels_sparse():
    return tiny_sparse.in_diffusers_sparse(tiny_sparse.sparse_state(sparse(tiny_sparse.PIXELS)))


def own_sparse():
    config = sparse(tiny_sparse.RGB, num_heads=4, groups=16)
    return saved_state(config, tiny_sparse.network(config).state_dict(), "rgb", 16)


def video_state():
    one = {"channel_mult": (1,), "num_res_blocks": (1,), "transformer_depth": (1,), "transformer_depth_output": (1, 1)}
    unet = tiny.config(in_channels=48, out_channels=48, label_channels=len(tiny.LABELS), **one)
    model = tiny.video_model(unet=unet, slots=tiny.slot_subset(unet))
    state = {f"model.diffusion_model.{key}": value for key, value in model.unet.items()}
    return state | {f"temporal.{key}": value for key, value in model.temporal.items()}, {"longtake": model.info.json()}


def prompt(kind):
    with torch.device("meta"):
        unet = UNet(UNET)
    return tiny_prompt.prompt_state(unet, kind)


# kind of file -> (its tensors and metadata, how it is loaded, the weights that are used of it)
FILES = {
    **{
        f"motion {family}": (
            lambda family=family: (PUBLISHED[family](levels=LEVELS.get(family, SMALL)), {}),
            load_motion_module,
            lambda motion: state_of(motion.build()),
        )
        for family in ("v2", "AnimateLCM-I2V", "PIA", "HotshotXL")
    },
    "MotionLoRA": (lambda: (tiny_lora.lora_state(levels=SMALL), {}), load_motion_lora, lora_weights),
    "PEFT": (
        lambda: (tiny_lora.lora_state("PEFT"), tiny_lora.peft_metadata(8, pattern={"down_blocks.0.motion_modules.0.proj_in": 2})),
        load_motion_lora,
        lora_weights,
    ),
    "adapter": (lambda: (tiny_lora.adapter_state(), {}), load_motion_lora, lora_weights),
    "camera": (lambda: (camera_state(SMALL), {}), load_camera, lambda camera: state_of(camera.build())),
    "SparseCtrl": (
        lambda: (tiny_sparse.sparse_state(sparse(tiny_sparse.RGB)), {}),
        load_sparse_control,
        lambda control: state_of(control.build()),
    ),
    "SparseCtrl of pixels": (
        lambda: (pixels_sparse(), {}),
        load_sparse_control,
        lambda control: state_of(control.build()),
    ),
    "own SparseCtrl": (own_sparse, load_sparse_control, lambda control: state_of(control.build())),
    "image prompt": (lambda: (prompt("plain"), {}), load_image_prompt, lambda prompt: state_of(prompt.build())),
    "image prompt plus": (lambda: (prompt("plus"), {}), load_image_prompt, lambda prompt: state_of(prompt.build())),
    "frame rate": (lambda: (small_skyreels.fps_weights(), {}), read_fps, lambda state: {"all": fps_modulation(state, 24)}),
    "pseudo-3-D": (lambda: (small_pseudo3d.file_state(), {}), load_pseudo3d, lambda model: build_all(*model.build())),
    "video model": (video_state, load_video_model, lambda model: build_all(*model.build())),
}
DESCRIBED = ("own SparseCtrl", "video model")  # in their metadata, which PyTorch's files do not have
KINDS = [
    (kind, ending) for kind in FILES for ending in ("safetensors", "ckpt") if ending == "safetensors" or kind not in DESCRIBED
]

MUTANTS = 300


def node_of(kind):
    """The function that a node of its own loads such a file with."""
    return FILES[kind][1]


@cache
def right_file(kind):
    """(tensors, metadata), made once."""
    return FILES[kind][0]()


def write(path, kind):
    state, metadata = right_file(kind)
    state = {key: value.detach().contiguous().clone() for key, value in state.items()}
    torch.save(state, path) if path.suffix == ".ckpt" else save_file(state, path, metadata)


class Peak:
    """How much memory this process came to hold beyond what it held before: Linux counts it, and counts anew when asked."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self.before = self.most()

    def most(self):
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024


COUNTED = Path("/proc/self/clear_refs").exists()
ROOM = 48 * 2**20  # of Python, torch and the networks' own small parts


def facts(value):
    """What a loaded file is, numbers aside."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if is_dataclass(value):
        return type(value), [facts(getattr(value, item.name)) for item in fields(value)]
    if isinstance(value, tuple | list):
        return [facts(item) for item in value]
    return {key: facts(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    parts = vars(value).values() if is_dataclass(value) else value.values() if isinstance(value, Mapping) else value
    for part in parts if is_dataclass(value) or isinstance(value, Mapping | tuple | list) else ():
        yield from tensors_in(part)


def outcome(kind, path, known=None):
    """What is said of a file; nothing where it is loaded.

    Args:
        kind: of the file.
        path: of the file.
        known: facts of a network that has been built; another one is built, too.
    """
    peak, began = Peak() if COUNTED else None, time.process_time()
    said = None
    try:
        loaded = FILES[kind][1](path)
    except ValueError as error:
        assert type(error) is ValueError, repr(error)
        said = str(error)
    took = time.process_time() - began
    if said is None:
        built = known is None or facts(loaded) != known
        weights = list(FILES[kind][2](loaded).values() if built else tensors_in(loaded))
        assert weights and all(value.is_floating_point() and value.float().isfinite().all() for value in weights)
    else:
        assert said.isprintable() and 30 < len(said) < 700, said
    assert took < 1, f"{took:.1f} s"
    assert peak is None or peak.most() - peak.before < ROOM + 2 * path.stat().st_size, peak.most() - peak.before
    return said


def changed(kind, ending, numbers, folder):
    """Each change of a right file, and what came of it."""
    (folder / "right").mkdir()
    right, path = folder / "right" / f"changed.{ending}", folder / f"changed.{ending}"
    write(right, kind)
    known = facts(FILES[kind][1](right))  # whatever torch makes at its first use is not the file's doing
    assert outcome(kind, right) is None
    for number in numbers:
        shutil.copy(right, path)
        try:
            mutate(path, f"{kind} {ending} {number}")
            yield outcome(kind, path, known)
        except Exception as error:
            raise AssertionError(f"change {number} of {kind}, {ending}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(("kind", "ending"), KINDS, ids=str)
def test_no_file_is_trusted(tmp_path, kind, ending):
    """300 changes of what each node loads, spread over the spellings and endings that it takes."""
    alike = sum(node_of(other) == node_of(kind) for other, _ in KINDS)
    refused = [said for said in changed(kind, ending, range(-(-MUTANTS // alike)), tmp_path) if said]
    assert len(refused) > MUTANTS / alike / 3, "most changes do harm"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ending"), KINDS, ids=str)
def test_no_file_is_trusted_however_it_is_changed(tmp_path, kind, ending):
    """300 of each spelling and ending."""
    refused = [said for said in changed(kind, ending, range(MUTANTS), tmp_path) if said]
    assert len(refused) > MUTANTS / 3


# What was found by hand


def changed_file(tmp_path, kind, change, ending="safetensors"):
    """A right file with ``change(state, metadata)`` done to it."""
    state, metadata = right_file(kind)
    state, metadata = change(dict(state), dict(metadata)) or (state, metadata)
    path = tmp_path / f"changed.{ending}"
    torch.save(state, path) if ending == "ckpt" else save_file(state, path, metadata)
    return path


def first(value):
    """The first weight is made into ``value(weight)``."""

    def change(state, metadata):
        key = next(iter(state))
        return {**state, key: value(state[key])}, metadata

    return change


def told(part, **facts):
    """The description says so."""

    def change(state, metadata):
        about = json.loads(metadata["longtake"])
        (about[part] if part else about).update(facts)
        return state, {"longtake": json.dumps(about)}

    return change


NUMBERS = {
    "NaN": lambda weight: torch.full_like(weight, math.nan),
    "infinite": lambda weight: torch.full_like(weight, math.inf),
    "whole": lambda weight: weight.long(),
    "true or false": lambda weight: weight.bool(),
    "complex": lambda weight: weight.to(torch.complex64),
}


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("kind", FILES)
def test_weights_are_finite_floating_point_numbers_in_every_kind_of_file(tmp_path, kind, numbers):
    said = outcome(kind, changed_file(tmp_path, kind, first(NUMBERS[numbers])))
    assert said is not None and "not made of finite floating-point numbers" in said


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", FILES)
def test_every_precision_is_read_in_every_kind_of_file(tmp_path, kind, dtype):
    def to(state, metadata):
        return {
            key: value.contiguous().to(dtype) if not key.endswith(TABLES) else value for key, value in state.items()
        }, metadata

    assert outcome(kind, changed_file(tmp_path, kind, to)) is None


TABLES = (".pe", ".positional_encoding")


@pytest.mark.parametrize(
    ("part", "facts", "said"),
    [
        ("", {"frames": "x"}, "frames is 'x', and whole numbers from 1"),
        ("", {"patch": -1}, "patch is -1, and whole numbers from 0"),
        ("", {"frames": True}, "frames is True"),
        ("", {"size": [16]}, "size is a list, which is no such list"),
        ("", {"latent_scale": math.nan}, "latent_scale is nan, which is no such number"),
        ("", {"labels": ["a\nb", "c", "d", "e"]}, r"labels is 'a\\nb', which is no such word"),
        ("", {"slots": [3]}, "slots is 3, which is no such word"),
        ("", {"trained": 3}, "trained is 3, which is no table"),
        ("temporal", {"heads": 0}, "heads is 0, and whole numbers from 1"),
        ("temporal", {"clip_norm": 1}, "clip_norm is 1, which is not true or false"),
        ("unet", {"num_heads": 0}, "num_heads is 0, and whole numbers from 1"),
        ("unet", {"groups": 0}, "groups is 0, and whole numbers from 1"),
        ("unet", {"model_channels": 2**40}, "model_channels is 1099511627776, and whole numbers from 1"),
        ("unet", {"channel_mult": [1, 10**9]}, "channel_mult is 1000000000, and whole numbers from 1"),
        ("unet", {"num_res_blocks": [1] * 1000}, "num_res_blocks is a list, which is no such list"),
        ("unet", {"model_channels": 48}, "contradicts itself: |not what its other keys say"),
    ],
    ids=str,
)
def test_a_description_is_of_the_types_and_in_the_ranges_that_it_must_be(tmp_path, part, facts, said):
    given = outcome("video model", changed_file(tmp_path, "video model", told(part, **facts)))
    assert given is not None and re.search(said, given), given


def numbered(key, number):
    return lambda state, metadata: ({**state, key.format(number): torch.ones(32)}, metadata)


@pytest.mark.parametrize("number", [10**6, 10**60])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("motion v2", "down_blocks.{}.motion_modules.0.temporal_transformer.norm.weight"),
        ("motion v2", "up_blocks.0.motion_modules.{}.temporal_transformer.norm.weight"),
        ("motion v2", "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.{}.to_q.weight"),
        ("SparseCtrl", "down_blocks.{}.resnets.0.norm1.weight"),
        ("SparseCtrl", "down_blocks.0.resnets.{}.norm1.weight"),
        ("SparseCtrl of pixels", "controlnet_cond_embedding.blocks.{}.weight"),
        ("pseudo-3-D", "down_blocks.{}.resnets.0.norm1.weight"),
        ("pseudo-3-D", "down_blocks.0.resnets.{}.norm1.weight"),
        ("image prompt", "ip_adapter.{}.to_k_ip.weight"),
    ],
    ids=str,
)
def test_a_number_in_a_key_is_no_count(tmp_path, kind, key, number):
    assert outcome(kind, changed_file(tmp_path, kind, numbered(key, number))) is not None


@pytest.mark.parametrize("kind", FILES)
def test_no_weight_may_have_another_number_of_axes(tmp_path, kind):
    """Each weight in turn as one row: the first layers tell how a network is built."""
    state, _ = right_file(kind)
    for key, value in list(state.items())[:: max(1, len(state) // 5)]:
        said = outcome(
            kind,
            changed_file(tmp_path, kind, lambda state, about, key=key: ({**state, key: state[key].reshape(1, -1)[0]}, about)),
        )
        assert value.ndim < 2 or said or kind == "adapter", key


def test_an_alpha_is_one_finite_number(tmp_path):
    key = next(iter(tiny_lora.lora_state())).replace(".down.weight", ".alpha").replace(".up.weight", ".alpha")
    for alpha in (math.nan, math.inf, 1e30):
        said = outcome(
            "MotionLoRA",
            changed_file(tmp_path, "MotionLoRA", lambda state, about, alpha=alpha: ({**state, key: torch.tensor(alpha)}, about)),
        )
        assert said and "alpha" in said
    whole = changed_file(tmp_path, "MotionLoRA", lambda state, about: ({**state, key: torch.tensor(8)}, about))
    assert {delta.factor for delta in load_motion_lora(whole).deltas.values()} == {1.0, 2.0}


HARM = {
    "one number for 40 GB": lambda: torch.zeros(1).expand(10**5, 10**5),
    "sparse": lambda: torch.eye(32).to_sparse(),
    "without numbers": lambda: torch.empty(32, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "100 GB of zeros": lambda: Named(bytearray, 10**11),
    "40 GB of anything": lambda: Named(torch.Tensor, 10**10),
    "a program": lambda: Named(print, "run"),
}


@pytest.mark.parametrize("old", [False, True], ids=["archive", "old"])
@pytest.mark.parametrize("harm", HARM)
def test_pickles_neither_run_nor_unfold(tmp_path, capsys, harm, old):
    path = tmp_path / "harm.ckpt"
    torch.save({**PUBLISHED["v3"](), "more": HARM[harm]()}, path, _use_new_zipfile_serialization=not old)
    assert outcome("motion v2", path) is not None
    assert "run" not in capsys.readouterr().out


def test_packed_archives_are_not_unpacked(tmp_path):
    path = tmp_path / "packed.ckpt"
    torch.save({"weight": torch.zeros(10**7)}, path)
    packed(path)
    assert path.stat().st_size < 10**5
    assert "cut short or no PyTorch file" in (outcome("motion v2", path) or "")


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_right_file_takes_less_than_twice_its_size(tmp_path, ending):
    """80 MB in half precision, far more than what torch needs for itself."""
    path = tmp_path / f"large.{ending}"
    state = {key: value.half() for key, value in PUBLISHED["v3"](levels=(320, 640)).items()}
    torch.save(state, path) if ending == "ckpt" else save_file(state, path)
    assert path.stat().st_size > 2 * ROOM / 2
    assert outcome("motion v2", path) is None
