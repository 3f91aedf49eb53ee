"""Links of every kind lead somewhere: those of pages are in test_docs.py, and those of the built site, with the
addresses that its headings really have, in test_built_pages.py."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.test_docs import DOCS, OTHER_PAGES, PAGES, ROOT, anchors_of, without_blocks

SOURCES = ("pytorch_lightning", "examples", "benchmarks", "scripts", ".ci", "docs")
HOSTS = {
    "arxiv.org",
    "docs.ray.io",
    "keepachangelog.com",
    "lightning.ai",
    "optuna.org",
    "pytorch.org",
    "ui.perfetto.dev",
    "www.jmlr.org",
}
"""Where links to other sites may lead. Nobody looks whether they do: a new one is looked at once, and added here."""
EVERYWHERE = [DOCS / page for page in [*PAGES, *OTHER_PAGES]]


def sources() -> Iterator[Path]:
    """Files with code, which name pages in docstrings, messages and comments."""
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            is_hidden = any(part.startswith((".", "_build")) for part in path.relative_to(ROOT / folder).parts)
            if path.is_file() and path.suffix in (".py", ".toml", ".yml", ".yaml", "") and not is_hidden:
                yield path


def pages_named_in(text: str) -> list[str]:
    """``docs/Trainer/Training loop.md#duration`` in a text that isn't Markdown."""
    return re.findall(r"(?<![\w/])docs/(?:\w+/)?\w[\w-]*(?: \w+)*\.md(?:#[\w-]+)?", text)


def test_pages_that_code_names_are_there() -> None:
    named = {name: path for path in sources() for name in pages_named_in(path.read_text(errors="replace"))}
    assert len(named) >= 3
    for name, path in named.items():
        page, _, anchor = name.partition("#")
        assert (ROOT / page).exists(), f"{path.relative_to(ROOT)} names {name}"
        assert not anchor or anchor in anchors_of(ROOT / page), f"{path.relative_to(ROOT)} names {name}"


def test_every_picture_is_on_a_page() -> None:
    shown = {
        (path.parent / target).resolve()
        for path in EVERYWHERE
        for target in re.findall(
            r"!\[[^\]]+\]\(<?([^)>]+)>?\)", path.read_text()
        )  # with a text for those who can't see
        if not target.startswith("https:")
    }
    there = {path for kind in ("svg", "png") for path in DOCS.rglob(f"*.{kind}") if "_build" not in path.parts}
    assert len(there) >= 4
    assert there <= shown


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: str(path.resolve().relative_to(ROOT)))
def test_links_are_of_the_kinds_that_are_checked(path: Path) -> None:
    text = re.sub(r"``.*?``|`[^`\n]*`", "", without_blocks(path.read_text()))
    assert not re.findall(r"^ *\[[^\]]+\]: .*$", text, re.MULTILINE), "a link whose target stands elsewhere"
    assert not re.findall(r"<(?:a|img)\s.*", text), "a link of HTML"
    assert not re.findall(r"\]\(\s*\)|\]\([^<)]* [^)\"]*\)", text), (
        "a link without a target, or with a bare space in it"
    )


def test_links_to_other_sites_are_well_formed_and_lead_to_hosts_that_are_listed() -> None:
    found: set[str] = set()
    for path in EVERYWHERE:
        for link in re.findall(r"(?:\]\(<?|<)(\w+://[^)>]*)", without_blocks(path.read_text())):
            parts = urlsplit(link)
            assert parts.scheme == "https", f"{path}: {link}"
            assert re.fullmatch(r"[\w.-]+\.[a-z]+", parts.netloc), f"{path}: {link}"
            assert re.fullmatch(r"[\w./~+%=&?#-]*", link.split("://", 1)[1]), f"{path}: {link}"
            assert not link.endswith((".", ",", ";")), f"{path}: {link}"
            found.add(parts.netloc)
    assert found == HOSTS
