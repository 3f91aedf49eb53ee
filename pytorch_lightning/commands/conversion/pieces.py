"""Pieces of code: read, written, and with comments above them."""

import textwrap
from collections.abc import Sequence
from typing import Any

import libcst as cst
import libcst.matchers as m

MARK = "# from_lightning:"
WIDTH = 110

Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


def text_of(node: Any) -> str:
    """The code of ``node``."""
    return cst.Module([]).code_for_node(node).strip()


def expression(text: str) -> Any:
    """The expression that ``text`` is."""
    return cst.parse_expression(text)


def statements(text: str) -> list[Any]:
    """The statements that ``text`` is, whatever it is indented by."""
    return list(cst.parse_module(textwrap.dedent(text)).body)


def body_of(node: Any) -> list[Any]:
    """The statements of a function or class; one on the line of its ``def`` too."""
    if isinstance(node.body, cst.IndentedBlock):
        return list(node.body.body)
    return [cst.SimpleStatementLine(node.body.body)]


def with_body(node: Any, body: Sequence[Any]) -> Any:
    """``node`` with these statements; ``pass`` where there are none."""
    block = node.body if isinstance(node.body, cst.IndentedBlock) else cst.IndentedBlock([])
    return node.with_changes(body=block.with_changes(body=list(body) or statements("pass")))


def after_docstring(body: Sequence[Any]) -> int:
    """Where the first statement would go."""
    is_docstring = body and m.matches(
        body[0], m.SimpleStatementLine([m.Expr(m.SimpleString() | m.ConcatenatedString())])
    )
    return int(bool(is_docstring))


def comment_lines(text: str) -> list[cst.EmptyLine]:
    """``text`` as lines of comments."""
    lines = textwrap.wrap(f"{MARK} {text}", WIDTH, subsequent_indent="#   ")
    return [cst.EmptyLine(comment=cst.Comment(line)) for line in lines]


def above(statement: Any, comments: Sequence[str]) -> Any:
    """``statement`` with ``comments`` above it, each once."""
    if not comments:
        return statement
    lines = [line for text in dict.fromkeys(comments) for line in comment_lines(text)]
    return statement.with_changes(leading_lines=[*statement.leading_lines, *lines])


def keep_comments(removed: Any, following: Any) -> Any:
    """``following`` with the comments that stood above and beside ``removed``."""
    lines = [line for line in removed.leading_lines if line.comment is not None]
    beside = getattr(getattr(removed, "trailing_whitespace", None), "comment", None)
    lines += [cst.EmptyLine(comment=beside)] if beside is not None else []
    return following.with_changes(leading_lines=[*lines, *following.leading_lines]) if lines else following


def find(node: cst.CSTNode, matcher: Any) -> list[Any]:
    """The nodes inside ``node`` that ``matcher`` matches."""
    return list(m.findall(node, matcher))


def names_in(node: Any) -> set[str]:
    """Every name that ``node`` uses."""
    return {str(found.value) for found in find(node, m.Name())}


def parameters(function: Any) -> list[str]:
    """The names of the parameters that may be given by place, ``self`` too."""
    return [p.name.value for p in function.params.params]


def with_parameters(function: Any, *names: str) -> Any:
    """``function`` with exactly these parameters."""
    made = [cst.Param(cst.Name(name)) for name in names]
    return function.with_changes(params=cst.Parameters(params=made))


def arguments(call: Any) -> dict[str | int, cst.BaseExpression]:
    """The arguments of ``call`` by place and by name; stars are left out."""
    found: dict[str | int, cst.BaseExpression] = {}
    for place, argument in enumerate(call.args):
        if not argument.star:
            found[argument.keyword.value if argument.keyword else place] = argument.value
    return found


def has_stars(call: Any) -> bool:
    """Whether ``call`` has arguments that only a run would show."""
    return any(argument.star for argument in call.args)


def with_arguments(call: Any, kept: Sequence[cst.Arg]) -> Any:
    """``call`` with these arguments, and as far as they are its own in its formatting."""
    args = list(kept)
    for place, argument in enumerate(args):
        is_last = place == len(args) - 1
        if is_last and call.args and argument is not call.args[-1]:
            args[place] = argument.with_changes(comma=call.args[-1].comma)
        elif not is_last and argument.comma is cst.MaybeSentinel.DEFAULT:
            spacing = cst.SimpleWhitespace(" ")
            usual = next((a.comma for a in call.args if isinstance(a.comma, cst.Comma)), None)
            args[place] = argument.with_changes(comma=usual or cst.Comma(whitespace_after=spacing))
    return call.with_changes(args=args)


def keyword(name: str, value: cst.BaseExpression) -> cst.Arg:
    """``name=value``."""
    bare = cst.SimpleWhitespace("")
    equal = cst.AssignEqual(whitespace_before=bare, whitespace_after=bare)
    return cst.Arg(value, keyword=cst.Name(name), equal=equal)


def literal(node: Any) -> Any:
    """The value of a constant; ``...`` where it isn't one."""
    import ast

    try:
        return ast.literal_eval(text_of(node)) if node is not None else ...
    except (ValueError, SyntaxError):
        return ...


class Rewriter(cst.CSTTransformer):
    """A transformer whose methods may put comments and statements before the statement that they are in."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[list[str], list[Any]]] = [([], [])]
        self._carried: list[str] = []
        """Comments of a statement that is gone, for the next one."""

    def person(self, text: str) -> None:
        """A comment above the statement."""
        self._waiting[-1][0].append(text if text.endswith(".") else f"{text}.")

    def before(self, text: str) -> None:
        """Statements in front of it."""
        self._waiting[-1][1].extend(statements(text))

    def on_visit(self, node: Any) -> bool:
        if isinstance(node, Statement):
            self._waiting.append((self._carried, []))
            self._carried = []
        return super().on_visit(node)

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        result = super().on_leave(original_node, updated_node)
        if isinstance(result, cst.IndentedBlock) and not result.body:
            return result.with_changes(body=statements("pass"))
        if isinstance(result, cst.Module) and self._carried:
            lines = [line for text in self._carried for line in comment_lines(text)]
            return result.with_changes(footer=[*result.footer, *lines])
        if not isinstance(original_node, Statement):
            return result
        comments, before = self._waiting.pop()
        several: list[Any] = list(result) if isinstance(result, cst.FlattenSentinel) else [result]
        if isinstance(result, cst.RemovalSentinel) or not several:
            self._carried += comments
            several = []
            if not before:
                return cst.RemoveFromParent()
        else:
            place = next((i for i, found in enumerate(several) if hasattr(found, "leading_lines")), 0)
            several[place] = above(several[place], comments)
        if before and several and several[0].leading_lines:
            before[0] = before[0].with_changes(leading_lines=several[0].leading_lines)
            several[0] = several[0].with_changes(leading_lines=[])
        several = [*before, *several]
        return several[0] if len(several) == 1 else cst.FlattenSentinel(several)
