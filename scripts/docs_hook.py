"""Pages of the site that are made and not written: the home page from the README, the reference from the code.

mkdocs calls it (`hooks` of mkdocs.yml). Commands come from the typer app, vars from the comments of dbt_project.yml, tables from the
YAML beside the dbt models, so that none of them can be out of date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trendcast import cli

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPO = Path(__file__).resolve().parent.parent
PROJECT = REPO / "dbt_project"
LAYERS = {
    "marts": "What BI tools read.",
    "ledger": "What runs write: append-only.",
    "features": "What models may see.",
    "intermediate": "From order lines to the panel.",
    "staging": "Your tables, renamed and cast.",
}
_DOC = re.compile(r"{% docs (\w+) %}(.*?){% enddocs %}", re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {
        "index.md": home(),
        "changelog.md": (REPO / "CHANGELOG.md").read_text().replace("](docs/", "]("),
        "reference/cli.md": commands(),
        "reference/vars.md": vars(),
        "reference/tables.md": tables(),
        "decisions/index.md": decisions(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name files of the repository instead of linking to them: they are not part of the site."""
    folder = (REPO / "docs" / page.file.src_uri).parent

    def named(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, _, _ = target.partition("#")
        at = (folder / path).resolve()
        if not at.exists():
            at = REPO / path  # of the README
        inside = at.is_relative_to(REPO / "docs")
        if image or (inside and not at.is_dir()):
            return match[0]
        if at == REPO / "docs" / "decisions":
            return f"[{text}](decisions/index.md)"
        name = at.relative_to(REPO).as_posix() if at.is_relative_to(REPO) else path
        return f"`{name}`" if text in (name, path) else f"{text} (`{name}`)"

    return _LINK.sub(named, markdown)


def home() -> str:
    """Return the README as a page of the site."""
    text = (REPO / "README.md").read_text()
    return re.sub(r"\]\(docs/", "](", text.replace("](docs/decisions)", "](decisions/index.md)"))


def commands() -> str:
    """Return every command with its options, as the command line has them."""
    import typer.main

    root = typer.main.get_command(cli.app)
    parts = [
        "# Commands",
        "",
        f"{cli.app.info.help}",
        "",
        "Made from the code. Exit codes: 0 done, 1 failed, 2 wrong usage.",
        "",
    ]

    def tell(name: str, command: Any) -> None:
        for inner, sub in getattr(command, "commands", {}).items():
            tell(f"{name} {inner}", sub)
        if hasattr(command, "commands"):
            return
        parts.extend([f"## {name}", "", command.help or "", ""])
        if command.epilog:
            parts.extend(["", "```text", command.epilog.removeprefix("Example: "), "```", ""])
        parts.extend(["| option | what it is | default |", "|---|---|---|"])
        for parameter in command.params:
            opts = [*parameter.opts, *parameter.secondary_opts]
            written = ", ".join(f"`{opt}`" for opt in opts)
            default = parameter.default
            shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
            parts.append(f"| {written} | {_cell(getattr(parameter, 'help', '') or '')} | {shown} |")
        parts.append("")

    tell("trendcast", root)
    return "\n".join(parts)


def vars() -> str:
    """Return every var with its default and its comment, by the headings of dbt_project.yml."""
    text = (PROJECT / "dbt_project.yml").read_text()
    lines = text[text.index("vars:\n  trendcast:\n") :].splitlines()[2:]
    parts = [
        "# Vars",
        "",
        "Set them under `vars: trendcast:` of your `dbt_project.yml`, or with `--vars '{horizon: 14}'`. A misspelt var, or one of another "
        "type, is an error before anything is built. Made from `dbt_project/dbt_project.yml`.",
        "",
    ]
    about: list[str] = []
    defaults = yaml.safe_load(text)["vars"]["trendcast"]
    table = False
    for line in lines:
        if match := re.match(r"    # --- (.*?) ---", line):
            title, _, rest = re.sub(r"[.:] ", "\n", match[1], count=1).partition("\n")
            parts.extend(["", f"## {title.rstrip('.')}", "", _pages(rest.capitalize()), ""])
            table, about = False, []
        elif match := re.match(r"    # (.*)", line):
            about.append(match[1])
        elif match := re.match(r"    (\w+):(.*)", line):
            name = match[1]
            comment = match[2].partition(" # ")[2].strip()
            if not table:
                parts.extend(["| var | default | what it is |", "|---|---|---|"])
                table = True
            said = " ".join([*about, comment]).strip()
            parts.append(f"| `{name}` | {_default(defaults[name])} | {_pages(_cell(said))} |")
            about = []
        elif not line.strip():
            about = []
    return "\n".join(parts) + "\n"


def _pages(text: str) -> str:
    """Link the pages that a comment names."""
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](../\1.md)", text)


def _default(value: Any) -> str:
    if isinstance(value, dict) and value:
        return _cell("; ".join(f"`{name}`: `{_inline(item)}`" for name, item in value.items()))
    return f"`{_inline(value)}`"


def _inline(value: Any) -> str:
    if value is None:
        return "null"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("\n...").strip("'")


def tables() -> str:
    """Return every model with its columns, from the YAML beside the models."""
    docs = {
        name: " ".join(body.split())
        for path in sorted((PROJECT / "models").rglob("*.md"))
        for name, body in _DOC.findall(path.read_text())
    }

    def said(text: str | None) -> str:
        plain = re.sub(r"{{ *doc\(['\"](\w+)['\"]\) *}}", lambda m: docs[m[1]], text or "")
        return _cell(" ".join(plain.split()))

    parts = [
        "# Tables",
        "",
        "Made from the YAML beside the dbt models. `trendcast`'s tables lie in the schemas that your project and profile give them; in the "
        'demo `analytics_marts` and `analytics_trendcast`. Lineage, SQL and tests are in <a href="../dbt/index.html">the page that dbt '
        "makes</a>.",
        "",
    ]
    models = [
        (path, model)
        for path in sorted((PROJECT / "models").rglob("*.yml"))
        for model in (yaml.safe_load(path.read_text()) or {}).get("models", [])
    ]
    models.sort(key=lambda found: found[1]["name"].startswith("int_"))  # what is read comes first
    for layer, about in LAYERS.items():
        parts.extend([f"## {layer}", "", about, ""])
        for path, model in models:
            if path.relative_to(PROJECT / "models").parts[0] != layer:
                continue
            parts.extend([f"### {model['name']}", "", said(model.get("description")), ""])
            columns = model.get("columns", [])
            if columns:
                parts.extend(["| column | type | what it is |", "|---|---|---|"])
                parts.extend(
                    f"| `{c['name']}` | {c.get('data_type', '')} | {said(c.get('description'))} |"
                    for c in columns
                )
                parts.append("")
    return "\n".join(parts)


def decisions() -> str:
    """Return the list of the decision records."""
    parts = ["# Decisions", "", "What was decided, and why. Newest last.", ""]
    for path in sorted((REPO / "docs" / "decisions").glob("0*.md")):
        title = path.read_text().splitlines()[0].removeprefix("# ")
        parts.append(f"- [{title}]({path.name})")
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
