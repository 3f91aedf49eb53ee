"""How the pages are built: ``sphinx-build -W -b html docs docs/_build``."""

from pytorch_lightning import __version__

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
