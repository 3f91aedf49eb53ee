"""The arguments of the Trainer and of its callbacks."""

from collections.abc import Callable
from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.advice import LeftOut, Person, Renamed, Same, advice
from pytorch_lightning.commands.conversion.names import HERE, Names
from pytorch_lightning.commands.conversion.pieces import (
    Rewriter,
    expression,
    has_stars,
    keyword,
    literal,
    names_in,
    text_of,
    with_arguments,
)
from pytorch_lightning.commands.conversion.tuning import PLACES, TUNING, tuned
from pytorch_lightning.lightning2 import table

Value = cst.BaseExpression
Made = dict[str, str]
"""Options by their names here, and their values as code."""

PRECISIONS = {"16-mixed": "16", "bf16-mixed": "bf16", "32-true": "32", "64-true": "64"}
STRATEGIES = {"ddp": "'ddp'", "dp": "'dp'", "fsdp": "'fsdp'"}
WHERE = ("accelerator", "devices", "strategy")
EVERY_EPOCH = 10**6


def where_it_runs(given: dict[str, Value], person: Callable[[str], None]) -> Made:
    """The options that say which devices are used."""
    values = {name: literal(given.get(name)) if name in given else "auto" for name in WHERE}
    accelerator, devices, wanted = values.values()
    made: Made = {}
    if accelerator is ...:
        person(f"accelerator={text_of(given['accelerator'])}: {table()['trainer_options']['accelerator']}")
        return made
    nb = -1 if devices in ("auto", -1, "-1", None) else devices
    code = text_of(given["devices"]) if nb is ... else repr(int(nb) if isinstance(nb, str) and nb.isdigit() else nb)
    if accelerator in ("gpu", "cuda", "mps"):
        made["gpus"] = code
    elif accelerator == "auto" and "accelerator" in given:
        made["gpus"] = f"{code} if torch.cuda.is_available() else None"
    elif accelerator == "cpu" and nb is not ... and nb not in (-1, 1):
        made["nb_processes"] = code
    elif accelerator not in ("cpu", "auto"):
        person(f"accelerator={accelerator!r} isn't supported")
    elif "devices" in given and nb not in (-1, 1):
        person(f"devices={code}: {table()['trainer_options']['devices']}")
    plain = wanted.partition("_")[0] if isinstance(wanted, str) else ""
    if plain in STRATEGIES and "nb_processes" not in made:
        made["distributed_backend"] = STRATEGIES[plain]
    elif wanted != "auto" and plain not in STRATEGIES:
        person(f"strategy={text_of(given['strategy'])}: {table()['trainer_options']['strategy']}")
    return made


def limited(name: str, value: Value, given: dict[str, Value], person: Callable[[str], None]) -> Made:
    """``limit_train_batches`` and its relatives, which take a fraction or a number."""
    here = {"train": "train_percent_check", "val": "val_percent_check", "test": "test_percent_check"}
    option = here.get(name.split("_")[1], "overfit_pct")
    nb = literal(value)
    if nb in (None, 1.0) and not (isinstance(nb, int) and not isinstance(nb, bool)):
        return {}
    if isinstance(nb, float):
        if nb == 0:
            return {} if option == "overfit_pct" else zero(name, person)
        return {option: text_of(value)}
    if nb == 0:
        return {} if option == "overfit_pct" else zero(name, person)
    if isinstance(nb, int) and option != "overfit_pct":
        return {f"max_nb_{'tng' if 'train' in name else name.split('_')[1]}_batches": text_of(value)}
    person(f"{name}={text_of(value)}: {table()['trainer_options'][name]}")
    return {}


def zero(name: str, person: Callable[[str], None]) -> Made:
    """No batch of a set at all."""
    if name == "limit_val_batches":
        return {"check_val_every_n_epoch": repr(EVERY_EPOCH), "nb_sanity_val_steps": "0"}
    person(f"{name}=0: there is no such limit; leave the call out")
    return {}


def minutes(value: Value) -> str | None:
    """``max_time`` in minutes."""
    given = literal(value)
    if isinstance(given, str) and given.count(":") == 3:
        days, hours, nb, seconds = map(int, given.split(":"))
        return f"{((days * 24 + hours) * 60 + nb) + seconds / 60:g}"
    if isinstance(given, dict):
        parts = {"weeks": 10080.0, "days": 1440, "hours": 60, "minutes": 1, "seconds": 1 / 60}
        return f"{sum(parts[name] * nb for name, nb in given.items()):g}"
    return text_of(value)


def one_option(name: str, value: Value, given: dict[str, Value], person: Callable[[str], None]) -> Made:
    """One option of the Trainer."""
    code, constant = text_of(value), literal(value)
    if name.startswith("limit_") or name == "overfit_batches":
        if name == "limit_predict_batches":
            person(f"{name}: {table()['trainer_options'][name]}")
            return {}
        return limited(name, value, given, person)
    if name == "precision":
        return {name: repr(PRECISIONS.get(str(constant), str(constant)))} if constant is not ... else {name: code}
    if name in ("enable_progress_bar", "enable_model_summary"):
        new = "progress_bar" if name == "enable_progress_bar" else "print_weights_summary"
        return {} if constant is True else {new: code}
    if name == "profiler":
        return {} if constant is None else {"profile": "True"}
    if name == "val_check_interval" and literal(given.get("check_val_every_n_epoch", value)) is None:
        return {"val_every_nb_batches": code}
    if name == "max_time":
        return {} if constant is None else {name: str(minutes(value))}
    if name in ("max_epochs", "max_steps") and constant in (-1, None):
        return {"max_nb_epochs": repr(EVERY_EPOCH)} if name == "max_epochs" else {}
    if name == "num_sanity_val_steps" and constant == -1:
        return {"nb_sanity_val_steps": repr(EVERY_EPOCH)}
    if name == "fast_dev_run":
        return {name: "True" if constant is not ... and constant else code}
    if name == "enable_checkpointing" or (name == "logger" and constant is True):
        return {}
    if name == "deterministic" and constant == "warn":
        return {name: "True"}
    if name == "num_nodes":
        return {} if constant == 1 else {"nb_gpu_nodes": code}
    if name == "gradient_clip_val":
        return {} if constant is None else {"gradient_clip": code}
    return by_the_table(name, value, person)


def by_the_table(name: str, value: Value, person: Callable[[str], None]) -> Made:
    """An option that is what the table says, whatever its value is."""
    if name not in table()["trainer_options"]:
        return {name: text_of(value)}  # perhaps it is one here; the Trainer says so itself if it isn't
    found = advice("trainer_options", name)
    if literal(value) is None or isinstance(found, LeftOut):
        return {}
    if literal(value) in (False, 0) and isinstance(found, Person):
        return {}  # off, as here
    if isinstance(found, Person):
        person(found.text)
        return {}
    return {found.name if isinstance(found, Renamed) else name: text_of(value)}


class OptionRewriter(Rewriter):
    """Rewrites the calls that make Trainers and callbacks."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        kind = self.names.of(original_node.func)
        if kind == "Trainer":
            return self._trainer(updated_node)
        if kind in ("ModelCheckpoint", "EarlyStopping"):
            return self._callback(kind, updated_node)
        if kind in PLACES:
            self.names.needed.add(("pytorch_lightning.callbacks", TUNING[kind]))
            return tuned(kind, updated_node, self.person)
        if kind == "GradientAccumulationScheduler":
            return with_arguments(updated_node, [self._from_one(argument) for argument in updated_node.args])
        if kind == "TensorBoardLogger":
            kept = [a for a in updated_node.args if a.keyword is None or not is_left_out(a.keyword.value)]
            return with_arguments(updated_node, kept)
        if kind in table()["loggers"] and kind not in HERE:
            self.person(f"{kind}: {table()['loggers'][kind]}")
        if kind in ("LightningCLI", "Fabric"):
            self.person(f"{kind}: {table()['names'][kind]}")
        return updated_node

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        value: Any = getattr(original_node.body[0], "value", None) if len(original_node.body) == 1 else None
        if isinstance(value, cst.Call) and m.matches(value, m.Call(m.Attribute(attr=m.Name("append")), [m.Arg()])):
            value = value.args[0].value
        kind = self.names.of(value.func) if isinstance(value, cst.Call) else None
        if kind in table()["callbacks"] and isinstance(advice("callbacks", kind), LeftOut):
            return cst.RemoveFromParent()  # a callback that nothing needs
        return updated_node

    def leave_Assign(self, original_node: Any, updated_node: Any) -> Any:
        target, value = original_node.targets[0].target, updated_node.value
        if isinstance(target, cst.Name) and target.value in self.names.dicts_of_options:
            return updated_node.with_changes(value=self._trainer(as_call(value), is_dict=True))
        return updated_node

    def leave_List(self, original_node: Any, updated_node: Any) -> Any:
        """A list of callbacks without those that nothing needs."""
        kinds = [self.names.made_of(element.value) for element in original_node.elements]
        found = [advice("callbacks", str(kind)) if kind in table()["callbacks"] else Same() for kind in kinds]
        for kind, what in zip(kinds, found, strict=True):
            if isinstance(what, LeftOut):
                self.names.notes.append(f"{kind} is left out: {what.why}")
        pairs = zip(updated_node.elements, found, strict=True)
        kept = [element for element, what in pairs if not isinstance(what, LeftOut)]
        if len(kept) == len(found):
            return updated_node
        if kept:
            kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return updated_node.with_changes(elements=kept)

    def _from_one(self, argument: cst.Arg) -> cst.Arg:
        """A dict by epochs, which Lightning counts from 0."""
        given = literal(argument.value)
        if not isinstance(given, dict):
            self.person("its epochs are counted from 1 here")
            return argument
        return argument.with_changes(value=expression(repr({epoch + 1: nb for epoch, nb in given.items()})))

    def _trainer(self, call: Any, *, is_dict: bool = False) -> Any:
        if has_stars(call) and not self.names.dicts_of_options & names_in(call):
            self.person("the options that ** gives can't be seen here; their names are on the page of the map")
        given = {arg.keyword.value: arg.value for arg in call.args if arg.keyword is not None}
        kept: list[cst.Arg] = [arg for arg in call.args if arg.keyword is None]
        callbacks, others = self._callbacks(given.get("callbacks"))
        is_placed = False
        used = set[str]()

        def add(made: Made, old: cst.Arg | None = None) -> None:
            for name, code in made.items():
                if name not in used:
                    used.add(name)
                    value = expression(code)
                    kept.append(keyword(name, value) if old is None else as_keyword(old, name, value))

        extra = {name: expression(code) for name, code in self.names.trainer_options.items() if not is_dict}
        for argument in [
            *call.args,
            *(keyword(name, value) for name, value in extra.items() if name not in given),
        ]:
            if argument.keyword is None:
                continue
            name, value = argument.keyword.value, argument.value
            if name in WHERE:
                if not is_placed:
                    add(where_it_runs(given, self.person))
                is_placed = True
            elif name == "callbacks":
                add(callbacks)
                if others is not None:
                    kept.append(argument.with_changes(value=others))
            elif name == "benchmark":
                self.before(f"torch.backends.cudnn.benchmark = {text_of(value)}")
            elif name == "detect_anomaly":
                self.before(f"torch.autograd.set_detect_anomaly({text_of(value)})")
            else:
                add(one_option(name, value, given, self.person), argument)
        if literal(given.get("max_steps")) not in (..., -1, None) and "max_epochs" not in given:
            add({"max_nb_epochs": repr(EVERY_EPOCH)})
        return with_arguments(call, kept)

    def _callbacks(self, value: Value | None) -> tuple[Made, Value | None]:
        """The callbacks that have an option of their own, and the list of the others."""
        if value is None or not isinstance(value, (cst.List, cst.Tuple)):
            kind = None if value is None else self.names.made_of(value)
            if value is None or self.names.kind(kind) not in table()["callbacks"]:
                return {}, value
            value = cst.List([cst.Element(value)])  # one callback
        made: Made = {}
        others = list[Any]()
        for element in value.elements:
            kind = self.names.made_of(element.value)
            option = self._options_of().get(str(kind))
            found = advice("callbacks", str(kind)) if kind in table()["callbacks"] else Same()
            if option is not None and option not in made:
                made[option] = text_of(element.value)
            elif isinstance(found, LeftOut):
                self.names.notes.append(f"{kind} is left out: {found.why}")
            else:
                if not isinstance(found, Same) and kind not in TUNING:
                    self.person(f"{kind}: {table()['callbacks'][str(kind)]}")
                others.append(element)
        if others:
            others[-1] = others[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return made, value.with_changes(elements=others) if others else None

    def _options_of(self) -> dict[str, str]:
        return {"ModelCheckpoint": "checkpoint_callback", "EarlyStopping": "early_stop_callback"}

    def _callback(self, kind: str, call: Any) -> Any:
        places = (
            ("dirpath", "filename", "monitor") if kind == "ModelCheckpoint" else ("monitor", "min_delta", "patience")
        )
        kept = list[cst.Arg]()
        given = dict[str, Value]()
        for place, argument in enumerate(call.args):
            name = argument.keyword.value if argument.keyword is not None else places[place]
            given[name] = argument.value
            found = advice("callback_arguments", name) if name in table()["callback_arguments"] else Same()
            if isinstance(found, LeftOut) or literal(argument.value) is None:
                continue
            if name == "filename":
                kept += file_name(argument)
            elif name == "every_n_train_steps":
                kept += [as_keyword(argument, "every_nb_batches", argument.value)] * (literal(argument.value) != 0)
            elif isinstance(found, Person):
                self.person(found.text)
            else:
                new = found.name if isinstance(found, Renamed) else name
                kept.append(as_keyword(argument, new, argument.value) if argument.keyword is not None else argument)
        return with_arguments(call, [*defaults_first(kind, given), *kept, *defaults_last(kind, given)])


def file_name(argument: cst.Arg) -> list[cst.Arg]:
    """``filename``, in which the step has another name here."""
    template = literal(argument.value)
    if not isinstance(template, str) or "{step" not in template:
        return [keyword("filename", argument.value)]
    return [keyword("filename", expression(repr(template.replace("{step", "{global_step"))))]


def defaults_first(kind: str, given: dict[str, Value]) -> list[cst.Arg]:
    """The folder, which Lightning chooses by itself."""
    is_needed = kind == "ModelCheckpoint" and not {"dirpath", "filepath"} & set(given)
    return [cst.Arg(cst.SimpleString('"checkpoints"'))] if is_needed else []


def defaults_last(kind: str, given: dict[str, Value]) -> list[cst.Arg]:
    """What Lightning's defaults are, where they differ from those here."""
    defaults = {"mode": '"min"', "patience": "3"} if kind == "EarlyStopping" else {}
    if kind == "ModelCheckpoint" and "monitor" in given and literal(given["monitor"]) is not None:
        defaults = {"mode": '"min"', "save_top_k": "1"}
    return [keyword(name, expression(code)) for name, code in defaults.items() if name not in given]


def is_left_out(name: str) -> bool:
    """Whether a logger needs no argument ``name``."""
    return isinstance(advice("logger_arguments", name), LeftOut) if name in table()["logger_arguments"] else False


def as_call(value: Any) -> Any:
    """A dict, as a call of ``dict``."""
    if isinstance(value, cst.Call):
        return value
    args = [keyword(literal(element.key), element.value) for element in value.elements]
    return with_arguments(cst.Call(cst.Name("dict")), args)


def as_keyword(old: cst.Arg, name: str, value: Value) -> cst.Arg:
    """``old`` under another name."""
    assert old.keyword is not None
    return old.with_changes(keyword=old.keyword.with_changes(value=name), value=value)
