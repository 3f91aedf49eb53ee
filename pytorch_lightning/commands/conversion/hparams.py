"""``save_hyperparameters``: the hparams become an attribute that the constructor sets."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.names import Names
from pytorch_lightning.commands.conversion.pieces import Rewriter, arguments, literal, statements, text_of

SAVE = m.SimpleStatementLine([m.Expr(m.Call(func=m.Attribute(m.Name("self"), m.Name("save_hyperparameters"))))])


class HparamsRewriter(Rewriter):
    """Rewrites the calls in one method."""

    def __init__(self, function: Any, names: Names) -> None:
        super().__init__()
        self.function, self.names = function, names

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        if not m.matches(updated_node, SAVE):
            return updated_node
        call: Any = updated_node.body[0].value
        value = self._value(call)
        if value is None:
            self.person("save_hyperparameters: write self.hparams = Namespace(...) with what is to be saved")
            return updated_node
        made = statements(f"self.hparams = {value}")[0]
        return made.with_changes(
            leading_lines=updated_node.leading_lines, trailing_whitespace=updated_node.trailing_whitespace
        )

    def _value(self, call: Any) -> str | None:
        given = arguments(call)
        params = self.function.params
        own = [p.name.value for p in (*params.params[1:], *params.kwonly_params)]
        extra = [f"**{params.star_kwarg.name.value}"] if params.star_kwarg is not None else []
        chosen = [literal(value) for place, value in given.items() if isinstance(place, int)]
        ignored = literal(given["ignore"]) if "ignore" in given else []
        if ignored is ... or (chosen and not all(isinstance(name, str) for name in chosen)):
            return text_of(given[0]) if len(chosen) == 1 and isinstance(given[0], (cst.Name, cst.Dict)) else None
        ignored = [ignored] if isinstance(ignored, str) else ignored
        kept = chosen or [name for name in own if name not in ignored]
        self.names.needed.add(("argparse", "Namespace"))
        return f"Namespace({', '.join([*(f'{name}={name}' for name in kept), *([] if chosen else extra)])})"
