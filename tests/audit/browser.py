"""A real browser without a window, driven through WebDriver's HTTP interface; skips where none is installed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, address):
        self._address = address
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1000"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": options}}
        wanted["goog:loggingPrefs"] = {"browser": "ALL", "performance": "ALL"}
        made = self._ask("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._address += f"/session/{made['sessionId']}"

    def _ask(self, path, content=None, method=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self._ask("/url", {"url": path.as_uri()})

    def run(self, script):
        """What a script returns; it is the tester's and not the page's, so that no policy stops it."""
        return self._ask("/execute/sync", {"script": f"return {script}", "args": []})

    def click(self, selector):
        found = self._ask("/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._ask(f"/element/{found}/click", {})

    def type(self, selector, text):
        found = self._ask("/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._ask(f"/element/{found}/value", {"text": text})

    def press(self, key):
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def complaints(self):
        """What the console says of errors and of policies that were broken."""
        return [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]

    def requested(self):
        """Every address that was asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self._ask("/se/log", {"type": "performance"})]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def screenshot(self):
        return base64.b64decode(self._ask("/screenshot"))

    def screen(self, width, height, *, dark=False, phone=False):
        """What the page is shown on from now on."""
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        commands = {"Emulation.setEmulatedMedia": scheme, "Emulation.setDeviceMetricsOverride": size}
        for command, given in commands.items():
            self._ask("/goog/cdp/execute", {"cmd": command, "params": given})

    def close(self):
        self._ask("", method="DELETE")


@contextmanager
def browser(port=9517):
    """Skips the test where no browser can be started."""
    if not (driver := shutil.which("chromedriver")):
        pytest.skip("no chromedriver")
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                made = Browser(f"http://127.0.0.1:{port}")
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.skip("the browser does not start")
        try:
            yield made
        finally:
            made.close()
    finally:
        process.terminate()
        process.wait(30)
