"""The documentation hangs together: links, the site's contents, and tables made of the code.

That the site can be built without a warning is for `nox -s docs` to see.
"""

import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_io_async import ClientBootstrap, HostResolver, SocketOptions, TlsConnectionOptions
from aws_io_async.channel import Channel
from aws_io_async.channel_stream import WINDOW
from aws_io_async.errors import ErrorCode, class_of
from aws_io_async.host_resolver import HostResolutionConfig
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests.test_layers import FLOORS, MODULES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "tests").rglob("*.md")])
LINK = re.compile(r"\]\((?P<path>[^()\s#]*)(?:#(?P<anchor>[^()\s]*))?\)")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> Iterator[str]:
    """What GitHub and MkDocs alike call the headings of a page."""
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(prose(page)):
        path, anchor = link["path"], link["anchor"]
        if path.startswith(("https:", "http:")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link[0]
        assert target.is_relative_to(ROOT), link[0]
        assert anchor is None or target.suffix != ".md" or anchor in anchors(target), link[0]


def test_every_page_has_a_place_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r"(\S+\.md)$", nav, re.MULTILINE))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert pages <= named


def test_every_module_with_a_name_of_its_own_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"^::: aws_io_async\.([\w.]+)$", text, re.MULTILINE))
    public = {
        ".".join(name)
        for name in MODULES
        if name and not any(part.startswith("_") for part in name)
    }
    assert public - documented == {"event_loop", "integrations"}  # packages with nothing in them


def test_the_floors_of_the_design_page_are_those_of_the_house() -> None:
    rows = re.findall(r"^\| (\d) \| [^|]* \| ([^|]*) \|$", prose(DOCS / "design.md"), re.MULTILINE)
    told = {int(number): re.findall(r"`(\w+)`", names) for number, names in rows}
    for number, names in enumerate(FLOORS):
        public = [name for name in names if not name.startswith("_") or name == "__main__"]
        assert told[number] == public


def test_the_diagrams_are_as_they_are_drawn() -> None:
    folder = DOCS / "diagrams"
    drawings = runpy.run_path(str(folder / "draw.py"))["DIAGRAMS"]
    assert {path.stem for path in folder.glob("*.svg")} == set(drawings)
    for name, draw in drawings.items():
        assert (folder / f"{name}.svg").read_text() == str(draw())


def foreign_classes(cls: type) -> list[str]:
    """Python's own classes that an error's class is, the most special ones."""
    foreign = [each for each in cls.__mro__ if not each.__module__.startswith("aws_io_async")]
    special = [
        each
        for each in foreign
        if not any(each in other.__mro__[1:] for other in foreign) and each is not Exception
    ]
    return [
        f"{'' if each.__module__ == 'builtins' else f'{each.__module__}.'}{each.__name__}"
        for each in special
    ]


def codes_by_class() -> str:
    """A section for each class of errors: what else it is, and its codes."""
    codes: dict[type, list[ErrorCode]] = {}
    for code in ErrorCode:
        if "_PKCS11_CKR_" not in code.name:
            codes.setdefault(class_of(code), []).append(code)
    sections = []
    for cls, members in codes.items():
        also = " and ".join(f"`{name}`" for name in foreign_classes(cls))
        rows = [f"| {code.name} | {int(code)} | {code.text} |" for code in members]
        sections += [
            f"### {cls.__name__}\n",
            *([f"Also {also}.\n"] if also else []),
            "| Code | Number | |\n|---|--:|---|",
            "\n".join(rows) + "\n",
        ]
    return "\n".join(sections)


def test_the_page_of_errors_has_all_codes() -> None:
    text = (DOCS / "errors.md").read_text()
    assert text.endswith(f"\n\n{codes_by_class()}")


def told_on_tuning(name: str) -> str:
    """The cell beside that of a setting."""
    for line in prose(DOCS / "tuning.md").splitlines():
        cells = line.split("|")
        if len(cells) > 2 and name in cells[1]:
            return cells[2].strip()
    raise AssertionError(f"{name} is not on the page")


def default(function: Any, parameter: str) -> Any:
    return inspect.signature(function).parameters[parameter].default


def test_the_defaults_of_the_tuning_page() -> None:
    kib, config = 1024, HostResolutionConfig()
    assert told_on_tuning("window=") == f"{WINDOW // kib} KiB"
    threshold = default(Channel, "window_update_threshold")
    assert told_on_tuning("window_update_threshold") == f"{threshold // kib} KiB"
    read_size = default(ClientBootstrap.new_socket_channel, "max_read_size")
    assert told_on_tuning("max_read_size") == f"{read_size // kib} KiB"
    assert told_on_tuning("max_ttl") == f"{config.max_ttl:g} s"
    assert told_on_tuning("resolve_frequency") == f"{config.resolve_frequency:g} s"
    assert told_on_tuning("connect_timeout") == f"{SocketOptions().connect_timeout:g} s"
    timeout = default(TlsConnectionOptions, "timeout")
    assert told_on_tuning("TlsConnectionOptions.timeout") == f"{timeout:g} s"
    close_timeout = default(SocketChannelHandler, "close_timeout")
    assert told_on_tuning("close_timeout") == f"{close_timeout:g} s"
    text = prose(DOCS / "tuning.md")
    assert f"max_entries={default(HostResolver, 'max_entries')}" in text
    assert f"attempt_delay={default(ClientBootstrap, 'attempt_delay')}" in text
