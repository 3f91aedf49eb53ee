"""Which names of a program are Lightning's, and which of its classes and variables are what."""

from dataclasses import dataclass, field
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.helpers import get_full_name_for_node

from pytorch_lightning.commands.conversion.pieces import body_of, find, names_in, parameters, text_of

ROOTS = ("lightning.pytorch", "pytorch_lightning", "lightning")
HERE = {
    "Trainer": "",
    "LightningModule": "",
    "seed_everything": "",
    **dict.fromkeys(("Callback", "EarlyStopping", "ModelCheckpoint", "GradientAccumulationScheduler"), ".callbacks"),
    **dict.fromkeys(("Logger", "TensorBoardLogger", "CSVLogger"), ".loggers"),
}
"""The names that are the same here, and the module of ``pytorch_lightning`` that they are in."""
METRICS = m.Attribute(attr=m.OneOf(*map(m.Name, ("callback_metrics", "logged_metrics", "progress_bar_metrics"))))
BATCH_END = m.FunctionDef(name=m.Name("on_train_batch_end"))
EVALUATIONS = ("validate", "test", "predict")


def inside(dotted: str) -> str | None:
    """``dotted`` without Lightning's own name; None where it isn't Lightning's."""
    for root in ROOTS:
        if dotted == root or dotted.startswith(f"{root}."):
            return dotted[len(root) + 1 :]
    return None


def dotted_name(node: cst.CSTNode) -> str | None:
    """The text of a name with dots; None for any other expression."""
    inner = node
    while isinstance(inner, cst.Attribute):
        inner = inner.value
    return get_full_name_for_node(node) if isinstance(inner, cst.Name) else None


@dataclass
class Names:
    """What a program calls things. A class of Lightning is named by its last word: ``callbacks.EarlyStopping`` is
    ``EarlyStopping``; other things of it by all words: ``utilities.rank_zero_only``."""

    of_lightning: dict[str, str] = field(default_factory=dict)
    """Local names and what they are inside Lightning; '' for itself."""
    of_torchmetrics: set[str] = field(default_factory=set)
    classes: dict[str, str] = field(default_factory=dict)
    """The program's classes that derive from Lightning's, and from which one."""
    bodies: dict[str, cst.ClassDef] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """Variables, and the class that their value was made of: Lightning's, or the program's own."""
    needed: set[tuple[str, str]] = field(default_factory=set)
    """What has to be imported: module and name."""
    trainer_options: dict[str, str] = field(default_factory=dict)
    """Options of the Trainer that follow from something else."""
    given_options: dict[str, str] = field(default_factory=dict)
    """Options that the program's Trainer has."""
    keeps_steps: bool = False
    """Whether a ``training_step`` keeps its own steps."""
    makes_checkpoints: bool = False
    """Whether a ModelCheckpoint is made somewhere."""
    made: set[str] = field(default_factory=set)
    """The classes of Lightning that the program makes something of."""
    tuned: set[str] = field(default_factory=set)
    """The classes of Lightning that classes of the program don't derive from any more."""
    metrics: set[str] = field(default_factory=set)
    """Variables that hold metrics of the Trainer."""
    dicts_of_options: set[str] = field(default_factory=set)
    """Variables that hold options of a Trainer: ``Trainer(**these)``."""
    keeps_outputs: bool = False
    """Whether a hook of a batch reads what ``training_step`` returned."""
    notes: list[str] = field(default_factory=list)

    def of(self, node: cst.CSTNode) -> str | None:
        """What the expression ``node`` names inside Lightning."""
        dotted = dotted_name(node)
        if dotted is None:
            return None
        first, _, rest = dotted.partition(".")
        if first not in self.of_lightning:
            return None
        found = ".".join(part for part in (self.of_lightning[first], rest) if part)
        found = found.removeprefix("pytorch.")
        last = found.rpartition(".")[2]
        return last if last in HERE or last[:1].isupper() else found

    def word(self, node: cst.CSTNode) -> str:
        """The last word of what ``node`` names inside Lightning; '' where it isn't Lightning's."""
        return (self.of(node) or "").rpartition(".")[2]

    def accumulates(self) -> bool:
        """Whether an optimizer may step after several batches."""
        accumulated = self.given_options.get("accumulate_grad_batches", "1")
        return accumulated != "1" or "GradientAccumulationScheduler" in self.made

    def averages(self) -> bool:
        """Whether a callback keeps an average of the weights."""
        return bool(self.made & {"WeightAveraging", "EMAWeightAveraging", "StochasticWeightAveraging"})

    def numbers(self) -> Any:
        """A matcher of metrics that are read from a variable."""
        return m.Subscript(m.OneOf(m.Name("no metrics"), *map(m.Name, sorted(self.metrics))))

    def made_of(self, node: cst.CSTNode | None) -> str | None:
        """The class that the value of ``node`` is of: a call of it, or a variable."""
        if isinstance(node, cst.Name):
            return self.variables.get(node.value)
        if not isinstance(node, cst.Call):
            return None
        own = node.func.value if isinstance(node.func, cst.Name) else None
        if isinstance(node.func, cst.Attribute) and node.func.attr.value == "load_from_checkpoint":
            own = getattr(node.func.value, "value", None)
        return str(own) if own in self.classes else self.of(node.func)

    def kind(self, name: str | None) -> str | None:
        """Lightning's class that the class ``name`` is or derives from."""
        return self.classes.get(str(name), name)

    def is_a(self, node: cst.CSTNode | None, kind: str) -> bool:
        """Whether the value of ``node`` is of this class of Lightning."""
        return self.kind(self.made_of(node)) == kind

    def is_trainer(self, node: cst.CSTNode) -> bool:
        """Whether ``node`` is a Trainer, by what it was made of or by its name."""
        if self.is_a(node, "Trainer"):
            return True
        name = dotted_name(node)
        return name is not None and name.rpartition(".")[2] == "trainer"

    def methods(self, name: str | None) -> set[str]:
        """The methods of the program's class ``name``, and of those that it derives from."""
        found: set[str] = set()
        while name in self.bodies:
            node = self.bodies[name]
            found |= {s.name.value for s in body_of(node) if isinstance(s, cst.FunctionDef)}
            for statement in find(node, m.Assign([m.AssignTarget(m.Name())], m.Name())):
                if statement.value.value in found:  # another name of a method
                    found.add(statement.targets[0].target.value)
            bases = [base.value.value for base in node.bases if isinstance(base.value, cst.Name)]
            name = next((base for base in bases if base in self.bodies), None)
        return found


class Reader(cst.CSTVisitor):
    """Fills ``Names`` from a program."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names()

    def visit_Import(self, node: cst.Import) -> None:
        for alias in node.names:
            dotted = get_full_name_for_node(alias.name) or ""
            local = alias.evaluated_alias
            if inside(dotted) is not None:
                # `import lightning.pytorch` binds lightning
                meant = inside(dotted) if local else inside(dotted.partition(".")[0])
                self.names.of_lightning[local or dotted.partition(".")[0]] = meant or ""
            if dotted.partition(".")[0] == "torchmetrics":
                self.names.of_torchmetrics.add(local or "torchmetrics")

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        dotted = (get_full_name_for_node(node.module) if node.module else None) or ""
        if node.relative or isinstance(node.names, cst.ImportStar):
            return
        for alias in node.names:
            local = alias.evaluated_alias or alias.evaluated_name
            meant = inside(f"{dotted}.{alias.evaluated_name}")
            if meant is not None:
                self.names.of_lightning[local] = meant
            if dotted.partition(".")[0] == "torchmetrics":
                self.names.of_torchmetrics.add(local)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        for base in node.bases:
            own = base.value.value if isinstance(base.value, cst.Name) else None
            kind = self.names.classes.get(str(own)) or self.names.of(base.value)
            if kind is not None:
                self.names.classes[node.name.value] = kind
        self.names.bodies[node.name.value] = node

    def visit_Assign(self, node: cst.Assign) -> None:
        for target in node.targets:
            if isinstance(target.target, cst.Tuple) and isinstance(node.value, cst.Tuple):
                for one, value in zip(target.target.elements, node.value.elements, strict=False):
                    self._note(one.value, value.value)
            self._note(target.target, node.value)

    def _note(self, target: cst.CSTNode, value: cst.BaseExpression) -> None:
        if m.matches(value, METRICS) and isinstance(target, cst.Name):
            self.names.metrics.add(target.value)
        made = self.names.made_of(value)
        if made is not None and isinstance(target, cst.Name):
            self.names.variables[target.value] = made

    def visit_Call(self, node: cst.Call) -> None:
        self.names.makes_checkpoints |= self.names.of(node.func) == "ModelCheckpoint"
        self.names.made.add(str(self.names.of(node.func)))
        if self.names.of(node.func) == "Trainer":
            given = {arg.keyword.value: text_of(arg.value) for arg in node.args if arg.keyword is not None}
            self.names.given_options.update(given)

    def visit_With(self, node: cst.With) -> None:
        for item in node.items:
            made = self.names.made_of(item.item)
            if made is not None and item.asname and isinstance(item.asname.name, cst.Name):
                self.names.variables[item.asname.name.value] = made


def read(tree: cst.Module) -> Names:
    """The names of a program."""
    reader = Reader()
    tree.visit(reader)
    names = reader.names
    names.dicts_of_options = dicts_of_options(tree, names)
    hooks = [(names.classes.get(name), hook) for name, body in names.bodies.items() for hook in find(body, BATCH_END)]
    for kind, hook in hooks:
        given = parameters(hook)[1 if kind == "LightningModule" else 3 :][:1]
        names.keeps_outputs |= kind is not None and bool({*given} & names_in(hook.body))
    return names


def dicts_of_options(tree: cst.Module, names: Names) -> set[str]:
    """The variables that only Trainers get, by two stars, and that are dicts of names in one place."""
    calls = [call for call in find(tree, m.Call()) if names.of(call.func) == "Trainer"]
    given = [
        arg.value.value for call in calls for arg in call.args if arg.star == "**" and m.matches(arg.value, m.Name())
    ]
    made: Any = m.Call(func=m.Name("dict"), args=[m.ZeroOrMore(m.Arg(star=""))])
    made |= m.Dict([m.ZeroOrMore(m.DictElement(key=m.SimpleString()))])
    found = set[str]()
    for name in given:
        assigned = find(tree, m.Assign([m.AssignTarget(m.Name(name))], made))
        if len(assigned) == 1 and len(find(tree, m.Name(name))) == given.count(name) + 1:
            found.add(name)
    return found
