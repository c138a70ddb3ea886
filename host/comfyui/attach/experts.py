"""Two networks that are one model: Wan 2.2's experts, one for much noise and one for little; each frame goes to the expert of its level.

The network's ``_forward`` is replaced on the MODEL (an object patch), behind all wrappers, so patches act on both networks alike. The other
network is an additional model of the MODEL: ComfyUI loads both, partly where memory is short. Which networks a call is about travels in
its transformer options; the patch itself holds nothing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from comfy.ldm.wan.model import WanModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..options import call_options, with_options
from ..parts.patches import hangs, title_of

KEY = "longtake_experts"  # of the wrappers, the additional model, and in transformer options: a ``Pair``
FORWARD = "diffusion_model._forward"
TEXT, IMAGE = 0.875, 0.9  # boundaries of Wan 2.2's authors, for text and for image to video, as a share of the timesteps


class Pair(NamedTuple):
    """The networks of a call, and the timestep from which on frames are the first one's."""

    high: WanModel
    low: WanModel
    boundary: float


def apply_experts(high: ModelPatcher, low: ModelPatcher, boundary: float = 0.0) -> ModelPatcher:
    """A clone of ``high`` in which frames below the boundary go to ``low``; what an earlier call said is replaced.

    Args:
        high: a Wan model for much noise.
        low: its sibling for little.
        boundary: the share of the timesteps that are the first one's least; 0 for the authors'.

    Raises:
        ValueError: they are no such siblings, or something hangs on the second, which would act on neither. One sentence.
    """
    networks = [model.model.diffusion_model for model in (high, low)]
    for name, model, network in zip(("high", "low"), (high, low), networks, strict=True):
        if not isinstance(network, WanModel):
            raise ValueError(
                f"the {name}-noise model is {type(model.model).__name__}: two experts are Wan models, such as Wan 2.2"
            )
    if high.model is low.model:
        raise ValueError(
            "both experts are the same model: connect the high-noise file to one and the low-noise file to the other"
        )
    kinds = [(type(network).__name__, network.in_dim, network.out_dim, network.text_dim) for network in networks]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"the experts are of different kinds, {kinds[0][0]} of {kinds[0][1]} channels and {kinds[1][0]} of {kinds[1][1]}: connect the"
            " two files of one model"
        )
    names = [title_of(hung) for hung in hangs(low.model_options)] + [key for kept in low.wrappers.values() for key in kept]
    if any(names):
        raise ValueError(
            f"{next(filter(None, names))} hangs on the low-noise model and would be left out: put it behind Two Experts, where it acts on"
            " both; LoRAs stay before it"
        )
    patched = high.clone()
    patched.set_additional_models(KEY, [low.clone()])
    patched.add_object_patch(FORWARD, Experts())
    share = boundary or (IMAGE if networks[0].in_dim > networks[0].out_dim else TEXT)
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, check_hooks), (WrappersMP.APPLY_MODEL, Telling(share))):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    return patched


def boundary_of(model: ModelPatcher) -> float:
    """The boundary between the experts of a MODEL, as a share of its timesteps; 0 where it has one network."""
    return next((wrapper.share for wrapper in model.get_wrappers(WrappersMP.APPLY_MODEL, KEY)), 0.0)


def check_hooks(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse hooks of conditions, which change the weights of the first network alone."""
    conds = executor.class_obj.conds
    if any(cond.get("hooks") is not None for several in conds.values() for cond in several or ()):
        raise ValueError(
            "the conditioning has hooks, which change the weights of the high-noise model alone: put LoRAs on both models instead, before"
            " Two Experts"
        )
    return executor(*args, **kwargs)


@dataclass(frozen=True)
class Telling:
    """APPLY_MODEL: tells the call which networks there are.

    Attributes:
        share: see ``apply_experts``.
    """

    share: float

    def __call__(self, executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's signature; ``x``: ``n c f h w``, ``t``: ``n``. Returns ``n c f h w``."""
        base = executor.class_obj
        (low,) = base.current_patcher.get_additional_models_with_key(KEY)
        boundary = float(base.model_sampling.timestep(torch.tensor(self.share)))
        pair = Pair(base.diffusion_model, low.model.diffusion_model, boundary)
        args, kwargs = with_options(args, kwargs, {**call_options((t, *args), kwargs), KEY: pair})
        return executor(x, t, *args, **kwargs)


@dataclass(frozen=True)
class Experts:
    """In the place of the network's ``_forward``."""

    def __call__(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the network's; ``x``: ``n c f h w``, ``timestep``: ``n`` or ``n f``. Returns ``n c f h w``."""
        pair: Pair = call_options((timestep, *args), kwargs)[KEY]
        mine = timestep >= pair.boundary
        asked = mine[timestep > 0]  # clean frames, whose guess nobody uses, are no reason to ask
        if not bool(asked.any()):
            return _forward(pair.low, x, timestep, args, kwargs)
        if bool(asked.all()):
            return _forward(pair.high, x, timestep, args, kwargs)
        high, low = (_forward(network, x, timestep, args, kwargs) for network in (pair.high, pair.low))
        rows = mine[:, None].expand(-1, x.shape[2]) if timestep.ndim == 1 else mine
        return torch.where(rows[:, None, :, None, None], high, low)


def _forward(network: WanModel, x: Tensor, timestep: Tensor, args: Any, kwargs: Any) -> Tensor:
    return type(network)._forward(network, x, timestep, *args, **kwargs)
