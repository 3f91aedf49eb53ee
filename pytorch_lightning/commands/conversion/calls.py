"""``fit``, ``validate``, ``test`` and ``predict``, and the loading of checkpoints."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.members import OWN_PREDICTED
from pytorch_lightning.commands.conversion.names import EVALUATIONS, Names
from pytorch_lightning.commands.conversion.options import as_keyword
from pytorch_lightning.commands.conversion.pieces import (
    Rewriter,
    after_docstring,
    arguments,
    body_of,
    expression,
    find,
    keyword,
    literal,
    parameters,
    statements,
    text_of,
    with_arguments,
    with_body,
)

STAGES = {"fit": "fit", "validate": "validate", "test": "test", "predict": "predict"}
LOADERS: dict[str, tuple[str, ...]] = {stage: (f"{stage}_dataloader",) for stage in ("test", "predict")}
LOADERS |= {"fit": ("train_dataloader", "val_dataloader"), "validate": ("val_dataloader",)}
RENAMED = {"train_dataloaders": "tng_dataloader", "val_dataloaders": "val_dataloader", "dataloaders": "dataloader"}
DROPPED = ("verbose", "return_predictions", "weights_only")


class CallRewriter(Rewriter):
    """Rewrites what a program asks of its Trainer."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names
        self._results: set[str] = set()
        self._lists: set[str] = set()
        """Variables of results that are used as the list that Lightning returns."""

    def visit_Module(self, node: cst.Module) -> None:
        for assign in find(node, m.Assign([m.AssignTarget(m.Name())])):
            name = assign.targets[0].target.value
            if self._is_result(assign.value):
                nb = len(find(node, m.Subscript(m.Name(name)))) + len(find(node, m.AssignTarget(m.Name(name))))
                if nb < len(find(node, m.Name(name))):
                    self._lists.add(name)

    def leave_FunctionDef(self, original_node: Any, updated_node: Any) -> Any:
        """A function that only the first process runs."""
        is_only = [self.names.word(found.decorator) == "rank_zero_only" for found in original_node.decorators]
        if not any(is_only):
            return updated_node
        kept = [found for found, only in zip(updated_node.decorators, is_only, strict=True) if not only]
        given = parameters(updated_node)
        trainer = "run.module.trainer" if "run" in given else "trainer" if "trainer" in given else "self.trainer"
        if not {"run", "trainer", "self"} & set(given):
            self.person(f"{updated_node.name.value}: each process calls it")
            return updated_node.with_changes(decorators=kept)
        body = body_of(updated_node)
        start = after_docstring(body)
        lines = statements(f"if {trainer}.proc_rank > 0:\n    return")
        made = with_body(updated_node, [*body[:start], *lines, *body[start:]])
        return made.with_changes(decorators=kept)

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        function = original_node.func
        if self.names.word(function) == "rank_zero_info":
            return updated_node.with_changes(func=cst.Name("print"))
        if self.names.word(function) == "CombinedLoader" and updated_node.args:
            return self._combined(arguments(updated_node))
        if not isinstance(function, cst.Attribute):
            return updated_node
        name = function.attr.value
        if name == "load_from_checkpoint":
            return self._loading(updated_node)
        if name == "from_datasets":
            self.person("from_datasets: make the DataLoaders, and pass them to fit")
        if name in STAGES and self.names.is_trainer(function.value):
            return self._stage(name, function.value, updated_node)
        return updated_node

    def _combined(self, given: dict[str | int, cst.BaseExpression]) -> cst.BaseExpression:
        """The loaders as they are: a module says by ``tng_loaders_mode`` how long an epoch of them is."""
        mode = literal(given.get("mode", given.get(1, expression('"min_size"'))))
        if mode == "min_size":
            self.person('CombinedLoader: write tng_loaders_mode = "shortest" in the module')
        elif mode not in ("max_size_cycle", "sequential"):
            self.person("CombinedLoader: the modes are 'longest', where shorter loaders begin again, and 'shortest'")
        return given.get("iterables", given.get(0, cst.Name("loaders")))

    def _stage(self, name: str, trainer: cst.BaseExpression, call: Any) -> Any:
        kept = list[cst.Arg]()
        data: cst.BaseExpression | None = None
        model: cst.BaseExpression | None = None
        has_ckpt = False
        for place, argument in enumerate(call.args):
            keyed = argument.keyword.value if argument.keyword is not None else None
            is_data = self.names.is_a(argument.value, "LightningDataModule")
            if keyed == "datamodule" or (is_data and place > 0):
                data = None if literal(argument.value) is None else argument.value
            elif keyed == "ckpt":
                has_ckpt = True
                kept.append(argument)
            elif keyed == "ckpt_path" or (keyed is None and place == (3 if name == "fit" else 2)):
                has_ckpt = True
                kept += self._ckpt(name, trainer, argument)
            elif keyed in DROPPED:
                continue
            else:
                model = argument.value if keyed == "model" or (place == 0 and keyed is None) else model
                kept.append(as_keyword(argument, RENAMED.get(keyed, keyed), argument.value) if keyed else argument)
        if data is not None:
            kept += self._loaders(name, data, is_placed=all(arg.keyword is None for arg in kept) and model is not None)
        elif name == "predict" and model is not None and len(kept) == 1 and self._has_own_loader(model):
            kept.append(cst.Arg(expression(f"{text_of(model)}.{OWN_PREDICTED}()")))
        if name in EVALUATIONS and model is None and not has_ckpt and self.names.makes_checkpoints:
            kept.append(keyword("ckpt", expression('"best"')))
        if name in EVALUATIONS and self.names.averages():
            kept.append(keyword("weights", expression('"average"')))
        return with_arguments(call, kept)

    def _has_own_loader(self, model: cst.BaseExpression) -> bool:
        return "predict_dataloader" in self.names.methods(self.names.made_of(model))

    def _ckpt(self, name: str, trainer: cst.BaseExpression, argument: cst.Arg) -> list[cst.Arg]:
        path = literal(argument.value)
        if path is None:
            return []
        if name == "fit":
            of_newest = path in ("last", "hpc") or "last.ckpt" in text_of(argument.value)
            value = '"auto"' if of_newest else text_of(argument.value)
            self.before(f"{text_of(trainer)}.resume = {value}")
            return []
        if path == "last" or (path == "best" and not self.names.makes_checkpoints):
            return []  # the weights that are in memory
        return [keyword("ckpt", argument.value)]

    def _loaders(self, name: str, data: cst.BaseExpression, *, is_placed: bool) -> list[cst.Arg]:
        """The loaders of a class of data, whose other methods are called before."""
        made = self.names.made_of(data)
        methods = self.names.methods(made) or {"setup", *(loader for loader in LOADERS[name])}
        variable = text_of(data)
        if not isinstance(data, (cst.Name, cst.Attribute)):
            self.before(f"data = {variable}")
            variable = "data"
        if "prepare_data" in methods:
            self.before(f"{variable}.prepare_data()")
        if "setup" in methods:
            self.before(f'{variable}.setup("{STAGES[name]}")')
        found = [loader for loader in LOADERS[name] if loader in methods]
        names = {"train_dataloader": "tng_dataloader"} if name == "fit" else dict.fromkeys(found, "dataloader")
        values = [(names.get(loader, loader), expression(f"{variable}.{loader}()")) for loader in found]
        return [cst.Arg(value) if is_placed else keyword(key, value) for key, value in values]

    def _loading(self, call: Any) -> Any:
        kept = list[cst.Arg]()
        for argument in call.args:
            name = argument.keyword.value if argument.keyword is not None else ""
            if name == "checkpoint_path":
                bare = {"keyword": None, "equal": cst.MaybeSentinel.DEFAULT}
                kept.insert(0, argument.with_changes(**bare))
            elif name in ("strict", "hparams_file"):
                self.person(f"{name}: override load_model_specific(self, checkpoint)")
            elif name != "weights_only":
                kept.append(argument)
        if self.names.averages():  # Lightning's checkpoints have it in the place of the weights
            kept.append(keyword("weights", expression('"average"')))
        return with_arguments(call, kept)

    # ------------------------------------------------------------------ what the calls return
    def leave_Expr(self, original_node: Any, updated_node: Any) -> Any:
        """Lightning prints the numbers of a test."""
        call = original_node.value
        if not self._is_result(call) or literal(arguments(call).get("verbose")) is False:
            return updated_node
        return updated_node.with_changes(value=cst.Call(cst.Name("print"), [cst.Arg(updated_node.value)]))

    def leave_Assign(self, original_node: Any, updated_node: Any) -> Any:
        target = original_node.targets[0].target
        if not self._is_result(original_node.value):
            return updated_node
        if isinstance(target, cst.Name) and target.value in self._lists:
            return updated_node.with_changes(value=cst.List([cst.Element(updated_node.value)]))
        if isinstance(target, cst.Name):
            self._results.add(target.value)
        if isinstance(target, (cst.Tuple, cst.List)) and len(target.elements) == 1:
            made = updated_node.targets[0].with_changes(target=target.elements[0].value)
            return updated_node.with_changes(targets=[made])
        return updated_node

    def _is_result(self, node: Any) -> bool:
        is_call = m.matches(node, m.Call(func=m.Attribute(attr=m.Name("test") | m.Name("validate"))))
        return is_call and self.names.is_trainer(node.func.value)

    def leave_Subscript(self, original_node: Any, updated_node: Any) -> Any:
        of_result = isinstance(original_node.value, cst.Name) and original_node.value.value in self._results
        if (of_result or self._is_result(original_node.value)) and text_of(original_node).endswith("[0]"):
            return updated_node.value  # a dict, not a list of one
        return updated_node
