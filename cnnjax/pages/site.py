"""Writes the sources of the site, for `./launch.sh site`: Markdown pages, pictures, and the settings of MkDocs.

The pages are those of the repository (README, how-tos, notebooks, experiments, reports), at the same paths, so that
their links are the same in both; and those of `reference`, written from the code. A file that a page links to becomes a
page, too. The course has pages of its own, in the folder `course`, with links from and to the others.
The site is on top of everything else: no module imports this one.
"""

import json
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

from cnnjax.errors import InputError
from cnnjax.pages import course, reference

STARTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md", "experiments/howto/README.md")
COURSE, LESSONS = "course", "experiments/notebooks"
HOME = "index.html"  # the name that MkDocs gives to the page of README.md
COPIED = (".csv", ".gif", ".jpg", ".json", ".png", ".svg")  # other files become pages
LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".toml": "toml"}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
STATIC = pathlib.Path(__file__).parent / "static"
SHIM = "iframe-worker.js"  # lets the search work in pages opened as files
SCRIPT = "site.js"  # names what the theme leaves without a name
STYLE = """.md-grid { max-width: 70rem }
.md-typeset table:not([class]) { font-size: .7rem }
.md-typeset pre > code { font-size: .65rem }
.md-typeset table:not([class]) th { min-width: 4rem }
.md-typeset p a, .md-typeset td a { text-decoration: underline }
.md-tabs__link { opacity: 1 }
[data-md-color-scheme] { --md-code-hl-comment-color: var(--md-code-fg-color) }
.highlight .c, .highlight .c1 { font-style: italic }
"""


def write(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes mkdocs.yml and docs/ into `folder`, which is emptied first. `root` is a checkout of the repository.

    Raises InputError for a link to a file that does not exist.
    """
    generated = {
        **reference.commands(), **reference.settings(), **reference.cards(root), **reference.python_interface()
    }  # fmt: skip
    sources = sorted((root / "experiments").rglob("*.md")) + [root / start for start in STARTS]
    pages, files = collect(root, [path.relative_to(root).as_posix() for path in sources], generated)
    shutil.rmtree(folder, ignore_errors=True)
    docs = folder / "docs"
    for name, text in pages.items():
        _write(docs / name, text.encode())
    for name in sorted(files):
        _write(docs / name, (root / name).read_bytes())
    for name in (SCRIPT, SHIM, SHIM.replace(".js", ".LICENSE")):
        _write(docs / "assets" / name, (STATIC / name).read_bytes())
    _write(docs / "assets" / "site.css", STYLE.encode())
    course.build(docs / COURSE, sorted((root / "experiments").glob("*.py")), home=f"../{HOME}")
    _write(folder / "mkdocs.yml", json.dumps(settings(root, pages), indent=1).encode())  # JSON is YAML


def _write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def collect(root: pathlib.Path, starts: list[str], generated: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    """Returns {path in the site: Markdown} of the pages that are reached from `starts`, and the files to copy."""
    pages, files, waiting = dict(generated), set(), list(starts)
    while waiting:
        name = waiting.pop()
        target = page_of(root, name)
        if target == name and not name.endswith(".md"):
            files.add(name)
        elif target not in pages:
            pages[target] = ""  # before its links, which may lead back
            pages[target] = with_links(_page(root, name), root, name, target, waiting.append)
            if name.endswith(".ipynb"):
                files.add(name)
    return pages, files


def page_of(root: pathlib.Path, name: str) -> str:
    """Returns the path in the site of a file or folder of the repository."""
    path = root / name
    if path.is_dir():
        return f"{name}/README.md" if (path / "README.md").is_file() else f"{name}/index.md"
    if path.suffix == ".md" or path.suffix in COPIED:
        return name
    return str(pathlib.PurePosixPath(name).with_suffix(".md"))


def _page(root: pathlib.Path, name: str) -> str:
    """Returns the Markdown of a file or folder of the repository."""
    path = root / name
    if path.is_dir():
        if (path / "README.md").is_file():
            return (path / "README.md").read_text()
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
        return f"# {name}\n\n" + "".join(f"- `{entry}`\n" for entry in names)
    text = path.read_text()
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return notebook(text, path.name)
    return f"# {name}\n\n{reference.fence(text, LANGUAGES.get(path.suffix, 'text'))}"


def notebook(text: str, name: str) -> str:
    """Converts a notebook to Markdown: its texts and its code, without outputs, and a link to the file `name`."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    # In a folded answer, Markdown is to stay Markdown.
    parts = [
        reference.fence(source, "python") if kind == "code" else source.replace("<details>", '<details markdown="1">')
        for kind, source in cells
    ]
    parts.insert(1, f'<a href="{name}" download>Download this notebook</a>; it is shown here without its pictures.')
    return "\n\n".join(parts) + "\n"


def with_links(text: str, root: pathlib.Path, name: str, target: str, found: Callable[[str], None]) -> str:
    """Returns Markdown of the file `name` with its local links changed to what they are in the site.

    Calls `found` with the path of each linked file. Raises InputError if it does not exist.
    """
    base = root / name if (root / name).is_dir() else (root / name).parent

    def change(match: re.Match[str]) -> str:
        link, hash_mark, anchor = match[2].partition("#")
        if not link or re.match(r"[a-z]+:", link):
            return match[0]
        path = (base / link).resolve()
        if not path.exists() or not path.is_relative_to(root):
            raise InputError(f"{name}: the link {match[2]!r} leads to no file of the repository")
        linked = path.relative_to(root).as_posix()
        found(linked)
        up = "../" * target.count("/")
        return f"{match[1]}{up}{page_of(root, linked)}{hash_mark}{anchor}{match[3]}"

    parts = CODE.split(text)
    return "".join(part if index % 2 else LINK.sub(change, part) for index, part in enumerate(parts))


def settings(root: pathlib.Path, pages: dict[str, str]) -> dict[str, Any]:
    """Returns the settings of MkDocs: the order of the pages, a theme without web fonts, search without a server."""
    howtos = re.findall(r"\]\((\w+\.md)\)", (root / "experiments" / "howto" / "README.md").read_text())

    def below(folder: str) -> list[str]:
        return sorted(
            (page for page in pages if page.startswith(f"{folder}/")), key=lambda page: ("index" not in page, page)
        )

    lessons = [page for page in below(LESSONS) if not page.endswith("README.md")]
    reports = [{_title(pages[page]): page} for page in below("experiments/reports")]
    nav = [
        {"cnnjax": "README.md"},
        {"How to": ["experiments/howto/README.md", *(f"experiments/howto/{name}" for name in howtos)]},
        {"Reference": [
            {"Commands": below("commands")}, {"Settings": "settings.md"}, {"Recipe cards": below("configs")},
            {"Python": "python.md"},
        ]},
        {"Learn": [
            {"Course": f"{COURSE}/index.html"},
            {"Notebooks": [f"{LESSONS}/README.md", "experiments/first_steps.md", *lessons]},
        ]},
        {"Experiments": [
            {"Findings": "experiments/README.md"}, {"All claims": "experiments/claims.md"}, {"Reports": reports},
            {"AlexNet: paper and code": "experiments/alexnet_paper_and_code.md"},
            {"Several hosts": "experiments/jobs/README.md"},
        ]},
        {"Project": ["CONTRIBUTING.md", "CHANGELOG.md"]},
    ]  # fmt: skip
    schemes = {"light": ("default", "night", "dark"), "dark": ("slate", "sunny", "light")}
    return {
        "site_name": "cnnjax",
        "docs_dir": "docs",
        "nav": nav,
        "theme": {
            "name": "material",
            "font": False,
            "features": ["content.code.copy", "navigation.tabs", "navigation.top", "search.highlight", "toc.follow"],
            "palette": [
                {"media": f"(prefers-color-scheme: {name})", "scheme": scheme, "primary": "indigo",
                 "toggle": {"icon": f"material/weather-{icon}", "name": f"Switch to {other} mode"}}
                for name, (scheme, icon, other) in schemes.items()
            ],
        },
        "plugins": ["search", "offline"],
        "extra": {"generator": False, "polyfills": [f"assets/{SHIM}"]},
        "extra_css": ["assets/site.css"],
        "extra_javascript": [f"assets/{SCRIPT}"],
        "markdown_extensions": [
            "attr_list", "md_in_html", "tables", {"toc": {"permalink": True}}, "pymdownx.highlight",
            "pymdownx.superfences", {"pymdownx.betterem": {"smart_enable": "all"}},
        ],
        "validation": {
            "nav": {"omitted_files": "ignore"},
            "links": {"not_found": "warn", "anchors": "warn", "absolute_links": "warn", "unrecognized_links": "warn"},
        },
    }  # fmt: skip


def _title(text: str) -> str:
    """Returns the first heading of a page."""
    return text.partition("\n")[0].lstrip("# ")


if __name__ == "__main__":
    write(pathlib.Path(__file__).resolve().parents[2], pathlib.Path(sys.argv[1]))
