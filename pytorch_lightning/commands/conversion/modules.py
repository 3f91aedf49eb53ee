"""Classes of modules and of data: their methods become the hooks of this library."""

from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.helpers import get_full_name_for_node

from pytorch_lightning.commands.conversion import manual, optimizers
from pytorch_lightning.commands.conversion.advice import Person, Renamed, advice
from pytorch_lightning.commands.conversion.hparams import HparamsRewriter
from pytorch_lightning.commands.conversion.logs import (
    Logged,
    LogRewriter,
    OutputsKeeper,
    assigned_dicts,
    batch_size_of,
    end_of,
    find_helpers,
    logs,
    rewritten_step,
)
from pytorch_lightning.commands.conversion.members import OWN_PREDICTED
from pytorch_lightning.commands.conversion.names import Names
from pytorch_lightning.commands.conversion.pieces import (
    above,
    after_docstring,
    body_of,
    find,
    names_in,
    parameters,
    statements,
    with_body,
    with_parameters,
)
from pytorch_lightning.lightning2 import table

STEPS = {"training_step": "training", "validation_step": "validation", "test_step": "test", "predict_step": ""}
ENDS = {
    "on_validation_epoch_end": "validation",
    "validation_epoch_end": "validation",
    "on_test_epoch_end": "test",
    "test_epoch_end": "test",
}
TRANSFERS = ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device")
AT_FIRST_BATCH = {
    "on_validation_start": "validation_step",
    "on_validation_epoch_start": "validation_step",
    "on_test_start": "test_step",
    "on_test_epoch_start": "test_step",
    "on_predict_start": "predict_step",
    "on_predict_epoch_start": "predict_step",
}
AT_EACH_BATCH = {f"on_{stage}_batch_start": f"{stage}_step" for stage in ("validation", "test", "predict")}
KEPT = {*TRANSFERS, *AT_FIRST_BATCH, *AT_EACH_BATCH, "setup", "prepare_data", "predict_dataloader"}
"""Hooks that keep their name: what is written here calls them."""
CANT = ("backward", "lr_scheduler_step", "configure_callbacks", "clip_gradients", "on_exception")


def without_lightning_base(node: Any, names: Names) -> Any:
    """A class of data, as a plain class."""
    bases = [base for base in node.bases if names.of(base.value) != "LightningDataModule"]
    bare = cst.MaybeSentinel.DEFAULT if not bases and not node.keywords else node.lpar
    return node.with_changes(bases=bases, lpar=bare, rpar=bare if not bases and not node.keywords else node.rpar)


def rewritten_data(node: Any, names: Names) -> Any:
    """A ``LightningDataModule``: a class whose methods the program calls itself."""
    node = without_lightning_base(node, names)
    body = list[Any]()
    for statement in body_of(node):
        if isinstance(statement, cst.FunctionDef):
            name = statement.name.value
            statement = statement.visit(HparamsRewriter(statement, names))
            if name in (*TRANSFERS, "teardown", "state_dict", "load_state_dict"):
                texts = [f"nobody calls {name} of the data. Do it in the module, or in a dataset."]
                statement = above(statement, texts)
        body.append(statement)
    return with_body(node, body)


class ModuleRewriter:
    """Rewrites one ``LightningModule``."""

    def __init__(self, node: Any, names: Names) -> None:
        self.node, self.names = node, names
        self.body = body_of(node)
        functions = [statement for statement in self.body if isinstance(statement, cst.FunctionDef)]
        self.functions = {function.name.value: function for function in functions}
        self.logged = Logged(variable="metrics" if "metrics" not in names_in(node) else "logged")
        self.logged.metrics = self._metrics_of_torchmetrics()
        hooks = {*table()["module_hooks"], "forward", "__init__"}
        self.logged.helpers = find_helpers(functions, hooks)
        self.step_logs = dict.fromkeys(STEPS.values(), False)
        self.taken = set(self.functions)
        self._order: list[int] = []
        self.keeps_steps = False
        """Whether its ``training_step`` keeps its own steps."""

    def rewritten(self) -> Any:
        """The class as it is written here."""
        self.step_logs = {
            stage: name in self.functions and logs(self.functions[name], self.logged) for name, stage in STEPS.items()
        }
        is_manual = any(find(self.node, manual.OFF))
        body = list[Any]()
        steps = {name: self._step(f, is_manual) for name, f in self.functions.items() if name in STEPS}
        for statement in self.body:
            if not isinstance(statement, cst.FunctionDef):
                body.append(statement)
                continue
            name = statement.name.value
            body += [steps[name]] if name in steps else self._method(statement, is_manual)
        body += self._ends_that_are_missing()
        body = self._with_resets(body)
        return with_body(self.node, self._with_setup(body))

    def _metrics_of_torchmetrics(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for assign in find(self.node, m.Assign(value=m.Call())):
            target, call = assign.targets[0].target, assign.value
            first = (get_full_name_for_node(call.func) or "").partition(".")[0]
            is_clone = m.matches(call.func, m.Attribute(attr=m.Name("clone")))
            name = get_full_name_for_node(target) or ""
            if name.startswith("self.") and (first in self.names.of_torchmetrics or is_clone):
                found[name.removeprefix("self.")] = name
        return found

    # ------------------------------------------------------------------ methods
    def _method(self, function: Any, is_manual: bool) -> list[Any]:
        name = function.name.value
        function = function.visit(HparamsRewriter(function, self.names))
        if is_manual and not self.keeps_steps:
            function = without_flag(function)
        if name in ENDS:
            return [self._end(function, ENDS[name])]
        if name in self.logged.helpers:
            return [self._helper(function)]
        function = self._logging_hook(function)
        if name == "predict_dataloader":
            return [function.with_changes(name=cst.Name(OWN_PREDICTED))]
        if name == "train_dataloader":
            return [as_property(function, "tng_dataloader")]
        if name in ("val_dataloader", "test_dataloader"):
            return [as_property(function, name)]
        if name == "optimizer_step":
            return [optimizers.own_step(function)]
        if name == "configure_gradient_clipping":
            return self._clipping(function)
        if name == "configure_optimizers":
            return [manual.in_order(function.visit(optimizers.ScheduleRewriter()), self._order)]
        return [self._renamed(function)]

    def _renamed(self, function: Any) -> Any:
        """A hook under its name here, with the arguments that it gets here."""
        name = function.name.value
        if name not in table()["module_hooks"] or name in KEPT:
            return function
        found = advice("module_hooks", name)
        if isinstance(found, Person) or name in CANT:
            text = found.text if isinstance(found, Person) else f"{name}: {table()['module_hooks'][name]}"
            return above(function, [f"{text}."])
        if not isinstance(found, Renamed):
            return function
        if found.name in self.taken:
            return above(function, [f"{name}: add this to {found.name}, which is there too."])
        self.taken.add(found.name)
        return as_hook(function, found.name)

    def _logging_hook(self, function: Any) -> Any:
        if not logs(function, self.logged):
            return function
        through = any(helper in names_in(function) for helper in self.logged.helpers)
        made = function.visit(LogRewriter(self.logged, to_experiment=not through))
        if not through:
            at_end = function.name.value == "on_train_epoch_end"
            text = "this goes to the log alone: no callback can watch it, and trainer.metrics doesn't have it."
            return above(made, [text] if at_end else [])
        variable, body = self.logged.variable, body_of(made)
        start = after_docstring(body)
        lines = statements(f"{variable} = {{}}")
        return with_body(made, [*body[:start], *lines, *body[start:], *statements(f"self.experiment.log({variable})")])

    def _helper(self, function: Any) -> Any:
        made: Any = function.visit(LogRewriter(self.logged))
        params = made.params
        added = cst.Param(cst.Name(self.logged.variable))
        if any(param.default is not None for param in params.params) or params.star_kwarg or params.kwonly_params:
            return made.with_changes(params=params.with_changes(kwonly_params=[*params.kwonly_params, added]))
        return made.with_changes(params=params.with_changes(params=[*params.params, added]))

    def _step(self, function: Any, is_manual: bool) -> Any:
        name = function.name.value
        function = with_batch_nb(function)
        if is_manual and name == "training_step":
            turns = manual.Turns(function)
            if not turns.read():
                kept = manual.with_own_steps(function)
                self.keeps_steps = kept is not None
                self.names.keeps_steps = self.names.keeps_steps or self.keeps_steps
                return above(function, [manual.TAKES_OTHERS + "."]) if kept is None else kept
            self._order = turns.order()
            self.names.trainer_options.update(turns.options)
            function = turns.rewritten()
            if len(self._order) > 1:
                function = above(function, [manual.ORDER + "."])
        others = [other for key, other in self.functions.items() if key != name and len(parameters(other)) > 1]
        nb = batch_size_of(function, others)
        function = rewritten_step(function, STEPS[name], self.logged, nb) if STEPS[name] else function
        if name == "training_step" and self.names.keeps_outputs:
            function = function.visit(OutputsKeeper(assigned_dicts(function)))
        body = body_of(function)
        start = after_docstring(body)
        calls = statements("\n".join(self._calls_before(function)))
        return with_body(function, [*body[:start], *calls, *body[start:]])

    def _calls_before(self, function: Any) -> list[str]:
        """Calls of the program's own hooks that belong at the start of a step."""
        name, (batch, batch_nb) = function.name.value, parameters(function)[1:3]
        lines = list[str]()
        for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
            if hook in self.functions:
                device = "self.device, " if hook == "transfer_batch_to_device" else ""
                lines.append(f"{batch} = self.{hook}({batch}, {device}0)")
        for hook, step in AT_FIRST_BATCH.items():
            if hook in self.functions and step == name:
                several = "".join(f" and {loader} == 0" for loader in parameters(function)[3:4])
                lines += [f"if {batch_nb} == 0{several}:", f"    self.{hook}()"]
        for hook, step in AT_EACH_BATCH.items():
            if hook in self.functions and step == name:
                lines.append(f"self.{hook}({batch}, {batch_nb})")
        return lines

    # ------------------------------------------------------------------ what a validation returns
    def _loaders(self, stage: str) -> str:
        """Whether the step of ``stage`` gets batches of one loader or several."""
        step = self.functions[f"{stage}_step"]
        if len(parameters(step)) < 4:
            return "one"
        return "unknown" if step.params.params[3].default is not None else "several"

    def _means(self, stage: str) -> list[Any]:
        step = self.functions.get(f"{stage}_step")
        if step is None:
            return statements(f"{self.logged.variable} = {{}}")
        only_objects = {name for _, name in self.logged.at_end.get(stage, ())}
        branches = find(step, m.If() | m.For())
        is_in_branches = any(logs(branch, self.logged) for branch in branches)
        return end_of(
            stage, self.logged, self.step_logs[stage] or not only_objects, is_in_branches, self._loaders(stage)
        )

    def _end(self, function: Any, stage: str) -> Any:
        """The hook after a validation: it returns the numbers."""
        name, variable = f"{stage}_end", self.logged.variable
        made = function.with_changes(name=cst.Name(name), returns=None)
        given = parameters(function)[1:] or ["outputs"]
        made = with_parameters(made, "self", *given)
        hook_logs, step_logs = logs(function, self.logged), self.step_logs[stage]
        if not hook_logs and not step_logs:
            return made
        made = made.visit(LogRewriter(self.logged, stage=""))
        body = body_of(made)
        start = after_docstring(body)
        first = self._means(stage) if step_logs else statements(f"{variable} = {{}}")
        last = statements(f"return {variable}")
        body = [s for s in body if not m.matches(s, m.SimpleStatementLine([m.Return(value=None)]))]
        returns = m.matches(body[-1], m.SimpleStatementLine([m.Return()])) if body else False
        return with_body(made, [*body[:start], *first, *body[start:], *([] if returns else last)])

    def _ends_that_are_missing(self) -> list[Any]:
        made = list[Any]()
        for stage in ("validation", "test"):
            there = any(hook in self.functions for hook, of_stage in ENDS.items() if of_stage == stage)
            if self.step_logs[stage] and not there:
                end: Any = statements(f"def {stage}_end(self, outputs):\n    pass")[0]
                lines = [*self._means(stage), *statements(f"return {self.logged.variable}")]
                made.append(with_body(end, lines).with_changes(leading_lines=[cst.EmptyLine(indent=False)]))
        return made

    def _with_resets(self, body: list[Any]) -> list[Any]:
        """Objects of torchmetrics that training uses begin anew with each epoch."""
        if not self.logged.reset_in_training:
            return body
        lines = statements("\n".join(f"self.{name}.reset()" for name in self.logged.reset_in_training))
        for place, statement in enumerate(body):
            if isinstance(statement, cst.FunctionDef) and statement.name.value == "on_epoch_start":
                return [
                    *body[:place],
                    with_body(statement, [*lines, *body_of(statement)]),
                    *body[place + 1 :],
                ]
        hook: Any = statements("def on_epoch_start(self):\n    pass")[0]
        return [*body, with_body(hook, lines).with_changes(leading_lines=[cst.EmptyLine(indent=False)])]

    # ------------------------------------------------------------------ the rest
    def _with_setup(self, body: list[Any]) -> list[Any]:
        """``setup`` and ``prepare_data`` are called at the end of ``__init__``."""
        calls = ["self.prepare_data()"] if "prepare_data" in self.functions else []
        setup = self.functions.get("setup")
        if setup is not None:
            stages = {str(text.value).strip("'\"") for text in find(setup, m.SimpleString())}
            chosen = [stage for stage in ("fit", "validate", "test", "predict") if stage in stages] or ["fit"]
            calls += [f'self.setup("{stage}")' for stage in chosen]
            if find(setup, m.Attribute(m.Name("self"), m.Name("trainer"))):
                calls = []
                place = next(
                    i for i, s in enumerate(body) if isinstance(s, cst.FunctionDef) and s.name.value == "setup"
                )
                body[place] = above(body[place], ["it needs the trainer: do it in on_fit_start, layers in __init__."])
        if not calls:
            return body
        for place, statement in enumerate(body):
            if isinstance(statement, cst.FunctionDef) and statement.name.value == "__init__":
                made = with_body(statement, [*body_of(statement), *statements("\n".join(calls))])
                return [*body[:place], made, *body[place + 1 :]]
        start = after_docstring(body)
        lines = "def __init__(self, *args, **kwargs):\n    super().__init__(*args, **kwargs)\n"
        made = statements(lines + "\n".join(f"    {call}" for call in calls))[0]
        return [*body[:start], made, *body[start:]]

    def _clipping(self, function: Any) -> list[Any]:
        calls = find(function, m.Call(func=m.Attribute(m.Name("self"), m.Name("clip_gradients"))))
        options: dict[str, str] = {}
        for call in calls:
            for argument in call.args:
                if argument.keyword is not None and not isinstance(argument.value, cst.Name):
                    options[argument.keyword.value] = cst.Module([]).code_for_node(argument.value)
        if len(calls) == 1 and len(body_of(function)) == 1 and "gradient_clip_val" in options:
            self.names.trainer_options.update(options)
            return []
        return [above(function, ["configure_gradient_clipping: clip in optimizer_step, before optimizer.step()."])]


def without_flag(function: Any) -> Any:
    """``function`` without ``self.automatic_optimization = False``."""
    body = [statement for statement in body_of(function) if not m.matches(statement, manual.OFF)]
    return with_body(function, body)


def with_batch_nb(function: Any) -> Any:
    """A step with the number of the batch, which may be left out in Lightning."""
    params = list(function.params.params)
    if len(params) != 2 or function.params.star_kwarg is not None or isinstance(function.params.star_arg, cst.Param):
        return function
    return function.with_changes(params=function.params.with_changes(params=[*params, cst.Param(cst.Name("batch_nb"))]))


def as_property(function: Any, name: str) -> Any:
    """A loader."""
    decorator = cst.Decorator(cst.Name("property"))
    kept = [found for found in function.decorators if not m.matches(found.decorator, m.Name("property"))]
    return function.with_changes(name=cst.Name(name), decorators=[decorator, *kept], returns=None)


def as_hook(function: Any, name: str) -> Any:
    """A hook under the name ``name``; what it got in Lightning and doesn't get here is read where it can be."""
    given = parameters(function)[1:]
    used = names_in(cst.IndentedBlock(body_of(function)))
    lines, comments, kept = list[str](), list[str](), ["self"]
    if name == "on_batch_start":
        kept += given[:1] or ["data_batch"]
        lines += [f"{nb} = self.trainer.batch_nb" for nb in given[1:2] if nb in used]
        comments += [f"{other} isn't given here" for other in given[2:] if other in used]
    elif name == "on_batch_end":
        lines += [f"{nb} = self.trainer.batch_nb" for nb in given[2:3] if nb in used]
        lines += [f"{outputs} = self.outputs" for outputs in given[:1] if outputs in used]
        comments += [
            f"{other} isn't given here: keep it as an attribute in training_step"
            for other in given[1:2]
            if other in used
        ]
    elif name == "on_after_backward" and function.name.value == "on_before_optimizer_step":
        lines += [f"{optimizer} = self.trainer.optimizers[0]" for optimizer in given if optimizer in used]
    elif function.name.value == "teardown":
        lines += [f'{stage} = "fit"' for stage in given if stage in used]
    else:
        comments += [f"{other} isn't given here" for other in given if other in used]
    body = body_of(function)
    start = after_docstring(body)
    made = with_body(function, [*body[:start], *statements("\n".join(lines)), *body[start:]])
    made = with_parameters(made, *kept).with_changes(name=cst.Name(name))
    return above(made, [f"{comment}." for comment in comments])
