"""Finds in a program what can run code that its author didn't write, from its syntax tree."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

BUILTINS = {"eval", "exec", "compile", "__import__", "__builtins__", "breakpoint"}

REFERENCES = re.compile(
    r"""
      (_pickle|builtins|cPickle|cloudpickle|code|codeop|ctypes|dill|jsonpickle|marshal|pickle|pty|runpy
        |shelve|socketserver|telnetlib|xmlrpc|yaml)(\.[\w*]+)*
    | os\.(system|popen|startfile|fork\w*|exec\w+|spawn\w+|posix_spawn\w*)
    | (subprocess|multiprocessing|torch\.multiprocessing|asyncio\.create_subprocess_\w+)(\.\w+)*
    | importlib\.(import_module|util\.(spec_from_file_location|spec_from_loader|module_from_spec)|machinery\.\w+)
    | torch\.(jit\.load|hub\.\w+|package\.\w+|export\.load|utils\.cpp_extension\.\w+|classes\.load_library)
    | torch\.ops\.load_library
    | torch\.serialization\.(add_safe_globals|safe_globals|load)
    | torch\.distributed\.(rpc\.\w+|init_process_group|rendezvous|\w*Store)
    | torch\.distributed\.checkpoint\.(\w+\.)*(FileSystemReader|StorageReader|load\w*|format_utils)
    | (numpy|np)\.(load|fromfile|lib\.format\.read_array)
    | pandas\.read_pickle | joblib\.load
    | socket\.\w+ | http\.(client|server)\.\w+ | urllib\.request\.\w+ | ssl\.\w+
    | shutil\.unpack_archive | tempfile\.mktemp
    """,
    re.VERBOSE,
)
"""What is found wherever its full name is used."""

HARMLESS = re.compile(
    r"""
      pickle\.\w*Error | socket\.(AF_\w+|if_nameindex|gethostname) | http\.client\.HTTPException
    | subprocess\.(PIPE|DEVNULL|STDOUT|\w*Error|TimeoutExpired)
    | multiprocessing\.(current_process|parent_process|get_all_start_methods|connection|connection\.wait)
    """,
    re.VERBOSE,
)
"""Names among those that start, open and read nothing."""

ATTRIBUTES = re.compile(
    r"exec_module | extract(all)? | allow_pickle | Unpickler"
    r" | (all_gather|gather|scatter|broadcast|send|recv)_object(_list)? | _object_to_tensor | _tensor_to_object",
    re.VERBOSE,
)
"""What is found as an attribute of anything: object collectives pickle."""


class Finding(NamedTuple):
    """``what`` was found in the function or class ``where``."""

    what: str
    where: str


def scan(text: str) -> set[Finding]:
    """What ``text``, a module, has of it."""
    tree = ast.parse(text)
    return set(_Scanner(tree).findings(tree))


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
    def __init__(self, tree: ast.AST) -> None:
        self.names = _names_of(tree)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self.safe_loads = {id(call.func) for call in calls if _is(_given(call).get("weights_only"), True)}
        self.fixed_imports = {id(call.func) for call in calls if [*map(type, call.args)] == [ast.Constant]}

    def findings(self, node: ast.AST, where: str = "<module>") -> Iterator[Finding]:
        """What ``node`` and all below it have; ``where`` is the function or class around."""
        whole = list(self._of(node))
        yield from (Finding(what, where) for what in whole)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            where = node.name if where == "<module>" else f"{where}.{node.name}"
        if isinstance(node, ast.Attribute) and _full_name(node, self.names) is not None:
            return  # its beginnings are part of the name
        for child in ast.iter_child_nodes(node):
            yield from self.findings(child, where)

    def _of(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield from self._of_name(f"{node.module}.{alias.name}")
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            full = _full_name(node, self.names)
            if full is None and isinstance(node, ast.Name):
                yield from {node.id} & BUILTINS
            elif full != "importlib.import_module" or id(node) not in self.fixed_imports:
                yield from self._of_name(full or f"?.{getattr(node, 'attr', '')}")
            if full == "torch.load" and id(node) not in self.safe_loads:
                yield "torch.load without weights_only=True"
        elif isinstance(node, ast.Call):
            yield from self._of_call(node)

    def _of_name(self, full: str) -> Iterator[str]:
        if HARMLESS.fullmatch(full):
            return
        last = full.rpartition(".")[2]
        if REFERENCES.fullmatch(full):
            yield full
        elif "." in full and ATTRIBUTES.fullmatch(last):
            yield last

    def _of_call(self, node: ast.Call) -> Iterator[str]:
        for name in ("shell", "allow_pickle"):
            if name in _given(node) and not _is(_given(node)[name], False):
                yield f"{name}="


def _given(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
