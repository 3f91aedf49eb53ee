"""``self.log`` and ``self.log_dict``: what is logged becomes what is returned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.pieces import (
    Rewriter,
    after_docstring,
    arguments,
    body_of,
    expression,
    find,
    has_stars,
    keep_comments,
    keyword,
    literal,
    names_in,
    parameters,
    statements,
    text_of,
    with_body,
)

LOG = m.Call(func=m.Attribute(value=m.Name(), attr=m.Name("log") | m.Name("log_dict")))
PLACES = ("name", "value")
TAKEN_OUT = m.SimpleStatementLine([m.Expr(LOG)])


@dataclass
class Logged:
    """What the class that is being rewritten logs, as far as it matters beyond one method."""

    helpers: set[str] = field(default_factory=set)
    """Its methods that log for those that call them."""
    metrics: dict[str, str] = field(default_factory=dict)
    """Attributes that are objects of torchmetrics."""
    variable: str = "metrics"
    """The variable that holds what is logged."""
    at_end: dict[str, list[tuple[str | None, str]]] = field(default_factory=dict)
    """By stage, the objects of torchmetrics that its step logs: the name, None for a collection, and the attribute."""
    reset_in_training: list[str] = field(default_factory=list)
    plain: set[str] = field(default_factory=set)
    """The stages whose names get no number of the loader."""


def is_log(node: Any) -> bool:
    """Whether ``node`` is a call of ``self.log``."""
    return m.matches(node, LOG) and node.func.value.value in ("self", "pl_module")


def logs(function: Any, logged: Logged) -> bool:
    """Whether ``function`` logs, itself or through a helper."""
    calls = find(function, m.Call(func=m.Attribute(value=m.Name("self"))))
    through = any(call.func.attr.value in logged.helpers for call in calls)
    return through or any(is_log(call) for call in find(function, LOG))


def find_helpers(functions: Sequence[cst.FunctionDef], hooks: set[str]) -> set[str]:
    """The methods that log and aren't hooks, those that log through another one too."""
    found = Logged()
    before = -1
    while before != len(found.helpers):
        before = len(found.helpers)
        found.helpers |= {f.name.value for f in functions if f.name.value not in hooks and logs(f, found)}
    return found.helpers


class LogRewriter(Rewriter):
    """Rewrites the calls in one method. ``stage``: 'training', 'validation' or 'test' in a step, else ''."""

    def __init__(self, logged: Logged, stage: str = "", *, to_experiment: bool = False) -> None:
        super().__init__()
        self.logged, self.stage, self.to_experiment = logged, stage, to_experiment
        self.batch_size: str | None = None

    def leave_Expr(self, original_node: Any, updated_node: Any) -> Any:
        call = updated_node.value
        if not isinstance(call, cst.Call) or not is_log(call):
            return updated_node
        if has_stars(call) or not call.args:
            self.person("what self.log is given can't be seen here; return it in a dict")
            return updated_node
        self._look_at_options(call)
        values = [self.value_of(call, name, value) for name, value in logged_values(call)]
        kept = [(name, value) for name, value in values if value is not None]
        if not kept:
            return cst.RemoveFromParent()
        name, value = kept[0]
        assert value is not None
        entry = expression(value) if name is None else cst.Dict([cst.DictElement(expression(name), expression(value))])
        if self.to_experiment:
            owner = text_of(updated_node.value.func.value)
            return updated_node.with_changes(value=expression(f"{owner}.experiment.log({text_of(entry)})"))
        if name is None:
            return cst.Expr(expression(f"{self.logged.variable}.update({value})"))
        return cst.Assign([cst.AssignTarget(expression(f"{self.logged.variable}[{name}]"))], expression(value))

    def value_of(self, call: Any, name: str | None, value: str) -> tuple[str | None, str | None]:
        """What is to be logged under ``name``; None where the end of the validation does it."""
        attribute = value.removeprefix("self.")
        if attribute not in self.logged.metrics or value == attribute:
            return name, value
        if self.stage in ("validation", "test"):
            self.logged.at_end.setdefault(self.stage, []).append((name, attribute))
            return name, None
        if self.stage == "training" and attribute not in self.logged.reset_in_training:
            self.logged.reset_in_training.append(attribute)
        return name, f"{value}.compute()"

    def _look_at_options(self, call: Any) -> None:
        given = arguments(call)
        if "batch_size" in given:
            self.batch_size = text_of(given["batch_size"])
        is_metric = any(text_of(v).removeprefix("self.") in self.logged.metrics for v in given.values())
        if self.stage == "training" and literal(given.get("on_epoch")) is True and not is_metric:
            self.person(
                "on_epoch=True: prog has the last batch's value; return it in 'prog_epoch' for the epoch's mean"
            )
        if literal(given.get("add_dataloader_idx")) is False:
            self.logged.plain.add(self.stage)
        if self.stage in ("validation", "test") and literal(given.get("on_step")) is True:
            self.person("on_step=True: the batches of a validation aren't logged one by one")
        reduce = given.get("reduce_fx")
        if reduce is not None and text_of(reduce) not in ("'mean'", '"mean"', "torch.mean"):
            self.person(f"reduce_fx={text_of(reduce)}: the mean is taken; write another one in {self.stage}_end")

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        function = updated_node.func
        if m.matches(function, m.Attribute(value=m.Name("self"))) and (function.attr.value in self.logged.helpers):
            given = keyword(self.logged.variable, cst.Name(self.logged.variable))
            return updated_node.with_changes(args=[*updated_node.args, given])
        return updated_node


def logged_values(call: Any) -> list[tuple[str | None, str]]:
    """The name and the value of a call; None as the name of a whole dict."""
    given = arguments(call)
    if call.func.attr.value == "log_dict":
        return [(None, text_of(given.get(0) or given["dictionary"]))]
    return [(text_of(given.get(0) or given["name"]), text_of(given.get(1) or given["value"]))]


# ------------------------------------------------------------------ a step
def trailing_logs(body: Sequence[Any]) -> int:
    """How many statements at the end are calls of ``self.log``, a last ``return`` aside."""
    end = len(body) - int(bool(body) and m.matches(body[-1], m.SimpleStatementLine([m.Return()])))
    nb = 0
    while nb < end and m.matches(body[end - nb - 1], TAKEN_OUT):
        nb += 1
    return nb


def rewritten_step(function: Any, stage: str, logged: Logged, nb: str) -> Any:
    """A step that returns what it logged. ``nb``: the number of samples of a batch, for the mean over a validation."""
    if not logs(function, logged):
        return returning_the_other(function) if stage != "training" else function
    rewriter = LogRewriter(logged, stage)
    body = body_of(function.visit(rewriter))
    nb = rewriter.batch_size or nb
    originals = body_of(function)
    end = len(originals) - int(m.matches(originals[-1], m.SimpleStatementLine([m.Return()])))
    is_short = (
        trailing_logs(originals)
        and len(find(function, LOG)) == trailing_logs(originals)
        and len(find(function, m.Return())) == len(originals) - end
        and not any(find(o, m.Call(func=m.Attribute(attr=m.Name(h)))) for o in originals for h in logged.helpers)
    )
    function = function.with_changes(returns=None)
    if is_short:
        return with_body(function, short_body(originals, body, stage, logged, nb, end))
    returning = Returns(stage, logged.variable, nb, assigned_dicts(function))
    start = after_docstring(body)
    body = [*body[:start], *statements(f"{logged.variable} = {{}}"), *body[start:]]
    function = with_body(function, body).visit(returning)
    if not m.matches(body_of(function)[-1], m.SimpleStatementLine([m.Return()])) and stage != "training":
        function = with_body(function, [*body_of(function), *returning.result(None)])
    return function


def returning_the_other(function: Any) -> Any:
    """A step that ends with the call of another step returns what that returns."""
    body = body_of(function)
    step = m.Name("validation_step") | m.Name("test_step")
    other = m.Call(func=m.Attribute(m.Name("self") | m.Call(func=m.Name("super")), step))
    if not m.matches(body[-1], m.SimpleStatementLine([m.Expr(other)])):
        return function
    last = body[-1].with_changes(body=[cst.Return(body[-1].body[0].value)])
    return with_body(function.with_changes(returns=None), [*body[:-1], last])


def short_body(originals: list[Any], body: list[Any], stage: str, logged: Logged, nb: str, end: int) -> list[Any]:
    """The body of a step that logs in its last lines only: one ``return`` with a dict takes their place."""
    place = end - trailing_logs(originals)
    entries = list[str]()
    comments = list[Any]()
    for statement in body[place:]:
        if not isinstance(statement, cst.SimpleStatementLine):
            continue
        comments.append(statement)
        small = statement.body[0]
        if isinstance(small, cst.Assign):
            key = text_of(small.targets[0].target)[len(logged.variable) + 1 : -1]
            entries.append(f"{key}: {text_of(small.value)}")
        elif isinstance(small, cst.Expr) and isinstance(small.value, cst.Call):
            whole = small.value.args[0].value
            entries.append(text_of(whole)[1:-1].strip(" ,\n") if isinstance(whole, cst.Dict) else f"**{text_of(whole)}")
    inner = "{" + ", ".join(entries) + "}"
    final = originals[-1].body[0].value if end < len(originals) else None
    returning = Returns(stage, inner, nb, set())
    made = returning.result(final)
    for statement in reversed(comments):
        made[0] = keep_comments(statement, made[0])
    return [*body[:place], *made]


def assigned_dicts(function: Any) -> set[str]:
    """The variables that are given a dict."""
    found = find(function, m.Assign(value=m.Dict() | m.Call(func=m.Name("dict"))))
    return {name for assign in found for target in assign.targets for name in names_in(target)}


class Returns(Rewriter):
    """Makes each ``return`` of a step return what was logged, beside the loss in training."""

    def __init__(self, stage: str, metrics: str, nb: str, dicts: set[str]) -> None:
        super().__init__()
        self.stage, self.metrics, self.nb, self.dicts = stage, metrics, nb, dicts

    def visit_FunctionDef(self, node: Any) -> bool:
        return len(self._waiting) <= 2  # not into a function inside the step

    def result(self, value: cst.BaseExpression | None) -> list[Any]:
        """The statements that return ``value`` and the metrics."""
        metrics, is_dict = self.metrics, self.metrics.startswith("{")
        if self.stage != "training":
            before = text_of(value) + "\n" if isinstance(value, cst.Call) else ""
            inner = metrics[1:-1] if is_dict else f"**{metrics}"
            return statements(f"{before}return {{{inner}{', ' if inner else ''}'nb': {self.nb}}}".replace("'", '"'))
        if value is None or literal(value) is None:
            loss = "0.0 * sum(p.sum() for p in self.parameters())"
            return statements(f'return {{"loss": {loss}, "loss_count": 0}}')
        if isinstance(value, cst.Dict):
            entry = cst.DictElement(cst.SimpleString('"prog"'), expression(metrics))
            elements = [*value.elements[:-1], value.elements[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT), entry]
            return [cst.SimpleStatementLine([cst.Return(value.with_changes(elements=elements))])]
        loss = text_of(value)
        given = f"**{loss}" if loss in self.dicts else f'"loss": {loss}'
        return statements(f'return {{{given}, "prog": {metrics}}}')

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        last = updated_node.body[-1] if updated_node.body else None
        if not isinstance(last, cst.Return):
            return updated_node
        made = self.result(last.value)
        made[0] = keep_comments(updated_node, made[0])
        before = [updated_node.with_changes(body=updated_node.body[:-1])] if len(updated_node.body) > 1 else []
        return cst.FlattenSentinel([*before, *made])


class OutputsKeeper(Rewriter):
    """Keeps what ``training_step`` returns, for a hook that reads it after the batch."""

    def __init__(self, dicts: set[str]) -> None:
        super().__init__()
        self.dicts = dicts

    def visit_FunctionDef(self, node: Any) -> bool:
        return len(self._waiting) <= 2

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        last = updated_node.body[-1] if len(updated_node.body) == 1 else None
        if not isinstance(last, cst.Return) or last.value is None or literal(last.value) is None:
            return updated_node
        value = text_of(last.value)
        value = value if isinstance(last.value, cst.Dict) or value in self.dicts else f'{{"loss": {value}}}'
        made = statements(f"self.outputs = {value}\nreturn self.outputs")
        made[0] = keep_comments(updated_node, made[0])
        return cst.FlattenSentinel(made)


# ------------------------------------------------------------------ the end of a validation
def batch_size_of(function: Any, others: Sequence[cst.FunctionDef]) -> str:
    """An expression for the number of samples of the batch that ``function`` gets."""
    batch = parameters(function)[1] if len(parameters(function)) > 1 else "batch"
    for other, is_own in [(function, True), *((other, False) for other in others)]:
        for assign in find(other, m.Assign(value=m.Name(batch))):
            target = assign.targets[0].target
            if isinstance(target, (cst.Tuple, cst.List)):
                names = [e.value.value for e in target.elements if isinstance(e.value, cst.Name)]
                names = [name for name in names if not name.startswith("_")]
                return f"len({names[-1]})" if is_own and names else f"len({batch}[0])"
        for found in find(other, m.Subscript(value=m.Name(batch))):
            return f"len({text_of(found)})"
        if find(other, m.Call(args=[m.ZeroOrMore(), m.Arg(m.Name(batch), star="*"), m.ZeroOrMore()])):
            return f"len({batch}[0])"
    return f"len({batch})"


def end_of(stage: str, logged: Logged, step_logs: bool, is_in_branches: bool, loaders: str) -> list[Any]:
    """The statements that make ``metrics`` of ``outputs``. ``loaders``: 'one', 'several' or 'unknown'."""
    variable = logged.variable
    lines = [f"{variable} = {{}}"]
    if step_logs:
        names = "{name for output in outputs for name in output}" if is_in_branches else "outputs[0]"
        chosen = "[output for output in outputs if name in output]" if is_in_branches else "outputs"
        if loaders == "one":
            lines = mean_lines(variable, "outputs", names, chosen)
        else:
            pairs = "enumerate(outputs)" if loaders == "several" else "enumerate(outputs if several else [outputs])"
            suffix = 'f"{name}/dataloader_idx_{i}"'
            suffix = suffix if loaders == "several" else f"{suffix} if several else name"
            suffix = "name" if stage in logged.plain else suffix
            lines += ["several = isinstance(outputs[0], list)"] if loaders == "unknown" else []
            lines += [
                f"for i, of_loader in {pairs}:",
                '    nb = sum(output["nb"] for output in of_loader)',
                "    for name in of_loader[0]:",
                '        if name != "nb":',
                f'            {variable}[{suffix}] = sum(output["nb"] * output[name] for output in of_loader) / nb',
            ]
    for name, attribute in logged.at_end.get(stage, ()):
        computed = f"self.{attribute}.compute()"
        lines.append(f"{variable}.update({computed})" if name is None else f"{variable}[{name}] = {computed}")
        lines.append(f"self.{attribute}.reset()")
    return statements("\n".join(lines))


def mean_lines(variable: str, outputs: str, names: str, chosen: str) -> list[str]:
    """The mean over samples of each number under its name."""
    if chosen == outputs:
        return [
            f'nb = sum(output["nb"] for output in {outputs})',
            f"{variable} = {{}}",
            f"for name in {names}:",
            '    if name != "nb":',
            f'        {variable}[name] = sum(output["nb"] * output[name] for output in {outputs}) / nb',
        ]
    return [
        f"{variable} = {{}}",
        f'for name in sorted({names} - {{"nb"}}):',
        f"    there = {chosen}",
        f'    {variable}[name] = sum(o["nb"] * o[name] for o in there) / sum(o["nb"] for o in there)',
    ]
