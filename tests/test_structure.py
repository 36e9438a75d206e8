"""The rules of the house, read from the sources: who may import whom, and that every setting is read."""

import ast
import functools
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from cnnjax import cli
from cnnjax.config import FIELDS
from cnnjax.runs.tracking import TRACKERS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cnnjax"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SHARED = ("__init__", "blocks", "layer_list", "layers", "network", "normalization")  # of models/: what families share
FAMILIES = [path for path in (PACKAGE / "models").glob("*.py") if path.stem not in SHARED]
LEAVES = [
    "errors", "spec", "state", "losses", "distributed/sharding", "distributed/processes", "metrics", "config", "cache",
    "limits", "paths", "sealed", "tables", "colors", "style", "shell",
]  # fmt: skip


def module(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in SOURCES}


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: pathlib.Path, top_only: bool = False) -> set[str]:
    """The modules that a file imports; of our own package down to the module, of others the first name."""
    names: set[str] = set()
    for node in tree(path).body if top_only else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            base = node.module or ""
            inner = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= inner
            if len(inner) < len(node.names):
                names.add(base)
    return {name if name in MODULES else name.partition(".")[0] for name in names}


def ours(path: pathlib.Path, top_only: bool = False) -> set[str]:
    return imports(path, top_only) & MODULES.keys()


def foreign(path: pathlib.Path) -> set[str]:
    return imports(path) - MODULES.keys() - sys.stdlib_module_names


def test_the_rules_see_the_imports() -> None:
    assert ours(PACKAGE / "evaluation" / "scoring.py") >= {
        "cnnjax.augment",
        "cnnjax.data.pipeline",
        "cnnjax.data.build",
    }
    assert foreign(PACKAGE / "evaluation" / "scoring.py") == {"flax", "jax", "numpy"}
    assert "cnnjax.training.loop" in ours(PACKAGE / "cli" / "train.py")
    assert "cnnjax.training.loop" not in ours(PACKAGE / "cli" / "train.py", top_only=True)


@pytest.mark.parametrize("path", FAMILIES, ids=module)
def test_a_family_of_networks_imports_only_what_families_share(path: pathlib.Path) -> None:
    assert ours(path) <= {f"cnnjax.models.{name}" for name in SHARED[1:]}
    assert foreign(path) <= {"flax", "jax", "numpy"}


def test_what_families_share_imports_nothing_else_of_ours() -> None:
    layers = {f"cnnjax.ops.{name}" for name in ("convolution", "pooling")}
    native = {f"cnnjax.ops.{name}" for name in ("onednn", "partitioning", "primitive")}
    expected = {
        "models.layers": layers,
        "models.normalization": {"cnnjax.ops.batch_norm", "cnnjax.ops.pooling"},
        "models.blocks": {"cnnjax.models.layers", "cnnjax.ops.concatenation"},
        "ops.convolution": native,
        "ops.pooling": native,
        "ops.batch_norm": native,
        "ops.concatenation": {"cnnjax.ops.primitive"},
        "ops.partitioning": {"cnnjax.ops.primitive"},
        "ops.primitive": {"cnnjax.ops.onednn"},
        "ops.onednn": {"cnnjax.ops.compiler"},
    }
    for name, modules in expected.items():
        assert ours(PACKAGE / f"{name.replace('.', '/')}.py") - {"cnnjax.ops"} == modules, name
    shared = {f"cnnjax.models.{name}" for name in ("blocks", "layers", "normalization")}
    assert ours(PACKAGE / "models" / "network.py") == shared


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_imports_other_leaves_at_most(name: str) -> None:
    assert ours(PACKAGE / f"{name}.py") <= {f"cnnjax.{leaf}" for leaf in ("errors", "spec", "sealed", "colors")}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_a_config_file_imports_config_alone(path: pathlib.Path) -> None:
    assert ours(path) <= {"cnnjax.config"}
    assert foreign(path) == set()


def test_few_know_train() -> None:
    """Its command, the measurement of its speed, and reproductions; the package itself offers it by name."""
    knowing = [name for name, path in MODULES.items() if "cnnjax.training.loop" in ours(path)]
    assert sorted(knowing) == ["cnnjax", "cnnjax.bench.measure", "cnnjax.cli.train", "cnnjax.training.reproduce"]


def test_nothing_is_sent_to_a_hub_without_the_command() -> None:
    knowing = {
        name: {other for other, path in MODULES.items() if name in ours(path)}
        for name in ("cnnjax.hub.service", "cnnjax.hub.push", "cnnjax.hub.pull")
    }
    assert knowing == {
        "cnnjax.hub.service": {"cnnjax.hub.push", "cnnjax.hub.pull"},
        "cnnjax.hub.push": {"cnnjax.cli.push"},
        "cnnjax.hub.pull": {"cnnjax.cli.pull"},
    }
    assert not any("huggingface_hub" in foreign(path) for path in SOURCES), "imported by its service only, when called"


def test_pictures_of_networks_are_on_top() -> None:
    """The command, the package itself, studies and pages know them, and nothing that they are made of."""
    knowing = {name for name, path in MODULES.items() if any("cnnjax.visualize" in used for used in ours(path))}
    above = {"cnnjax", "cnnjax.cli.visualize", "cnnjax.study.inside", "cnnjax.pages.network"}
    assert {name for name in knowing if not name.startswith("cnnjax.visualize")} <= above
    assert ours(PACKAGE / "visualize" / "kinds.py", top_only=True) == set()  # for --help


def test_a_command_is_a_module_that_imports_nothing_heavy_by_itself() -> None:
    shared = ("__init__", "main", "shared")
    modules = [path for path in (PACKAGE / "cli").glob("*.py") if path.stem not in shared]
    assert {path.stem for path in modules} == set(cli.COMMANDS)
    names = ("cli.shared", "config", "config_files", "errors", "paths", "register", "study", "visualize.kinds")
    light = {f"cnnjax.{name}" for name in names}
    assert all(ours(path, top_only=True) <= light for path in modules)


def test_the_script_that_another_python_runs_needs_nothing_of_ours() -> None:
    path = PACKAGE / "bench" / "torch_worker.py"
    assert (ours(path), foreign(path)) == (set(), {"numpy", "PIL"})  # which come with torchvision


def test_there_is_no_cycle() -> None:
    waiting = {name: ours(path) - {name, "cnnjax"} for name, path in MODULES.items()}
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert waiting == {}, "each of these needs another of them"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_says_what_it_is_and_needs_no_tensorflow(path: pathlib.Path) -> None:
    assert ast.get_docstring(tree(path))
    assert not foreign(path) & {"tensorflow", "torch", "clu"}


def _is_config(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="config" | "settings" | "freezing") | ast.Attribute(attr="config"):
            return True
    return False


@functools.cache
def read_fields() -> set[str]:
    """Returns the attributes read of something named `config` or `x.config`, by name or through getattr."""
    found: set[str] = set()
    for name, path in MODULES.items():
        if name == "cnnjax.config":
            continue
        words = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        for node in ast.walk(tree(path)):
            match node:
                case ast.Attribute(value=value, ctx=ast.Load()) if _is_config(value):
                    found.add(node.attr)
                case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.JoinedStr(values)]) if _is_config(value):
                    holes = [part.value if isinstance(part, ast.Constant) else "(.+)" for part in values]
                    pattern = re.compile("".join(map(str, holes)))
                    found |= {f for f in FIELDS if (m := pattern.fullmatch(f)) and words.issuperset(m.groups())}
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_every_setting_is_read(field: str) -> None:
    assert field in read_fields()


def test_help_imports_nothing_heavy() -> None:
    code = """if True:
        import contextlib, io, json, sys
        from cnnjax.cli import main
        heavy = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "numpy", "cv2", "matplotlib"}
        for arguments in json.loads(sys.argv[1]):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                try:
                    status = main(arguments)
                except SystemExit as error:
                    status = error.code
            print(json.dumps([arguments, status or 0, "cnnjax" in out.getvalue(), sorted(heavy & sys.modules.keys())]))
    """
    arguments = [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)]
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[words, 0, True, []] for words in arguments]


def test_files_of_tests_have_different_names() -> None:
    """pytest imports each by its name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_there_are_exact_versions_for_all_extras_but_the_trackers() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    listed = re.search(r"'--extra %s ' ([a-z ]+)\)", (ROOT / ".ci" / "constraints.txt").read_text())
    assert listed
    assert set(listed[1].split()) == extras - TRACKERS.keys()
