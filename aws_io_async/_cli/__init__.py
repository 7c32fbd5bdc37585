"""The commands of `python -m aws_io_async`, but for `run`, which must not load more than it needs.

`_parser` says what may be typed, `_main` does it; each command has a module with `main(options)`,
which is imported when its command is given. `_screen` shows what they find out: in colours and
live by rich on a terminal, in plain lines where rich is missing or the output is piped.
"""
