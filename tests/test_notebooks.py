"""The notebooks: what they hold, that their links lead somewhere, and that they run and show what their texts say."""

import ast
import itertools
import json
import pathlib
import re
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "experiments" / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
NOTEBOOKS = [ROOT / "experiments" / "first_steps.ipynb", *LESSONS]
PACKAGES = {"PIL", "cnnjax", "jax", "matplotlib", "numpy", "optax", "rich", "scipy", "sklearn"}  # dependencies
LINK = re.compile(r"\]\(([^)\s]+)\)")
ANSWER_CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What the text of a notebook says of its results, as expressions in its names.
CLAIMS = {
    "1_convolution": [
        "abs(by_jax - edges).max() < 1e-5",
        "blurred[0, 1] < 0.67 and blurred[1, 1] > 0.99",
        "not seen(8, k=3, s=2).all() and seen(7, k=3, s=2).all()",
        "output_size(224, 11, s=4) == 54 and output_size(227, 11, s=4) == 55",
        "by_hand == rows",
        "seen_rows == 7",
        "3 * parameters(3, 64, 64) == 110_784 and parameters(7, 64, 64) == 200_768",
    ],
    "2_training": [
        "abs(losses[0] - 2.303) < 1e-3 and losses[-1] < losses[0] / 5",
        "linear_accuracy > 0.9",
        "result.metrics['accuracy'] > max(linear_accuracy, 0.98)",
        "history['val']['loss'][0] < np.interp(3, history['train']['epoch'], history['train']['loss'])",
        "overfit.history['train']['loss'][-1] < overfit.history['val']['loss'][-1] / 5",
        "confusion.sum() == len(test_labels)",
    ],
    "3_depth": [
        "norms['sigmoid'][0] < 1e-8 * norms['sigmoid'][-1]",
        "norms['relu'][0] > 1e-2 * norms['relu'][-1]",
        "results[56, 'plain'].history['train']['loss'][-1] > 2 * results[56, 'residual'].history['train']['loss'][-1]",
        "results[56, 'plain'].history['train']['loss'][-1] > 2 * results[8, 'plain'].history['train']['loss'][-1]",
        "sorted(accuracies.values())[4] > 0.5 and accuracies['(all)'] > 0.9",
    ],
    "4_normalization": [
        "abs(batch_norm(10 * maps, 1.0, 0.0) - normalized).max() < 0.1",
        "max(accuracies['batch normalization']) > max(accuracies['no normalization'])",
        "accuracies['batch normalization'][2] > accuracies['no normalization'][2] + 0.2",
        "final.keys() == set(SCHEDULES)",
    ],
    "5_few_images": [
        "right['augmented'].sum() > right['plain'].sum() and test.pvalue < 0.05",
        "transferred['random weights'].mean() > transferred['pixels'].mean() + 0.1",
        "abs(transferred['trained on digits'].mean() - transferred['random weights'].mean()) < 0.12",
    ],
    "6_seeing_inside": [
        "result.metrics['accuracy'] > 0.95",
        "abs(np.mean(correlations)) < 0.5",
        "exact < 1e-3",
        "distance[same].mean() < 0.6 * distance[~same].mean()",
    ],
}


def cells(path: pathlib.Path, kind: str) -> list[str]:
    """Returns the texts of the cells of a kind, 'code' or 'markdown'."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_with_stable_ids(path: pathlib.Path) -> None:
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for cell in notebook["cells"]:
        own = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | own
        assert not any(cell.get(name) for name in ("metadata", "outputs", "execution_count"))
    assert cells(path, "markdown")[0].startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_the_python_interface_and_packages_that_come_with_it(path: pathlib.Path) -> None:
    code = cells(path, "code") + ANSWER_CODE.findall("\n".join(cells(path, "markdown")))
    for node in ast.walk(ast.parse("\n".join(code))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name == "cnnjax" or not name.startswith("cnnjax"), f"{name} is not part of the interface"
            assert name.partition(".")[0] in PACKAGES | sys.stdlib_module_names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_link_of_a_notebook_is_dead(path: pathlib.Path) -> None:
    links = [link for text in cells(path, "markdown") for link in LINK.findall(text)]
    assert [link for link in links if ":" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_how_to_install_and_has_exercises_with_folded_answers(path: pathlib.Path) -> None:
    texts = cells(path, "markdown")
    assert "`pip install . jupyter`" in texts[0]
    exercises = [text for text in texts if "**Exercise.**" in text]
    assert len(exercises) >= 3
    for text in exercises:
        question, answer = text.split("<details>\n<summary>Answer</summary>\n\n")
        assert question.strip().endswith("?") or "." in question
        assert answer.rstrip().endswith("\n\n</details>")


def test_every_lesson_is_listed_and_leads_to_the_next() -> None:
    assert set(LINK.findall((FOLDER / "README.md").read_text())) == {
        "../first_steps.ipynb",
        *(path.name for path in LESSONS),
    }
    assert [path.stem for path in LESSONS] == list(CLAIMS)
    for path, following in itertools.pairwise(LESSONS):
        assert f"]({following.name})" in cells(path, "markdown")[-1]


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_shows_what_its_text_says(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, digits_dir: str
) -> None:
    """All cells in order, then the code of the answers; pictures are drawn, and closed as Jupyter does."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "allow")
    names: dict[str, Any] = {"__name__": path.stem}
    for number, source in enumerate(cells(path, "code") + ANSWER_CODE.findall("\n".join(cells(path, "markdown")))):
        exec(compile(source, f"{path.name}, code cell {number}", "exec"), names)
        for figure in map(plt.figure, plt.get_fignums()):
            figure.canvas.draw()
        plt.close("all")
    failed = [claim for claim in CLAIMS[path.stem] if not eval(claim, names)]
    assert failed == []
