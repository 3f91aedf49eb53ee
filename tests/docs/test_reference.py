"""Every public name has a first sentence, a word on each parameter and on what it raises, and an example that runs."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.root_module.hooks import ModelHooks
from tests.docs.test_docs import NOT_RUN, PAGES, blocks_of, generate

EXAMPLE, SENTENCE = "an example", "a first sentence"


def shown_on(start: str) -> str:
    """The programs, all of which are run, of the pages whose names begin with ``start``."""
    blocks = [block for page in PAGES if page.startswith(start) for block in blocks_of(page)]
    return "\n".join(b.text for b in blocks if b.language == "python" and not b.text.startswith(NOT_RUN))


def public() -> Iterator[tuple[str, Any]]:
    for module, names in generate.public_names().items():
        for name in names:
            yield f"{module}.{name}", getattr(import_module(module), name)


def methods_of(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The methods that ``cls`` itself defines or overrides, without underscore."""
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def raised_by(function: Callable[..., Any]) -> set[str]:
    """The names of the exceptions that ``function`` itself raises, and doesn't catch."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = {node: node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and is_call(node.exc)}
    for attempt in [node for node in ast.walk(tree) if isinstance(node, ast.Try)]:
        caught = " ".join(ast.unparse(handler.type or handler) for handler in attempt.handlers)
        for node in [inner for statement in attempt.body for inner in ast.walk(statement)]:
            if node in raised and ast.unparse(raised[node]) in caught:
                del raised[node]
    return {name.id for name in raised.values() if isinstance(name, ast.Name) and name.id[0].isupper()}


def is_call(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call)


def has_sentence(value: Any) -> bool:
    first = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    return re.match(r".{10,}?[.:)]( |$)", first) is not None


def lacks(value: Any, shown: str, pattern: str) -> list[str]:
    """What isn't said of ``value`` by its docstring; ``pattern`` finds an example in ``shown``."""
    text = inspect.getdoc(value) or ""
    described = {word for code in re.findall(r"``(.+?)``", text, re.DOTALL) for word in re.findall(r"\w+", code)}
    described |= {*re.findall(r"^(\w+): ", text, re.MULTILINE), *getattr(value, "_fields", ()), "self", "cls"}
    found = [] if has_sentence(value) else [SENTENCE]
    if not (inspect.isclass(value) and issubclass(value, Exception)):
        parameters = inspect.signature(value).parameters.values()
        found += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found = [name for name in found if name not in described]
    function = value.__init__ if inspect.isclass(value) else inspect.unwrap(value)
    if inspect.isfunction(function) and function.__module__ != "typing":  # which writes that of a Protocol
        found += sorted(name for name in raised_by(function) if name not in text)
    return found + ([] if ">>> " in text or re.search(pattern, shown) else [EXAMPLE])


def test_every_public_class_and_function_is_described_and_shown() -> None:
    shown = shown_on("reference/")
    missing = {name: lacks(value, shown, rf"\b{name.split('.')[-1]}\b") for name, value in public()}
    assert len(missing) > 40
    assert {name: what for name, what in missing.items() if what} == {}


def test_every_method_of_the_trainer_is_described_and_shown() -> None:
    shown = shown_on("")
    methods = {name: function for cls in Trainer.__mro__[:-1] for name, function in methods_of(cls)}
    missing = {name: lacks(function, shown, rf"\.{name}\(") for name, function in methods.items()}
    assert {"fit", "find_lr", "hpc_save"} <= set(missing)
    assert {name: what for name, what in missing.items() if what} == {}


def test_every_method_of_a_module_is_shown() -> None:
    shown = shown_on("")
    methods = dict([*methods_of(LightningModule), *methods_of(ModelHooks)])
    missing = [name for name in methods if EXAMPLE in lacks(methods[name], shown, rf"(\.|def ){name}\(")]
    assert {"training_step", "on_fit_start", "grad_norm"} <= set(methods)
    assert missing == []


def test_every_method_of_a_public_class_has_a_sentence() -> None:
    classes = [(name, value) for name, value in public() if inspect.isclass(value)]
    methods = {f"{where}.{name}": getattr(cls, name) for where, cls in classes for name, _ in methods_of(cls)}
    assert [name for name, method in methods.items() if not has_sentence(method)] == []


def planted(size: int, step: int = 1) -> int:
    """Grows by ``step``"""
    if size < 0:
        raise ValueError("too small")
    return size + step


def test_what_is_missing_is_found() -> None:
    assert lacks(planted, "plant()", r"\bplanted\b") == [SENTENCE, "size", "ValueError", EXAMPLE]
