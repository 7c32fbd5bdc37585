"""Event loops: the scheduler, its transports, and everything else that touches the kernel."""
