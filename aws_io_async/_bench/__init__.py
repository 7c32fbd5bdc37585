"""`python -m aws_io_async bench`: event loops side by side, and channels on each of them.

A measurement is a *scenario* (`_scenarios`) on a *loop* (`_loops`): a server in a process of its
own, pinned to one CPU, and a load in another one, pinned to a second (`_processes`, `_load`). The
runner (`_runner`) takes them in alternating rounds, so that what else the machine does falls on
all loops, and makes `_results` of them; `_tables`, `_charts` and `_page` show these.

What runs in the other processes is started by `_child`: `_serve_asyncio`, `_serve_channels`,
`_serve_bare`, `_serve_http`, `_scheduler`, `_start`, and `load.c` or, where there is no C compiler,
`_python_load`.
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, as `argv` says (default: the process's arguments); returns the exit status.

    0: all was measured; 1: some of it failed; 2: bad arguments; 130: interrupted, 143: terminated,
    after the tables of what there was. No process is left in any case. SystemExit is raised for
    `--help` and for arguments that cannot be read. Thread: the main one, without a running loop.
    """
    from ._command import main  # not above: the parts in other processes have no use for it

    return main(argv)
