"""Imported by multiprocessing's fork server, whose children then get loops of this library, too.

They do not inherit what the program's process was told; those of a plain fork do, and those that
are started afresh (`spawn`) cannot.
"""

from ._program import provide_loops

provide_loops()
