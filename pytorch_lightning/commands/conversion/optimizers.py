"""``optimizer_step`` and the schedules of ``configure_optimizers``."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from pytorch_lightning.commands.conversion.pieces import Rewriter, above, literal, parameters, with_parameters


class ScheduleRewriter(Rewriter):
    """Dicts of schedules, without what is so in any case."""

    def leave_Dict(self, original_node: Any, updated_node: Any) -> Any:
        keys = [literal(getattr(element, "key", None)) for element in updated_node.elements]
        if "scheduler" not in keys:
            return updated_node
        kept = list[Any]()
        for key, element in zip(keys, updated_node.elements, strict=True):
            value = literal(element.value)
            if key == "frequency" and value != 1:
                self.person("frequency: a schedule steps every time; let it count, or step it in optimizer_step")
            if key not in ("name", "strict", "reduce_on_plateau", "frequency"):
                kept.append(element)
        return updated_node.with_changes(elements=kept)


class _OwnStep(cst.CSTTransformer):
    """``optimizer_step`` without the closure: the gradients are there already."""

    def __init__(self, closure: str) -> None:
        super().__init__()
        self.closure = closure

    def leave_Call(self, original_node: Any, updated_node: Any) -> Any:
        if m.matches(updated_node.func, m.Attribute(m.Call(func=m.Name("super")), m.Name("optimizer_step"))):
            args = [
                arg.with_changes(value=cst.Name("optimizer_i"), keyword=None)
                if m.matches(arg.value, m.Name(self.closure))
                else arg.with_changes(keyword=None, equal=cst.MaybeSentinel.DEFAULT)
                for arg in updated_node.args
            ]
            return updated_node.with_changes(args=args)
        args = [arg for arg in updated_node.args if not m.matches(arg.value, m.Name(self.closure))]
        if len(args) != len(updated_node.args):
            args = [*args[:-1], args[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)] if args else []
            return updated_node.with_changes(args=args)
        return updated_node


def own_step(function: Any) -> Any:
    """``optimizer_step(self, epoch_nb, batch_nb, optimizer, optimizer_i)``."""
    given = parameters(function)[1:]
    if len(given) < 3:
        return above(function, ["its arguments are (self, epoch_nb, batch_nb, optimizer, optimizer_i)."])
    closure = given[3] if len(given) > 3 else "optimizer_closure"
    made: Any = function.visit(_OwnStep(closure))
    return with_parameters(made, "self", *given[:3], "optimizer_i")
