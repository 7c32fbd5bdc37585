"""The rules that `check_handler` holds handlers to, and what it raises."""

import enum


class Rule(enum.Enum):
    """What a handler owes to the channel and to its neighbours."""

    NO_FAILURE = "it takes what it is made for without an error"
    EXPECTED_OUTPUT = "it sends what the caller of the check expects"
    SAME_OUTPUT = "what it sends to the right does not depend on how its input was cut"
    SAME_WRITTEN = "what it sends to the left does not depend on how its input was cut"
    WINDOW = "it sends no more to the right than the window there allows"
    NO_STALL = "it asks for what it has consumed, and goes on when the window to the right grows"
    NO_FLOOD = "it asks for no more than it has consumed"
    SHUTDOWN = "its shutdown comes to an end, at once if it is to be immediate"
    TAIL = "what it had received is passed on before a graceful shutdown ends its read direction"
    COMPLETION = "each write is completed exactly once, when it was written or lost"
    NOTHING_LEFT = "no task and no timer of it outlives the channel"


class HandlerContractError(AssertionError):
    """A handler has broken a rule."""

    def __init__(self, handler: str, rule: Rule, detail: str, scenario: str) -> None:
        super().__init__(f"{handler} breaks {rule.name}, {rule.value}: {detail} ({scenario})")
        self.rule = rule
        """The rule."""
        self.detail = detail
        """What was seen."""
        self.scenario = scenario
        """What the check was doing with the handler."""
