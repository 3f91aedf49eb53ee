"""How the pages are built: ``sphinx-build -W -b html docs docs/_build``."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from pytorch_lightning import LightningModule, Trainer, __version__, callbacks, loggers
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.options.meaning import ALIASES
from pytorch_lightning.trainer.trainer import option_defaults

project = "pytorch-lightning-classic"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"{project} {release}"
html_show_sphinx = False
html_show_copyright = False
# the addresses of headings, as other tools that show Markdown make them
myst_heading_anchors = 4
nitpicky = True

OPTIONS, MAP = "Trainer/index", "coming_from_lightning"
"""Pages whose tables are looked up by the name in their first column: a search for that name finds the row first."""

OURS = {*option_defaults(), *ALIASES, *callbacks.__all__, *loggers.__all__}
OURS.update(*map(dir, (Callback, LightningModule, Trainer)))
"""Names that mean something here: a search for one of these isn't for what another library means by it."""


class NamesOfTables(SphinxTransform):
    """Makes an entry of the index of each of these names."""

    default_priority = 700  # before Sphinx reads the entries

    def apply(self) -> None:
        if self.env.docname not in (OPTIONS, MAP):
            return
        left_out = OURS if self.env.docname == MAP else set()
        for row in self.document.findall(nodes.row):
            for literal in next(row.findall(nodes.entry)).findall(nodes.literal):
                name = re.fullmatch(r"(?:[\w.]+\.)?([A-Za-z]\w+)(?:\(.*)?", literal.astext())
                if name and name[1] not in left_out:
                    self._note(literal, name[1])

    def _note(self, literal: nodes.literal, name: str) -> None:
        target = f"name-{name.replace('_', '-').lower()}"
        if target not in self.document.ids:
            literal["ids"].append(target)
            self.document.note_explicit_target(literal)
            entry = addnodes.index(entries=[("single", name, target, "main", None)])
            literal.parent.insert(literal.parent.index(literal), entry)


def setup(app: Sphinx) -> None:
    app.add_transform(NamesOfTables)
