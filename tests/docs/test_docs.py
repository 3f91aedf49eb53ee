"""What the pages show is what runs, what they link to exists, and what they list is complete."""

import ast
import doctest
import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import pytorch_lightning
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.command_line import RUN_OPTIONS
from pytorch_lightning.options.config import options
from pytorch_lightning.root_module.hooks import ModelHooks
from pytorch_lightning.root_module.root_module import REQUIRED, LightningModule
from pytorch_lightning.trainer.trainer import Trainer, option_defaults

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PACKAGE = Path(pytorch_lightning.__file__).parent
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts)
OTHER_FOLDERS = (".github", "benchmarks/results", "examples", "pytorch_lightning", "tests")
OTHER_PAGES = [
    f"../{path.relative_to(ROOT).as_posix()}"
    for path in [
        *sorted(ROOT.glob("*.md")),
        *(p for name in OTHER_FOLDERS for p in sorted((ROOT / name).rglob("*.md"))),
    ]
]
NOT_RUN = "# not run by the tests: "
MOST_NOT_RUN = 6


def load(name: str) -> Any:
    """A module of the docs folder."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load("generate")


class Block(NamedTuple):
    """A fenced block: its language, the line where its text begins, and the text."""

    language: str
    line: int
    text: str


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text()
    return [
        Block(found["language"], text[: found.start("text")].count("\n") + 1, found["text"])
        for found in re.finditer(r"^```(?P<language>[\w{}]*)\n(?P<text>.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


# ------------------------------------------------------------------ what a page shows runs
@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like the top of a clone: with the examples, and with this python as ``python``."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    programs = tmp_path / ".programs"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before, logger = set(sys.modules), logging.getLogger("pytorch_lightning")
    level, handlers = logger.level, list(logger.handlers)
    yield tmp_path
    logger.setLevel(level)
    logger.handlers[:] = handlers
    for name in set(sys.modules) - before:  # modules that the page wrote
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(
    page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python blocks share one namespace; one that begins with ``# file: NAME`` is written there instead. Shell
    blocks run in the same folder. A text block that directly follows one of them is what it prints."""
    namespace = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", namespace)  # where classes of the page are looked up
    blocks = [block for block in blocks_of(page) if block.language != "{toctree}"]
    printed: str | None = None
    for block in blocks:
        where = f"{page}, line {block.line}"
        if block.language == "text":
            if printed is not None:
                assert_printed(block.text, printed, where)
            printed = None
            continue
        assert block.language in ("python", "bash", "yaml"), f"{where}: a block of an unknown language"
        capfd.readouterr()
        if not block.text.startswith(NOT_RUN):
            run(block, namespace, where)
        printed = capfd.readouterr().out or None


def run(block: Block, namespace: ModuleType, where: str) -> None:
    file = re.match(r"# file: (\S+)\n", block.text)
    if file:
        Path(file[1]).write_text(block.text)
    elif block.language == "python":
        code = compile("\n" * block.line + block.text, where, "exec")
        exec(code, namespace.__dict__)
    else:
        done = subprocess.run(["bash", "-e", "-c", block.text], capture_output=True, text=True)
        assert done.returncode == 0, f"{where}: {block.text}\n{done.stdout}\n{done.stderr}"
        print(done.stdout, end="")


def assert_printed(wanted: str, printed: str, where: str) -> None:
    """``...`` in ``wanted`` stands for anything."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(wanted, printed, flags), f"{where}: it prints\n{printed}"


def test_few_blocks_are_not_run_and_they_say_so() -> None:
    skipped = [b.text.splitlines()[0] for page in PAGES for b in blocks_of(page) if NOT_RUN.strip() in b.text]
    assert all(line.startswith(NOT_RUN) and len(line) > len(NOT_RUN) for line in skipped)
    assert len(skipped) <= MOST_NOT_RUN


def test_every_fence_is_one_that_is_understood() -> None:
    for page in PAGES:
        text = re.sub(
            r"^(`{4}){(?:literalinclude} [\w./]+\.py\n(?::.*\n)*|eval-rst}\n(?:(?:   :|\.\. auto).*\n)*)\1$",
            "",
            (DOCS / page).read_text(),
            flags=re.MULTILINE,
        )
        fences = re.findall(r"^ *(?:```|~~~).*$", text, re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), page


# ------------------------------------------------------------------ what a page links to is there
def without_blocks(text: str) -> str:
    return re.sub(r"^```[\w{}]*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors_of(path: Path) -> set[str]:
    """The addresses of the headings of a page."""
    titles = re.findall(r"^#+ +(.*?) *$", without_blocks(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS / page
    for target in re.findall(r"\]\((<[^>]*>|[^)\s]*)\)", without_blocks(path.read_text())):
        target = target.strip("<>")
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors_of(there), f"{page} links to {target}"


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^[\w/ -]+$", "\n".join(re.findall(r"```{toctree}(.*?)```", INDEX, re.DOTALL)), re.MULTILINE)
    assert sorted(f"{name}.md" for name in listed) == sorted(set(PAGES) - {"index.md"})


INDEX = (DOCS / "index.md").read_text()


# ------------------------------------------------------------------ what follows from the code is up to date
@pytest.mark.parametrize("page", PAGES)
def test_generated_parts_are_those_of_this_code(page: str) -> None:
    text = (DOCS / page).read_text()
    assert generate.filled(text) == text, "run python docs/generate.py"


def test_every_part_stands_on_a_page() -> None:
    text = "\n".join((DOCS / page).read_text() for page in PAGES)
    assert sorted(re.findall(r"<!-- generated: (.*?) -->", text)) == sorted(generate.PARTS)


def test_every_option_has_a_description_of_one_sentence() -> None:
    texts = {name: option.text for name, option in options().items()}
    assert set(texts) == set(option_defaults())
    assert all(5 < len(text) < 250 and not text.endswith(".") for text in texts.values())


def test_help_shows_the_sentence_of_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    from argparse import ArgumentParser

    parser = ArgumentParser()
    pytorch_lightning.add_default_args(parser, "/root")
    shown = " ".join(parser.format_help().split())
    assert " ".join(options()["val_check_interval"].text.split()) in shown
    silent = [action.dest for action in parser._actions if not action.help]
    assert not silent


def test_the_hooks_of_a_module_stand_in_the_order_of_a_real_fit() -> None:
    called = list(dict.fromkeys(name for who, name in generate.record() if who == "module"))
    written = [name for name in vars(ModelHooks) if name in called]
    # a row is logged after the first batch, and that batch doesn't close its window
    in_window = ["on_after_backward", "optimizer_step", "on_before_zero_grad"]
    rows = ["on_tng_metrics", "update_tng_log_metrics"]
    assert [n for n in written if n not in in_window + rows + ["on_batch_end", "on_save_checkpoint"]] == [
        n for n in called if n in written and n not in in_window + rows + ["on_batch_end", "on_save_checkpoint"]
    ]
    for group in (in_window, rows):
        assert [n for n in written if n in group] == [n for n in called if n in group] == group


def test_the_recorded_fit_calls_every_hook() -> None:
    calls = generate.record() + generate.record(resumed=True)
    calls += generate.record(stage="test") + generate.record(stage="predict")
    hooks = {("callback", name) for name in vars(Callback) if name.startswith("on_")}
    hooks |= {("module", name) for name in [*vars(ModelHooks), *REQUIRED] if name[0] != "_" and name != "forward"}
    hooks |= {("module", name) for name in ("predict_step", "get_save_dict", "load_model_specific")}
    assert set(calls) == hooks


# ------------------------------------------------------------------ what a page lists is complete
def codes_in(path: Path) -> Iterator[str]:
    """The codes of the notices in a file; what varies in one is ``*``."""
    tree = ast.parse(path.read_text())
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("say", "say_again") or ast.unparse(node.func.value) == "self":
            continue
        code = node.args[0]
        if isinstance(code, ast.Constant):
            yield code.value
        elif isinstance(code, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in code.values)
        else:
            yield from _codes_of_loop(loops, code, f"{path.name}:{node.lineno}")


def _codes_of_loop(loops: list[ast.For], code: ast.expr, where: str) -> Iterator[str]:
    """Of ``for code, ... in (("a", ...), ("b", ...))``: a and b."""
    name = ast.unparse(code)
    for loop in loops:
        names = [ast.unparse(target) for target in getattr(loop.target, "elts", [])]
        if name in names and isinstance(loop.iter, ast.Tuple):
            for row in loop.iter.elts:
                yield ast.literal_eval(row.elts[names.index(name)])  # type: ignore[attr-defined]
            return
    raise AssertionError(f"{where}: the code of this notice can't be read")


def test_every_notice_is_listed_with_its_code() -> None:
    said = {code for path in PACKAGE.rglob("*.py") for code in codes_in(path)}
    table = (DOCS / "Trainer/Debugging.md").read_text().split("## Notices")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([a-zA-Z*-]+)` \|", table, re.MULTILINE))
    assert listed == said


def named_in(page: str) -> list[str]:
    """The last cell of each row of the tables of a page, which names tests that are there."""
    rows = re.findall(r"^\|.*\| ([^|]*) \|$", without_blocks((DOCS / page).read_text()), re.MULTILINE)
    cells = [cell for cell in rows if cell not in ("---", "test")]
    tests: set[str] = set()
    for cell in cells:
        file = re.match(r"`([\w/]+\.py)`: ", cell)  # or that of the row before
        if file:
            tests = set(re.findall(r"^def (test_\w+)", (ROOT / "tests" / file[1]).read_text(), re.MULTILINE))
        named = re.findall(r"`(test_\w+)`", cell)
        assert named or cell.startswith("the same"), cell
        assert set(named) <= tests, cell
    return cells


def test_each_row_of_fault_tolerance_names_an_existing_test() -> None:
    assert len(named_in("Trainer/Fault tolerance.md")) > 40


def test_each_sentence_on_security_names_an_existing_test() -> None:
    cells = named_in("security.md")
    assert len(cells) >= 30
    assert all(re.match(r"`[\w/]+\.py`: `test_", cell) for cell in cells)


def test_each_claim_of_why_names_an_existing_test() -> None:
    page = (DOCS / "why.md").read_text()
    cells = [cell for cell in re.findall(r"^\|.*\| ([^|]*) \|$", page, re.MULTILINE) if "`test_" in cell]
    assert len(cells) >= 25
    for cell in cells:
        file, names = re.match(r"`([\w/]+\.py)`: ", cell), re.findall(r"`(test_\w+)`", cell)
        assert file is not None, cell
        there = re.findall(r"^def (test_\w+)", (ROOT / "tests" / file[1]).read_text(), re.MULTILINE)
        assert names, cell
        assert set(names) <= set(there), cell


def test_every_public_method_is_described() -> None:
    text = (DOCS / "LightningModule/methods.md").read_text()
    public = {
        name
        for name, value in vars(LightningModule).items()
        if not name.startswith("_") and not isinstance(value, property)
    }
    hooks = {*REQUIRED} - {"forward"} | {
        "get_save_dict",
        "load_model_specific",
        "add_model_specific_args",
        "predict_step",
    }
    hooks |= {"update_tng_log_metrics"}
    described = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert described == public - hooks
    interface = (DOCS / "LightningModule/RequiredTrainerInterface.md").read_text()
    assert hooks - set(re.findall(r"^### (\w+) *$", interface, re.MULTILINE)) == set()


def test_every_method_of_the_trainer_is_described() -> None:
    text = (DOCS / "Trainer/index.md").read_text()
    public = {n for n, v in vars(Trainer).items() if not n.startswith("_") and not isinstance(v, property)}
    assert public <= set(re.findall(r"`(?:trainer|Trainer)\.(\w+)\(", text))


def test_options_for_programs_are_read_by_the_template_or_documented_as_not_read() -> None:
    text = (DOCS / "command_line.md").read_text()
    template = (ROOT / "examples/new_project_templates/single_cpu_template.py").read_text()
    read = {name for name, *_ in RUN_OPTIONS if f"hparams.{name}" in template}
    said = re.search(r"The templates read (.*?)\.\n", text, re.DOTALL)
    assert said is not None
    assert set(re.findall(r"`--(\w+)`", said[1])) == read


def generate_free(page: str) -> str:
    """``page`` without its generated parts."""
    return re.sub(r"<!-- generated: ([\w ]+) -->.*?<!-- end of \1 -->", "", page, flags=re.DOTALL)
