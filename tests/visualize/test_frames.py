"""Animations over the checkpoints of a run: one frame a checkpoint, by one scale of colors."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnjax import InputError, cli, style
from cnnjax.visualize import frames


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """A result whose heat map matplotlib colors."""

    values: np.ndarray
    note: str = ""

    def figure(self) -> Any:
        figure = style.new_figure(2, 2)
        figure.add_subplot().imshow(self.values)
        return figure


@dataclasses.dataclass(frozen=True)
class Limited(HeatMap):
    """A result that colors its values itself."""

    limit: Any = 1.0

    def figure(self, limit: Any = None) -> Any:
        figure = super().figure()
        figure.suptitle(str(limit or self.limit))
        return figure


def test_heat_maps_of_all_frames_have_one_range_and_limits_are_the_largest() -> None:
    drawn = frames.draw([HeatMap(np.array([[0.0, 1.0]])), HeatMap(np.array([[-2.0, 0.5]]))])
    assert [figure.axes[0].images[0].get_clim() for figure in drawn] == [(-2, 1)] * 2
    drawn = frames.draw([Limited(np.ones((2, 2)), limit=limit) for limit in (0.5, 3.0)])
    assert [figure.get_suptitle() for figure in drawn] == ["3.0"] * 2
    named = [Limited(np.ones((2, 2)), limit={"a": low, "b": 2.0 - low}) for low in (0.5, 1.5)]
    assert frames.common_limit(named) == {"a": 1.5, "b": 1.5}


def test_an_animation_has_a_frame_a_checkpoint_with_its_step(
    conv_run: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--to={tmp_path}", f"--data_dir={digits_dir}", "--what=filters,maps", "--examples=1"]
    assert cli.main(["visualize", str(conv_run), *flags, "--steps=all", "--layer=conv2"]) == 0
    assert "filters-conv2-steps.gif: 2 frames, steps 2 to 4; the last: conv2: 8 filters" in capsys.readouterr().out
    listed = json.loads((tmp_path / "index.json").read_text())
    assert [row["name"] for row in listed] == ["filters-conv2-steps", "maps-conv2-0_9-steps"]
    for row in listed:
        for suffix in (".gif", ".webp"):
            with Image.open(tmp_path / (row["name"] + suffix)) as animation:
                assert (getattr(animation, "n_frames", 1), row["suffixes"]) == (2, [".gif", ".webp", ".npz"])
                first = np.asarray(animation.convert("RGB"), int)
                animation.seek(1)
                assert np.abs(np.asarray(animation.convert("RGB"), int) - first)[: frames.STRIP].any()
    arrays = np.load(tmp_path / "filters-conv2-steps.npz")
    assert {"2/kernels", "4/kernels"} <= set(arrays)
    assert (arrays["2/kernels"] != arrays["4/kernels"]).any()
    assert np.load(tmp_path / "maps-conv2-0_9-steps.npz")["2/channels/conv2"].tolist() == list(range(8))


@pytest.mark.parametrize("steps", ["2", "2,3", "last", "2,", ""])
def test_wrong_steps_are_refused_with_the_valid_ones(steps: str, conv_run: pathlib.Path) -> None:
    assert frames.parse_steps("all", conv_run) == frames.parse_steps("4,2", conv_run) == [2, 4]
    with pytest.raises(InputError, match=r"2, 4"):
        frames.parse_steps(steps, conv_run)
