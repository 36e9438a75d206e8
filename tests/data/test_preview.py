"""The contact sheet of `cnnjax data preview`."""

import pathlib

import pytest
from PIL import Image

from cnnjax import cli, style
from cnnjax.training import preview


def test_a_contact_sheet_has_a_row_for_each_image(
    digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "DRAWS", 2)
    typed = ["data", "preview", "digits", f"--data_dir={digits_dir}", "--augment=resize(16)|pad_crop(2)|mixup(0.5)"]
    pictures = {}
    for name, more in {"a": [], "same": [], "seed": ["--seed=1"], "fewer": ["--count=1"]}.items():
        path = tmp_path / f"{name}.png"
        assert cli.main([*typed, "--count=3", *more, f"--out={path}"]) == 0
        assert f"the preview is in {path}" in capsys.readouterr().out.replace("\n", "")
        pictures[name] = Image.open(path).convert("RGB")
    assert pictures["a"].width == pictures["fewer"].width <= style.FULL_WIDTH * style.DPI
    assert pictures["a"].height > pictures["fewer"].height
    assert pictures["a"].tobytes() == pictures["same"].tobytes() != pictures["seed"].tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augment=fliplr"], "unknown operation 'fliplr'; did you mean 'flip_lr'?"),
        (["--count=0"], "--count=0: expected at least 1"),
        (["--out=a.jpg"], "--out=a.jpg: expected a name that ends in .png"),
    ],
)
def test_what_cannot_be_previewed_is_one_line(
    arguments: list[str], message: str, digits_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "preview", "digits", f"--data_dir={digits_dir}", *arguments]) == 1
    assert message in capsys.readouterr().err
