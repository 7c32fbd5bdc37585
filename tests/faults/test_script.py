"""The rig's own scripts: what they do follows from their plans, and is what it is called."""

import random

import pytest

from tests.faults.script import HARMLESS, Action, End, Plan, Script, Send, Trouble

DATA = random.Random(1).randbytes(10_000)


def played(plan: Plan, size: int = 1000) -> tuple[list[Action], bool]:
    """What a script does when DATA comes in pieces of `size` bytes, then silence, then the end."""
    script = Script(plan)
    actions: list[Action] = []
    for start in range(0, len(DATA), size):
        actions += script.data(DATA[start : start + size])
    actions += script.silence()
    actions += script.end()
    return actions, script.injected


def sent(actions: list[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, Send))


@pytest.mark.parametrize("trouble", Trouble)
def test_the_same_plan_does_the_same(trouble: Trouble) -> None:
    plan = Plan(trouble, at=4711, seed=3)
    assert played(plan) == played(plan)


@pytest.mark.parametrize("trouble", sorted(HARMLESS, key=str))
def test_what_is_harmless_passes_every_byte_and_the_end(trouble: Trouble) -> None:
    actions, injected = played(Plan(trouble, at=4711, seed=3))
    assert sent(actions) == DATA
    assert actions[-1] == End(Trouble.HALF_CLOSE)
    assert injected is (trouble is not Trouble.NONE)


@pytest.mark.parametrize("trouble", [Trouble.CUT, Trouble.HALF_CLOSE, Trouble.RESET])
@pytest.mark.parametrize("at", [0, 1, 999, 1000, 4711, len(DATA) - 1])
def test_an_end_comes_at_its_place(trouble: Trouble, at: int) -> None:
    actions, injected = played(Plan(trouble, at))
    assert sent(actions) == DATA[:at]
    assert actions[-1] == End(trouble)
    assert injected


@pytest.mark.parametrize("trouble", [Trouble.CUT, Trouble.RESET, Trouble.CORRUPT, Trouble.STALL])
def test_a_place_that_is_not_reached_changes_nothing(trouble: Trouble) -> None:
    actions, injected = played(Plan(trouble, at=len(DATA)))
    assert sent(actions) == DATA
    assert not injected


def test_a_turned_bit_is_one_bit_and_silence_after_it_the_end() -> None:
    actions, _ = played(Plan(Trouble.CORRUPT, at=4711, seed=3))
    (place,) = (i for i in range(len(DATA)) if sent(actions)[i] != DATA[i])
    assert place == 4711
    assert (sent(actions)[place] ^ DATA[place]).bit_count() == 1
    assert actions.count(End(Trouble.CUT)) == 1


def test_single_bytes_are_single_and_what_is_coalesced_is_one() -> None:
    split, _ = played(Plan(Trouble.SPLIT))
    assert {len(action.data) for action in split if isinstance(action, Send)} == {1}
    coalesced, _ = played(Plan(Trouble.COALESCE), size=10)
    assert coalesced[0] == Send(DATA)
