"""The pages as a website: they build without a warning, and what is looked up is found."""

import importlib
import inspect
import json
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.lightning2 import table
from pytorch_lightning.loggers import Logger
from tests.docs.test_docs import DOCS, ROOT, generate, without_blocks

pytestmark = [pytest.mark.slow, pytest.mark.docs]
QUESTIONS = 10


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(needed, reason=f'{needed} isn\'t installed: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def index(html: Path) -> Any:
    """What the search in the browser looks into."""
    return json.loads((html / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))


def first_found(index: Any, name: str) -> str | None:
    """The page of the entry of this name, which the search shows before all pages that have the word somewhere."""
    pages = {index["docnames"][page] for page, _, is_main in index["indexentries"].get(name.lower(), []) if is_main}
    assert len(pages) <= 1, f"{name}: {pages}"
    return next(iter(pages), None)


def test_headings_have_the_addresses_of_2019(html: Path) -> None:
    assert 'id="training_step"' in (html / "LightningModule/RequiredTrainerInterface.html").read_text()


@pytest.mark.parametrize("name", ["train_dataloader", "limit_train_batches", "accelerator", "on_train_batch_end"])
def test_a_search_for_a_modern_name_finds_its_row(html: Path, index: Any, name: str) -> None:
    assert first_found(index, name) == "coming_from_lightning"
    assert f'id="name-{name.replace("_", "-")}"' in (html / "coming_from_lightning.html").read_text()


def test_a_search_for_a_name_that_means_something_here_does_not_lead_to_another_library(index: Any) -> None:
    assert first_found(index, "EarlyStopping") is None
    assert first_found(index, "training_step") == "LightningModule/RequiredTrainerInterface"
    assert first_found(index, "freeze") == "LightningModule/methods"
    assert first_found(index, "on_epoch_end") == "Trainer/hooks"
    for name in ("max_nb_epochs", "deterministic", "val_check_interval", "callbacks"):
        assert first_found(index, name) == "Trainer/index"


def test_nearly_every_option_of_lightning_is_found(index: Any) -> None:
    options = table()["trainer_options"]
    assert all(first_found(index, name) in ("coming_from_lightning", "Trainer/index") for name in options)


# ------------------------------------------------------------------ links, with the addresses that headings really have
class Links(HTMLParser):
    """The links of a built page, and the addresses in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.addresses = list[str](), set[str]()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.addresses.add(value)


def broken_links(html: Path) -> list[str]:
    """Links of the built pages to what isn't there, but for those out of listings of the source."""
    pages = {path: Links(path) for path in html.rglob("*.html")}
    broken = []
    for page, found in pages.items():
        for link in found.links if "_modules" not in page.parts else ():
            target = urlsplit(link)
            there = page if not target.path else Path(os.path.normpath(page.parent / unquote(target.path)))
            is_ours = not target.scheme and not target.netloc
            in_page = pages[there].addresses if target.fragment and there in pages else {target.fragment}
            if is_ours and not (there.exists() and unquote(target.fragment) in in_page):
                broken.append(f"{page.relative_to(html)} links to {link}")
    return broken


def test_every_link_of_the_site_leads_somewhere(html: Path) -> None:
    assert not broken_links(html)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="top"><a href="b.html#here"></a><a href="#top"></a><img src="c.svg"></p>')
    (tmp_path / "b.html").write_text('<a href="a.html#nowhere"></a><a href="https://arxiv.org"></a><i id="there"></i>')
    wanted = ["a.html links to b.html#here", "a.html links to c.svg", "b.html links to a.html#nowhere"]
    assert sorted(broken_links(tmp_path)) == wanted


# ------------------------------------------------------------------ the reference
@pytest.fixture(scope="module")
def described(html: Path) -> set[str]:
    """The full names that the reference describes."""
    from sphinx.util.inventory import InventoryFile

    with (html / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", posixpath.join)
    return {name for kind in found if kind.startswith("py:") for name in found[kind]}


def test_every_public_name_is_in_the_reference(described: set[str]) -> None:
    public = {f"{module}.{name}" for module, names in generate.public_names().items() for name in names}
    assert len(public) > 40
    assert not public - described


def test_every_public_method_and_property_is_in_the_reference(described: set[str]) -> None:
    for base, place in ((Trainer, ""), (LightningModule, ""), (Callback, ".callbacks"), (Logger, ".loggers")):
        names = {name for name in dir(base) if name[0] != "_" and not hasattr(torch.nn.Module, name)}
        values = {name: inspect.getattr_static(base, name) for name in names}
        own = {n for n, v in values.items() if isinstance(v, (property, classmethod, staticmethod)) or callable(v)}
        missing = {name for name in own if f"pytorch_lightning{place}.{base.__name__}.{name}" not in described}
        assert not missing, f"{base.__name__}: without a docstring, or left out of the page"


def test_the_reference_links_to_the_source(html: Path) -> None:
    page = (html / "reference/trainer.html").read_text()
    assert 'href="../_modules/pytorch_lightning/trainer/trainer.html#Trainer.fit"' in page


def test_modules_with_a_list_of_their_names_have_no_other_one() -> None:
    for module in generate.PUBLIC:
        assert not hasattr(importlib.import_module(module), "__all__"), module


# ------------------------------------------------------------------ the first month
def test_each_question_of_the_first_month_is_two_clicks_from_the_first_page() -> None:
    first = (DOCS / "index.md").read_text()
    assert "](first_month.md)" in first
    assert "](quick_start.md)" in first
    _, *answers = re.split(r"^## ", without_blocks((DOCS / "first_month.md").read_text()), flags=re.MULTILINE)
    assert len(answers) == QUESTIONS
    for answer in answers:
        targets = re.findall(r"\]\(<?([^)>#]+\.md)", answer)
        assert targets, answer
        assert all((DOCS / target).exists() for target in targets)
