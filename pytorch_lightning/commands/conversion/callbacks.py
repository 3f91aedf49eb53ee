"""Callbacks that a program writes: their hooks get ``run``."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.advice import Person, Renamed, advice
from pytorch_lightning.commands.conversion.logs import Logged, LogRewriter
from pytorch_lightning.commands.conversion.pieces import (
    Rewriter,
    above,
    after_docstring,
    body_of,
    names_in,
    parameters,
    statements,
    with_body,
    with_parameters,
)
from pytorch_lightning.lightning2 import table

ARGUMENTS = {
    "on_batch_start": ["data_batch"],
    "on_evaluation_start": ["stage", "nb_batches"],
    "on_evaluation_end": ["stage"],
    "on_evaluation_batch_end": ["stage", "batch_nb"],
    "on_validation_end": ["metrics"],
}
"""What a hook gets here after ``run``."""
BATCH_NB = {
    "on_batch_start": "run.progress.batch_nb",
    "on_batch_end": "run.progress.batch_nb",
    "on_evaluation_batch_end": "batch_nb",
}
STAGES = ("validation", "test", "predict")
SAME = ("on_fit_start", "on_fit_end", "on_validation_end")
NOBODY = "save it by state_dict, which has no arguments"


class CallbackRewriter:
    """Rewrites one class of callbacks."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.taken: dict[str, int] = {}

    def rewritten(self) -> Any:
        """The class as it is written here. Hooks that have one name here become one method."""
        body = list[Any]()
        for statement in body_of(self.node):
            is_hook = isinstance(statement, cst.FunctionDef) and statement.name.value in table()["callback_hooks"]
            if not is_hook:
                body.append(statement)
                continue
            made = self._hook(statement)
            name = made.name.value
            if name in self.taken and name != statement.name.value:
                place = self.taken[name]
                body[place] = with_body(body[place], [*body_of(body[place]), *body_of(made)])
                continue
            self.taken.setdefault(name, len(body))
            body.append(made)
        return with_body(self.node, body)

    def _hook(self, function: Any) -> Any:
        old = function.name.value
        found = advice("callback_hooks", old)
        if old in ("on_save_checkpoint", "on_load_checkpoint", "on_exception"):
            return above(function, [f"{old}: {table()['callback_hooks'][old]}."])
        if isinstance(found, Person):
            return above(function, [f"{found.text}."])
        new = found.name if isinstance(found, Renamed) else old
        given = parameters(function)[1:]
        if (new == old and old not in SAME) or not given:
            return function
        made: Any = function.visit(LogRewriter(Logged(), to_experiment=True))
        trainer, module = [*given, "trainer", "pl_module"][:2] if len(given) > 1 else (given[0], "pl_module")
        made = made.visit(StopRewriter(trainer))
        used = names_in(cst.IndentedBlock(body_of(made)))
        lines = [f"{module} = run.module"] if module in used else []
        lines += [f"{trainer} = run.module.trainer"] if trainer in used else []
        rest, comments = given[2:], list[str]()
        kept = ARGUMENTS.get(new, [])
        if new == "on_batch_start":
            kept = rest[:1] or kept
            rest = rest[1:]
        for name in rest:
            if name not in used:
                continue
            if name == "stage":
                lines.append('stage = "fit"')
            elif name == rest[0] and old == "on_train_batch_end":
                lines.append(f"{name} = run.module.outputs")
            elif name == "batch_idx" and new in BATCH_NB:
                lines.append(f"{name} = {BATCH_NB[new]}")
            else:
                comments.append(f"{name} isn't given here.")
        body = body_of(made)
        body = self._for_its_stage(old, new, [*statements("\n".join(lines)), *body[after_docstring(body) :]], body)
        made = with_parameters(with_body(made, body), "self", "run", *kept)
        return above(made.with_changes(name=cst.Name(new)), comments)

    def _for_its_stage(self, old: str, new: str, body: list[Any], whole: list[Any]) -> list[Any]:
        """``body``, run in the stage that the hook ``old`` is of, where one hook here is for all of them."""
        docs = whole[: after_docstring(whole)]
        if not new.startswith("on_evaluation"):
            return [*docs, *body]
        stage = next((stage for stage in STAGES if f"_{stage}_" in f"{old}_"), "sanity")
        test = 'stage in ("sanity", "validation")' if stage == "validation" else f'stage == "{stage}"'
        return [*docs, with_body(statements(f"if {test}:\n    pass")[0], body)]


class StopRewriter(Rewriter):
    """``trainer.should_stop = True`` asks for a stop, and ``trainer.callback_metrics`` are what ``run`` has."""

    def __init__(self, trainer: str) -> None:
        super().__init__()
        self.trainer = trainer

    def leave_Assign(self, original_node: Any, updated_node: Any) -> Any:
        target = m.Attribute(m.Name(self.trainer), m.Name("should_stop"))
        if m.matches(updated_node, m.Assign([m.AssignTarget(target)], m.Name("True"))):
            return cst.Expr(cst.parse_expression('run.stop("should_stop")'))
        return updated_node

    def leave_Attribute(self, original_node: Any, updated_node: Any) -> Any:
        names = m.Name("callback_metrics") | m.Name("logged_metrics") | m.Name("progress_bar_metrics")
        if m.matches(updated_node, m.Attribute(m.Name(self.trainer), names)):
            return cst.parse_expression("run.metrics.all()")
        return updated_node

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        metrics = m.Call(func=m.Attribute(m.Attribute(m.Name("run"), m.Name("metrics")), m.Name("all")))
        if m.matches(updated_node, m.Call(func=m.Attribute(m.Subscript(metrics), m.Name("item")))):
            return updated_node.func.value  # a number already
        return updated_node
