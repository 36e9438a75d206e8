"""Pages of the site that are written from the code: commands, settings, recipe cards, and the Python interface.

Each function returns {path of a page in the site: its Markdown}. Paths are relative to the site's root.
"""

import ast
import importlib
import inspect
import os
import pathlib
import re
import textwrap

import cnnjax
from cnnjax.cli.main import COMMANDS, add_command_flags, command_module, main_parser
from cnnjax.cli.shared import Parser
from cnnjax.config import FIELDS, RESUMABLE, Config

HELP_WIDTH = 88  # characters of a line of --help
ENTRY = re.compile(r"  (\*{0,2}\w[\w, ]*): (.*)")  # 'name: text' below 'Args:' in a docstring
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:")


def escape(text: str) -> str:
    """Escapes what Markdown would take for markup, except in `code`."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        part if index % 2 else re.sub(r"([\\*_\[\]<>|#])", r"\\\1", part) for index, part in enumerate(parts)
    )


def fence(text: str, language: str = "text") -> str:
    """Returns `text` as a block of code."""
    marks = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", text))])
    return f"{marks}{language}\n{text.strip(chr(10))}\n{marks}\n"


def prose(docstring: str) -> str:
    """Converts a docstring to Markdown: sections such as Args become lists, indented lines blocks of code."""
    result, section = [], ""
    for block in _blocks(inspect.cleandoc(docstring)):
        first, _, rest = block.partition("\n")
        section = first if first in SECTIONS else section if block.startswith("  ") else ""
        if section:
            lines = (rest if first in SECTIONS else block).splitlines()
            result.append(f"**{section}**\n\n{_entries(lines)}" if first in SECTIONS else _entries(lines))
        elif block.startswith("    "):
            result.append(fence(textwrap.dedent(block), _language(block)).rstrip())
        else:
            result.append(escape(block))
    return "\n\n".join(result) + "\n"


def _blocks(text: str) -> list[str]:
    """Splits a docstring at its empty lines, except those inside a block of code."""
    blocks: list[str] = []
    for block in re.split(r"\n{2,}", text):
        if block.startswith("    ") and blocks and blocks[-1].startswith("    "):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    return blocks


def _entries(lines: list[str]) -> str:
    """Converts the lines below 'Args:' to a list; lines that name nothing, as below 'Returns:', to a paragraph."""
    texts: list[str] = []
    for line in lines:
        if entry := ENTRY.fullmatch(line):
            texts.append(f"- `{entry[1]}`: {escape(entry[2])}")
        elif texts:
            texts[-1] += " " + escape(line.strip())
        else:
            texts.append(escape(line.strip()))
    return "\n".join(texts)


def _language(block: str) -> str:
    """Returns the language of a docstring's block of code: commands or Python."""
    return "sh" if re.match(r"\s*(\./launch\.sh|cnnjax|pip|for) ", block) else "python"


def commands() -> dict[str, str]:
    """Writes a page per command with what `cnnjax COMMAND --help` prints, and a page that lists them."""
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(HELP_WIDTH)  # argparse asks for it
    try:
        pages = {f"commands/{name}.md": _command(name, text) for name, text in COMMANDS.items()}
        rows = [f"| [`{name}`]({name}.md) | {escape(text)} |" for name, text in COMMANDS.items()]
        help_text = fence(main_parser().format_help())
    finally:
        os.environ.pop("COLUMNS") if width is None else os.environ.update(COLUMNS=width)
    table = "\n".join(["| command | what it does |", "| --- | --- |", *rows])
    usage = "In a checkout, write `./launch.sh` in place of `cnnjax`.\n"
    return {"commands/index.md": f"# Commands\n\n{usage}\n{table}\n\n## cnnjax --help\n\n{help_text}", **pages}


def _command(name: str, text: str) -> str:
    parser = Parser(prog=f"cnnjax {name}", description=f"{text[0].upper()}{text[1:]}.")
    add_command_flags(parser, command_module(name))
    return f"# cnnjax {name}\n\n{fence(parser.format_help())}"


def settings() -> dict[str, str]:
    """Writes the page of all settings: the fields of `Config` with default, valid values and meaning, by topic."""
    lines = [
        "# Settings", "",
        "Each is a field of the config: `--config.FIELD=VALUE` sets it for `train`, `sweep` and `bench`, and "
        "`cnnjax.load_config(NAME, FIELD=VALUE)` from Python. `cnnjax configs NAME` prints those of a recipe card.",
    ]  # fmt: skip
    for line in inspect.getsource(Config).splitlines():
        if topic := re.match(r"    # (.+?)\.( |$)", line):
            lines += ["", f"## {topic[1]}"]
        elif (field := re.match(r"    (\w+): \w+ = setting\(", line)) and field[1] in FIELDS:
            lines += ["", *_setting(field[1])]
    return {"settings.md": "\n".join(lines) + "\n"}


def _setting(name: str) -> list[str]:
    """Returns the lines of a field: heading, meaning, default and valid values."""
    field = FIELDS[name]
    help_text, choices, minimum, below = (field.metadata[key] for key in ("help", "choices", "minimum", "below"))
    facts = [f"Default: `{field.default!r}`"]
    if choices:
        facts.append(f"one of {', '.join(f'`{choice!r}`' for choice in choices)}")
    elif minimum is not None:
        limit = {2**63: "2^63"}.get(below, below)
        facts.append(f"at least {minimum}" + ("" if below == float("inf") else f", less than {limit}"))
    if name in RESUMABLE:
        facts.append("may change when a run is resumed")
    text = re.sub(r"(?<![\w`])'[^'`]*'(?!\w)", r"`\g<0>`", help_text[0].upper() + help_text[1:])  # values as code
    return [f"### {name}", "", escape(text) + ("" if text.endswith(".") else "."), "", "; ".join(facts) + "."]


def cards(root: pathlib.Path) -> dict[str, str]:
    """Writes a page per recipe card of `root`/configs, with its docstring and its code, and a page that lists them."""
    pages, rows = {}, []
    for path in sorted((root / "configs").glob("*.py")):
        source = path.read_text()
        docstring = ast.get_docstring(ast.parse(source)) or ""
        title, _, rest = docstring.partition("\n")
        code = source.split('"""', 2)[2]
        pages[f"configs/{path.stem}.md"] = "\n".join(
            [f"# {path.stem}", "", escape(title), "", prose(rest), f"## configs/{path.name}", "", fence(code, "python")]
        )
        rows.append(f"| [`{path.stem}`]({path.stem}.md) | {escape(title)} |")
    intro = (
        "A recipe card is a config file: a network, a data set and how it is trained, with the command, the paper's "
        "result and ours. `cnnjax train NAME` trains it; any [setting](../settings.md) can be changed on the way."
    )
    table = "\n".join(["| card | what it trains |", "| --- | --- |", *rows])
    return {"configs/index.md": f"# Recipe cards\n\n{intro}\n\n{table}\n", **pages}


def python_interface() -> dict[str, str]:
    """Writes the page of what `import cnnjax` offers: signatures and docstrings, read from the sources."""
    lines = ["# From Python: reference", "", prose(cnnjax.__doc__ or "")]
    for name in cnnjax.__all__:
        lines += _documented("cnnjax", cnnjax._HOME[name], name)
    return {"python.md": "\n".join(lines)}


def _documented(owner: str, module: str, name: str) -> list[str]:
    """Returns the lines of a function, a class with its public methods, or a module with its public functions."""
    path = _source(module)
    source = path.read_text()
    tree = ast.parse(source)
    if module == f"{owner}.{name}":
        inner = importlib.import_module(module)  # lazy, as the package itself
        lines = [f"## {module}", "", prose(ast.get_docstring(tree) or "")]
        return [*lines, *(line for part in inner.__all__ for line in _documented(module, inner._HOME[part], part))]
    node = next(node for node in tree.body if isinstance(node, DEFINITIONS) and node.name == name)
    lines = _definition(f"{owner}.{name}", node, source, "##" if owner == "cnnjax" else "###")
    if name == "Config":
        lines += ["The fields are on the page [Settings](settings.md).", ""]
    elif isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                lines += _definition(f"{name}.{method.name}", method, source, "###")
    return lines


def _definition(name: str, node: ast.FunctionDef | ast.ClassDef, source: str, level: str) -> list[str]:
    """Returns the lines of a function or class: heading, signature as in the source, docstring."""
    lines = [f"{level} {name}", ""]
    if isinstance(node, ast.FunctionDef):
        signature = "\n".join(source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1])
        signature = re.sub(r":[ ]*(#.*)?$", "", textwrap.dedent(signature)).removeprefix("def ")
        lines.append(fence(signature, "python"))
    return [*lines, prose(ast.get_docstring(node) or "")]


def _source(module: str) -> pathlib.Path:
    """Returns the file of a module of the package, without importing it."""
    path = pathlib.Path(cnnjax.__file__).parent.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
