"""What comes of an input: it is taken, or refused by a documented error. All else is a failure."""

from collections.abc import Callable

from aws_io_async.errors import AwsIoError, Code

TAKEN, REFUSED = "taken", "refused"


def outcome(use: Callable[[], object], *codes: Code) -> str:
    """TAKEN, or REFUSED if by one of these codes, in words. Another error is passed on."""
    try:
        use()
    except AwsIoError as error:
        refusal = error
    else:
        return TAKEN
    assert refusal.code in codes
    assert str(refusal)
    return REFUSED
