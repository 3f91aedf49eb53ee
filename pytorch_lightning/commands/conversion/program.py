"""A whole program: its classes, its calls, and at last its imports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.helpers import get_full_name_for_node

from pytorch_lightning.commands.conversion.advice import LeftOut, advice
from pytorch_lightning.commands.conversion.callbacks import CallbackRewriter
from pytorch_lightning.commands.conversion.calls import CallRewriter
from pytorch_lightning.commands.conversion.members import MemberRewriter
from pytorch_lightning.commands.conversion.modules import ModuleRewriter, rewritten_data
from pytorch_lightning.commands.conversion.names import HERE, Names, inside, read
from pytorch_lightning.commands.conversion.options import OptionRewriter
from pytorch_lightning.commands.conversion.pieces import Rewriter, find, keep_comments, names_in, statements, text_of
from pytorch_lightning.commands.conversion.tuning import TUNING, Finetuning
from pytorch_lightning.lightning2 import table


@dataclass(frozen=True)
class Conversion:
    """The text of a converted program, and what to say of it."""

    text: str
    notes: Sequence[str]


def convert(text: str, name: str = "the program") -> Conversion:
    """Rewrite the program ``text``. Raises ``SyntaxError`` where it isn't Python."""
    try:
        tree = cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise SyntaxError(f"line {error.raw_line}: {error.message}") from None
    names = read(tree)
    if not names.of_lightning:
        return Conversion(text, [f"{name} doesn't import Lightning; nothing was changed"])
    rewriters = [ClassRewriter(names), MemberRewriter(names), CallRewriter(names), OptionRewriter(names)]
    for rewriter in [*rewriters, NameRewriter(names), ImportRewriter(names)]:
        tree = tree.visit(rewriter)
    return Conversion(with_imports(tree, names).code, list(dict.fromkeys(names.notes)))


class ClassRewriter(Rewriter):
    """Rewrites each class that derives from one of Lightning's."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def leave_ClassDef(self, original_node: Any, updated_node: Any) -> Any:
        kind = self.names.classes.get(original_node.name.value)
        if kind == "LightningModule":
            return ModuleRewriter(updated_node, self.names).rewritten()
        if kind == "LightningDataModule":
            return rewritten_data(updated_node, self.names)
        if kind == "Callback":
            return CallbackRewriter(updated_node).rewritten()
        if kind == "BaseFinetuning":
            made = Finetuning(updated_node, self.person).rewritten()
            if made is not None:
                self.names.tuned.add(kind)
                self.names.needed.add(("pytorch_lightning.callbacks", "Unfreeze"))
                return made
        if kind is not None and kind not in HERE:
            self.person(f"{kind}: {what_to_write(kind)}")
        return updated_node


class NameRewriter(Rewriter):
    """Names of Lightning that stand below another one: ``pl.callbacks.EarlyStopping`` becomes ``EarlyStopping``."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_Attribute(self, node: Any) -> bool:
        return self.names.of(node) is None

    def leave_Annotation(self, original_node: cst.Annotation, updated_node: cst.Annotation) -> cst.Annotation:
        if any((self.names.of(name) or "").isupper() for name in find(original_node, m.Name() | m.Attribute())) or any(
            self.names.of_lightning.get(name, "").startswith("utilities.types") for name in names_in(original_node)
        ):
            self.names.needed.add(("typing", "Any"))
            return updated_node.with_changes(annotation=cst.Name("Any"))
        return updated_node

    def leave_Attribute(self, original_node: Any, updated_node: Any) -> Any:
        found = self.names.of(original_node)
        if not found or found == "pytorch":
            return updated_node
        if HERE.get(found):
            self.names.needed.add((f"pytorch_lightning{HERE[found]}", found))
            return cst.Name(found)
        if found in HERE:
            first = (get_full_name_for_node(original_node) or "").partition(".")[0]
            return cst.Attribute(cst.Name("pytorch_lightning" if first == "lightning" else first), cst.Name(found))
        if found in ("callbacks", "loggers") or found in table()["callbacks"] or found in table()["loggers"]:
            return updated_node
        self.person(f"{text_of(original_node)}: {what_to_write(found)}")
        return updated_node


class ImportRewriter(Rewriter):
    """The imports of Lightning."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        small = original_node.body[0] if len(original_node.body) == 1 else None
        if isinstance(small, cst.Import) and any(inside(dotted(alias.name)) is not None for alias in small.names):
            lines = [self._import(alias) for alias in small.names]
        elif isinstance(small, cst.ImportFrom) and small.module and inside(dotted(small.module)) is not None:
            lines = self._from_import(small)
        else:
            return updated_node
        made = statements("\n".join(line for line in lines if line))
        if not made:
            return cst.RemoveFromParent()
        made[0] = keep_comments(updated_node, made[0])
        blank = [line for line in updated_node.leading_lines if line.comment is None]
        made[0] = made[0].with_changes(leading_lines=[*blank, *made[0].leading_lines])
        return cst.FlattenSentinel(made)

    def _import(self, alias: cst.ImportAlias) -> str:
        meant = inside(dotted(alias.name))
        if meant is None:
            return f"import {text_of(alias).rstrip(' ,')}"
        local = alias.evaluated_alias
        if meant and local:
            return ""  # a module of Lightning: what is used of it is imported by its name
        return "import pytorch_lightning" + (f" as {local}" if local and local != "pytorch_lightning" else "")

    def _from_import(self, node: cst.ImportFrom) -> list[str]:
        if isinstance(node.names, cst.ImportStar):
            self.person("import the names that are used")
            return ["from pytorch_lightning import LightningModule, Trainer"]
        by_module: dict[str, list[str]] = {}
        lines = list[str]()
        for alias in node.names:
            local = alias.evaluated_alias or alias.evaluated_name
            meant = self.names.of_lightning.get(local, "")
            last = meant.rpartition(".")[2]
            if meant in ("", "pytorch") and alias.evaluated_name == "pytorch":
                lines.append(f"import pytorch_lightning as {local}")
            elif last in HERE:
                by_module.setdefault(f"pytorch_lightning{HERE[last]}", []).append(text_of(alias).rstrip(" ,"))
            else:
                self._look_at(meant, last)
        return [*lines, *(f"from {module} import {', '.join(found)}" for module, found in by_module.items())]

    def _look_at(self, meant: str, last: str) -> None:
        """A name that isn't here: a comment, unless nothing is left that uses it."""
        if (
            last in ("LightningDataModule", "rank_zero_only", "rank_zero_info")
            or meant.startswith("utilities.types")
            or last.isupper()
            or (last in TUNING and last in self.names.made | self.names.tuned)
        ):
            return
        if meant in ("callbacks", "loggers", "utilities") or isinstance(advice_of_callback(last), LeftOut):
            return
        self.person(f"{last}: {what_to_write(last)}")


def advice_of_callback(name: str) -> Any:
    """What the table says of a callback; None where it isn't one."""
    return advice("callbacks", name) if name in table()["callbacks"] else None


def what_to_write(name: str) -> str:
    """The line of the table for a name of Lightning."""
    last = name.rpartition(".")[2]
    found = (table()[kind][last] for kind in ("names", "callbacks", "loggers") if last in table()[kind])
    return next(found, "there is no such thing here").removeprefix("= ")


def dotted(node: Any) -> str:
    """The text of a name with dots."""
    return get_full_name_for_node(node) or ""


def with_imports(tree: cst.Module, names: Names) -> cst.Module:
    """``tree`` with the imports that the new code needs."""
    context = CodemodContext()
    for module, name in sorted(names.needed):
        AddImportsVisitor.add_needed_import(context, module, name)
    used = {*names_in(tree)}
    if "torch" in used and "torch" not in imported(tree):
        AddImportsVisitor.add_needed_import(context, "torch")
    return AddImportsVisitor(context).transform_module(tree)


def imported(tree: cst.Module) -> set[str]:
    """The names that imports bind."""
    aliases = [alias for alias in find(tree, m.ImportAlias()) if isinstance(alias, cst.ImportAlias)]
    return {alias.evaluated_alias or dotted(alias.name).partition(".")[0] for alias in aliases}
