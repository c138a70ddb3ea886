"""What a finished file says of itself, beside what its loader needs: for people, for other programs, and for the run that made it."""

import json
from collections.abc import Mapping
from typing import Any

from .run_files import RUN

TRAINING = "longtake_training"
PREDICTION = {"eps": "epsilon", "v": "v", "x0": "sample"}
# U-Net's class in ComfyUI -> architecture in the words of modelspec
ARCHITECTURES = {"SDXL": "stable-diffusion-xl-v1-base", "BaseModel": "stable-diffusion-v1"}


def metadata_of(what: str, about: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, str]:
    """Texts by name for the header of a file: ``modelspec`` keys (stability.ai's ModelSpec 1.0), the rank as trainers of LoRAs name it,
    the run, and everything about it as JSON.

    Args:
        what: is in the file, a name in ``tasks.TRAINABLES``.
        about: what is known of the run, by name: ``name``, ``run``, ``steps``, ``trigger``, ``size`` and so on.
        description: what its checkpoint must agree with (``Task.description``).
    """
    facts = description.get("0", description)  # of tasks that train together the first
    base = facts.get("base", {})
    architecture = ARCHITECTURES.get(base.get("kind", ""), "longtake")
    told = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/{what.replace('_', '-')}",
        "modelspec.title": about.get("name", ""),
        "modelspec.trigger_phrase": about.get("trigger", ""),
        "modelspec.resolution": about.get("size", ""),
        "modelspec.prediction_type": PREDICTION.get(base.get("prediction", ""), ""),
        "ss_network_dim": str(facts.get("rank", "")),
        RUN: about.get("run", ""),
        TRAINING: json.dumps({"what": what, **about, "made_of": description}, sort_keys=True),
    }
    return {name: text for name, text in told.items() if text}
