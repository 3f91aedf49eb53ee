"""Callbacks that average weights or unfreeze layers, which are ``WeightAveraging`` and ``Unfreeze`` here."""

from collections.abc import Callable
from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.names import dotted_name
from pytorch_lightning.commands.conversion.pieces import (
    arguments,
    body_of,
    expression,
    find,
    has_stars,
    literal,
    parameters,
    statements,
    text_of,
    with_body,
)
from pytorch_lightning.lightning2 import table

AVERAGES = ("WeightAveraging", "EMAWeightAveraging", "StochasticWeightAveraging")
TUNING = {**dict.fromkeys(AVERAGES, "WeightAveraging"), "BackboneFinetuning": "Unfreeze", "BaseFinetuning": "Unfreeze"}
"""What the callbacks of Lightning are called here."""
PLACES = {
    "WeightAveraging": ("device", "use_buffers"),
    "EMAWeightAveraging": (
        *("device", "use_buffers", "decay"),
        *("update_every_n_steps", "update_starting_at_step", "update_starting_at_epoch"),
    ),
    "StochasticWeightAveraging": ("swa_lrs", "swa_epoch_start", "annealing_epochs", "annealing_strategy", "avg_fn"),
    "BackboneFinetuning": (
        *("unfreeze_backbone_at_epoch", "lambda_func", "backbone_initial_ratio_lr", "backbone_initial_lr"),
        *("should_align", "initial_denom_lr", "train_bn"),
    ),
}
OWN = "After fit the model has its own weights here: weights='average' takes the average"
OWN_ATTRIBUTES = {"epochs", "lr_factor", "train_bn", "optimizer_i", "done"}
"""Those of ``Unfreeze``."""
Person = Callable[[str], None]


def tuned(kind: str, call: Any, person: Person) -> Any:
    """The call that makes a callback of Lightning's class ``kind``, as one that makes a callback of this library."""
    if has_stars(call):
        person(f"{kind}: the arguments that ** gives can't be seen here; {table()['callbacks'][kind]}")
    places = PLACES[kind]
    given = {
        places[key] if isinstance(key, int) and key < len(places) else str(key): value
        for key, value in arguments(call).items()
        if literal(value) is not None
    }
    make = {"EMAWeightAveraging": _ema, "BackboneFinetuning": _backbone}.get(kind, _averaging)
    code = ", ".join(make(kind, given, person))
    return call.with_changes(func=cst.Name(TUNING[kind]), args=expression(f"f({code})").args)


def _buffers(given: dict[str, Any]) -> list[str]:
    return [] if literal(given.get("use_buffers")) is False else [f"use_buffers={_code(given, 'use_buffers', 'True')}"]


def _code(given: dict[str, Any], name: str, default: str) -> str:
    return text_of(given[name]) if name in given else default


def _ema(kind: str, given: dict[str, Any], person: Person) -> list[str]:
    every, first = literal(given.get("update_every_n_steps")), literal(given.get("update_starting_at_step"))
    every = 1 if "update_every_n_steps" not in given else every
    made = ["'ema'", *([f"decay={text_of(given['decay'])}"] if "decay" in given else [])]
    if "update_starting_at_step" in given:
        known = isinstance(first, int) and isinstance(every, int) and every > 0
        # it counts the steps from 0, and averages at those that `every` divides
        start = str(-(-first // every) * every + 1) if known else f"{text_of(given['update_starting_at_step'])} + 1"
        made.append(f"start={start}")
        if not known and every != 1:
            person("start: the first one at which it averages")
        person("Validations before the average begins use the model's own weights, not those that it began with")
    if every != 1:
        made.append(f"every={text_of(given['update_every_n_steps'])}")
    if "update_starting_at_epoch" in given:
        person(f"update_starting_at_epoch: {table()['callback_arguments']['update_starting_at_epoch']}")
    person(OWN)
    return [*made, *_buffers(given)]


def _averaging(kind: str, given: dict[str, Any], person: Person) -> list[str]:
    name = next((name for name in ("avg_fn", "multi_avg_fn") if name in given), None)
    made = ["'swa'"]
    if name is not None:
        value = given[name]
        function = (dotted_name(value.func) or "").rpartition(".")[2] if isinstance(value, cst.Call) else ""
        if function in ("get_ema_avg_fn", "get_ema_multi_avg_fn"):
            decay = next(iter(arguments(value).values()), None)
            made = ["'ema'", *([] if decay is None else [f"decay={text_of(decay)}"])]
        elif function not in ("get_swa_avg_fn", "get_swa_multi_avg_fn"):
            made = [text_of(value)]
            if name == "multi_avg_fn":
                person(f"multi_avg_fn: {table()['callback_arguments'][name]}")
    if kind == "StochasticWeightAveraging":
        person(f"{kind}: {table()['callbacks'][kind]}")
    person(OWN)
    return [*made, *(_buffers(given) if kind == "WeightAveraging" else [])]


def _backbone(kind: str, given: dict[str, Any], person: Person) -> list[str]:
    if "backbone_initial_lr" in given:
        person(f"backbone_initial_lr: {table()['callback_arguments']['backbone_initial_lr']}")
    person("The rate of the backbone doesn't grow each epoch here: it is lr_factor times that of the others")
    epoch, factor = _code(given, "unfreeze_backbone_at_epoch", "10"), _code(given, "backbone_initial_ratio_lr", "0.1")
    return [f"{{'backbone': {epoch}}}", f"lr_factor={factor}", "train_bn=True"]


class Finetuning:
    """A class that derives from ``BaseFinetuning``, where it does no more than freeze parts of the module, and add them
    to the optimizer at epochs."""

    def __init__(self, node: Any, person: Person) -> None:
        self.node, self.person = node, person
        body = body_of(node)
        self.functions = {s.name.value: s for s in body if isinstance(s, cst.FunctionDef)}
        self.others = [s for s in body if not isinstance(s, cst.FunctionDef)]
        self.train_bn: set[bool] = set()
        self.factors: set[str] = set()
        self.rates: list[str] = []

    def rewritten(self) -> Any:
        """The class as it derives from ``Unfreeze``; None where it does anything else."""
        known = {"__init__", "freeze_before_training", "finetune_function"}
        if len(self.node.bases) > 1 or not {*self.functions} <= known or len(self.functions) < len(known) - 1:
            return None
        frozen, epochs = self._frozen(), self._epochs()
        if frozen is None or epochs is None or {*frozen} != {*epochs}:
            return None
        if len(self.train_bn) > 1 or len(self.factors) > 1:
            return None
        made = self._init(epochs)
        if made is None:
            return None
        if self.rates:
            self.person(f"lr={self.rates[0]}: {table()['callback_arguments']['backbone_initial_lr']}")
        base = self.node.bases[0].with_changes(value=cst.Name("Unfreeze"))
        return with_body(self.node.with_changes(bases=[base]), [*self.others, made])

    def _frozen(self) -> list[str] | None:
        """The paths of what is frozen before training."""
        function = self.functions.get("freeze_before_training")
        given = [] if function is None else parameters(function)
        found = list[str]()
        for statement in body_of(function) if len(given) == 2 else ():
            call = _called(statement, "freeze")
            if call is None:
                return None
            values = arguments(call)
            self.train_bn.add(literal(values.get("train_bn", values.get(1, cst.Name("True")))) is not False)
            paths = _paths(values.get("modules", values.get(0)), given[1])
            if paths is None:
                return None
            found += paths
        return found or None

    def _epochs(self) -> dict[str, str] | None:
        """By path the epoch from which on it is trained, as code."""
        function = self.functions.get("finetune_function")
        given = [] if function is None else parameters(function)
        found: dict[str, str] = {}
        for statement in body_of(function) if len(given) == 4 else ():
            test = m.If(test=m.Comparison(m.Name(given[2]), [m.ComparisonTarget(m.Equal())]), orelse=None)
            inner = body_of(statement) if m.matches(statement, test) else []
            call = _called(inner[0], "unfreeze_and_add_param_group") if len(inner) == 1 else None
            if call is None:
                return None
            names = ("modules", "optimizer", "lr", "initial_denom_lr", "train_bn")
            values = {names[k] if isinstance(k, int) else k: v for k, v in arguments(call).items()}
            paths = _paths(values.get("modules"), given[1])
            if paths is None:
                return None
            if "lr" in values and literal(values["lr"]) is not None:
                self.rates.append(text_of(values["lr"]))
            denominator = literal(values.get("initial_denom_lr", cst.Float("10.0")))
            self.factors.add("0.1" if denominator == 10 else f"1 / {text_of(values['initial_denom_lr'])}")
            epoch = text_of(statement.test.comparisons[0].comparator)
            found |= dict.fromkeys(paths, epoch)
        return found or None

    def _init(self, epochs: dict[str, str]) -> Any:
        """``__init__``, which calls that of ``Unfreeze`` at its end; None where it can't."""
        entries = ", ".join(f"{path!r}: {epoch}" for path, epoch in epochs.items())
        factor, train_bn = next(iter(self.factors)), next(iter(self.train_bn))
        line = f"super().__init__({{{entries}}}, lr_factor={factor}, train_bn={train_bn})"
        function = self.functions.get("__init__")
        if function is None:
            return statements(f"def __init__(self):\n    {line}\n")[0]
        own = m.SimpleStatementLine([m.Expr(m.Call(func=m.Attribute(m.Call(m.Name("super")), m.Name("__init__"))))])
        kept = [statement for statement in body_of(function) if not m.matches(statement, own)]
        set_here = {a.attr.value for a in find(function, m.Attribute(value=m.Name("self")))}
        return None if OWN_ATTRIBUTES & set_here else with_body(function, [*kept, *statements(line)])


def _called(statement: Any, name: str) -> Any:
    """The call of the method ``name`` that ``statement`` is; None where it is anything else."""
    call = m.Call(func=m.Attribute(m.Name("self"), m.Name(name)))
    is_it = m.matches(statement, m.SimpleStatementLine([m.Expr(call)]))
    return statement.body[0].value if is_it else None


def _paths(value: Any, module: str) -> list[str] | None:
    """The names in the module of what ``value`` is: a part of ``module``, or a list of parts."""
    values = [element.value for element in value.elements] if isinstance(value, (cst.List, cst.Tuple)) else [value]
    dotted = [dotted_name(one) or "" if one is not None else "" for one in values]
    found = [one.removeprefix(f"{module}.") for one in dotted if one.startswith(f"{module}.")]
    return found if found and len(found) == len(dotted) else None
