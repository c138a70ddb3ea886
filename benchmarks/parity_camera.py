"""This pack's camera (CameraCtrl) against AnimateDiff-Evolved's: ``python benchmarks/parity_camera.py --ade PATH``.

As ``parity_ade.py``, whose models and limit these are: both packs' own nodes, in one ComfyUI, on the same random weights. Each row
compares the pose encoder's features, level by level, and the final latents.

AnimateDiff-Evolved cannot encode more than 16 poses at once as it ships: its encoder asks for a noise level that nobody gives it. Here
it is given one, which changes nothing else.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import parity_ade
import torch
from parity_cases import Context, Models, relative_difference
from parity_models import FAMILIES, TRANSFORMER, drawn, slots, table, text, transformer_shapes
from peers import start_comfyui
from safetensors.torch import save_file
from torch import Tensor

LIMIT = 1e-4
ENCODER_FRAMES = 16
TURNS = ((0.0, 0.3, 0.1), (0.02, -0.05, 0.04))  # of the path in a file: angles and shifts, for each second
# our name for a move -> theirs
MOVES = {
    "static": "Static",
    "pan left": "Tilt Left",
    "pan right": "Tilt Right",
    "tilt up": "Tilt Up",
    "tilt down": "Tilt Down",
    "roll clockwise": "Roll Clockwise",
    "roll anticlockwise": "Roll Anticlockwise",
    "move left": "Pan Left",
    "move right": "Pan Right",
    "move up": "Pan Up",
    "move down": "Pan Down",
    "move forward": "Zoom In",
    "move backward": "Zoom Out",
}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: of the row.
        moves: at the same time, with factors; a file where there are none.
        frames: length of the clip.
        size: of the latent, height and width.
        strength: of the camera.
        speed: of the moves.
        context: windows; None for one.
        golden: whether our tests repeat this row without AnimateDiff-Evolved.
    """

    name: str
    moves: tuple[tuple[str, float], ...] = ()
    frames: int = 16
    size: tuple[int, int] = (8, 8)
    strength: float = 1.0
    speed: float = 1.0
    context: Context | None = None
    golden: bool = False

    def small(self) -> "Case":
        """Fewer frames, for a file in the repository."""
        if self.context is None:
            return replace(self, frames=self.frames // 2)
        return replace(self, frames=20, context=replace(self.context, length=8, overlap=4))


COMBINED = (("move forward", 0.7), ("pan right", 0.3), ("tilt up", 0.2), ("roll clockwise", 0.4))
CASES = (
    *(Case(name, ((name, 1.0),)) for name in MOVES),
    Case("four moves at once, wide", COMBINED, size=(8, 16), golden=True),
    Case("tall", COMBINED, size=(16, 8)),
    Case("file", golden=True),
    Case("strength 0.4, fast", (("move left", 1.0),), strength=0.4, speed=3.0, golden=True),
    Case("whole windows", COMBINED, 42, context=Context("whole"), golden=True),
    Case("whole looped_uniform", COMBINED, 42, context=Context("whole", "looped_uniform", closed_loop=True)),
    Case("views", COMBINED, 42, context=Context("views"), golden=True),
    Case("views looped_uniform", COMBINED, 42, context=Context("views", "looped_uniform", closed_loop=True)),
)


def camera_file(folder: Path, width: int, seed: int = 0) -> str:
    """Write a CameraCtrl module in its pruned release's layout, float32. Gives the file's name."""
    levels = [width * mult for mult in (1, 2, 4, 4)]
    shapes: dict[str, tuple[int, ...]] = {"encoder_conv_in.weight": (width, 384, 3, 3), "encoder_conv_in.bias": (width,)}
    for level, made in enumerate(levels):
        for block in range(2):
            name = f"encoder_down_conv_blocks.{level}.{block}"
            given = levels[max(0, level - 1)] if block == 0 else made
            convolutions = [("block1", made, 3), ("block2", made, 1), *([("in_conv", given, 1)] if given != made else [])]
            for part, channels, size in convolutions:
                shapes |= {f"{name}.{part}.weight": (made, channels, size, size), f"{name}.{part}.bias": (made,)}
            whole = {key.partition(f"{TRANSFORMER}.")[2]: shape for key, shape in transformer_shapes(made).items()}
            one = {key: shape for key, shape in whole.items() if key and "blocks.1" not in key and "norms.1" not in key}
            shapes |= {f"encoder_down_attention_blocks.{level}.{block}.{key}": shape for key, shape in one.items()}
    for slot, channels in slots(FAMILIES["v3"], width).items():
        name = f"{slot}.{TRANSFORMER}.attention_blocks.0.processor.qkv_merge"
        shapes |= {f"{name}.weight": (channels, channels), f"{name}.bias": (channels,)}
    state = {key: drawn(key, shape, seed) for key, shape in shapes.items()}
    for level, made in enumerate(levels):
        for block in range(2):
            key = f"encoder_down_attention_blocks.{level}.{block}.attention_blocks.0.pos_encoder.pe"
            state[key] = table(ENCODER_FRAMES, made)
    save_file(state, folder / f"parity_camera_{width}_{seed}.safetensors")
    return f"parity_camera_{width}_{seed}.safetensors"


def pose_text(frames: int) -> str:
    """A file of RealEstate10K's kind, as its videos have them: the camera is somewhere, turns and moves."""
    lines = ["https://www.example.invalid/watch?v=0"]
    for frame in range(frames):
        angle, shift = (torch.tensor(part, dtype=torch.float64) * (1 + frame / 8) for part in TURNS)
        cross = torch.zeros(3, 3, dtype=torch.float64)
        cross[[2, 0, 1], [1, 2, 0]], cross[[1, 2, 0], [2, 0, 1]] = angle, -angle
        matrix = torch.cat([torch.linalg.matrix_exp(cross), 5 * shift[:, None]], dim=1)
        lens = (0.5 + frame / 1000, 0.9 + frame / 1000, 0.5, 0.5, 0, 0)
        lines.append(" ".join([str(frame * 40000), *(f"{value:.9f}" for value in (*lens, *matrix.flatten().tolist()))]))
    return "\n".join(lines) + "\n"


class Cameras(Models):
    """Image models, motion modules and cameras of one width."""

    def __init__(self, width: int):
        super().__init__(width)
        self.modules.mkdir(parents=True, exist_ok=True)
        self.camera = camera_file(self.modules, width)

    def pose_file(self, frames: int) -> str:
        """Write a file of poses into ComfyUI's input folder. Gives its name."""
        import folder_paths

        name = f"parity_poses_{frames}.txt"
        (Path(folder_paths.get_input_directory()) / name).write_text(pose_text(frames))
        return name


def sampled(model: Any, case: Case) -> Tensor:
    """The latents that ComfyUI's own KSampler makes: ``f 4 h w``."""
    import nodes

    latent = {"samples": torch.zeros(case.frames, 4, *case.size)}
    with torch.inference_mode():
        return nodes.KSampler().sample(model, 1, 3, 2.0, "euler", "normal", text(3), text(4), latent)[0]["samples"]


def our_path(case: Case, models: Cameras) -> Any:
    """The path by our node."""
    from pack.nodes.motion.camera import LongTakeCameraPoses

    if case.moves:
        lines = "\n".join(f"{name} {factor}" for name, factor in case.moves)
        inputs: dict[str, Any] = {"move": "static", "more_moves": lines, "speed": case.speed}
    else:
        inputs = {"move": "from file", "file": models.pose_file(case.frames)}
    return LongTakeCameraPoses.execute(frames=case.frames, **inputs).result[0]


def ours(case: Case, models: Cameras) -> tuple[list[Tensor], Tensor]:
    """This pack's features and frames, by its own nodes."""
    from pack.nodes.motion.camera import LongTakeApplyCamera, LongTakeGraftCamera
    from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeLoadMotionModule
    from pack.nodes.motion.windows import LongTakeContextWindows

    path = our_path(case, models)
    motion = LongTakeLoadMotionModule.execute(motion_module=models.module("v3")).result[0]
    motion = LongTakeGraftCamera.execute(motion_module=motion, camera=models.camera).result[0]
    model = LongTakeApplyMotionModule.execute(model=models.image("SD1.5"), motion_module=motion).result[0]
    model = LongTakeApplyCamera.execute(model=model, poses=path, strength=case.strength).result[0]
    if case.context is not None:
        model = LongTakeContextWindows.execute(model=model, **vars(case.context)).result[0]
    with torch.inference_mode():
        features = motion.camera.build().encoder(path, *case.size)
    return features, sampled(model, case)


class Theirs(parity_ade.Theirs):
    """AnimateDiff-Evolved, with cameras of any width and more than 16 poses."""

    def __init__(self, checkout: Path, models: Cameras):
        """Import it."""
        super().__init__(checkout, models)
        self.camera = models.camera
        self.pose_file = models.pose_file
        injection, file = (self.peer.module(f"animatediff.{name}") for name in ("model_injection", "motion_module_ad"))
        original, forward = injection.CameraPoseEncoder, file.TemporalTransformerBlock.forward

        def narrow(channels: list[int], **rest: Any) -> Any:
            return original(channels=[c * models.width // parity_ade.REAL_WIDTH for c in channels], **rest)

        def with_options(block: Any, *args: Any, transformer_options: Any = None, **rest: Any) -> Tensor:
            return forward(block, *args, transformer_options=transformer_options or {"sigmas": torch.ones(1)}, **rest)

        injection.CameraPoseEncoder = narrow
        file.TemporalTransformerBlock.forward = with_options

    def results(self, case: Case) -> tuple[list[Tensor], Tensor]:
        """Its features and frames."""
        call, poses = self.peer.call, self._poses(case)
        loaded = call("ADE_LoadAnimateDiffModelWithCameraCtrl", model_name=self.models.module("v3"), camera_ctrl=self.camera)
        strength = call("ADE_MultivalDynamic", float_val=case.strength)
        group = call(
            "ADE_ApplyAnimateDiffModelWithCameraCtrl", motion_model=loaded, cameractrl_poses=poses, cameractrl_multival=strength
        )
        model = call(
            "ADE_UseEvolvedSampling",
            model=self.models.image("SD1.5"),
            beta_schedule="autoselect",
            m_models=group,
            context_options=None if case.context is None else self._context(case.context),
        )
        file, (height, width) = self.peer.module("animatediff.adapter_cameractrl"), case.size
        seen = file.prepare_pose_embedding([file.CameraEntry(pose) for pose in poses], 8 * width, 8 * height)
        with torch.inference_mode():
            features = loaded.model.camera_encoder(seen, video_length=case.frames)
        shaped = [x.permute(1, 2, 0).unflatten(2, (height >> level, width >> level)) for level, x in enumerate(features)]
        return shaped, sampled(model, case)

    def _poses(self, case: Case) -> Any:
        if not case.moves:
            return self.peer.call("ADE_LoadCameraPoses", pose_filename=self.pose_file(case.frames))
        padded = [*case.moves, *[("static", 1.0)] * (6 - len(case.moves))]
        inputs: dict[str, Any] = {f"motion_type{place}": MOVES[name] for place, (name, _) in enumerate(padded, 1)}
        inputs |= {f"strength{place}": factor for place, (_, factor) in enumerate(padded, 1)}
        return self.peer.call("ADE_CameraPoseAdvanced", **inputs, speed=case.speed, frame_length=case.frames)


def write(path: Path, pack: Theirs) -> None:
    """Store theirs for the cases that our tests repeat, in their small form: the frames, and of the features the coarsest level."""
    stored: dict[str, Tensor] = {}
    for case in CASES:
        if case.golden:
            features, frames = pack.results(case.small())
            stored |= {f"{case.name}/frames": frames.contiguous(), f"{case.name}/features": features[-1].contiguous()}
    about = {"made by": "benchmarks/parity_camera.py --write", "width": str(pack.models.width), "torch": torch.__version__}
    save_file(stored, path, about)


def main() -> int:
    """Print the table. Gives the number of rows over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ade", type=Path, required=True, help="AnimateDiff-Evolved's checkout")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's checkout; without it, the one that the tests use")
    parser.add_argument("--width", type=int, default=32, help="channels at the finest level; the real models have 320")
    parser.add_argument("--only", default="", help="only rows with this in their names")
    parser.add_argument("--write", type=Path, help="store their results of the rows that our tests repeat, in this file")
    given = parser.parse_args()
    start_comfyui(given.comfyui)
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    models = Cameras(given.width)
    models.module("v3")  # it complains where there is no file at all
    pack = Theirs(given.ade, models)
    if given.write:
        write(given.write, pack)
    over = 0
    print(f"{'':32} features   frames")
    for case in (case for case in CASES if given.only in case.name):
        mine, wanted = ours(case, models), pack.results(case)
        features = max(relative_difference(a, b) for a, b in zip(mine[0], wanted[0], strict=True))
        frames = relative_difference(mine[1], wanted[1])
        over += max(features, frames) > LIMIT
        verdict = "" if max(features, frames) <= LIMIT else f"OVER {LIMIT:g}"
        print(f"{case.name:32} {features:8.1e} {frames:8.1e}  {verdict}", flush=True)
    return over


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(min(main(), 1))
