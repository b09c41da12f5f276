"""Documents lead where they say, and the first page is short."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

CARDS = "fed_ist/encoder/weights/*.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", CARDS, "results/README.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```", re.M | re.S)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_page_and_a_heading_of_it(document):
    text = BLOCK.sub("", (ROOT / document).read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        page = (ROOT / document).parent / name if name else ROOT / document
        assert page.exists(), f"{document} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(page), f"{document} links to {target}: no such heading"


def test_the_first_page_is_read_in_a_minute_and_leads_to_all_others():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    linked = set(LINK.findall(text))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_the_site_is_built_and_no_link_in_it_leads_nowhere(tmp_path):
    pytest.importorskip("material", reason="the site's generator is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "own-images/" in first
    assert (tmp_path / "results/reference/compare-aid-clients/compare-aid.png").exists()
