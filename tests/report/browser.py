"""The Chromium that the tests of pages drive."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FETCHED = Path(__file__).parents[2] / ".cache/browser"


def chromium() -> str:
    """The one on PATH, else the one that scripts/install_browser.sh fetched. Fails without."""
    on_path = (shutil.which(name) for name in _NAMES)
    fetched = (str(path) for path in sorted(_FETCHED.glob("chromium-*/chrome-*/chrome")))
    found = next((path for path in (*on_path, *fetched) if path), None)
    assert found, "There is no Chromium. Get one: make browser"
    return found


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # root, as in a container, may not use its sandbox
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()
