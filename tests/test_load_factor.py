"""How busy a loop is: the arithmetic with made-up times, and what real loops say."""

import threading
import time
from collections.abc import Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop._statistics import LOAD_WINDOW, LoadMeter, LoopStatistics
from aws_io_async.event_loop.tasks import Task
from tests.crt_loops import KINDS, PATIENCE, open_running, run_on


class Simulation:
    """A loop that runs from second 0, in which nothing happens but what it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.statistics = LoopStatistics()
        self.meter = LoadMeter(self.statistics, self.now)

    def busy(self, seconds: float) -> None:
        self.now += seconds

    def idle(self, seconds: float) -> None:
        asleep = self.now
        self.meter.asleep_since = asleep
        self.now += seconds
        self.meter.asleep_since = None
        self.statistics.idle_seconds += seconds
        if self.now > self.meter.due:
            self.meter.sample(asleep, self.now, 0.0)

    def factor(self) -> float:
        return self.meter.factor(self.now, 0.0)


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()


def test_one_that_has_not_run_is_idle() -> None:
    meter = LoadMeter(LoopStatistics(), 5.0)
    assert meter.factor(5.0, None) == 0.0
    assert meter.factor(50.0, None) == 0.0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("turn", [0.001, 0.3])
def test_a_steady_load(simulation: Simulation, share: float, turn: float) -> None:
    while simulation.now < 10:
        simulation.busy(share * turn)
        simulation.idle((1 - share) * turn)
        if simulation.now > 1:
            assert simulation.factor() == pytest.approx(share, abs=turn)


def test_the_load_of_long_ago_is_forgotten(simulation: Simulation) -> None:
    for _ in range(1000):
        simulation.busy(0.1)
    assert simulation.factor() == 1.0
    for _ in range(25):
        simulation.idle(0.1)
    assert simulation.factor() == 0.0


def test_a_burst_after_a_long_sleep_shows_at_once(simulation: Simulation) -> None:
    simulation.idle(3600)
    assert simulation.factor() == 0.0
    simulation.busy(0.5)
    assert simulation.factor() == pytest.approx(0.5 / 1.5)
    simulation.busy(0.5)
    assert simulation.factor() == pytest.approx(1.0)


def test_while_it_sleeps_it_gets_idler(simulation: Simulation) -> None:
    for _ in range(10):
        simulation.busy(0.3)
        simulation.idle(0.01)
    simulation.meter.asleep_since = simulation.now
    seen = []
    for _ in range(40):
        simulation.now += 0.1
        seen.append(simulation.factor())
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.8
    assert seen[-1] < 0.3


def test_one_that_never_sleeps_is_busy(simulation: Simulation) -> None:
    simulation.busy(0.01)
    assert simulation.factor() == 1.0
    simulation.busy(3600)
    assert simulation.factor() == 1.0


def test_a_loop_that_was_stopped_gets_idler() -> None:
    statistics = LoopStatistics(running_seconds=2.0)
    meter = LoadMeter(statistics, 0.0)
    assert meter.factor(2.0, None) == 1.0
    assert meter.factor(20.0, None) == 0.1


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_running(request.param) as loop:
        yield loop


def test_a_busy_loop_has_more_than_an_idle_one(running: EventLoop) -> None:
    idle = EventLoop()
    idle.run()
    working, enough = threading.Event(), threading.Event()

    def work(task: Task, status: object) -> None:
        working.set()
        until = time.monotonic() + PATIENCE
        while not enough.is_set() and time.monotonic() < until:
            pass

    running.schedule_task_now(Task(work))
    assert working.wait(PATIENCE)
    until = time.monotonic() + PATIENCE
    while running.load_factor <= 0.2 and time.monotonic() < until:  # read from another thread
        enough.wait(0.001)
    factors = idle.load_factor, running.load_factor
    enough.set()
    idle.stop()
    idle.wait_for_stop_completion()
    idle.close()
    assert 0.0 <= factors[0] < 0.2 < factors[1] <= 1.0


def test_an_idle_loop_comes_down_without_waking_up(running: EventLoop) -> None:
    polls = run_on(running, running.statistics).polls
    pause = threading.Event()
    while running.load_factor >= 0.05:
        pause.wait(0.01)
    assert running.statistics().polls <= polls + 2


def test_the_window_is_about_a_second() -> None:
    assert LOAD_WINDOW == 1.0
