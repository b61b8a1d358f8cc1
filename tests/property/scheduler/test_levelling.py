"""Who owns how many partitions: shares that differ by one at most, and no partition that moves for nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pixloom_scheduler.levelling import Move, fair_shares, next_move, place_among

PARTITIONS = 16


class Table:
    """The rows that replicas see: who is alive, in the order of their starts, and who owns what."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.owners = dict.fromkeys(range(PARTITIONS), "")
        self.moves = 0

    def act(self, replica: str) -> bool:
        """Let a replica look and do what follows; return whether it did anything."""
        move = next_move(replica, self.alive, self.owners)
        for partition in move.give:
            assert self.owners[partition] == replica
            self.owners[partition] = ""
        free = [partition for partition, owner in self.owners.items() if not owner]
        taken = free[: move.take]
        for partition in taken:
            self.owners[partition] = replica
        self.moves += len(taken)
        return bool(move.give or taken)

    def settle(self, order: list[int]) -> None:
        """Let all replicas act in some order again and again until nobody does anything any more."""
        for _ in range(3 * PARTITIONS):
            ranked = sorted(self.alive, key=lambda replica: order[int(replica) % len(order)])
            acted = [self.act(replica) for replica in ranked]
            if not any(acted):
                return
        raise AssertionError(f"partitions move on and on: {self.owners}")

    def die(self, replica: str) -> None:
        """End a replica; its leases end with it."""
        self.alive.remove(replica)
        self.owners = {partition: "" if owner == replica else owner for partition, owner in self.owners.items()}


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["start", "start", "die"]), st.integers(0, 7)), max_size=12),
    order=st.permutations(range(8)),
)
def test_replicas_come_and_go_and_the_partitions_level_out(steps: list[tuple[str, int]], order: list[int]) -> None:
    table = Table()
    for number, (what, which) in enumerate([("start", 0), *steps]):
        before = dict(table.owners)
        if what == "start":
            table.alive.append(str(number))
        elif len(table.alive) > 1:
            table.die(table.alive[which % len(table.alive)])
        freed = sum(1 for partition, owner in table.owners.items() if before[partition] and not owner)
        table.moves = 0
        table.settle(order)
        counts = Counter(table.owners.values())
        assert set(counts) <= set(table.alive), "everything is owned, by the living"
        assert max(counts.values()) - min(counts.get(replica, 0) for replica in table.alive) <= 1
        # What had to move is what a dead one left, and what makes up the share of a new one, and at most one more for
        # each of the others, whose place among those with one more than their share may have changed.
        share = -(-PARTITIONS // len(table.alive)) if what == "start" else 0
        assert table.moves <= freed + share + len(table.alive)


@settings(deadline=None)
@given(owners=st.lists(st.sampled_from(["", "a", "b", "c", "gone"]), min_size=PARTITIONS, max_size=PARTITIONS))
def test_nobody_gives_what_it_does_not_own_or_takes_beyond_its_share(owners: list[str]) -> None:
    alive = ["a", "b", "c"]
    table = dict(enumerate(owners))
    shares = fair_shares(alive, PARTITIONS)
    counts = Counter(owners)
    for me in alive:
        move = next_move(me, alive, table)
        assert not (move.take and move.give)
        assert all(table[partition] == me for partition in move.give)
        assert counts[me] - len(move.give) + move.take <= max(shares[me], counts[me])
        assert len(move.give) == max(0, counts[me] - shares[me])
        assert move.take <= counts[""]


def test_shares_add_up_and_the_oldest_have_the_rest() -> None:
    for count in range(1, 20):
        shares = fair_shares([f"r{number}" for number in range(count)], PARTITIONS)
        assert sum(shares.values()) == PARTITIONS
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert fair_shares(["a", "b", "c"], 16) == {"a": 6, "b": 5, "c": 5}
    assert fair_shares([], 16) == {}


@settings(deadline=None)
@given(
    owners=st.lists(st.sampled_from(["", *"abcd", "gone", "late"]), min_size=PARTITIONS, max_size=PARTITIONS),
    alive=st.lists(st.sampled_from("abcd"), unique=True),
)
def test_all_who_may_have_jobs_have_a_place_of_their_own(owners: list[str], alive: list[str]) -> None:
    table = dict(enumerate(owners))
    having = {*alive, *filter(None, owners)}
    places = {me: place_among(me, alive, table) for me in having}
    assert sorted(places.values()) == [(place, len(having)) for place in range(len(having))]
    assert [places[me][0] for me in alive] == list(range(len(alive)))


def test_who_has_no_partitions_counts_for_itself_alone() -> None:
    alive = [f"r{number:02}" for number in range(18)]
    owners = dict(enumerate(alive[:PARTITIONS]))
    assert place_among("r15", alive, owners) == (15, 16)
    assert place_among("r17", alive, owners) == (16, 17)
    assert place_among("new", [], {}) == (0, 1)


def test_who_does_not_count_as_alive_does_nothing() -> None:
    assert next_move("z", ["a"], dict.fromkeys(range(PARTITIONS), "")) == Move()


def test_the_emptiest_partitions_are_given_up() -> None:
    owners = dict.fromkeys(range(PARTITIONS), "a")
    move = next_move("a", ["a", "b"], owners, jobs=dict.fromkeys(range(8), 1))
    assert move.give == tuple(range(8, 16))
