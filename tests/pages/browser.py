"""Opens a page in a real browser, from a file and without a network, and tells what happened there."""

import contextlib
import html
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A container has neither the rights for a sandbox nor much shared memory.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
# A frame as wide as a screen shows the page; a script in it tells what happened, and the frame's page keeps that.
FRAME = """<!doctype html><title>frame</title>
<script>addEventListener("message", event => document.body.dataset.told = event.data);</script>
<body><iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""
PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || String(event.target.src)), true);
addEventListener("securitypolicyviolation", event => errors.push(event.violatedDirective));
addEventListener("load", () => setTimeout(() => parent.postMessage(JSON.stringify({
  errors, width: innerWidth, scroll: document.documentElement.scrollWidth,
  plots: document.querySelectorAll("canvas").length, charts: document.querySelectorAll("[data-chart]").length,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  wide: [...document.querySelectorAll(".scroll")].filter(region => region.scrollWidth > region.clientWidth + 1)
    .map(region => region.getAttribute("aria-label")),
  answer: typeof answer === "undefined" ? null : answer,
  requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
}), "*"), 300));
</script>"""


def find_browser() -> str:
    """The path of Chromium or Chrome; skips the test where there is none that starts."""
    for name in BROWSERS:
        if path := shutil.which(name):
            with contextlib.suppress(subprocess.SubprocessError):
                command = [path, *FLAGS, "--dump-dom", "about:blank"]
                subprocess.run(command, capture_output=True, timeout=120, check=True)
                return path
    pytest.skip("needs Chromium or Chrome")


def told(browser: str, content: str, width: int, folder: pathlib.Path) -> dict[str, Any]:
    """What `PROBE` tells of a page that is `width` pixels wide; 'answer' is a variable of the page's own scripts."""
    (folder / "page.html").write_text(content.replace("<head>", f"<head>{PROBE}", 1))
    (folder / "frame.html").write_text(FRAME.format(width=width))
    command = [
        browser, *FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--enable-logging=stderr",
        "--dump-dom", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = re.search('data-told="([^"]*)"', done.stdout)
    assert found, done.stdout[:1000]
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(found[1]))
