# Sphinx's settings; tools/site.py gives it the pages.
import sys
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))      # from build/site/source
from address import address  # noqa: E402

project, author = "ddpm_course", "the ddpm_course authors"
copyright = "2026, the ddpm_course authors; code Apache 2.0, texts and figures CC BY 4.0"
html_title = "ddpm_course"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"          # formulas in tables, too
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [("reader.js", {"type": "module"})]
html_copy_source = False
html_use_index = False
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
html_context = {"default_mode": "auto"}
html_favicon = "_static/icon.svg"
mathjax_path = "mathjax/tex-chtml.js"
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
}

repository, html_baseurl = address()        # once it is known: a link, and lessons open in Colab, too
if repository:
    html_theme_options |= {"repository_url": repository, "repository_branch": "main",
                           "path_to_docs": "nbs", "use_repository_button": True,
                           "launch_buttons": {"colab_url": "https://colab.research.google.com"}}


def setup(app):
    "Search finds words, not the commands of formulas."
    math = lambda node: isinstance(node, nodes.math | nodes.math_block)
    app.connect("doctree-read", lambda _, page: [node["classes"].append("no-search") for node in page.findall(math)])
