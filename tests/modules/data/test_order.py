"""Every source comes as often as any other, whatever its size and the size of a batch."""

from collections import Counter

import pytest
from pack.modules.data.order import Order
from pack.modules.data.sizes import Size

WIDE, TALL, SQUARE = Size(64, 32), Size(32, 64), Size(48, 48)
SETS = {"one size": [WIDE] * 12, "two sizes": [WIDE] * 5 + [TALL] * 4, "one alone": [WIDE] * 30 + [TALL] + [SQUARE] * 3}


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("name", SETS)
def test_a_round_takes_every_source_as_often(name, batch):
    sizes = SETS[name]
    order = Order(sizes, batch, seed=3)
    for number in range(3):
        steps = [order.step(number * len(sizes) + step) for step in range(len(sizes))]
        assert all(len(step) == batch and len({sizes[source] for source in step}) == 1 for step in steps)
        count = Counter(source for step in steps for source in step)
        assert dict(count) == dict.fromkeys(range(len(sizes)), batch)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("name", SETS)
def test_at_no_time_has_a_source_come_much_more_often_than_others_of_its_size(name, batch):
    sizes = SETS[name]
    order, count = Order(sizes, batch, seed=0), Counter()
    for step in range(2 * len(sizes)):
        count.update(order.step(step))
        for size in set(sizes):
            own = [count[source] for source, one in enumerate(sizes) if one == size]
            assert max(own) - min(own) <= (2 if len(own) >= batch else batch)


def test_the_only_one_of_its_size_keeps_its_share():
    """One tall clip among 99 wide ones, batches of 8: one step in 100 is of it, and those steps lie a round apart."""
    order = Order([WIDE] * 99 + [TALL], 8, seed=1)
    steps = [step for step in range(1000) if order.step(step)[0] == 99]
    assert len(steps) == 10
    assert [step // 100 for step in steps] == list(range(10))


@pytest.mark.parametrize(("members", "batch"), [(5, 2), (9, 2), (12, 4), (13, 4), (10, 3)])
def test_none_is_beside_itself_in_a_batch(members, batch):
    order = Order([WIDE] * members, batch, seed=5)
    assert all(len(set(order.step(step))) == batch for step in range(20 * members))


def test_each_pass_has_an_order_and_company_of_its_own():
    order = Order([WIDE] * 9, 3, seed=0)
    passes = [tuple(tuple(order.step(3 * passed + step)) for step in range(3)) for passed in range(4)]
    assert len(set(passes)) == len({frozenset(map(frozenset, steps)) for steps in passes}) == 4
    assert all(sorted(sum(steps, ())) == list(range(9)) for steps in passes)


def test_a_step_depends_on_seed_and_number_alone():
    sizes = SETS["two sizes"]
    forward = [Order(sizes, 2, 7).step(step) for step in range(30)]
    order = Order(sizes, 2, 7)
    assert [order.step(step) for step in reversed(range(30))] == forward[::-1]
    assert [Order(sizes, 2, 8).step(step) for step in range(30)] != forward


def test_the_batches_of_a_size_are_spread_over_a_round():
    order = Order([WIDE] * 60 + [TALL] * 20, 4, seed=2)
    tall = [step for step in range(800) if order.step(step)[0] >= 60]
    gaps = [after - before for before, after in zip(tall, tall[1:], strict=False)]
    assert len(tall) == 200
    assert max(gaps) <= 8, "every fourth step, give or take a batch"
