"""Writes the parts of the pages that follow from the code: ``python docs/generate.py``.

Such a part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; ``PARTS`` says what makes it.
"""

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytorch_lightning import LightningModule, Trainer, lightning2
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.command_line import RUN_OPTIONS
from pytorch_lightning.options.config import groups
from pytorch_lightning.options.meaning import ALIASES
from pytorch_lightning.root_module.hooks import ModelHooks
from pytorch_lightning.run.hooks import CALLBACK_HOOKS, PARAMETERS
from pytorch_lightning.trainer.attributes import ReadAttributes
from pytorch_lightning.trainer.trainer import option_defaults

DOCS = Path(__file__).parent
LOADERS = ("tng_dataloader", "val_dataloader", "test_dataloader")

Call = tuple[str, str]
"""Who was called ('module' or 'callback'), and the hook."""


# ------------------------------------------------------------------ the hooks of a real fit
def record(*, stage: str = "fit", resumed: bool = False, with_torch: bool = False) -> list[Call]:
    """The hooks that are called in a fit of one epoch, in order, or in a ``test`` or ``predict``.

    Two training batches make one step, and one batch is validated: before training and at the epoch's end.
    ``resumed``: a fit that resumes from the checkpoint that such a fit wrote. ``with_torch``: also each backward and
    each step of an optimizer, as torch itself reports them, as calls of 'torch'.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        calls: list[Call] = []
        trainer = Trainer(False, **_options(folder), max_nb_epochs=1, callbacks=[_recording_callback(calls)])
        model = _recording_module(calls)
        if stage == "fit" and not resumed:
            with noting_torch(model, calls) if with_torch else contextlib.nullcontext():
                trainer.fit(model)
        elif stage == "fit":
            trainer.fit(model)
            trainer = Trainer(
                False,
                **_options(folder),
                max_nb_epochs=2,
                callbacks=[_recording_callback(calls)],
                resume=f"{folder}/_ckpt_epoch_1.ckpt",
            )
            calls.clear()
            trainer.fit(model)
        else:
            getattr(trainer, stage)(model)
        return calls


@contextlib.contextmanager
def noting_torch(model: nn.Module, calls: list[Call]) -> Iterator[None]:
    """Note when a gradient arrives at the weights of ``model``, and when an optimizer steps."""
    handles = [
        next(model.parameters()).register_post_accumulate_grad_hook(
            lambda _: calls.append(("torch", "loss.backward()"))
        ),
        register_optimizer_step_pre_hook(lambda *_: calls.append(("torch", "optimizer.step()"))),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _options(folder: str) -> dict[str, Any]:
    return {
        "checkpoint_callback": ModelCheckpoint(folder),
        "accumulate_grad_batches": 2,
        "progress_bar": False,
        "print_weights_summary": False,
        "silence": ("not-shuffled",),
    }


class _Model(LightningModule):
    """The least that can be trained, validated, tested and asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self(data_batch).pow(2).mean()

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self(data_batch).pow(2).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    test_step, test_end = validation_step, validation_end

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: [torch.ones(2, 1), torch.ones(2, 1)])
    val_dataloader = property(lambda self: [torch.ones(2, 1)])
    test_dataloader = property(lambda self: [torch.ones(2, 1)])


def _recording_module(calls: list[Call]) -> LightningModule:
    overrides: dict[str, Any] = {name: _noting(_Model, name, "module", calls) for name in PARAMETERS}
    for name in LOADERS:
        overrides[name] = property(_noting(_Model, name, "module", calls))
    return type("Model", (_Model,), overrides)()  # type: ignore[no-any-return]


def _recording_callback(calls: list[Call]) -> Callback:
    overrides = {name: _noting(Callback, name, "callback", calls) for name in CALLBACK_HOOKS}
    return type("Watcher", (Callback,), overrides)()  # type: ignore[no-any-return]


def _noting(base: type, name: str, who: str, calls: list[Call]) -> Callable[..., Any]:
    """``base.name`` that notes each call first. Its parameters are those of ``base``: the trainer reads them."""
    original = base.__dict__.get(name) or getattr(base, name)
    method = original.fget if isinstance(original, property) else original

    def noted(*arguments: Any) -> Any:
        calls.append((who, name))
        return method(*arguments)

    noted.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return noted


OPENS = ("on_epoch_start", "on_evaluation_start", "on_pre_performance_check", "on_batch_start")
CLOSES = ("on_epoch_end", "on_evaluation_end", "on_post_performance_check", "on_batch_end")


def show_calls(calls: Sequence[Call]) -> str:
    """Two columns, the module's hooks and the callbacks', indented by what they are inside of."""
    lines, depth, open_pairs = [], 0, []
    for who, name in calls:
        if name in CLOSES and (who, CLOSES.index(name)) in open_pairs:
            open_pairs.remove((who, CLOSES.index(name)))
        depth = len({place for _, place in open_pairs})
        text = "  " * depth + name
        lines.append(text if who == "module" else f"{'':34}{text}")
        if name in OPENS:
            open_pairs.append((who, OPENS.index(name)))
    return "```text\n" + f"{'module':34}callback\n" + "-" * 62 + "\n" + "\n".join(lines) + "\n```"


# ------------------------------------------------------------------ tables
def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def first_sentences(value: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    text = inspect.cleandoc(inspect.getdoc(value) or "").split("\n\n")[0]
    return re.sub(r"``(.*?)``", r"`\1`", " ".join(text.split()))


def signature_of(base: type, name: str) -> str:
    """``name`` with the names of its arguments."""
    parameters = list(inspect.signature(getattr(base, name)).parameters)[1:]
    return f"`{name}({', '.join(parameters)})`"


def options() -> str:
    defaults = option_defaults()
    sections = []
    for title, texts in groups().items():
        rows = [(f"`{name}`", f"`{defaults[name]!r}`", _as_code(text)) for name, text in texts.items()]
        sections.append(f"### {title}\n\n" + table(("option", "default", "meaning"), rows))
    return "\n\n".join(sections)


def _as_code(text: str) -> str:
    """``text`` with the names of options, values and classes in it set as code."""
    compound = [name for name in option_defaults() if "_" in name]  # "resume" and "seed" are words as well
    names = "|".join([*compound, r"torch\.\w+(?:\(\w*\))?", r"EarlyStopping|ModelCheckpoint", r"\{.*?\}", "'[^' ]*'"])
    return re.sub(rf"(?<![\w.-])({names})(?![\w-])", r"`\1`", text)


def aliases() -> str:
    return table(("also accepted", "means"), [(f"`{alias}`", f"`{name}`") for alias, name in ALIASES.items()])


def lightning(*kinds: str) -> str:
    """The table of Lightning 2's names of these kinds."""
    rows = [
        (f"`{name}`", text.removeprefix("=").strip() or "the same")
        for kind in kinds
        for name, text in sorted(lightning2.table()[kind].items())
    ]
    return table(("Lightning 2", "here"), rows)


def run_options() -> str:
    rows = [(f"`--{name}`", f"`{default}`" if default != "" else "", text) for name, default, _, text in RUN_OPTIONS]
    return table(("option", "default", "meaning"), rows)


def properties_of(*classes: type) -> list[tuple[str, str]]:
    """The public properties that ``classes`` define themselves."""
    return [
        (f"`{name}`", first_sentences(value))
        for cls in classes
        for name, value in vars(cls).items()
        if isinstance(value, property) and not name.startswith("_")
    ]


def attributes() -> str:
    return table(("attribute", "what it is"), properties_of(ReadAttributes))


def module_properties() -> str:
    rows = [row for row in properties_of(LightningModule) if row[0].strip("`") not in LOADERS]
    return table(("property", "what it is"), rows)


def module_hooks() -> str:
    names = [name for name in vars(ModelHooks) if not name.startswith("_")]
    return table(
        ("hook", "when"), [(signature_of(ModelHooks, n), first_sentences(getattr(ModelHooks, n))) for n in names]
    )


def callback_hooks() -> str:
    return table(
        ("hook", "when"),
        [(signature_of(Callback, n), first_sentences(getattr(Callback, n))) for n in CALLBACK_HOOKS],
    )


# ------------------------------------------------------------------ the reference
PAGES_OF_REFERENCE = {
    "pytorch_lightning": "trainer",
    "pytorch_lightning.callbacks": "callbacks",
    "pytorch_lightning.loggers": "loggers",
    "pytorch_lightning.testing": "more",
    "pytorch_lightning.errors": "more",
    "pytorch_lightning.strategies": "more",
    "pytorch_lightning.seeding": "more",
    "pytorch_lightning.replay": "more",
    "pytorch_lightning.data.digits": "more",
}
"""The modules with public names, and the page of each."""

PUBLIC = {
    "pytorch_lightning.errors": (
        *("LightningError", "MisconfigurationException", "FitError", "CheckpointError", "ProcessError"),
    ),
    "pytorch_lightning.strategies": ("Strategy", "SingleDevice", "DataParallel", "Distributed", "FullySharded"),
    "pytorch_lightning.seeding": ("order_scope", "step_scope", "shuffled"),
    "pytorch_lightning.data.digits": ("mnist", "Digits"),
}
"""Public names of modules that have other ones beside them, and so no ``__all__``."""


def public_names() -> dict[str, list[str]]:
    """The public names of each module."""
    modules = {module: importlib.import_module(module) for module in PAGES_OF_REFERENCE}
    return {name: list(PUBLIC.get(name) or module.__all__) for name, module in modules.items()}


def reference() -> str:
    """A table of the public names of each module."""
    sections = []
    for module, names in public_names().items():
        page, home = f"{PAGES_OF_REFERENCE[module]}.md", importlib.import_module(module)
        text = (DOCS / "reference" / page).read_text()
        places = {name: f"#{name.lower()}" if f"## {name}\n" in text else "" for name in names}
        rows = [(f"[`{name}`]({page}{places[name]})", first_sentences(getattr(home, name))) for name in names]
        sections.append(f"## {module}\n\n" + table(("name", "what it is"), rows))
    return "\n\n".join(sections)


# ------------------------------------------------------------------ what an installation brings along
PURPOSES = {
    "torch": "tensors, models, optimizers, loaders, processes",
    "numpy": "random streams, arrays in batches, rows and checkpoints",
    "tqdm": "the progress bar",
    "torchvision": "transforms and the names of MNIST's files, in the templates and `data.digits`",
    "test-tube": "`Experiment`, `HyperOptArgumentParser` and `SlurmCluster`, in programs that use them",
    # of torch and torchvision
    "filelock": "locks on compiled kernels",
    "fsspec": "file systems of `torch.distributed.checkpoint`",
    "jinja2": "templates of compiled kernels",
    "markupsafe": "escaping in jinja2 and werkzeug",
    "networkx": "graphs of `torch.compile`",
    "setuptools": "building C++ extensions in torch; entry points in tensorboard",
    "sympy": "shapes that `torch.compile` leaves open",
    "mpmath": "numbers in sympy",
    "typing-extensions": "type annotations of newer Pythons",
    "pillow": "images",
    # of test-tube
    "pandas": "test-tube writes metrics.csv with it",
    "python-dateutil": "dates in pandas",
    "tzdata": "time zones where the system has none",
    "imageio": "test-tube writes images with it",
    "future": "Python 2 in test-tube",
    "tensorboard": "event files, of test-tube and of `TensorBoardLogger`",
    "absl-py": "flags and logs of tensorboard",
    "grpcio": "tensorboard's server reads its data server through it",
    "markdown": "texts in tensorboard's pages",
    "packaging": "version numbers in tensorboard",
    "protobuf": "the format of event files",
    "tensorboard-data-server": "tensorboard's server reads event files with it",
    "werkzeug": "tensorboard's web server",
}
"""What each distribution of the closure is for, those of ``ON_SOME_PLATFORMS`` aside."""
ON_SOME_PLATFORMS = r"(nvidia|cuda|intel|pytorch-triton|triton)(-.*)?"
"""What torch brings along where there may be a GPU."""


def closure() -> dict[str, set[str]]:
    """The distributions that the dependencies in pyproject.toml bring along, each with those that ask for it.

    A dependency that isn't installed has no dependencies here. Those of extras aren't followed.
    """
    wanted = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    found: dict[str, set[str]] = {}
    waiting = [("this library", Requirement(text)) for text in wanted]
    while waiting:
        by, requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in found:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                waiting += [(name, Requirement(text)) for text in importlib.metadata.requires(name) or []]
        found.setdefault(name, set()).add(by)
    return found


def dependencies() -> str:
    found = {name: by for name, by in closure().items() if not re.fullmatch(ON_SOME_PLATFORMS, name)}
    if set(found) != set(PURPOSES):
        new, gone = sorted(set(found) - set(PURPOSES)), sorted(set(PURPOSES) - set(found))
        raise LookupError(f"PURPOSES in {__file__} must say what {new} are for, and no longer name {gone}")
    rows = [(f"`{name}`", ", ".join(sorted(found[name])), purpose) for name, purpose in PURPOSES.items()]
    rows.append(("`nvidia-*`, `cuda-*`, `triton`", "torch", "GPUs, on platforms where torch asks for them"))
    return table(("distribution", "asked for by", "for"), rows)


def rooms() -> Any:
    """The module docs/rooms.py."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("rooms")
    finally:
        sys.path.remove(str(DOCS))


PARTS: dict[str, Callable[[], str]] = {
    "options": options,
    "aliases": aliases,
    "attributes": attributes,
    "run options": run_options,
    "lightning options": lambda: lightning("trainer_options"),
    "lightning arguments": lambda: lightning("arguments"),
    "lightning trainer": lambda: lightning("trainer_members"),
    "lightning module hooks": lambda: lightning("module_hooks"),
    "lightning module": lambda: lightning("module_members"),
    "lightning callback hooks": lambda: lightning("callback_hooks"),
    "lightning callbacks": lambda: lightning("callbacks", "callback_arguments"),
    "lightning names": lambda: lightning("loggers", "names"),
    "lightning files": lambda: lightning("files"),
    "module properties": module_properties,
    "module hooks": module_hooks,
    "callback hooks": callback_hooks,
    "dependencies": dependencies,
    "public names": reference,
    "rooms": lambda: rooms().table_of_rooms(),
    "path of a step": lambda: rooms().path_of_a_step(),
    "order of a fit": lambda: show_calls(record()),
    "order of a resumed fit": lambda: show_calls(record(resumed=True)),
    "order of a test": lambda: show_calls(record(stage="test")),
    "order of a prediction": lambda: show_calls(record(stage="predict")),
}
"""What makes each part."""


def filled(page: str) -> str:
    """``page`` with every generated part made anew."""
    return re.sub(
        r"<!-- generated: (?P<name>[\w ]+) -->\n.*?<!-- end of (?P=name) -->",
        lambda found: f"<!-- generated: {found['name']} -->\n{PARTS[found['name']]()}\n<!-- end of {found['name']} -->",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Fill every page that has changed."""
    for path in sorted(DOCS.rglob("*.md")):
        old = path.read_text()
        new = filled(old)
        if new != old:
            path.write_text(new)
            print(f"wrote {path.relative_to(DOCS)}")


if __name__ == "__main__":
    main()
