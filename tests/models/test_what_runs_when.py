"""The ready queue, the timers and the tasks of a loop against a model: what runs when, in order.

Time is a number, and the loop takes one turn at a time. What is scheduled has a plan: what it does
when it runs, which is to schedule and to cancel more. Loop and model carry out the same plans, each
in its own order, and number what they schedule in that order: so one difference leads to others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aws_io_async import EventLoop
from aws_io_async.event_loop.tasks import Task, TaskStatus
from tests.models.rounds import checked

MILLISECOND = 1_000_000
"""Nanoseconds."""

CALLBACKS = ("call_soon", "call_soon_threadsafe", "call_later")
TASKS = ("schedule_task_now", "schedule_task_now_serialized", "schedule_task_future")
FROM_ANY_THREAD = ("call_soon_threadsafe", "schedule_task_now", "schedule_task_future")
"""These come after all that was serialized before, while the loop is at rest."""


class Action(NamedTuple):
    """Schedule something in a way, or cancel what was scheduled `number` times ago, or raise."""

    way: str
    number: int = 0
    """For timers: in how many milliseconds."""
    plan: "tuple[Action, ...]" = ()


Log = list[tuple[str, int]]


NUMBERS = st.integers(-1, 5)
NO_PLAN: st.SearchStrategy[tuple[Action, ...]] = st.just(())


def scheduled(plan: st.SearchStrategy[tuple[Action, ...]]) -> st.SearchStrategy[Action]:
    return st.builds(Action, st.sampled_from(CALLBACKS + TASKS), NUMBERS, plan)


ACTIONS = st.recursive(
    st.builds(Action, st.sampled_from(["cancel", "raise"]), st.integers(0, 6), NO_PLAN)
    | scheduled(NO_PLAN),
    lambda inner: scheduled(st.lists(inner, max_size=4).map(tuple)),
    max_leaves=8,
)


class PlannedError(Exception):
    """What a callback raises on purpose."""


class RealWorld:
    """A loop."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.loop = EventLoop(clock=clock)
        self.loop.set_exception_handler(self._failed)
        self.log: Log = []
        self._things: list[Any] = []

    def do(self, action: Action) -> None:
        loop, number = self.loop, len(self._things)
        if action.way == "cancel":
            self._cancel(number - 1 - action.number)
            return
        if action.way == "raise":
            raise PlannedError
        if action.way in CALLBACKS:
            call = getattr(loop, action.way)
            delay = (action.number / 1000,) if action.way == "call_later" else ()
            self._things.append(call(*delay, self._run, number, action.plan))
            return

        def run(_task: Task, status: TaskStatus) -> None:
            self._run(number, action.plan if status is TaskStatus.RUN_READY else None)

        task = Task(run)
        self._things.append(task)
        at = loop.current_clock_time() + action.number * MILLISECOND
        getattr(loop, action.way)(task, *((at,) if action.way == "schedule_task_future" else ()))

    def _cancel(self, number: int) -> None:
        if number < 0:
            return
        thing = self._things[number]
        if isinstance(thing, Task):
            try:
                self.loop.cancel_task(thing)
            except RuntimeError:
                self.log.append(("refused", number))
        else:
            thing.cancel()

    def _run(self, number: int, plan: tuple[Action, ...] | None) -> None:
        self.log.append(("canceled" if plan is None else "run", number))
        for action in plan or ():
            self.do(action)

    def _failed(self, _loop: object, context: dict[str, Any]) -> None:
        planned = isinstance(context["exception"], PlannedError)
        self.log.append(("raised" if planned else f"{context}", -1))

    def turn(self) -> None:
        self.loop.stop()
        self.loop.run_forever()

    def close(self) -> None:
        self.loop.close()


@dataclass(eq=False)
class Entry:
    """What is scheduled, in the model."""

    number: int
    way: str
    plan: tuple[Action, ...]
    when: float = 0.0
    pending: bool = True
    starts_timer: bool = False


class ModelWorld:
    """The same by lists: a turn runs what was ready at its beginning, then the timers due then."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.log: Log = []
        self._clock = clock
        self._entries: list[Entry] = []
        self._ready: list[Entry] = []
        self._serialized: list[Entry] = []
        self._timers: list[Entry] = []
        self._running = False

    def do(self, action: Action) -> None:
        if action.way == "cancel":
            self._cancel(len(self._entries) - 1 - action.number)
            return
        if action.way == "raise":
            raise PlannedError
        entry = Entry(len(self._entries), action.way, action.plan)
        self._entries.append(entry)
        if not self._running and action.way in FROM_ANY_THREAD:
            self._take_serialized()
        if action.way == "call_later":
            entry.when = self._clock() / 1e9 + action.number / 1000
            self._timers.append(entry)
        elif action.way == "schedule_task_future":
            entry.when = (self._clock() + action.number * MILLISECOND) / 1e9
            entry.starts_timer = not self._running  # nobody's thread yet: that of the next run's
            (self._timers if self._running else self._ready).append(entry)
        elif action.way == "schedule_task_now_serialized":
            self._serialized.append(entry)
        else:
            self._ready.append(entry)

    def _cancel(self, number: int) -> None:
        if number < 0:
            return
        entry = self._entries[number]
        if entry.way in TASKS:
            self.log.append(("canceled" if entry.pending else "refused", number))
        entry.pending = False

    def _take_serialized(self) -> None:
        self._ready += self._serialized
        self._serialized.clear()

    def turn(self) -> None:
        self._running = True
        self._take_serialized()
        batch, self._ready = self._ready, []
        due = [entry for entry in self._timers if round(entry.when * 1e9) <= self._clock()]
        self._timers = [entry for entry in self._timers if entry not in due]
        for entry in batch + sorted(due, key=lambda entry: entry.when):
            self._run(entry)
        self._running = False

    def _run(self, entry: Entry) -> None:
        if not entry.pending:
            return
        if entry.starts_timer:
            entry.starts_timer = False
            self._timers.append(entry)
            return
        entry.pending = False
        self.log.append(("run", entry.number))
        try:
            for action in entry.plan:
                self.do(action)
        except PlannedError:
            self.log.append(("raised", -1))

    def close(self) -> None:
        """Tasks are told, callbacks are not."""
        for entry in self._entries:
            if entry.pending and entry.way in TASKS:
                self.log.append(("canceled", entry.number))


class LoopMachine(RuleBasedStateMachine):
    """A loop and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 5_000_000_000
        self.real = RealWorld(lambda: self.now)
        self.model = ModelWorld(lambda: self.now)

    @rule(action=ACTIONS.filter(lambda action: action.way != "raise"))
    def do(self, action: Action) -> None:
        self.real.do(action)
        self.model.do(action)

    @rule(turns=st.integers(1, 3))
    def take_turns(self, turns: int) -> None:
        for _ in range(turns):
            self.real.turn()
            self.model.turn()

    @rule(nanoseconds=st.sampled_from([1, MILLISECOND - 1, MILLISECOND, 3 * MILLISECOND]))
    def time_passes(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    @invariant()
    def the_same_has_happened(self) -> None:
        assert self.real.log == self.model.log

    def teardown(self) -> None:
        self.real.close()
        self.model.close()
        self.the_same_has_happened()


TestLoop = checked(LoopMachine, 60)
