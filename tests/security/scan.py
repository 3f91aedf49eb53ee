"""Finds in a program what can run code that its author didn't write, from its syntax tree."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

MODULES = {
    "_pickle", "cPickle", "cloudpickle", "code", "codeop", "copyreg", "ctypes", "dill", "jsonpickle", "marshal",
    "pickle", "pickletools", "pty", "runpy", "shelve", "socketserver", "telnetlib", "xmlrpc", "yaml",
}  # fmt: skip
"""What is found wherever it is imported."""

BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}

REFERENCES = re.compile(
    r"""
      os\.(system|popen|startfile|fork\w*|exec\w+|spawn\w+|posix_spawn\w*)
    | (subprocess|multiprocessing|torch\.multiprocessing|asyncio\.create_subprocess_\w+)(\.\w+)*
    | importlib\.(import_module|util\.(spec_from_file_location|spec_from_loader|module_from_spec)|machinery\.\w+)
    | torch\.(jit\.load|hub\.\w+|package\.\w+|export\.load|utils\.cpp_extension\.\w+|classes\.load_library)
    | torch\.ops\.load_library
    | torch\.serialization\.(add_safe_globals|safe_globals|load)
    | torch\.distributed\.(rpc\.\w+|init_process_group|rendezvous|\w*Store)
    | torch\.distributed\.checkpoint\.(\w+\.)*(FileSystemReader|StorageReader|load\w*|format_utils)
    | (numpy|np)\.(load|fromfile|lib\.format\.read_array)
    | pandas\.read_pickle | joblib\.load
    | socket\.(?!gethostname$)\w+ | http\.(client|server)\.\w+ | urllib\.request\.\w+ | ssl\.\w+
    | shutil\.unpack_archive | tempfile\.mktemp
    """,
    re.VERBOSE,
)
"""What is found wherever its full name is used."""

ATTRIBUTES = re.compile(
    r"exec_module | extract(all)? | allow_pickle | Unpickler"
    r" | (all_gather|gather|scatter|broadcast|send|recv)_object(_list)? | _object_to_tensor | _tensor_to_object",
    re.VERBOSE,
)
"""What is found as an attribute of anything: object collectives pickle."""


class Finding(NamedTuple):
    """``what`` was found, in the function ``where``, on ``line``."""

    what: str
    where: str
    line: int


def scan(text: str) -> list[Finding]:
    """What ``text``, a module, has of it, in the order of the lines."""
    tree = ast.parse(text)
    return sorted(set(_Scanner(_names_of(tree)).findings(tree)), key=lambda finding: finding.line)


def _names_of(tree: ast.AST) -> dict[str, str]:
    """The full names of what is imported anywhere in a module, and of what is another name for that."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            full = _full_name(node.value, names)
            for target in targets:
                if full is not None and isinstance(target, ast.Name):
                    names.setdefault(target.id, full)
    return names


def _full_name(node: ast.AST, names: dict[str, str]) -> str | None:
    """``dist.barrier`` as ``torch.distributed.barrier``; None for what doesn't begin with an imported name."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, names)
        return None if owner is None else f"{owner}.{node.attr}"
    return None


class _Scanner:
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def findings(self, node: ast.AST, where: str = "<module>") -> Iterator[Finding]:
        """What ``node`` and all below it have; ``where`` is the function or class around."""
        for what in self._of(node):
            yield Finding(what, where, node.lineno)  # type: ignore[attr-defined]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            where = node.name if where == "<module>" else f"{where}.{node.name}"
        for child in ast.iter_child_nodes(node):
            yield from self.findings(child, where)

    def _of(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in MODULES:
                yield f"import {node.module}"
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in full if REFERENCES.fullmatch(name) or name == "torch.load")
            yield from (alias.name for alias in node.names if ATTRIBUTES.fullmatch(alias.name))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            full_name = self.names.get(node.id)
            if node.id in BUILTINS and full_name is None:
                yield node.id
            elif full_name is not None and REFERENCES.fullmatch(full_name):
                yield full_name
        elif isinstance(node, ast.Attribute):
            yield from self._of_attribute(node)
        elif isinstance(node, ast.Call):
            yield from self._of_call(node)

    def _of_attribute(self, node: ast.Attribute) -> Iterator[str]:
        full = _full_name(node, self.names) or ""
        if REFERENCES.fullmatch(full):
            yield full
        elif ATTRIBUTES.fullmatch(node.attr):
            yield node.attr
        elif full.removeprefix("builtins.") in BUILTINS:
            yield full.removeprefix("builtins.")

    def _of_call(self, node: ast.Call) -> Iterator[str]:
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if _full_name(node.func, self.names) == "torch.load" and not _is(given.get("weights_only"), True):
            yield "torch.load without weights_only=True"
        if "shell" in given and not _is(given["shell"], False):
            yield "shell="
        if "allow_pickle" in given and not _is(given["allow_pickle"], False):
            yield "allow_pickle="


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
