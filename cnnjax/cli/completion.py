"""`cnnjax completion`: prints a script that completes commands, flags, files and folders in bash or zsh."""

import argparse
import pathlib
import re

from cnnjax.cli import shared

SHELLS = ("bash", "zsh")
# Metavar of an argument -> how its value is completed.
KINDS = {"DIR": "directory"} | dict.fromkeys(
    ("FILE", "FILE[:arg]", "NAME|FILE[#KEY]", "NETWORK", "IMAGE", "MODEL|RUN", "PYTHON"), "file"
)

# bash splits --flag=value at '='; shtab expects two words, '--flag' and 'value'.
JOIN_EQUALS = """
_{name}_words() {{
  local words=() index=0 cursor=$COMP_CWORD
  while [ "$index" -lt "${{#COMP_WORDS[@]}}" ]; do
    if [ "${{COMP_WORDS[index]}}" != "=" ]; then
      words+=("${{COMP_WORDS[index]}}")
    elif [ "$index" -lt "$COMP_CWORD" ]; then
      cursor=$((cursor - 1))
    else
      words+=("")
    fi
    index=$((index + 1))
  done
  local COMP_WORDS=("${{words[@]}}") COMP_CWORD=$cursor
  {function}
}}
complete -o bashdefault -F _{name}_words {program}
"""


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax completion` to its parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        'bash: add to ~/.bashrc                     eval "$(cnnjax completion bash)"\n'
        "zsh:  add to ~/.zshrc, after compinit      source <(cnnjax completion zsh)"
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell to print the script for")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax completion`: prints the script. `overrides` is empty. Returns the exit status."""
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """Returns the script that completes cnnjax's commands, flags and files in `shell`, 'bash' or 'zsh'."""
    import shtab

    from cnnjax.cli.main import COMMANDS, add_command_flags, command_module, main_parser

    parser = main_parser()
    parser.prog = program = pathlib.Path(shared.program_name()).name  # ./launch.sh completes itself
    subparsers = parser.add_subparsers()
    for name, text in COMMANDS.items():
        command = subparsers.add_parser(name, help=text, description=text)
        add_command_flags(command, command_module(name))
        for action in command._actions:
            if kind := KINDS.get(str(action.metavar)):
                action.complete = shtab.CHOICE_FUNCTIONS[kind]  # pyright: ignore[reportAttributeAccessIssue]
            action.metavar = None  # its punctuation would end a field of zsh's specification
    text = shtab.complete(parser, shell)
    name = re.sub(r"\W", "_", program)
    if shell == "bash":
        return text + JOIN_EQUALS.format(name=name, function=f"_shtab_{name}", program=program)
    # zsh completes --flag=value only where the specification of the flag ends with '='.
    return re.sub(r'^( *"--\w+)(\[.*\]:\w+:.*")$', r"\1=\2", text, flags=re.MULTILINE)
