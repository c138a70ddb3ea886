"""What PEFT's settings, which diffusers writes into a LoRA's metadata, say about scale."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .schema import json_object, shown

PEFT_METADATA = "lora_adapter_metadata"  # where diffusers writes them, as JSON
MOST_ALPHA = 1e6
LAYER = re.compile(r"^[\w.]+$")


@dataclass(frozen=True)
class Peft:
    """What PEFT's settings in a file's metadata say about scale; nothing, for files without.

    Attributes:
        lora_alpha: of every layer that ``patterns`` does not name.
        patterns: by the end of a layer's path its place in the file, of which the first counts, and the layer's alpha.
        by_root: whether alpha is divided by the root of the rank.
    """

    lora_alpha: float | None = None
    patterns: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    by_root: bool = False

    def alpha(self, key: str) -> float | None:
        """Of the layer that ``key`` belongs to."""
        parts = re.sub(r"^unet\.|\.lora_.*$", "", key).split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        return min((self.patterns[end] for end in ends if end in self.patterns), default=(0, self.lora_alpha))[1]

    def divisor(self, rank: int) -> float:
        return math.sqrt(rank) if self.by_root else rank


def read_peft(metadata: Mapping[str, str], name: str) -> Peft:
    """PEFT's settings in the metadata of a file.

    Raises:
        ValueError: they are not what diffusers writes.
    """
    where = f"the metadata {PEFT_METADATA!r} of {name}"
    settings = {key.removeprefix("unet."): value for key, value in json_object(metadata.get(PEFT_METADATA, "{}"), where).items()}
    alpha, alphas, by_root = (settings.get(key) for key in ("lora_alpha", "alpha_pattern", "use_rslora"))
    if not isinstance(alphas or {}, dict) or not all(
        _number(given) for given in (0 if alpha is None else alpha, *(alphas or {}).values())
    ):
        raise ValueError(f"{where} is not what diffusers writes: its alphas are no numbers; save the LoRA again with diffusers")
    ends = {re.sub(r"^\^|\$$", "", end).replace(r"\.", "."): given for end, given in (alphas or {}).items()}
    strange = next((end for end in ends if not LAYER.match(end)), None)
    if strange is not None:
        raise ValueError(
            f"{where} picks layers by the pattern {shown(strange)}, and only names are read: save the LoRA again with diffusers"
        )
    return Peft(
        None if alpha is None else float(alpha),
        {end: (place, float(given)) for place, (end, given) in enumerate(ends.items())},
        bool(by_root),
    )


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MOST_ALPHA
