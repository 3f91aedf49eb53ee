"""The budgets and arrows of the architecture, read from the code itself."""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning
from pytorch_lightning import LightningModule, Trainer

PACKAGE = Path(pytorch_lightning.__file__).parent
TEMPLATES = PACKAGE / "templates"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if TEMPLATES not in path.parents)
"""The code. What lies in ``templates`` is data: no file of the package imports it, ``new`` copies it out, and from then
on it is the user's. It has a limit of its own, since somebody who begins reads a template whole."""

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
# of code: the docstrings are the reference pages. What a step runs through stays short; callbacks, loggers and commands
# are what may grow, and what several processes do beside a step: own shares, repeats, what proves them equal, and the
# state that each has of its own
MOST_LINES_OF_THE_PACKAGE = 31_000
MOST_LINES_OF_A_TEMPLATE = 180
MOST_OF_A_ROOM = 0.2
MOST_FRAMES = 6
MOST_CALLS = 15

BASE = {"errors", "messages", "printing", "nested", "processes", "seeding", "timings", "version"}
STATE = {"callbacks", "loggers", "launchers", "checkpoints", "data"} | BASE

ARROWS = {
    "__main__": {"commands"},
    "commands": {
        "replay",
        "samples",
        "verify",
        "forks",
        "run",
        "root_module",
        "checkpoints",
        "errors",
        "lightning2",
        "timings",
        "version",
    },
    "command_line": {"trainer", "options"},
    "testing": {"trainer", "run", "root_module", "data", "callbacks", "seeding", "errors", "version"},
    "verify": {"samples", "replay", "trainer", "resume", "options", "root_module", "seeding"}
    | {"checkpoints", "errors", "callbacks"},
    "forks": {"samples", "replay", "command_line", "resume", "trainer", "run", "options", "root_module"}
    | {"launchers", "callbacks", "loggers", "checkpoints", "errors"},
    "samples": {"replay", "trainer", "options", "root_module", "checkpoints", "errors"},
    "replay": {"trainer", "steps", "run", "root_module", "checkpoints", "data", "precision", "seeding", "errors"},
    "trainer": {"resume", "steps", "run", "options", "root_module", "strategies", "precision", "lightning2"} | STATE,
    "resume": {"steps", "run", "options", "root_module", "strategies", "precision"} | STATE,
    "steps": {"run", "options", "root_module", "strategies", "precision"} | STATE,
    "run": {"options", "root_module", "strategies", "lightning2"} | STATE,
    "options": {"strategies", "precision", "callbacks", "loggers", "lightning2", "errors"},
    "root_module": {"errors", "lightning2", "printing", "checkpoints", "processes", "seeding", "nested"},
    "strategies": {"data", "errors", "nested", "processes", "seeding"},
    "launchers": {"errors", "messages", "processes"},
    "precision": {"errors"},
    "checkpoints": {"errors", "nested", "processes", "version"},
    "callbacks": {"errors", "lightning2", "printing"},
    "loggers": {"errors", "lightning2"},
    "data": {"errors", "nested", "processes", "seeding"},
    "processes": {"errors", "messages"},
    "messages": {"errors"},
    "seeding": set(),
    "errors": {"printing"},
    "printing": set(),
    "nested": set(),
    "lightning2": {"errors"},
    "namesakes": set(),
    "faults": set(),
    "timings": set(),
    "version": set(),
    "models": {"trainer"},
    "utils": {"command_line", "errors"},
    "utilities": {"command_line", "errors"},
}
"""Which room may import which, from the top down; within a room each may import each."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pytorch_lightning"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pytorch_lightning.")}
    return {name for name in found if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}


def functions_of(path: Path) -> list[tuple[str, int]]:
    """Each function with the number of its lines, its signature and docstring aside."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            found.append((f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", lines))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part != "__init__":
        # a point that a test can make fail may lie anywhere
        allowed = ARROWS[part] | {part, "faults"}
        assert imports_of(path) <= allowed, f"{path.relative_to(PACKAGE)} imports what is above it"


def test_there_is_no_circle() -> None:
    floors: dict[str, int] = {}

    def floor_of(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle: {' -> '.join((*above, room))}"
        if room not in floors:
            floors[room] = 1 + max((floor_of(below, (*above, room)) for below in ARROWS[room]), default=0)
        return floors[room]

    for room in ARROWS:
        floor_of(room)


def test_no_room_is_too_large() -> None:
    lines: Counter[str] = Counter()
    for path in FILES:
        lines[part_of(path)] += lines_of_code(path)
    large = {room: nb for room, nb in lines.items() if nb > MOST_OF_A_ROOM * lines.total()}
    assert not large, f"of {lines.total()} lines"


def test_no_file_is_long() -> None:
    long = {str(p): n for p in FILES if (n := len(p.read_text().splitlines())) > MOST_LINES_OF_A_FILE}
    assert not long


def test_no_function_is_long() -> None:
    long = [f for path in FILES for f in functions_of(path) if f[1] > MOST_LINES_OF_A_FUNCTION]
    assert not long


def lines_of_code(path: Path) -> int:
    """Lines that aren't blank, comments or docstrings."""
    text = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        for statement in node.body if isinstance(node, documented) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                strings.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for n, line in lines if n not in strings and line.strip() and not line.strip().startswith("#"))


def test_the_package_is_small() -> None:
    assert sum(map(lines_of_code, FILES)) <= MOST_LINES_OF_THE_PACKAGE


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.iterdir()))
def test_a_template_is_short_and_shows_what_is_public(template: str) -> None:
    files = sorted((TEMPLATES / template).rglob("*.py"))
    assert 30 < sum(map(lines_of_code, files)) <= MOST_LINES_OF_A_TEMPLATE
    # nothing of the inside, which may change
    assert set().union(*map(imports_of, files)) <= {"callbacks", "data"}


def test_nobody_asks_what_kind_of_strategy_there_is() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "hasattr")
            ):
                subject = ast.unparse(node.args[0])
                assert subject.split(".")[-1] not in ("strategy", "precision", "launcher"), f"{path}:{node.lineno}"


def test_no_part_is_given_the_trainer() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                annotated = {ast.unparse(a.annotation) for a in node.args.args if a.annotation is not None}
                assert not {"Trainer", "'Trainer'"} & annotated, f"{path}:{node.lineno}"
                untyped = {
                    a.arg for a in node.args.args if a.annotation is not None and ast.unparse(a.annotation) == "Any"
                }
                # the module's attribute of that name is set by users too
                assert "trainer" not in untyped or node.name == "trainer", f"{path}:{node.lineno}"


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ["pandas", "tensorboard", "test_tube", "torchvision", "matplotlib", "tqdm", "imageio", "PIL", "fsspec"]
    code = (
        "import sys, torch; before = set(sys.modules); import pytorch_lightning;"
        "from pytorch_lightning import Trainer, LightningModule;"
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


class Counted(LightningModule):
    """Notes the frames between ``fit`` and ``training_step``, and counts calls of package functions."""

    def __init__(self, nb_batches: int, loader: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.nb_batches = nb_batches
        self.frames: list[str] = []
        self.loader = loader

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if not self.frames:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and "test_architecture" not in frame.f_code.co_filename:
                if frame.f_code.co_filename.startswith(str(PACKAGE)):
                    self.frames.append(frame.f_code.co_qualname)
                frame = frame.f_back
        loss = self.layer(data_batch[0]).pow(2).mean()
        return {"loss": loss, "prog": {"own": loss}}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1)]

    @property
    def tng_dataloader(self) -> Any:
        data = TensorDataset(torch.ones(2 * self.nb_batches, 4))
        return DataLoader(data, batch_size=2, shuffle=True)


def counted_fit(nb_batches: int, calls: Counter[str] | None, tmp_path: Path, **options: Any) -> Counted:
    model = Counted(nb_batches)
    # rows and bar are on, as by default; none falls due between the batches that are compared
    trainer = Trainer(
        max_nb_epochs=1,
        add_log_row_interval=10_000,
        log_save_interval=10_000,
        default_save_path=str(tmp_path),
        silence=("no-validation",),
        print_weights_summary=False,
        **options,
    )

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and calls is not None and frame.f_code.co_filename.startswith(str(PACKAGE)):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(count if calls is not None else None)
    try:
        trainer.fit(model)
    finally:
        sys.setprofile(None)
    return model


def test_few_frames_lie_between_fit_and_training_step(tmp_path: Path) -> None:
    frames = counted_fit(3, None, tmp_path).frames
    assert frames[-1] == "Trainer.fit"
    assert len(frames) <= MOST_FRAMES, frames


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bf16"}, {"gradient_clip": 1.0}], ids=["default", "bf16", "clipped"]
)
def test_a_batch_costs_few_calls(tmp_path: Path, options: dict[str, Any]) -> None:
    few, many = Counter[str](), Counter[str]()
    counted_fit(20, few, tmp_path / "few", **options)
    counted_fit(120, many, tmp_path / "many", **options)
    # the timers are called in one window of 50
    per_batch = {
        name: (n - few[name]) / 100
        for name, n in many.items()
        if n != few[name] and not name.startswith(("Timings.sampling", "Timings.timed", "Timings._s"))
    }
    assert sum(per_batch.values()) <= MOST_CALLS + 1e-9, per_batch


def test_every_test_folder_mirrors_a_part() -> None:
    """Nothing of the package goes by another name in the tests."""
    root = Path(__file__).parent
    others = {"benchmarks", "mistakes", "equality", "examples", "conformance", "faults", "frozen", "slurm", "hosts"}
    others |= {"docs", "security", "gpu"}
    there = {p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))}
    assert there - others <= {p.stem for p in PACKAGE.iterdir()}


def test_pytest_alone_knows_its_options() -> None:
    """``scripts/gpu_check`` installs no plugin, and there an option of one would be an error."""
    options = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options.keys() <= {"testpaths", "addopts", "markers", "filterwarnings"}
