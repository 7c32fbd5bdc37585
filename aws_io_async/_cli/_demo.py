"""`demo`: see the package's own module of that name."""

import argparse


def main(options: argparse.Namespace) -> int:
    """Move files, and tell about it."""
    from .. import _demo  # not above: it imports all that the library has

    return _demo.main(
        options.folder,
        connections=options.connections,
        size=options.size,
        loops=options.loops,
        as_json=options.json,
    )
