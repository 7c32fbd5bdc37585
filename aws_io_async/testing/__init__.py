"""For tests of one's own channel handlers: a loop, a channel, and a check of the contract.

- `TestingLoop`: an event loop with a clock that the test moves, for plain tests and coroutines.
- `TestingChannel`: a real channel without a socket, whose two ends are in the test's hands.
- `check_handler`: runs a handler through what can happen to it in a channel, and names the rule
  that it breaks.

Source: aws-c-io's `io_testing_channel.h`. No other module of the package imports this one.
"""

from ._channel import ShutdownCall, TestingChannel
from ._check import check_handler
from ._loop import TestingLoop
from ._rules import HandlerContractError, Rule

__all__ = [
    "HandlerContractError",
    "Rule",
    "ShutdownCall",
    "TestingChannel",
    "TestingLoop",
    "check_handler",
]
