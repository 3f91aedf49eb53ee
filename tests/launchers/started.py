"""What a warm process runs."""

import os
from typing import Any


def train(**options: Any) -> None:
    """``program.main`` in a session of its own, so that a signal to the group reaches no other process."""
    os.setsid()
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tests.launchers.program import main

    main(**options)
