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
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
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
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other libraries in signatures

MAP, TABLES = "coming_from_lightning", ("coming_from_lightning", "Trainer/index", "Trainer/hooks")
METHODS = ("LightningModule/RequiredTrainerInterface", "LightningModule/methods")
"""Pages that are looked up by a name, which stands in the first column of a table or is the heading of a section: a
search for that name finds the row, or the section, before all pages that have the word somewhere."""

OURS = {*option_defaults(), *ALIASES, *callbacks.__all__, *loggers.__all__}
OURS.update(*map(dir, (Callback, LightningModule, Trainer)))
"""Names that mean something here: a search for one of these isn't for what another library means by it."""


class Names(SphinxTransform):
    """Makes an entry of the index of each name of these pages."""

    default_priority = 700  # before Sphinx reads the entries

    def apply(self) -> None:
        if self.env.docname in TABLES:
            self._note_rows(OURS if self.env.docname == MAP else set())
        if self.env.docname in METHODS:
            for title in self.document.findall(nodes.title):
                if title.astext() in OURS:
                    title.parent.insert(1, entry_of(title.astext(), title.parent["ids"][0]))

    def _note_rows(self, left_out: set[str]) -> None:
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
            literal.parent.insert(literal.parent.index(literal), entry_of(name, target))


def entry_of(name: str, target: str) -> addnodes.index:
    return addnodes.index(entries=[("single", name, target, "main", None)])


def setup(app: Sphinx) -> None:
    app.add_transform(Names)
