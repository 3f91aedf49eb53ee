"""Named points where a test can make this process fail.

``FAULT=point:n`` kills the process at the n-th visit of ``fault("point")``; ``FAULT=point:n:action`` does something
else there. Several are separated by commas. Unset, as it always is outside tests, a visit costs one builtin call.

| action | effect |
|---|---|
| ``kill`` | SIGKILL, the default |
| ``raise`` | raises ``InjectedFault`` |
| ``sleep=seconds`` | waits |
| ``full=bytes`` | from now on no file of this process grows over this size, as on a full disk |
| ``free`` | files may grow again |
| ``cut=bytes`` | from now on the process dies, unasked, while a file grows over this size |
"""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable

FAULT = re.compile(r"([\w.]+):(\d+)(?::(kill|raise|sleep|full|free|cut)(?:=([\d.]+))?)?")


class InjectedFault(RuntimeError):
    """What the action ``raise`` raises."""


def parse(text: str) -> dict[tuple[str, int], tuple[str, float]]:
    """(point, visit) -> (action, value). Raises ``ValueError`` for anything else.

    >>> parse("write.begin:2,prune:1:sleep=0.5")
    {('write.begin', 2): ('kill', 0.0), ('prune', 1): ('sleep', 0.5)}
    """
    found = {}
    for item in text.split(","):
        match = FAULT.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"FAULT must be point:n or point:n:action, separated by commas; received {item!r}.")
        point, visit, action, value = match.groups()
        found[point, int(visit)] = action or "kill", float(value or 0)
    return found


def visitor(text: str) -> Callable[[str], object]:
    """The function that counts visits and acts as ``text`` says."""
    due, visits = parse(text), Counter[str]()
    if any(action == "cut" for action, _ in due.values()):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; now, since only the main thread may

    def visit(point: str) -> None:
        visits[point] += 1
        action = due.get((point, visits[point]))
        if action is not None:
            act(point, *action)

    return visit


def act(point: str, action: str, value: float) -> None:
    """Do it."""
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise InjectedFault(f"injected at {point}")
    elif action == "sleep":
        time.sleep(value)
    else:
        import resource

        hardest = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hardest if action == "free" else int(value), hardest))


fault: Callable[[str], object] = visitor(os.environ["FAULT"]) if os.environ.get("FAULT") else len
"""Visits a point. ``len`` does nothing with a name, and adds no Python frame."""
