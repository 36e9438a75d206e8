"""Addresses of repositories on the Hugging Face Hub: hf:OWNER/NAME, or hf:OWNER/NAME@REVISION."""

import dataclasses
import re

from cnnjax.errors import InputError

PREFIX = "hf:"
EXAMPLE = "hf:ada/lenet5"
# The Hub's own rule: letters, digits, '-', '_' and '.', with a letter, digit or '_' at both ends, and no '--' or '..'.
_WORD = r"(?!\S*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?"
_ADDRESS = re.compile(rf"{PREFIX}({_WORD})/({_WORD})(?:@([\w./-]+))?", re.ASCII)
_NEARLY = re.compile(
    rf"(?:https?://)?(?:{PREFIX})?(?:huggingface\.co/|hf\.co/)?({_WORD})/({_WORD})(?:\.git)?/?", re.ASCII
)


@dataclasses.dataclass(frozen=True)
class Address:
    """A repository on the Hub.

    Attributes:
      owner: a user or an organization.
      name: name of the repository.
      revision: a branch, tag or commit; '' for the newest commit.
    """

    owner: str
    name: str
    revision: str = ""

    @property
    def repository(self) -> str:
        """Returns the repository as the Hub names it: 'OWNER/NAME'."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def parse(text: str) -> Address:
    """Parses 'hf:OWNER/NAME' or 'hf:OWNER/NAME@REVISION'.

    Raises InputError for anything else. It suggests the address if `text` is a page of the Hub, or lacks the prefix.
    """
    if match := _ADDRESS.fullmatch(text):
        return Address(match[1], match[2], match[3] or "")
    nearly = _NEARLY.fullmatch(text)
    hint = f"did you mean '{PREFIX}{nearly[1]}/{nearly[2]}'?" if nearly else f"as in {EXAMPLE}"
    raise InputError(f"{text!r} is not an address on the Hugging Face Hub: expected {PREFIX}OWNER/NAME, {hint}")
