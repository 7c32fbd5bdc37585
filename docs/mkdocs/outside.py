"""A hook of MkDocs: whatever a page links to in the repository has a page on the site.

Pages link to the README, to tests and to examples by their places in the repository, as one reads
them on GitHub. On the site Markdown outside of docs/ becomes a page as it is, source a page that
shows it, and a folder a list.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
DOCS = PurePosixPath("docs")
OUTSIDE = PurePosixPath("source")
"""The site's folder of those pages."""

LINK = re.compile(r"(?<=\]\()(?P<path>[^()\s#:]+)(?=(#[^()\s]*)?\))")
places: dict[str, PurePosixPath] = {}
"""Where the pages of the site are in the repository."""

LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json", ".c": "c"}


def target(link: str, page: PurePosixPath) -> PurePosixPath | None:
    """The place in the repository that a link of a page means, None if there is nothing there."""
    place = PurePosixPath(normpath(page.parent / link))
    return place if (ROOT / place).exists() and place.parts[0] != ".." else None


def links(markdown: str, page: PurePosixPath) -> Iterator[PurePosixPath]:
    for match in LINK.finditer(markdown):
        if place := target(match["path"], page):
            yield place


def is_outside(place: PurePosixPath) -> bool:
    """Whether MkDocs has no page or file for what is there."""
    return not place.is_relative_to(DOCS) or (ROOT / place).is_dir()


def uri(place: PurePosixPath) -> PurePosixPath:
    """Where the site has what the repository has at `place`."""
    if not is_outside(place):
        return place.relative_to(DOCS)
    if place.name == "README.md":
        place = place.with_name("readme.md")  # or MkDocs takes it for the index of its folder
    return OUTSIDE / (place if place.suffix == ".md" else f"{place}.md")


def content(place: PurePosixPath) -> str:
    """The page's Markdown."""
    path = ROOT / place
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.is_file())
        return "\n".join((f"# {place}\n", *(f"- [{name}]({path.name}/{name})" for name in files)))
    text = path.read_text()
    if place.suffix == ".md":
        return text
    return f"# {place.name}\n\n`{place}`\n\n````{LANGUAGES.get(place.suffix, 'text')}\n{text}````\n"


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add a page for each file that is linked to, and for those that these link to."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    seen = set(pages)
    places.update((f"{uri(page)}", page) for page in pages)
    while pages:
        page = pages.pop()
        if is_outside(page):
            files.append(File.generated(config, f"{uri(page)}", content=content(page)))
        if page.suffix == ".md" or (ROOT / page).is_dir():
            found = set(links(content(page), page)) - seen
            seen |= found
            new = sorted(filter(is_outside, found))
            places.update((f"{uri(place)}", place) for place in new)
            pages += new
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Have the links of a page lead to where the site has what they mean."""
    here = PurePosixPath(page.file.src_uri)
    place = places[f"{here}"]
    if place.suffix != ".md" and not (ROOT / place).is_dir():
        return markdown  # source

    def moved(match: re.Match[str]) -> str:
        to = target(match["path"], place)
        return match["path"] if to is None else relpath(uri(to), here.parent)

    return LINK.sub(moved, markdown)
