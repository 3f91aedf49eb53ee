"""Files of options: ``--config FILE`` and ``--print_config`` of a parser, and ``options.yaml`` in a run's folder.

A file is YAML with one option a line, by its name. Each value is read as the word that it would be on the command line,
so that both have the same errors. Files are written without PyYAML: a line is a name and JSON, which is YAML too.
"""

import argparse
import datetime
import functools
import math
import re
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pytorch_lightning.errors import near, one_line
from pytorch_lightning.lightning2 import advice
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.options.meaning import ALIASES

NAME = "options.yaml"
"""The file in a run's folder."""
SPECIAL = re.compile(r"[^ !#-\[\]-~]")
"""What may not stand in a text as it is."""
CONFIG, PRINT = "--config", "--print_config"
READ_HERE = (str, int, float, bool, None)
"""Types of options whose values are written as they are."""

last_parsed: dict[str, tuple[Any, str | None]] = {}
"""Each option of the last command line with its value, and how a file has it; None where it can't."""


class NotPlain(Exception):
    """A value that no file can have."""


class WrongEntry(Exception):
    """An entry of a file that isn't an option's."""


def text_of(value: Any) -> str:
    """``value`` as YAML, in one line. Raises ``NotPlain`` for an object.

    >>> text_of(["a", 1e-05, None, True]), text_of({1: 2})
    ('["a", 1.0e-05, null, true]', '{1: 2}')
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return {"True": "true", "False": "false"}.get(str(value), str(value))  # words.Off is a 0
    if isinstance(value, float):
        return _text_of_float(float(value))
    if isinstance(value, (str, PurePath)):
        return _quoted(str(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{text_of(key)}: {text_of(item)}" for key, item in value.items()) + "}"
    raise NotPlain(type(value).__name__)


def _text_of_float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text if "." in text or "e" not in text else text.replace("e", ".0e")  # else YAML takes it for a word


def _quoted(text: str) -> str:
    """A text in double quotes, without any character that YAML would take for something else.

    >>> print(_quoted('a "b"' + chr(0x2028)))
    "a \\"b\\"\\u2028"
    """
    return f'"{SPECIAL.sub(_escaped, text)}"'


def _escaped(match: re.Match[str]) -> str:
    c = match[0]
    if c.isprintable() and c not in '"\\':
        return c
    return f"\\{c}" if c in '"\\' else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def line_of(name: str, text: str | None) -> str:
    """The line of an option; one that can't be written is a comment."""
    return f"# {name}: left to the program" if text is None else f"{name}: {text}"


def given_in(hparams: Mapping[Any, Any]) -> dict[str, str | None]:
    """What a run's file has of ``hparams`` besides the Trainer's options: what a command line gave, or all that is
    plain where there was none. Functions, which test-tube adds, are left out."""
    is_parsed = bool(last_parsed) and last_parsed.keys() <= hparams.keys()
    known = {name: value for name, value in hparams.items() if not is_parsed or name in last_parsed}
    return {str(name): _kept(name, value) for name, value in known.items() if not callable(value)}


def _kept(name: Any, value: Any) -> str | None:
    if name in last_parsed and last_parsed[name][0] is value:
        return last_parsed[name][1]
    try:
        return text_of(value)
    except NotPlain:
        return None


def lines_of(options: Mapping[str, Any], given: Mapping[str, str | None]) -> list[str]:
    """The lines of a run's file: the Trainer's ``options``, then what else was ``given``. It doesn't say from where
    the run was resumed."""
    own = {name: value for name, value in options.items() if name not in OBJECT_OPTIONS and name != "resume"}
    if isinstance(own["max_time"], datetime.timedelta):
        own["max_time"] /= datetime.timedelta(minutes=1)
    kept = {name: _kept("", value) for name, value in own.items()}
    others = {name: text for name, text in given.items() if ALIASES.get(name, name) not in options}
    return [line_of(name, text) for name, text in {**kept, **others}.items()]


# ------------------------------------------------------------------ a parser that reads files
def read_files_too(parser: ArgumentParser) -> None:
    """Let ``parser`` read ``--config FILE`` before its other words."""
    if "parse_known_args" not in vars(parser):
        vars(parser)["parse_known_args"] = functools.partial(_parse, parser)


def _parse(parser: ArgumentParser, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
    given, space = list(sys.argv[1:] if args is None else args), Namespace() if namespace is None else namespace
    given = parser._read_args_from_files(given) if parser.fromfile_prefix_chars else given
    words, files, prints = _without_files(parser, given)
    kept = [(action, action.type, action.required) for action in parser._actions]
    groups = [(group, group.required) for group in parser._mutually_exclusive_groups]
    read: dict[Action, list[tuple[Any, str]]] = {action: [] for action in parser._actions}
    for action, kind, _ in kept:
        if callable(kind) and _reads_otherwise(action):
            action.type = _recording(kind, read[action])
    try:
        for path in files:
            for action in _read_file(parser, path, space, words):
                action.required = False
                for group, _ in groups:
                    group.required = group.required and action not in group._group_actions
        found, rest = type(parser).parse_known_args(parser, words, space)
    finally:
        for action, kind, required in kept:
            action.type, action.required = kind, required
        for group, required in groups:
            group.required = required
    entries = dict(_entries(parser, found, read))
    last_parsed.clear()
    last_parsed.update(entries)
    if prints:
        print("\n".join(line_of(name, text) for name, (_, text) in entries.items()))
        parser.exit()
    return found, rest


def _is_ours(action: Action) -> bool:
    return getattr(action, "is_ours", False)


def _reads_otherwise(action: Action) -> bool:
    """Whether a value of the option needn't be what is made of its text."""
    return action.type not in READ_HERE and not _is_ours(action)


def _recording(kind: Callable[[str], Any], into: list[tuple[Any, str]]) -> Callable[[str], Any]:
    """``kind`` that notes the words that it reads: a value of its own making is written as its word."""

    @functools.wraps(kind, updated=())
    def read(text: str) -> Any:
        value = kind(text)
        into.append((value, text))
        return value

    return read


def _without_files(parser: ArgumentParser, words: list[str]) -> tuple[list[str], list[str], bool]:
    """``words`` without ours, the files that they name, and whether ``--print_config`` is among them."""
    ours = [flag for flag in (CONFIG, PRINT) if _is_ours(parser._option_string_actions.get(flag, Action([], "")))]
    ends = {"--"}.union(*(a.choices or () for a in parser._actions if a.nargs == argparse.PARSER))
    rest, files, prints = list[str](), list[str](), False
    while words and words[0] not in ends:
        word = words.pop(0)
        flag, is_one, value = word.partition("=")
        if flag == CONFIG in ours:
            if not is_one and (not words or words[0].startswith("--")):
                parser.error(f"argument {CONFIG}: expected one argument")
            files.append(value if is_one else words.pop(0))
        elif word == PRINT in ours:
            prints = True
        else:
            rest.append(word)
    return rest + words, files, prints


def _entries(
    parser: ArgumentParser, found: Any, read: Mapping[Action, list[tuple[Any, str]]]
) -> Iterator[tuple[str, tuple[Any, str | None]]]:
    """What holds, by name: the value, and how a file has it."""
    for action in parser._actions:
        name, value = action.dest, getattr(found, action.dest, argparse.SUPPRESS)
        meant = ALIASES.get(name)
        is_double = _is_ours(action) and meant is not None and getattr(found, meant, argparse.SUPPRESS) == value
        if not action.option_strings or value is argparse.SUPPRESS or is_double or not hasattr(found, name):
            continue
        words = {id(made): word for made, word in read.get(action, ())}
        try:
            if id(value) in words:
                text = _quoted(words[id(value)])
            elif isinstance(value, list) and value and all(id(item) in words for item in value):
                text = f"[{', '.join(_quoted(words[id(item)]) for item in value)}]"
            elif _reads_otherwise(action) and not isinstance(value, (list, dict, type(None))):
                raise NotPlain  # a default, of which its type would make something else
            else:
                text = text_of(value)
        except NotPlain:
            yield name, (value, None)
        else:
            yield name, (value, text)


# ------------------------------------------------------------------ reading
def _read_file(parser: ArgumentParser, path: str, space: Any, words: Sequence[str]) -> list[Action]:
    """Put the options in the file into ``space``; returns their actions. ``parser.error`` for what isn't right."""
    try:
        import yaml
    except ModuleNotFoundError:
        parser.error(f"{CONFIG} needs PyYAML. Write: pip install pyyaml, or the extra [yaml]")
    from pytorch_lightning.options.option_values import put

    done: list[Action] = []
    meant: dict[str, Any] = {}
    for name, node in _nodes(parser, path, yaml):
        where = f"{path}, line {node.start_mark.line + 1}"
        try:
            action = _action_of(parser, name, node)
            option = ALIASES.get(action.dest, action.dest) if _is_ours(action) else action.dest
            if meant.setdefault(option, node.value) != node.value:
                raise WrongEntry(f"{option!r} is in it by two names, {name!r} the second. Keep one")
            put(parser, space, action, name, node, words)
        except (WrongEntry, argparse.ArgumentError) as error:
            parser.error(f"{where}: {error}")
        except yaml.YAMLError as error:
            parser.error(f"{where}: it isn't plain YAML: {one_line(str(error))}")
        done.append(action)
    return done


def read_values(parser: ArgumentParser, path: str, names: Container[str]) -> dict[str, Any]:
    """The values in the file of those of its entries that are in ``names``. ``parser.error`` for what isn't right."""
    try:
        import yaml
    except ModuleNotFoundError:
        parser.error(f"{path} is read with PyYAML. Write: pip install pyyaml, or the extra [yaml]")
    try:
        return {name: node.constructed() for name, node in _nodes(parser, path, yaml) if name in names}
    except yaml.YAMLError as error:
        parser.error(f"{path}: it isn't plain YAML: {one_line(str(error))}")


def _nodes(parser: ArgumentParser, path: str, yaml: Any) -> list[tuple[str, Any]]:
    """The entries of the file: names, and values as they are written."""
    try:
        with open(path, "rb") as file:
            loader = yaml.SafeLoader(file.read())
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.MappingNode):
            parser.error(f"{path}: it must have one option a line, such as 'max_nb_epochs: 5'")
        own = [key.value for key, _ in root.value if key.value != "<<"]
        twice = next((key for key in own if own.count(key) > 1), None)
        if twice is not None:
            parser.error(f"{path}: {twice!r} is in it twice. Keep one")
        loader.flatten_mapping(root)
        for _, node in root.value:
            node.constructed = functools.partial(loader.construct_object, node, deep=True)
        return [*{str(key.value): node for key, node in root.value}.items()]
    except OSError as error:
        parser.error(f"{CONFIG} {path}: {error.strerror}")
    except (yaml.YAMLError, RecursionError) as error:
        parser.error(f"{path} isn't YAML: {one_line(str(error))}")


def _action_of(parser: ArgumentParser, name: str, node: Any) -> Action:
    """The option that an entry is of. Raises ``WrongEntry`` where there is none."""
    flags = parser._option_string_actions
    named = next((flags[f] for f in (f"--{name}", f"--{name.replace('_', '-')}", f"-{name}") if f in flags), None)
    offered = [a for a in parser._actions if a.option_strings and a.dest != argparse.SUPPRESS]
    found = named or next((a for a in offered if a.dest == name), None)
    if found is not None and found in offered and type(found).__name__ not in ("_HelpAction", "_VersionAction"):
        return found
    if found is not None:
        raise WrongEntry(f"{name!r} can't be in a file: write it on the command line")
    if any(action.dest == name for action in parser._actions):
        raise WrongEntry(f"{name!r} is positional: write it on the command line")
    known = [*dict.fromkeys(a.dest for a in offered), *(f[2:] for f in flags if f.startswith("--") and " " not in f)]
    hint = f" {advice('trainer_options', name) or ''}".rstrip() or near(name, known)
    if not hint and node.id == "mapping":
        hint = " Options aren't nested: write them one a line"
    raise WrongEntry(f"there is no option {name!r}.{hint}")
