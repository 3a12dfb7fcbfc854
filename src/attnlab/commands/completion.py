"""`attnlab completion`: the script by which a shell completes the words of attnlab.

The script asks attnlab at each TAB; `attnlab.commands.complete` answers.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from attnlab.printable import say

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
in ~/.bashrc:                 eval "$(attnlab completion bash)"
in ~/.zshrc, after compinit:  eval "$(attnlab completion zsh)"
once for fish:  attnlab completion fish > ~/.config/fish/completions/attnlab.fish
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab completion`."""
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def run(arguments: Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    say(shellcode(["attnlab"], shell=arguments.shell).strip("\n"))
    return 0
