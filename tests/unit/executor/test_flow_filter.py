from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.executor.tasks import call, item

if TYPE_CHECKING:
    from tests.unit.executor.tasks import Bench


def test_items_pass_for_which_the_condition_holds(bench: Bench) -> None:
    records = [
        item(number, uri="cas:a", width=100 * number, attributes_json=b'{"sharp": %d}' % number) for number in range(4)
    ]
    result = bench.run([call("flow.filter", condition="item.width >= 200 && item.sharp < 3")], *records)
    assert [entry.key for entry in bench.items(result.output)] == ["item-2"]
    assert dict(result.counts[0].filtered) == {"CONDITION": 3}


def test_an_item_for_which_it_cannot_be_decided_is_rejected(bench: Bench) -> None:
    result = bench.run([call("flow.filter", condition="item.sharp > 3")], item(0))
    assert dict(result.counts[0].rejected) == {"CONDITION_FAILED": 1}
