"""Where a claim is for all that one person has, publishing several runs is not said to cost less."""

from dataclasses import replace

from tiny_federation import parts, plan

from fedsafe.runs.comparison_cell import _released_by_client, _released_by_record


def test_what_is_claimed_for_several_elements_of_a_person_is_not_composed_for_one():
    single = plan(parts())
    assert _released_by_record(single)
    assert _released_by_client(single)
    several = replace(single, record=replace(single.record, group=3), client=replace(single.client, group=2))
    assert _released_by_record(several) is None
    assert _released_by_client(several) is None
