"""What every schedule promises, for every schedule in the table, and the published matrices."""

import pytest
import torch
from pack.modules.schedules import SCHEDULES, NoiseLevels, least_lag

CASES = [
    (name, frames, steps, lag, block, known)
    for name in SCHEDULES
    for frames, steps, lag, block, known in (
        (1, 1, 1, 1, 0),
        (3, 3, 1, 1, 0),
        (9, 4, 1, 1, 2),
        (12, 8, 2, 2, 3),
        (10, 4, 0.5, 1, 0),
        (7, 5, 7, 1, 1),
        (11, 6, 0, 4, 0),
        (16, 5, 2.5, 3, 4),
    )
]


@pytest.fixture(params=CASES, ids=str)
def levels(request):
    name, frames, steps, lag, block, known = request.param
    return NoiseLevels.named(name, frames, steps, lag=lag, block=block, known=known)


def test_goes_from_noise_to_clean_one_level_at_a_time_and_never_idles(levels):
    matrix = levels.matrix()
    assert (matrix[:, levels.known] == 0).all()
    assert (matrix[0, ~levels.known] == levels.steps).all()
    assert (matrix[-1] == 0).all()
    drop = matrix[:-1] - matrix[1:]
    assert ((drop == 0) | (drop == 1)).all()
    assert drop.any(dim=1).all(), "a row that moves nothing wastes a model call"


def test_calls_are_the_matrix_seen_through_windows(levels):
    matrix = levels.matrix()
    for window in {levels.in_flight(), levels.frames, levels.frames + 5}:
        calls = list(levels.calls(window))
        assert len(calls) == len(matrix) - 1
        for row, call in enumerate(calls):
            assert len(call.ids) <= window
            assert torch.equal(matrix[row, call.ids], call.before)
            assert torch.equal(matrix[row + 1, call.ids], call.after)
            outside = torch.ones(levels.frames, dtype=torch.bool)
            outside[call.ids] = False
            assert torch.equal(matrix[row, outside], matrix[row + 1, outside]), "a frame outside the window would have to move"


def test_a_window_shorter_than_what_is_in_flight_is_refused_before_the_first_call(levels):
    if levels.in_flight() > 1:
        with pytest.raises(ValueError, match=r"window of at least \d+"):
            levels.calls(levels.in_flight() - 1)


def rows(name, frames, steps, **options):
    return ["".join(map(str, row)) for row in NoiseLevels.named(name, frames, steps, **options).matrix().tolist()]


def test_published_matrices():
    """Diffusion Forcing v1.5's, worked out by hand in the notes; the trapezoid as it was meant to be."""
    assert rows("pyramid", 3, 3) == ["333", "233", "123", "012", "001", "000"]
    assert rows("autoregressive", 3, 3) == ["333", "233", "133", "033", "023", "013", "003", "002", "001", "000"]
    assert rows("full_sequence", 3, 3) == ["333", "222", "111", "000"]
    assert rows("trapezoid", 5, 3) == ["33333", "23332", "12321", "01210", "00100", "00000"]
    assert rows("pyramid", 5, 3, lag=0.5) == ["33333", "22333", "11223", "00112", "00001", "00000"]


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
@pytest.mark.parametrize("lag", [0, 0.5, 1, 1.5, 2])
def test_pyramid_is_diffusion_forcing_s_double_loop(steps, frames, lag):
    height = steps + int((frames - 1) * lag) + 1
    reference = torch.tensor([[steps + int(f * lag) - m for f in range(frames)] for m in range(height)]).clamp(0, steps)
    keep = torch.cat([torch.tensor([True]), (reference.diff(dim=0) != 0).any(1)])
    assert torch.equal(NoiseLevels.named("pyramid", frames, steps, lag=lag).matrix(), reference[keep])


@pytest.mark.parametrize("block", [1, 3])
def test_pyramid_spans_from_full_sequence_to_autoregressive(block):
    at = lambda name, lag: NoiseLevels.named(name, 9, 4, lag=lag, block=block).matrix()  # noqa: E731
    assert torch.equal(at("pyramid", 0), at("full_sequence", 1))
    assert torch.equal(at("pyramid", 4), at("autoregressive", 1))
    assert torch.equal(at("pyramid", 99), at("autoregressive", 1)), "a larger lag would only idle"


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 16])
def test_trapezoid_is_symmetric(frames):
    matrix = NoiseLevels.named("trapezoid", frames, 4, lag=1).matrix()
    assert torch.equal(matrix, matrix.flip(1))


@pytest.mark.parametrize(("steps", "window", "block", "context"), [(12, 16, 1, 4), (50, 16, 1, 1), (8, 16, 4, 4), (3, 2, 1, 1)])
def test_least_lag_fits_and_is_least(steps, window, block, context):
    lag = least_lag(steps, window, block, context)
    fits = lambda value: NoiseLevels.named("pyramid", 200, steps, lag=value, block=block).in_flight() <= window - context  # noqa: E731
    assert fits(lag)
    assert lag == 1 or not fits(lag - 1)


def test_model_calls_of_a_long_pyramid_are_lag_per_frame():
    assert len(NoiseLevels.named("pyramid", 164, 12, lag=3, known=4).rows) == 12 + 3 * 159


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "spiral"}, "choose one of pyramid"),
        ({"frames": 0}, "frames is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"block": 0}, "block is 0"),
        ({"lag": -1}, "lag is -1"),
        ({"lag": float("nan")}, "lag is nan"),
        ({"known": 4}, "ask for more frames"),
        ({"known": -1}, "known is -1"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    given = {"name": "pyramid", "frames": 4, "steps": 3, "lag": 1, "block": 1, "known": 0} | change
    name, frames, steps = (given.pop(key) for key in ("name", "frames", "steps"))
    with pytest.raises(ValueError, match=sentence):
        NoiseLevels.named(name, frames, steps, **given)


def test_a_longer_clip_is_made_by_the_same_calls_as_far_as_the_shorter_goes():
    short, long = (NoiseLevels.named("pyramid", frames, 6, lag=2, known=2) for frames in (9, 30))
    for one, other in zip(short.calls(7), long.calls(7), strict=False):
        assert torch.equal(one.ids, other.ids[other.ids < 9])
        assert torch.equal(one.before, other.before[: len(one.before)])


def test_a_trapezoid_shows_its_finished_ends():
    calls = list(NoiseLevels.named("trapezoid", 7, 3, lag=2).calls(7))
    assert all(call.ids.tolist() == list(range(7)) for call in calls)
