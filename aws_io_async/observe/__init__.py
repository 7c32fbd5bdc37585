"""Looking at a running program: its loops, their stalls, its channels' traffic.

    observe.watch_stalls(loop, 0.1)                       # logs where a loop is held up
    observe.serve_statistics("/run/user/1000/app.sock")   # for `python -m aws_io_async top`
    observe.prometheus_text()                             # what a scraper asks for
    channel.set_statistics_handler(observe.LoggingStatisticsHandler())

None of it adds work to a turn of a loop: all that is shown here, the loops count anyway, and other
threads read it.
"""

from ._channels import LoggingStatisticsHandler
from ._loops import describe_loop, event_loops
from ._prometheus import CONTENT_TYPE, prometheus_text
from ._server import StatisticsServer, serve_statistics
from ._stalls import Stall, StallWatch, log_stall, watch_stalls

__all__ = [
    "CONTENT_TYPE",
    "LoggingStatisticsHandler",
    "Stall",
    "StallWatch",
    "StatisticsServer",
    "describe_loop",
    "event_loops",
    "log_stall",
    "prometheus_text",
    "serve_statistics",
    "watch_stalls",
]
