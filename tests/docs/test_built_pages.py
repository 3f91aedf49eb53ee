"""The pages as a website: they build without a warning, and what is looked up is found."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning.lightning2 import table
from tests.docs.test_docs import DOCS, ROOT, without_blocks

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
    for name in ("training_step", "EarlyStopping", "current_epoch", "on_epoch_end"):
        assert first_found(index, name) != "coming_from_lightning"
    for name in ("max_nb_epochs", "deterministic", "val_check_interval", "callbacks"):
        assert first_found(index, name) == "Trainer/index"


def test_nearly_every_option_of_lightning_is_found(index: Any) -> None:
    options = table()["trainer_options"]
    assert all(first_found(index, name) in ("coming_from_lightning", "Trainer/index") for name in options)


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
