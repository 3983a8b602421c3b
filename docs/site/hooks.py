"""What MkDocs lacks for these pages: they read on GitHub as they are, and here as a site.

- A fence ```math, which GitHub renders, becomes MathML: a browser needs no script for it.
- README.md and others outside docs/ become pages; links to other files of the repository, text.
- `<!-- ::: name -->`, unseen on GitHub, becomes the function's docstring.
- docs/tutorials/*.py become pages, with output and figures of the notebooks that
  DEEPKNN_NOTEBOOKS=DIR has of them (tests/docs/test_tutorials.py writes these).
- A page that would load anything from another host fails the build.
"""

import base64
import os
import posixpath
import re
from pathlib import Path

import jupytext
import nbformat
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Pages from outside docs/, by the path of the source in the repository.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "launch.md",
}
_FENCED = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\[\]]+)\]\(([^)\s]+)\)")
_DIRECTIVE = re.compile(r"^<!-- (::: [\w.]+) -->$", re.MULTILINE)
_REMOTE = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
                     r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
                     r"|@import[^;]*//[^;]*;|url\([\"']?(?:https?:)?//[^)]*\)")  # fmt: skip


def on_config(config):
    """Equations are MathML."""
    fence = {"name": "math", "class": "equation", "format": _equation}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def _equation(source, language, css_class, options, md, **kwargs):
    return f'<div class="{css_class}">{convert(source.strip(), display="block")}</div>'


def on_files(files, config):
    """The pages that do not lie in docs/, or not as Markdown."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(
        config, "site.css", content=(Path(__file__).parent / "site.css").read_text()))  # fmt: skip
    for script in sorted((ROOT / "docs/tutorials").glob("*.py")):
        text, figures = _tutorial(script)
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=text))
        for name, content in figures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def _tutorial(script):
    """(Markdown of a tutorial, {name: content of its figures})."""
    ran = Path(os.environ.get("DEEPKNN_NOTEBOOKS", "")) / f"{script.stem}.ipynb"
    notebook = nbformat.read(ran, as_version=4) if ran.exists() else jupytext.read(script)
    parts, figures = [], {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = output.get("text", "") if output.get("name") == "stdout" else ""
            if "image/png" in data:
                name = f"{script.stem}_{len(figures) + 1}.png"
                figures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the lines above draw]({name})")
            elif text := text or data.get("text/plain", ""):
                parts.append(f"``` {{ .text .output }}\n{text.rstrip()}\n```")
    parts.append(f"The script: `docs/tutorials/{script.name}`.")
    return "\n\n".join(parts) + "\n", figures


def on_page_markdown(markdown, page, config, files):
    """Links as they are right on GitHub, made right here; docstrings."""
    pages = {page: source for source, page in OUTSIDE.items()}
    source = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _FENCED.split(_DIRECTIVE.sub(r"\1", markdown))
    parts[::2] = [
        _LINK.sub(lambda match: _link(match, source, page.file.src_uri), part)
        for part in parts[::2]
    ]
    return "".join(parts)


def _link(match, source, page):
    """A link of the file `source` as it is on the page `page`."""
    bang, words, target = match.groups()
    path, hash_, anchor = target.partition("#")
    if not path or "://" in path:
        return match[0]
    to = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / to).exists():
        return match[0]  # MkDocs tells
    if to in OUTSIDE:
        to = OUTSIDE[to]
    elif to.startswith("docs/tutorials/") and to.endswith(".py"):
        to = to.removeprefix("docs/").removesuffix("py") + "md"
    elif to.startswith("docs/"):
        to = to.removeprefix("docs/")
    else:
        return words if words.strip("`") == to else f"{words} (`{to}`)"
    relative = posixpath.relpath(to, posixpath.dirname(page) or ".")
    return f"{bang}[{words}]({relative}{hash_}{anchor})"


def on_post_build(config):
    """Nothing may come from elsewhere.

    Raises:
        PluginError: a page or style sheet that loads something from another host.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix not in (".html", ".css"):
            continue
        found = _REMOTE.search(path.read_text(encoding="utf-8"))
        if found and 'rel="canonical"' not in found[0]:
            raise PluginError(f"{path}: loads from another host: {found[0]}")
