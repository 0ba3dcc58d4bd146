"""A page in headless Chromium, driven over a pipe by the protocol of its developer tools.

Playwright would do it too: it brings a Node.js, and an event loop that Orbax's would meet.
"""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
"""Of the browser; None where there is none."""
WIDTHS = {1280: 800, 390: 844}
"""Screens by their width in pixels: a laptop's and a phone's."""
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-extensions", "--mute-audio"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
    "--remote-debugging-pipe",
)
_PATIENCE = 20  # seconds for whatever is waited for


@contextlib.contextmanager
def started():
    """A browser, for as long as the context lasts."""
    theirs, ours = os.pipe()  # it reads on 3 and writes on 4
    mine, them = os.pipe()
    profile = tempfile.mkdtemp()
    # File descriptors are put in place by a shell: a function run after the fork may deadlock.
    command = 'exec "$0" "$@" 3<&"$IN" 4>&"$OUT"'
    process = subprocess.Popen(
        ["bash", "-c", command, PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        env=os.environ | {"IN": str(theirs), "OUT": str(them)},
        pass_fds=(theirs, them),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.close(them)
    try:
        yield Browser(ours, mine)
    finally:
        os.close(ours)
        os.close(mine)
        process.terminate()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


class Browser:
    """One tab."""

    def __init__(self, write, read):
        self._write, self._read, self._rest = write, read, b""
        self._numbers = itertools.count(1)
        self._session = None
        self.requests, self.complaints = [], []
        targets = self("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Do what the protocol calls `method`; its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _message(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], _PATIENCE)
            assert ready, "the browser does not answer"
            self._rest += os.read(self._read, 1 << 20)
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def _note(self, event):
        """Keep what the page asked for, and what went wrong in it."""
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"])

    def open(self, address, width=1280):
        """Load a page on a screen of that width, forgetting what the last one asked for."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=WIDTHS.get(width, 800),
             deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self("Page.navigate", url="about:blank")
        self.requests, self.complaints = [], []
        self("Page.navigate", url=str(address))
        self.until("document.readyState === 'complete'")

    def value(self, expression):
        """What a JavaScript expression, or what it promises, is worth."""
        result = self(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, expression):
        """Wait until an expression holds."""
        end = time.monotonic() + _PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"never: {expression}"
            self.value("new Promise((done) => setTimeout(done, 20))")

    def _middle(self, selector):
        """The middle of an element, which is brought into view."""
        return self.value(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', inline: 'center'});"
            "const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )

    def drop(self, selector, file):
        """Drag a file from outside and let it go over an element."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def click(self, selector):
        """A mouse's click in the middle of an element."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def give(self, selector, *files):
        """Choose files in a form's field."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self, whole=False):
        """What is seen, as PNG; the whole page where it is asked for."""
        content = self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        return base64.b64decode(content)
