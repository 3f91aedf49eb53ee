"""What the value of an entry in a file of options becomes: what its words would on the command line."""

import argparse
from argparse import Action, ArgumentParser
from collections.abc import Sequence
from typing import Any

from pytorch_lightning.options.option_files import READ_HERE, WrongEntry

COLLECTING = ("_AppendAction", "_ExtendAction", "_CountAction", "_AppendConstAction")
"""Actions to which each flag adds."""
AS_IN_PYTHON = ("gpus",)
"""Options for which a number is another thing than the same text."""


def put(parser: ArgumentParser, space: Any, action: Action, name: str, node: Any, words: Sequence[str]) -> None:
    """Put the value of ``node`` into the namespace ``space``. ``words`` are those of the command line, which win."""
    adds = type(action).__name__ in COLLECTING
    if adds and any(word.partition("=")[0] in action.option_strings for word in words):
        return
    if action.nargs == 0:
        _put_flag(parser, space, action, name, node)
        return
    if _is_null(node):
        _put_null(parser, space, action)
    elif adds:
        for item in node.value if node.id == "sequence" else [node]:
            _call(parser, space, action, _words(action, item) if item.id == "scalar" else _each(action, item))
    elif isinstance(value := _each(action, node) if _is_list(action) else _words(action, node), list):
        _call(parser, space, action, value)
    else:
        setattr(space, action.dest, value[0])


def _put_null(parser: ArgumentParser, space: Any, action: Action) -> None:
    """None, which a word means where the option is the Trainer's and not a text."""
    if getattr(action, "is_ours", False) and action.type is not str:
        _call(parser, space, action, ["none"])
    else:
        setattr(space, action.dest, None)


def _call(parser: ArgumentParser, space: Any, action: Action, words: Any) -> None:
    if isinstance(words, tuple):
        raise WrongEntry(f"{action.dest!r} can't have this value in a file: write it on the command line")
    action(parser, space, parser._get_values(action, words), action.option_strings[0])


def _is_list(action: Action) -> bool:
    return isinstance(action.nargs, int) or action.nargs in ("+", "*")


def _is_null(node: Any) -> bool:
    return node.id == "scalar" and bool(node.tag.endswith(":null"))


def _words(action: Action, node: Any) -> list[str] | tuple[Any]:
    """The words of an option that takes one, or its value itself in a tuple."""
    ours, flag = getattr(action, "is_ours", False), action.option_strings[0]
    if node.id == "scalar":
        kind = node.tag.rpartition(":")[2]
        if action.type is bool:
            if kind != "bool":
                raise WrongEntry(f"argument {flag}: expected true or false, received {node.value!r}")
            return (bool(node.constructed()),)
        if ours and action.dest in AS_IN_PYTHON and kind == "int":
            return (node.constructed(),)
        return [node.value]
    if ours:
        return [_joined(action, node)]
    if action.type not in READ_HERE:
        return (node.constructed(),)
    raise WrongEntry(f"argument {flag}: it takes one value, received a {node.id}")


def _joined(action: Action, node: Any) -> str:
    """A list or a dict as the command line has it: with commas and colons."""
    pairs = node.value if node.id == "mapping" else [(item,) for item in node.value]
    if any(part.id != "scalar" or "," in part.value for pair in pairs for part in pair):
        raise WrongEntry(f"argument {action.option_strings[0]}: its entries must be words without commas")
    if node.id == "mapping" and action.dest != "accumulate_grad_batches":
        raise WrongEntry(f"argument {action.option_strings[0]}: it takes no names; pass it to Trainer.from_args")
    return ",".join(":".join(part.value for part in pair) for pair in pairs) or "none"


def _each(action: Action, node: Any) -> list[str] | tuple[Any]:
    """The words of an option that takes several."""
    if node.id != "sequence" or any(item.id != "scalar" or _is_null(item) for item in node.value):
        raise WrongEntry(f"argument {action.option_strings[0]}: it takes a list of values, as [a, b]")
    words = [item.value for item in node.value]
    least = action.nargs if isinstance(action.nargs, int) else int(action.nargs == "+")
    if len(words) < least or (isinstance(action.nargs, int) and len(words) != least):
        number = f"{least}" if isinstance(action.nargs, int) else "at least one"
        raise argparse.ArgumentError(action, f"expected {number} argument{'s' * (number != '1' and least != 1)}")
    return words if words else ([],)


def _put_flag(parser: ArgumentParser, space: Any, action: Action, name: str, node: Any) -> None:
    """A flag without a value: true gives it. By the name of its attribute, its value is that of the attribute."""
    flag = action.option_strings[0]
    if _is_null(node) and action.dest == name:
        setattr(space, name, None)
    elif type(action).__name__ == "_CountAction" and node.tag.endswith(":int"):
        setattr(space, action.dest, node.constructed())
    elif node.tag.endswith(":bool"):
        given = bool(node.constructed())
        if action.dest == name and isinstance(action.const, (bool, type(None))):
            setattr(space, name, given)
        elif given:
            _call(parser, space, action, [])
    elif action.dest == name and node.id == "scalar" and node.value in (str(action.const), str(action.default)):
        setattr(space, name, action.const if node.value == str(action.const) else action.default)
    else:
        raise WrongEntry(f"argument {flag}: expected true or false, received {node.value!r}")
