"""What the tests themselves stand on: random numbers that repeat, and cases that are left out on purpose."""

import random
import zlib

import pytest
import torch
from sparing import sparing


@pytest.mark.parametrize("case", ["one", "other"])
def test_random_numbers_are_those_of_the_name(case, request):
    seed = zlib.crc32(request.node.nodeid.encode())
    assert torch.initial_seed() == seed
    assert random.random() == random.Random(seed).random()


def test_all_but_the_quick_cases_are_slow():
    kept, *slow = sparing([(1, "a"), (2, "b"), 3], (1, "a"))
    assert kept == (1, "a")
    assert [case.values for case in slow] == [(2, "b"), (3,)]
    assert all([mark.name for mark in case.marks] == ["slow"] for case in slow)
    with pytest.raises(AssertionError, match="each quick one is a value"):
        sparing([1, 2], 4)
