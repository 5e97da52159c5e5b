"""Opens an HTML file in a headless Chromium and prints as JSON what a reader would meet; keeps a screenshot.

Usage: look_at_page.py FILE WIDTH light|dark SCREENSHOT

The DevTools protocol goes through a pipe (file descriptors 3 and 4), so nothing but the standard library is needed, and
the page's ban on scripts stays in force. Chromium is the program in CHROMIUM, or `chromium`.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROBE = """(() => {
  const all = [...document.querySelectorAll('body *')].filter(e => !e.closest('thead'));
  const beyond = all.filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('svg'));
  const heights = [...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height);
  return {
    inner_width: innerWidth,
    scroll_width: document.documentElement.scrollWidth,
    beyond: beyond.map(e => e.outerHTML.slice(0, 200)),
    text_height: Math.min(99, ...heights),
    plots: document.querySelectorAll('figure svg').length,
    absent: document.querySelectorAll('figure .absent').length,
    rows: document.querySelectorAll('tbody tr').length,
    scripts: document.querySelectorAll('script').length,
    images: document.querySelectorAll('img').length,
    colors: new Set([...document.querySelectorAll('svg polyline')].map(e => getComputedStyle(e).stroke)).size,
    background: getComputedStyle(document.body).backgroundColor,
    text: document.body.innerText,
  };
})()"""


class Browser:
    """A Chromium and one tab in it."""

    def __init__(self, profile):
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()

        def pipes():
            # Both ends first move out of the way of 3 and 4.
            read, write = os.dup(to_read), os.dup(from_write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        command = [
            os.environ.get("CHROMIUM", "chromium"), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
            "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(from_write)
        self.to, self.source = to_write, os.fdopen(from_read, "rb")
        self.number, self.session, self.events, self.rest = 0, None, [], b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def message(self):
        """The next message: an answer or an event."""
        while b"\0" not in self.rest:
            piece = self.source.read1(1 << 16)
            if not piece:
                sys.exit("chromium ended")
            self.rest += piece
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        """The result of a method. Events that come before it are kept."""
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.to, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def wait(self, method):
        """Waits for an event."""
        while all(event.get("method") != method for event in self.events):
            self.events.append(self.message())


def look(file, width, scheme, screenshot):
    with tempfile.TemporaryDirectory(prefix="fedmill-chromium-", ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for domain in ["Page", "Runtime", "Log", "Network"]:
                browser.call(f"{domain}.enable")
            is_phone = width < 600
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=844 if is_phone else 900, deviceScaleFactor=2 if is_phone else 1, mobile=is_phone,
            )
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.call("Page.navigate", url=Path(file).resolve().as_uri())
            browser.wait("Page.loadEventFired")
            seen = browser.call("Runtime.evaluate", expression=PROBE, returnByValue=True)["result"]["value"]
            size = browser.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": min(size["height"], 8000), "scale": 1}
            picture = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            Path(screenshot).write_bytes(base64.b64decode(picture["data"]))
            seen["console"], seen["requests"] = [], []
            for event in browser.events:
                method, params = event.get("method"), event.get("params", {})
                if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                    seen["console"].append(json.dumps(params))
                elif method == "Page.javascriptDialogOpening":
                    seen["console"].append("a dialog")
                elif method == "Network.requestWillBeSent":
                    seen["requests"].append(params["request"]["url"].split(",")[0])
            browser.session = None
            browser.call("Browser.close")
        finally:
            browser.process.kill()
            browser.process.wait()
    return seen


if __name__ == "__main__":
    json.dump(look(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]), sys.stdout)
