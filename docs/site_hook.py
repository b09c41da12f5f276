"""What the site needs of files outside `docs`: the first page, reports, cards, and links to them.

mkdocs looks for pages in one folder, while documents here link to committed reports and files
beside them, as readers of the repository need. So what is linked to is added under its own path.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)\s#]+)")
# The second word of a block says where tests run it (`sh server`); the site's parser knows no such.
MARKED = re.compile(r"^(```\w+) \w+$", re.M)
FIRST, INDEX = "README.md", "index.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page and, from page to page, whatever is linked to outside of `docs`."""
    _add(files, config, FIRST, INDEX)
    waiting = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    waiting[waiting.index(f"docs/{INDEX}")] = FIRST
    for place in waiting:  # which grows
        if not place.endswith(".md"):
            continue
        for target in LINK.findall((ROOT / place).read_text(encoding="utf-8")):
            found = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
            if (
                found in (FIRST, *waiting)
                or found.startswith("docs/")
                or not (ROOT / found).is_file()
            ):
                continue
            waiting.append(found)
            _add(files, config, found, found)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the pages stand on the site: what is in `docs` moves up a folder."""
    place = FIRST if page.file.src_uri == INDEX else _place(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found.group(1)))
        target = INDEX if target == FIRST else target.removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return MARKED.sub(r"\1", LINK.sub(moved, markdown))


def _place(uri: str) -> str:
    """The path in the repository of a page of the site."""
    return f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri


def _add(files: Files, config: MkDocsConfig, place: str, uri: str) -> None:
    files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
