"""A run's folder with links in it, from a stranger: nothing outside of it is changed."""

import pathlib

import numpy as np
import pytest

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.evaluation import report
from cnnjax.runs import executors, supervise, workdir


@pytest.mark.parametrize("name", [*workdir.FOLDERS, *(f"{folder}/x" for folder in workdir.FOLDERS), "config.json"])
def test_a_training_refuses_a_folder_with_links_that_it_would_write_through(name: str, tmp_path: pathlib.Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    with workdir.claim(run, Config()):
        pass
    outside.mkdir()
    (run / name).unlink(missing_ok=True)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(outside)
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=f"run/{name} (is a link to .*outside: a run's|cannot be read: it is a link)"):
        workdir.claim(run, Config()).__enter__()
    assert sorted(run.rglob("*")) == before
    assert not list(outside.iterdir())


def test_runs_started_together_have_folders_of_their_own(tmp_path: pathlib.Path) -> None:
    with workdir.new_folder("run", str(tmp_path)) as one, workdir.new_folder("run", str(tmp_path)) as two:
        assert one != two
        with workdir.claim(one, Config()):
            assert two.is_dir()
    assert list(tmp_path.iterdir()) == [one]  # the other was not used


def test_an_evaluation_writes_no_report_through_a_link(tmp_path: pathlib.Path) -> None:
    outside, scores = tmp_path / "outside", np.eye(3, dtype=np.float32)
    outside.mkdir()
    write = lambda: report.write(  # noqa: E731
        scores, np.arange(3), {}, tmp_path, {"dataset": "x", "split": "y", "step": 1}, ["a", "b", "c"]
    )
    write()
    (path,) = (tmp_path / "evaluations").iterdir()
    path.rename(tmp_path / "report")
    path.symlink_to(outside)
    write()
    assert path.is_dir()
    assert not path.is_symlink()
    assert {file.name for file in path.iterdir()} == {file.name for file in (tmp_path / "report").iterdir()}
    (tmp_path / "evaluations").rename(tmp_path / "moved")
    (tmp_path / "evaluations").symlink_to(outside)
    with pytest.raises(InputError, match=r"evaluations is a link to .*outside"):
        write()
    assert not list(outside.iterdir())


def test_the_output_of_a_run_is_not_appended_to_the_target_of_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / supervise.OUTPUT).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"output.txt cannot be written: it is a link"):
        executors.local(1)(["echo", "evil"], tmp_path / supervise.OUTPUT)
    assert (tmp_path / "victim").read_text() == "precious"


def test_two_starts_that_race_for_a_folder_do_not_mix_their_configs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another training comes and goes between the first look at the folder and its lock."""
    hold_lock = workdir.hold_lock

    def late(folder: pathlib.Path, activity: str):
        monkeypatch.undo()
        with workdir.claim(folder, Config(lr=0.5)):
            pass
        return hold_lock(folder, activity)

    monkeypatch.setattr(workdir, "hold_lock", late)
    with pytest.raises(InputError, match=r"holds a run with another config: lr = 0.5 there, 0.1 now"):
        workdir.claim(tmp_path / "run", Config()).__enter__()
    assert workdir.read_json(tmp_path / "run" / "config.json")["lr"] == 0.5
