"""Optional libraries, which the extras of pyproject.toml install."""

import importlib
from typing import Any

from cnnjax.errors import InputError


def load(module: str, extra: str = "") -> Any:
    """Imports an optional module. Raises InputError that names the extra to install: `extra`, '' for the same name."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"{module} is not installed; pip install 'cnnjax[{extra or module}]' in this environment"
        ) from None
