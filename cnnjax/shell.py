"""Shell commands in messages and reports, quoted so that they can be copied."""

import os
import shlex

from cnnjax.errors import visible


def program_name() -> str:
    """Returns the command that started this program, './launch.sh' or 'cnnjax', for commands in messages."""
    return os.environ.get("CNNJAX_COMMAND", "cnnjax")


def command_line(*words: str) -> str:
    """Returns the shell command that runs this program with these arguments, quoted for copying."""
    return " ".join(map(quote, (program_name(), *words)))


def quote(word: str) -> str:
    """Quotes a word for a shell: as \'...\', as "..." if it has a single quote, as $\'...\' if it is not printable."""
    if visible(word) != word or "\n" in word or "\t" in word:
        shown = (
            chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in os.fsencode(word)
        )
        return f"$'{''.join(shown)}'"
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
