"""The networks that clips are told by, as inputs of the nodes that measure."""

from typing import Any

from ... import host
from ...modules.fields.setting import Setting
from ...modules.measure.features import Features, random3d, torchscript
from ..fields import widget

io = host.io
PROXY = "random3d (proxy)"
# what a feature network looks at -> (clips and not frames, class scores and not features)
LOOKS_AT = {"clips": (True, False), "frames": (False, False), "frames, class scores": (False, True)}
RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}


def network_inputs() -> list[Any]:
    """Which network, and what it takes."""
    return [
        io.Combo.Input(
            "features",
            options=[PROXY, *host.files("feature_networks")],
            default=PROXY,
            tooltip="The features of this TorchScript network of models/longtake_metrics are compared: I3D for FVD, Inception"
            " for FID. TorchScript is a program, and it runs here: take it from people you trust, as you would any program."
            " The proxy is an untrained network: its distances compare with nothing published.",
        ),
        widget(
            "looks_at",
            "clips",
            Setting(
                "The network takes this; the proxy does not need to know.",
                menu={
                    "clips": "It takes clips (b 3 f h w).",
                    "frames": "It takes single frames (b 3 h w).",
                    "frames, class scores": "It tells the class of single frames, for inception scores.",
                },
                advanced=True,
            ),
        ),
        widget(
            "size",
            224,
            Setting(
                "The network takes squares with a side of so many pixels; 0 is any size.",
                least=0,
                most=2048,
                advanced=True,
            ),
        ),
        widget(
            "pixels",
            "-1..1",
            Setting("Black and white are these numbers to the network.", menu=list(RANGES), advanced=True),
        ),
    ]


def network_of(features: str, looks_at: str, size: int, pixels: str) -> tuple[Features, bool]:
    """The network that was chosen, and whether it tells classes.

    Raises:
        ValueError: its file cannot be read.
    """
    clips, scores = LOOKS_AT[looks_at]
    if features == PROXY:
        return random3d(), False
    low, high = RANGES[pixels]
    path = host.file("feature_networks", features)
    return torchscript(path, clips=clips, size=size, low=low, high=high, scores=scores), scores
