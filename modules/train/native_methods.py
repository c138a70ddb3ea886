"""Ways to train a native video model: which noise levels frames have, who sees whom, and whether the true past stands beside them.

``forcing`` is Diffusion Forcing (arXiv:2407.01392), which looks back in time; ``both_ways`` the same, looking both ways, as DFoT does
(arXiv:2502.06764); ``teacher`` next-frame diffusion on the true past; ``full`` all frames at one level (Ho et al., arXiv:2204.03458).
To add a way, add a row to ``METHODS``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A row of choices.

    Attributes:
        levels: a name in ``levels.LEVELS``, unless the user chooses another.
        mask: the temporal mask of the finished model, where its modules can see more than the past.
        samples: a name in ``schedules.SCHEDULES``, how clips are sampled while it trains.
        beside: whether the clean clip goes through the model too, and noisy frames see its earlier frames.
    """

    levels: str
    mask: str
    samples: str
    beside: bool = False


METHODS: dict[str, Method] = {
    "forcing": Method("forcing", "causal", "pyramid"),
    "both_ways": Method("forcing", "full", "full_sequence"),
    "teacher": Method("independent", "causal", "autoregressive", beside=True),
    "full": Method("shared", "full", "full_sequence"),
}
