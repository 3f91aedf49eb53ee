"""Attributes and methods of modules and of the Trainer, by their names here."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.advice import Person, Renamed, advice
from pytorch_lightning.commands.conversion.names import METRICS, Names
from pytorch_lightning.commands.conversion.pieces import Rewriter, arguments, expression, literal, names_in, text_of
from pytorch_lightning.lightning2 import table

NOT_ALONE = {"log_dir", "state", "strategy", "num_nodes", "training", "validating", "evaluating", "model_registry"}
"""Members of the Trainer whose line in the table is more than another name."""
OF_CHECKPOINTS = {"best_model_path": "best_path", "best_model_score": "best", "best_k_models": "kept"}
NUMBERS = m.Subscript(METRICS) | m.Attribute(attr=m.Name("best_model_score"))
"""What is a tensor in Lightning, and a number here."""
OWN_PREDICTED = "loader_to_predict"
"""The name of a module's loader for ``predict``, which isn't a hook here."""
SCALARS = ("add_scalar",)
LOGGER = m.Attribute(m.Name("self") | m.Name("pl_module") | m.Name("trainer"), m.Name("logger"))


class MemberRewriter(Rewriter):
    """Rewrites what is read of ``self``, of a Trainer and of a checkpoint callback."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names
        self._classes: list[str | None] = []

    def visit_ClassDef(self, node: Any) -> None:
        self._classes.append(self.names.classes.get(node.name.value))

    def leave_ClassDef(self, original_node: Any, updated_node: Any) -> Any:
        self._classes.pop()
        return updated_node

    def _is_module(self, node: Any) -> bool:
        if isinstance(node, cst.Name) and node.value in ("self", "pl_module"):
            return node.value == "pl_module" or (bool(self._classes) and self._classes[-1] == "LightningModule")
        return self.names.is_a(node, "LightningModule")

    # ------------------------------------------------------------------ calls
    def leave_ListComp(self, original_node: Any, updated_node: Any) -> Any:
        return without_item(original_node.for_in, updated_node)

    def leave_DictComp(self, original_node: Any, updated_node: Any) -> Any:
        return without_item(original_node.for_in, updated_node)

    def leave_For(self, original_node: Any, updated_node: Any) -> Any:
        return without_item(original_node, updated_node)

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        function = original_node.func
        if not isinstance(function, cst.Attribute):
            return updated_node
        name = function.attr.value
        if self._is_module(function.value):
            made = self._call_of_module(text_of(function.value), name, updated_node)
            if made is not None:
                return made
        if m.matches(function.value, m.Attribute(LOGGER, m.Name("experiment"))) or m.matches(function.value, LOGGER):
            return self._call_of_logger(name, original_node, updated_node)
        if name == "item" and m.matches(function.value, NUMBERS | self.names.numbers()):
            return updated_node.func.value  # a number already
        return updated_node

    def _call_of_module(self, owner: str, name: str, call: Any) -> Any:
        if name in ("optimizers", "lr_schedulers"):
            return expression(f"{owner}.trainer.{name}[0]")
        if name == "print":
            return call.with_changes(func=cst.Name("print"))
        if name == "predict_dataloader":
            return call.with_changes(func=expression(f"{owner}.{OWN_PREDICTED}"))
        if name in ("train_dataloader", "val_dataloader", "test_dataloader") and not call.args:
            return expression(f"{owner}.{name.replace('train_', 'tng_')}")
        if name == "manual_backward" and self.names.keeps_steps:
            return None
        if name in ("all_gather", "to_onnx", "to_torchscript", "manual_backward", "toggle_optimizer"):
            self.person(f"{owner}.{name}: {table()['module_members'][name]}")
        return None

    def _call_of_logger(self, name: str, original: Any, call: Any) -> Any:
        owner = text_of(original.func).split(".logger", 1)[0]
        given = arguments(call)
        if name == "log_metrics" and (0 in given or "metrics" in given):
            return expression(f"{owner}.experiment.log({text_of(given.get(0) or given['metrics'])})")
        if name in SCALARS and len(given) > 1:
            tag, value = (given.get(place) or given[key] for place, key in ((0, "tag"), (1, "scalar_value")))
            return expression(f"{owner}.experiment.log({{{text_of(tag)}: {text_of(value)}}})")
        if name in ("log_hyperparams", "watch", "finalize", "save"):
            self.person(f"{owner}.logger.{name}: the hparams are written to meta_tags.csv without a call")
            return call
        if "TensorBoardLogger" not in self.names.made:
            self.person(f"{name} needs Trainer(TensorBoardLogger('logs')). Without one it does nothing")
        return call.with_changes(func=expression(f"{owner}.experiment.{name}"))

    # ------------------------------------------------------------------ attributes
    def leave_Attribute(self, original_node: Any, updated_node: Any) -> Any:
        name, owner = original_node.attr.value, original_node.value
        if m.matches(original_node, m.Attribute(LOGGER, m.Name("experiment"))):
            return updated_node.value  # LOGGER is the experiment already
        if name in OF_CHECKPOINTS:
            return updated_node.with_changes(attr=cst.Name(OF_CHECKPOINTS[name]))
        if name == "last_model_path":
            self.person("last_model_path: the newest state is what resume='auto' reads")
            return updated_node
        kinds: list[tuple[str, bool]] = [
            ("trainer_members", self.names.is_trainer(owner)),
            ("module_members", self._is_module(owner) and name not in ("optimizers", "lr_schedulers", "print")),
        ]
        for kind, is_its in kinds:
            if not is_its or name not in table()[kind]:
                continue
            found = advice(kind, name)
            if name == "global_step" and kind == "trainer_members" and self.names.accumulates():
                return expression(f"{text_of(updated_node.value)}.progress.nb_optimizer_steps")
            if name == "estimated_stepping_batches":
                return self._estimated(text_of(updated_node.value))
            if name in ("training", "validating", "evaluating"):
                owner = text_of(updated_node.value)
                module = owner.removesuffix(".trainer") if owner.endswith(".trainer") else f"{owner}.model"
                return expression(f"{module}.training" if name == "training" else f"(not {module}.training)")
            if name == "sanity_checking":
                return expression("False")  # callbacks aren't given the metrics of the sanity check
            if isinstance(found, Renamed) and name not in NOT_ALONE:
                return self._renamed(found.name, text_of(updated_node.value), kind)
            if isinstance(found, Person) or name in NOT_ALONE:
                self.person(f"{text_of(original_node)}: {table()[kind][name]}")
        return updated_node

    def _renamed(self, text: str, owner: str, kind: str) -> Any:
        first, _, rest = text.partition(".")
        if kind == "module_members":
            return expression(f"{owner}.{rest}")
        if first == "model":
            return expression(f"{owner}.model.{rest}")
        made = text.replace("trainer.", f"{owner}.")
        return expression(f"({made})" if "==" in made else made)

    def _estimated(self, trainer: str) -> Any:
        module = trainer.removesuffix(".trainer")
        steps = f"len({module if module != trainer else f'{trainer}.model'}.tng_dataloader)"
        accumulated = self.names.given_options.get("accumulate_grad_batches")
        if accumulated is not None:
            steps = f"-(-{steps} // {accumulated})"
        limit = self.names.given_options.get("max_steps")
        if limit is not None:
            return expression(limit)
        return expression(f"{steps} * {trainer}.max_nb_epochs")

    # ------------------------------------------------------------------ the rest
    def leave_Subscript(self, original_node: Any, updated_node: Any) -> Any:
        if m.matches(original_node.value, m.Attribute(attr=m.Name("hparams"))):
            key = literal(original_node.slice[0].slice.value)
            if isinstance(key, str) and key.isidentifier():
                return cst.Attribute(updated_node.value, cst.Name(key))
        return updated_node

    def leave_Assign(self, original_node: Any, updated_node: Any) -> Any:
        target = original_node.targets[0].target
        if isinstance(target, cst.Tuple) and m.matches(
            original_node.value, m.Call(func=m.Attribute(attr=m.Name("optimizers") | m.Name("lr_schedulers")))
        ):
            return updated_node.with_changes(value=expression(text_of(updated_node.value).removesuffix("[0]")))
        if m.matches(target, m.Attribute(attr=m.Name("should_stop"))):
            self.person("should_stop: write run.stop('reason') in a callback")
        return updated_node


def without_item(loop: Any, node: Any) -> Any:
    """``node``, a loop over metrics, with the numbers themselves instead of ``number.item()``."""
    if not m.matches(loop.iter, m.Call(func=m.Attribute(METRICS, m.Name("items") | m.Name("values")))):
        return node
    names = [m.Name(name) for name in names_in(loop.target)]
    item = m.Call(func=m.Attribute(m.OneOf(*names), m.Name("item")))
    return m.replace(node, item, number_of)


def number_of(item: Any, _: Any) -> Any:
    """What ``item``, a call of ``number.item()``, is called on."""
    return item.func.value
