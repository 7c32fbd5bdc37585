"""`completion`: scripts for shells, made from the parser, so that they cannot differ from it."""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import _parser

COMMAND = "aws-io-async"
FUNCTION = "_aws_io_async"

FILES, HOSTS = "files", "hosts"
_KINDS = {"FILE": FILES, "FOLDER": FILES, "PATH": FILES, "SCRIPT": FILES, "HOST": HOSTS}
"""What to complete a value with, by its metavar."""


@dataclass(frozen=True)
class Value:
    """What an option or a command takes."""

    name: str
    kind: str
    """FILES, HOSTS, or "" for what no shell can know."""
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """An option, by all its names."""

    names: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True)
class Command:
    """A command; the last of its arguments stands for all that follow."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Value, ...]


def main(options: argparse.Namespace) -> int:
    """Print the script for a shell; returns the exit status."""
    print(script(options.shell, _parser.build()), end="")
    return 0


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script that has `shell` complete the command lines of `parser`."""
    top, commands = _options(parser), _commands(parser)
    lines = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](top, commands)
    return "".join(f"{line}\n" for line in lines)


# The parser


def _commands(parser: argparse.ArgumentParser) -> list[Command]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            help_of = {each.dest: each.help or "" for each in action._choices_actions}
            for name, command in action.choices.items():
                arguments = tuple(
                    _value(each) for each in command._actions if not each.option_strings
                )
                found.append(Command(name, help_of[name], _options(command), arguments))
    return found


def _options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(
        Option(
            tuple(action.option_strings),
            (action.help or "") % {**vars(action), "prog": parser.prog},
            None if action.nargs == 0 else _value(action),
        )
        for action in parser._actions
        if action.option_strings
    )


def _value(action: argparse.Action) -> Value:
    name = f"{action.metavar or action.dest}"
    return Value(name, _KINDS.get(name, ""), tuple(action.choices or ()))


# Shells


def _bash(top: Sequence[Option], commands: Sequence[Command]) -> Iterator[str]:
    words = [*(command.name for command in commands), *_names(top)]
    yield f"{FUNCTION}() {{"
    yield "    local i command='' cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local IFS=$'\\n'"
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield "        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }"
    yield "    done"
    yield '    case "$command" in'
    yield f"    '') {_bash_words(words)} ;;"
    for command in commands:
        yield f"    {command.name})"
        yield '        case "$prev" in'
        for option in command.options:
            if option.value is not None:
                complete = " ".join(filter(None, [_bash_value(option.value), "return"]))
                yield f"        {'|'.join(option.names)}) {complete} ;;"
        yield "        esac"
        yield "        if [[ $cur == -* ]]; then"
        yield f"            {_bash_words(_names(command.options))}"
        if command.arguments:
            yield "        else"
            yield f"            {_bash_arguments(command.arguments)}"
        yield "        fi ;;"
    yield "    esac"
    yield "}"
    yield f"complete -F {FUNCTION} {COMMAND}"


def _bash_words(words: Sequence[str]) -> str:
    lines = "\\n".join(words)  # IFS is a newline, for the names of files
    return f"COMPREPLY=($(compgen -W $'{lines}' -- \"$cur\"))"


def _bash_value(value: Value) -> str:
    if value.choices:
        return f"{_bash_words(value.choices)};"
    if value.kind == FILES:
        return 'COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null;'
    if value.kind == HOSTS:
        return 'COMPREPLY=($(compgen -A hostname -- "$cur"));'
    return ""


def _bash_arguments(arguments: Sequence[Value]) -> str:
    return next((text for each in arguments if (text := _bash_value(each))), ":")


def _zsh(top: Sequence[Option], commands: Sequence[Command]) -> Iterator[str]:
    yield f"#compdef {COMMAND}"
    yield f"{FUNCTION}() {{"
    yield "    local context state state_descr line"
    yield "    typeset -A opt_args"
    yield "    local -a commands=("
    for command in commands:
        yield f"        {shlex.quote(f'{command.name}:{command.help}')}"
    yield "    )"
    specifications = [*map(_zsh_option, top), "1: :->command", "*:: :->arguments"]
    yield f"    _arguments -C {' '.join(map(shlex.quote, specifications))}"
    yield '    case "$state" in'
    yield "    command) _describe command commands ;;"
    yield "    arguments)"
    yield '        case "$words[1]" in'
    for command in commands:
        specifications = [*map(_zsh_option, command.options)]
        for number, argument in enumerate(command.arguments, 1):
            last = number == len(command.arguments)
            place = f"*:{argument.name}" if last else f"{number}:{argument.name}"
            specifications.append(f"{place}:{_zsh_action(argument)}")
        if specifications:
            quoted = " ".join(map(shlex.quote, specifications))
            yield f"        {command.name}) _arguments {quoted} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield "}"
    yield f'if [[ "$funcstack[1]" == {FUNCTION} ]]; then'
    yield f'    {FUNCTION} "$@"'
    yield "else"
    yield f"    compdef {FUNCTION} {COMMAND}"
    yield "fi"


def _zsh_option(option: Option) -> str:
    text = option.help.replace("[", "\\[").replace("]", "\\]")
    name = option.names[-1]
    if option.value is None:
        return f"{name}[{text}]"
    return f"{name}[{text}]:{option.value.name}:{_zsh_action(option.value)}"


def _zsh_action(value: Value) -> str:
    if value.choices:
        return f"({' '.join(value.choices)})"
    return {FILES: "_files", HOSTS: "_hosts"}.get(value.kind, " ")


def _fish(top: Sequence[Option], commands: Sequence[Command]) -> Iterator[str]:
    yield f"complete -c {COMMAND} -f"
    yield from (_fish_option(option, "__fish_use_subcommand") for option in top)
    for command in commands:
        what = f"-a {command.name} -d {_fish_quote(command.help)}"
        yield f"complete -c {COMMAND} -n __fish_use_subcommand {what}"
    for command in commands:
        condition = _fish_quote(f"__fish_seen_subcommand_from {command.name}")
        yield from (_fish_option(option, condition) for option in command.options)
        for argument in command.arguments:
            if what := _fish_value(argument):
                yield f"complete -c {COMMAND} -n {condition} {what}"


def _fish_option(option: Option, condition: str) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    takes = "" if option.value is None else f" {_fish_value(option.value) or '-x'}"
    text = _fish_quote(option.help)
    return f"complete -c {COMMAND} -n {condition} {names}{takes} -d {text}"


def _fish_value(value: Value) -> str:
    if value.choices:
        return f"-x -a {_fish_quote(' '.join(value.choices))}"
    return {FILES: "-r -F", HOSTS: "-x -a '(__fish_print_hostnames)'"}.get(value.kind, "")


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _names(options: Sequence[Option]) -> list[str]:
    return [name for option in options for name in option.names]
