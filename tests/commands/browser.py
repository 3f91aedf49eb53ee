"""A headless Chromium, told what to do through a pipe: no port is open, and nothing but Chromium is needed.

It speaks Chromium's own protocol: messages of JSON, each with a NUL at its end.
"""

import base64
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
"""Debian's; None where it isn't installed."""
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
SECONDS = 60.0
WRONG = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")


class Browser:
    """A browser with one tab. ``noted`` are the events of its pages."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self._folder = tempfile.TemporaryDirectory(prefix="chromium")
        told, self._tell = os.pipe()
        answers, answer = os.pipe()
        nothing = os.open(os.devnull, os.O_WRONLY)
        words = [PROGRAM, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}", "about:blank"]
        # to numbers that are surely free first: 3 and 4 may be ours
        moves = [(told, 103), (answer, 104), (103, 3), (104, 4), (nothing, 1), (nothing, 2)]
        self._pid = os.posix_spawn(
            PROGRAM,
            words,
            {**os.environ, "HOME": self._folder.name},
            file_actions=[(os.POSIX_SPAWN_DUP2, here, there) for here, there in moves],
            setpgroup=0,
        )
        for number in (told, answer, nothing):
            os.close(number)
        self._answers = os.fdopen(answers, "rb")
        self._nb, self._session = 0, None
        self.noted: list[dict[str, Any]] = []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """What Chromium answers to ``method``."""
        self._nb += 1
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": self._nb, "method": method, "params": parameters, **session}
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        while True:
            read = self._read()
            if read.get("id") == self._nb:
                assert "error" not in read, read["error"]
                return read["result"]
            self.noted.append(read)

    def _read(self) -> Any:
        found = bytearray()
        while not found.endswith(b"\0"):
            byte = self._answers.read(1)
            assert byte, "Chromium ended"
            found += byte
        return json.loads(found[:-1])

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str | Callable[[], Any]) -> Any:
        """Wait until an expression, or a function, is true; returns its value."""
        for _ in range(int(SECONDS / 0.1)):
            value = self.run(condition) if isinstance(condition, str) else condition()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {condition}")

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Show a file in a window of ``width`` pixels, in light or dark colors."""
        self.noted.clear()
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Make the window so many pixels large."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """``mouseMoved``, ``mousePressed`` or ``mouseReleased``, at a place in the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector: str) -> None:
        """Click into the middle of an element, as a person would."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({selector!r}))"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, *box, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def picture(self, path: Path) -> None:
        """Write what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """What the page said in the console, what failed, and what it asked for besides itself."""
        self.run("0")  # what was noted until now
        wrong = (
            "Log.entryAdded",
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Page.javascriptDialogOpening",
        )
        found = [json.dumps(event)[:500] for event in self.noted if event.get("method") in wrong]
        asked = [e["params"]["request"]["url"] for e in self.noted if e.get("method") == "Network.requestWillBeSent"]
        return found + [url[:200] for url in asked[1:] if not url.startswith("data:")]

    def close(self) -> None:
        """End it, and what it started."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._tell)
        self._answers.close()
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()
