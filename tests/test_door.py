"""The Python interface: what `import cnnjax` offers, and that it costs nothing."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import cnnjax
from cnnjax import InputError
from cnnjax.data.info import DataInfo

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_importing_is_cheap_and_loads_nothing_heavy() -> None:
    code = """if True:
        import sys, time
        start = time.process_time()
        import cnnjax
        assert time.process_time() - start < 0.1
        print(*sorted({"jax", "flax", "numpy", "optax", "orbax"} & sys.modules.keys()), cnnjax.__version__)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, cnnjax.__version__, "")


@pytest.mark.parametrize("name", cnnjax.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    assert name in dir(cnnjax)
    assert getattr(cnnjax, name).__doc__


def test_the_public_names_are_those_of_the_table() -> None:
    assert set(cnnjax.__all__) == set(cnnjax._HOME)


def test_an_unknown_name_lists_the_others() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'create_net'; it has .*create_model"):
        cnnjax.create_net  # noqa: B018


def test_a_model_is_created_by_name() -> None:
    assert cnnjax.create_model("resnet50", num_classes=10).num_classes == 10
    assert cnnjax.create_model("lenet5").num_classes == 10
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        cnnjax.create_model("resnet500")


def test_models_are_listed_by_pattern() -> None:
    assert "vgg16" in cnnjax.list_models("vgg*")
    assert "lenet5" not in cnnjax.list_models("vgg*")
    assert set(cnnjax.list_models("vgg*")) < set(cnnjax.list_models())


def test_a_card_is_loaded_by_name_with_changes() -> None:
    config = cnnjax.load_config("digits_lenet5", duration="2 steps", lr=0.5)
    assert (config.model, config.duration, config.lr) == ("lenet5", "2 steps", 0.5)
    with pytest.raises(InputError, match="unknown config field 'epochs'; the field is duration, as in '10 epochs'"):
        cnnjax.load_config("digits_lenet5", epochs=3)
    with pytest.raises(InputError, match="there is no config 'digits_lenet'; did you mean 'digits_lenet5'"):
        cnnjax.load_config("digits_lenet")


def test_data_info_goes_to_data_json_and_back() -> None:
    data = DataInfo(("a", "b"), (4, 4, 1), {"mean": [0.5], "std": [0.25]}, False, {"dataset": "x", "augment": ""})
    content = json.loads(json.dumps(data.to_dict()))
    assert DataInfo.from_dict(content) == data
    assert list(content) == ["of", "classes", "shape", "numbered", "mean", "std"]


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, digits_dir: str) -> None:
    """From a data set to a trained network, its predictions, and one fine-tuned to tell odd digits from even ones."""
    notebook = json.loads((ROOT / "experiments" / "first_steps.ipynb").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "allow")
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["result"].metrics["accuracy"] > 0.9
    np.testing.assert_allclose(names["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert names["accuracy"] > 0.9
