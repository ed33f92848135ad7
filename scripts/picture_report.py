"""The top of a report as a PNG, for the README: picture_report.py REPORT.html [OUT.png]"""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 1400
PREFIX = ".cache/browser"


def browser() -> str:
    script = Path(__file__).with_name("install_browser.sh")
    found = subprocess.run([script, PREFIX], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    """Write the picture in the light theme; say its path and its size."""
    page = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("docs/report.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        view = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        view.screenshot(path=out)
        chromium.close()
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
