"""The pictures of docs/pictures: a page of runs, and what a run prints, as a browser shows them.

`python docs/screenshots.py RUN [RUN...]` takes runs on drawn images and Debian's Chromium. The page
is that of `fed-ist report`; the text is the end of what `fed-ist run` printed, from stdin.
"""

import html
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PICTURES = Path(__file__).parent / "pictures"
TERMINAL = (
    "<body style='margin:0;background:#16181d;color:#e6e6e6'>"
    "<pre style='font:15px/1.45 DejaVu Sans Mono,monospace;padding:16px 20px;margin:0'>{}</pre>"
)


def shoot(page: Path, picture: str, width: int, height: int) -> None:
    """Write a screenshot of a page, as many pixels wide and high, into docs/pictures."""
    browser = shutil.which("chromium")
    assert browser, "apt install chromium"
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--window-size={width},{height}", f"--screenshot={PICTURES / picture}"),
            page.absolute().as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def main(runs: list[str]) -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        out = Path(folder)
        words = ["-m", "fed_ist", "report", *runs, "--out", str(out / "page")]
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        shoot(out / "page" / "report.html", "report.png", 1280, 1180)
        printed = html.escape(sys.stdin.read())
        (out / "terminal.html").write_text(TERMINAL.format(printed), encoding="utf-8")
        shoot(out / "terminal.html", "terminal.png", 1000, 30 + 22 * (printed.count("\n") + 1))


if __name__ == "__main__":
    main(sys.argv[1:])
