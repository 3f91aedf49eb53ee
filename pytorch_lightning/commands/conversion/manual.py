"""``automatic_optimization = False``: the steps by hand become turns of the optimizers, or stay."""

import re
from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.pieces import (
    above,
    after_docstring,
    body_of,
    expression,
    find,
    keep_comments,
    names_in,
    parameters,
    statements,
    text_of,
    with_body,
)

OFF = m.SimpleStatementLine(
    [m.Assign([m.AssignTarget(m.Attribute(m.Name("self"), m.Name("automatic_optimization")))], m.Name("False"))]
)
BACKWARD = m.SimpleStatementLine([m.Expr(m.Call(func=m.Attribute(m.Name("self"), m.Name("manual_backward"))))])
OPTIMIZERS = m.Call(func=m.Attribute(m.Name("self"), m.Name("optimizers")))
ASSIGNED = m.SimpleStatementLine([m.Assign(value=OPTIMIZERS)])
SCHEDULERS = m.Call(func=m.Attribute(m.Name("self"), m.Name("lr_schedulers")))
TOGGLES = ("toggle_optimizer", "untoggle_optimizer", "clip_gradients")
TAKES_OTHERS = (
    "the optimizers step by hand: write self.manual_step(i) for their steps, or return one loss per optimizer"
)
ORDER = "each optimizer's turn runs the lines above again, after the steps of the turns before it"


def call_of(statement: Any) -> tuple[str, str, cst.Call] | None:
    """The receiver, the method and the call of a statement that is nothing but a call of a method."""
    if not m.matches(statement, m.SimpleStatementLine([m.Expr(m.Call(func=m.Attribute()))])):
        return None
    call = statement.body[0].value
    return text_of(call.func.value), call.func.attr.value, call


def with_own_steps(function: Any) -> Any | None:
    """A ``training_step`` that keeps its own steps: ``manual_backward`` and the optimizers' calls mean the same here.
    None where that isn't sure: where it steps schedules, clips or freezes by hand, or logs."""
    others = ("lr_schedulers", "log", "log_dict", "logger", "toggled_optimizer", *TOGGLES)
    if any(find(function, m.Attribute(m.Name("self"), m.Name(name))) for name in others):
        return None
    lines = [s for s in find(function, m.SimpleStatementLine()) if m.matches(s, ASSIGNED)]
    if len(lines) != 1 or len(find(function, OPTIMIZERS)) != 1:
        return None
    (name, *more), code = sorted_names(lines[0]), text_of(function)
    is_list = bool(more) or m.matches(lines[0].body[0].targets[0].target, m.Tuple() | m.List())
    if not is_list and not re.search(rf"\b{name}\.(step|zero_grad)\(", code):
        return None
    return function.visit(_Optimizers("self.trainer.optimizers" + ("" if is_list else "[0]")))


class _Optimizers(cst.CSTTransformer):
    """Reads the optimizers where they are here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        return expression(self._text) if m.matches(original_node, OPTIMIZERS) else updated_node


class Turns:
    """A ``training_step`` that makes its own steps, taken apart."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.optimizers: list[str] = []
        """The variables that hold the optimizers, in their order."""
        self.options: dict[str, str] = {}
        """Options of the Trainer that do what the step did by hand."""
        self._schedulers: set[str] = set()
        self._turns: list[tuple[str, list[Any], str]] = []
        """The optimizer, the statements and the loss of each turn."""
        self._rest: list[Any] = []

    def read(self) -> bool:
        """Take it apart; False where it isn't made of one backward pass and one step for each optimizer in turn."""
        body = body_of(self.function)
        gathered, loss = list[Any](), ""
        carried: Any = None
        for statement in body[after_docstring(body) :]:
            kept = self._without_steps(statement)
            if kept is None:
                carried = statement if statement.leading_lines else carried
                continue
            if isinstance(kept, str):
                if kept.startswith("step "):
                    self._turns.append((kept[5:], gathered, loss))
                    gathered, loss = [], ""
                elif loss:
                    return False
                else:
                    loss = kept
                continue
            gathered.append(kept if carried is None else keep_comments(carried, kept))
            carried = None
        self._rest = gathered
        used = [name for name, _, found in self._turns if found]
        return bool(used) and len(used) == len(self._turns) == len(set(used)) and not loss

    def _without_steps(self, statement: Any) -> Any:
        """None for a statement that isn't needed; 'step NAME' for a step, the loss for a backward pass."""
        if m.matches(statement, m.SimpleStatementLine([m.Assign(value=OPTIMIZERS)])):
            self.optimizers = sorted_names(statement)
            return None
        if m.matches(statement, m.SimpleStatementLine([m.Assign(value=SCHEDULERS)])):
            self._schedulers = set(sorted_names(statement))
            return None
        if m.matches(statement, BACKWARD):
            return text_of(statement.body[0].value.args[0].value)
        found = call_of(statement)
        if found is not None:
            receiver, method, call = found
            if receiver in self.optimizers and method in ("zero_grad", "step"):
                return f"step {receiver}" if method == "step" else None
            if receiver in self._schedulers and method == "step":
                return None
            if receiver == "self" and method in TOGGLES:
                self._note_clipping(call)
                return None
        if isinstance(statement, cst.If) and statement.orelse is None:  # a schedule's own condition
            inner = [call_of(line) for line in body_of(statement)]
            if all(call is not None and call[0] in self._schedulers for call in inner):
                return None
        return statement

    def _note_clipping(self, call: Any) -> None:
        for argument in call.args:
            name = argument.keyword.value if argument.keyword else ""
            if name in ("gradient_clip_val", "gradient_clip_algorithm"):
                self.options[name] = text_of(argument.value)

    def rewritten(self) -> Any:
        """The step with one turn for each optimizer."""
        names = [*parameters(self.function), "batch_nb"][:3]
        docs = body_of(self.function)[: after_docstring(body_of(self.function))]
        if len(self._turns) == 1:
            _, body, loss = self._turns[0]
            return with_body(self.function, [*docs, *body, *self._rest_without_return(), *statements(f"return {loss}")])
        params = list(self.function.params.params)
        params = params if len(params) > 2 else [*params, *(cst.Param(cst.Name(name)) for name in names[len(params) :])]
        params = [*params[:3], cst.Param(cst.Name("optimizer_i"))]
        head, first = self._shared_part()
        made = [*docs, *head]
        for place, (_, body, loss) in enumerate(self._turns):
            own = [*(first if place == 0 else body), *statements(f"return {loss}")]
            own = [*own[:-1], *self._logs_of(own), own[-1]]
            if place < len(self._turns) - 1:
                made.append(with_body(statements(f"if optimizer_i == {place}:\n    pass")[0], own))
            else:
                made += own
        return with_body(self.function.with_changes(params=cst.Parameters(params)), made)

    def order(self) -> list[int]:
        """The optimizers in the order of their steps."""
        return [self.optimizers.index(name) for name, _, _ in self._turns]

    def _shared_part(self) -> tuple[list[Any], list[Any]]:
        """The statements of the first turn that later ones need too, and those that are its own."""
        _, body, _ = self._turns[0]
        needed = {name for _, later, loss in self._turns[1:] for name in read_of_others([*later, *statements(loss)])}
        last = max((place for place, statement in enumerate(body) if assigned(statement) & needed), default=-1)
        return body[: last + 1], body[last + 1 :]

    def _logs_of(self, own: list[Any]) -> list[Any]:
        """The logging after the steps, of what this turn knows: the rest of it belongs to other turns."""
        own_names = {name for statement in own for name in assigned(statement)}
        others = {name for _, body, _ in self._turns for statement in body for name in assigned(statement)}
        found = list[Any]()
        for statement in self._rest_without_return():
            call = call_of(statement)
            whole = call[2].args[0].value if call and call[1] == "log_dict" and call[2].args else None
            if isinstance(whole, cst.Dict):
                kept = [e for e in whole.elements if names_in(e) & others <= own_names]
                if kept:
                    lines = ", ".join(text_of(element).strip(" ,") for element in kept)
                    found += statements(f"self.log_dict({{{lines}}})")
            elif names_in(statement) & others <= own_names:
                found.append(statement)
        return found

    def _rest_without_return(self) -> list[Any]:
        return [s for s in self._rest if not m.matches(s, m.SimpleStatementLine([m.Return()]))]


def sorted_names(statement: Any) -> list[str]:
    """The variables that an assignment gives values, in order."""
    target = statement.body[0].targets[0].target
    elements = target.elements if isinstance(target, (cst.Tuple, cst.List)) else []
    return [text_of(element.value) for element in elements] or [text_of(target)]


def assigned(statement: Any) -> set[str]:
    """The variables that a statement gives values."""
    found = find(statement, m.AssignTarget())
    return {name for target in found for name in names_in(target)}


def read_of_others(body: list[Any]) -> set[str]:
    """The names that statements read before they give them a value themselves."""
    found, own = set[str](), set[str]()
    for statement in body:
        is_plain = m.matches(statement, m.SimpleStatementLine([m.Assign()]))
        found |= names_in(statement.body[0].value if is_plain else statement) - own
        own |= assigned(statement) if is_plain else set()
    return found


def in_order(function: Any, order: list[int]) -> Any:
    """``configure_optimizers`` with what it returns in the order of the steps, where that can be seen."""
    found = find(function, m.Return())
    value = found[0].value if len(found) == 1 and isinstance(found[0], cst.Return) else None
    if order == sorted(order):
        return function
    if (
        value is None
        or not isinstance(value, (cst.Tuple, cst.List))
        or len(value.elements) != len(order)
        or any(isinstance(element.value, (cst.List, cst.Tuple)) for element in value.elements)
    ):
        return above(function, [f"return the optimizers in the order of their steps: {order}"])
    elements = [value.elements[i].with_changes(comma=cst.MaybeSentinel.DEFAULT) for i in order]
    return function.deep_replace(value, value.with_changes(elements=elements))
