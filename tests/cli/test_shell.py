"""The shell around the commands: lazy, one error form, honest exit codes, no escape bytes where nobody asked."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from holdfast.cli.commands import COMMANDS
from holdfast.cli.setup import agent_named_after
from tests.cli.conftest import PROGRAM, Run

Spawn = Callable[..., "subprocess.Popen[bytes]"]
NAMES = sorted(COMMANDS.commands)


def test_the_commands_are_the_documented_ones() -> None:
    first = "init demo serve mcp status put get ls rm history diff rollback"
    then = "send inbox watch export import verify doctor version"
    mail = "ack done reply snooze archive reopen ask answer sent"
    last = "config completion metrics token ui notify migrate scan erase keys backup repair quarantine"
    last += " retention compact archives follow sessions index nodes search"
    assert {*first.split(), *then.split(), *mail.split(), *last.split()} == set(NAMES)


def test_the_door_loads_no_command() -> None:
    ask = "import sys, holdfast.cli; print(*sorted(m for m in sys.modules if m.startswith('holdfast')))"
    loaded = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {
        "holdfast",
        "holdfast.cli",
        "holdfast.cli.settings",
        "holdfast.cli.shell",
        "holdfast.cli.show",
        "holdfast.errors",
    }


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_what_a_command_does(empty: Run, name: str) -> None:
    result = empty(name, "--help")
    assert result.code == 0
    assert result.text.startswith(f"Usage: holdfast {name}")
    assert "Global options:" in result.text
    assert len(COMMANDS.commands[name].help or "") > 20


def test_the_overview_names_every_command(empty: Run) -> None:
    for words in ((), ("--help",), ("-h",)):
        result = empty(*words)
        assert result.code == 0
        assert [name for name in NAMES if f"  {name} " not in result.text] == []


def test_a_slip_is_answered_with_what_was_meant(empty: Run) -> None:
    result = empty("statsu")
    assert result.code == 2
    assert result.err == "error: no such command 'statsu'\nhint: did you mean 'status'?\n"


@pytest.mark.parametrize("words", [("get",), ("put", "a"), ("get", "a", "--versoin", "1"), ("ls", "--limit", "x")])
def test_a_wrong_call_says_so_and_ends_with_2(hf: Run, words: tuple[str, ...]) -> None:
    result = hf(*words)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert "hint: " in result.err
    assert result.out == b""


def test_help_lists_options_and_no_bare_arguments(empty: Run) -> None:
    lines = empty("get", "--help").text.splitlines()
    assert "  KEY" not in lines
    assert "show this" in next(line for line in lines if "-h, --help" in line)


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (("diff", "k", "x"), "invalid value for 'OLD': 'x' is not a whole number", "holdfast diff --help"),
        (("completion",), "missing argument 'SHELL'", "one of bash, zsh, fish"),
        (("watch", "--since", "bogus"), "not a cursor: 'bogus'", "pass what the last page gave, or 0"),
        (
            ("put", "k", "1", "--hub", "http://127.0.0.1:9", "--token-file", "none"),
            "no token to be read from none: No such file or directory",
            "--token-file PATH",
        ),
    ],
)
def test_a_slip_is_told_in_our_own_words(hf: Run, words: tuple[str, ...], what: str, hint: str) -> None:
    result = hf(*words)
    assert (result.code, result.err) == (2, f"error: {what}\nhint: {hint}\n")


def test_the_hint_for_a_broken_config_does_not_lead_in_a_circle(hf: Run, home: Path) -> None:
    config = home / ".local" / "share" / "holdfast" / "config.json"
    config.write_text("{")
    for words in (("init",), ("get", "k"), ("status",)):
        result = hf(*words)
        assert result.code == 2
        assert '{"format": 1}' in result.err
    config.write_text('{"format": 1}')
    assert hf("put", "k", "1").code == 0


@pytest.mark.parametrize("before", [True, False])
def test_errors_have_their_wire_form_for_programs(hf: Run, before: bool) -> None:
    result = hf("--json", "get", "a") if before else hf("get", "a", "--json")
    assert (result.code, result.out) == (5, b"")
    assert result.error["code"] == "not_found"
    assert result.error["exit"] == 5
    assert set(result.error) >= {"code", "exit", "message", "hint"}


def test_a_wrong_call_has_it_too(hf: Run) -> None:
    assert hf("get", "--json").error["code"] == "usage"


def test_no_store_ends_with_10_and_makes_none(empty: Run, home: Path) -> None:
    for words in (("put", "a", "1"), ("get", "a"), ("ls",), ("status",), ("verify",), ("export",), ("inbox",)):
        result = empty(*words)
        assert result.code == 10, words
        assert result.err.endswith("hint: holdfast init\n")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "agent"), [("Deck.local", "deck"), ("Anna's Mac", "anna-s-mac"), ("", "main"), ("hub.home", "hub-1")]
)
def test_a_store_without_a_named_agent_is_named_after_its_machine(machine: str, agent: str) -> None:
    assert agent_named_after(machine) == agent


def test_an_agent_cannot_have_the_hubs_name(hf: Run) -> None:
    assert hf("get", "k", "--agent", "hub").code == 5  # to be read from a hub, and there is none
    for words in (("init",), ("put", "k", "1")):
        result = hf(*words, "--agent", "hub")
        assert (result.code, result.err.startswith("error: the name 'hub' is the hub's own\nhint: ")) == (2, True)


def test_a_missing_file_is_an_error_and_no_traceback(hf: Run) -> None:
    result = hf("put", "a", "@nothing-here")
    assert result.code == 1
    assert result.err == "error: nothing-here: No such file or directory\n"


def test_the_options_come_before_the_environment_and_that_before_init(
    hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writer(*words: str) -> str:
        agent = hf("put", "a", "1", "--json", *words).json["agent"]
        assert isinstance(agent, str)
        return agent

    assert writer() == "me"
    monkeypatch.setenv("HOLDFAST_AGENT", "environment")
    assert writer() == "environment"
    assert writer("--agent", "option") == "option"
    monkeypatch.setenv("HOLDFAST_STORE", str(home / "other"))
    assert hf("get", "a").code == 10
    assert hf("init").code == 0
    assert hf("ls", "--json").json == {"keys": [], "next": None}


def test_a_broken_pipe_is_quiet(hf: Run, spawn: Spawn) -> None:
    hf("put", "long", "x" * 300_000, "--text")
    process = spawn("get", "long")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""


def test_ctrl_c_ends_with_130_and_says_nothing(hf: Run, spawn: Spawn) -> None:
    hf("put", "a", "1")
    process = spawn("watch", "--since", "start", "--json")
    assert process.stdout is not None
    assert b'"key":"a"' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


def on_a_terminal(words: list[str], **environment: str) -> bytes:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, *words]
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        found = b""
        try:
            while piece := os.read(ours, 4096):
                found += piece
        except OSError:
            pass  # the other end of a terminal that closes
    os.close(ours)
    return found


def test_a_terminal_gets_colours_unless_it_does_not_want_them(hf: Run) -> None:
    hf("put", "a", "1")
    assert b"\033[" in on_a_terminal(["ls"])
    assert b"\033[" not in on_a_terminal(["ls"], NO_COLOR="1")
    assert b"\033[" not in on_a_terminal(["ls"], TERM="dumb")
    assert b"\033[" not in on_a_terminal(["ls", "--no-color"])


def test_what_others_wrote_cannot_steer_the_terminal(hf: Run) -> None:
    hf("send", "people", "\033[2Jgone", "--task", "\033]0;owned\a")
    hf("put", "\033[31mkey", "\033[2Jgone")
    for words in (("inbox",), ("ls",), ("ls", "--names"), ("watch", "--since", "start", "--once")):
        assert "\033" not in hf(*words).text
    text = "\033[2Jgone\r\n\tand a line, with a\u00a0space"
    hf("put", "k", text)
    shown = on_a_terminal(["get", "k"])
    assert b"\033" not in shown
    assert "\tand a line, with a\u00a0space".encode() in shown
    assert hf("get", "k").text == text + "\n"
    assert b"\033" not in on_a_terminal(["get", "\033[2J"], NO_COLOR="1")


def test_a_pipe_gets_no_colours(hf: Run) -> None:
    hf("put", "a", "1")
    assert all(b"\033" not in hf(*words).out for words in (("ls",), ("status",), ("doctor",), ("history", "a")))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(empty: Run, shell: str) -> None:
    assert "_HOLDFAST_COMPLETE" in empty("completion", shell).text


def test_completion_completes(home: Path) -> None:
    environment = os.environ | {"_HOLDFAST_COMPLETE": "bash_complete", "COMP_WORDS": "holdfast rol", "COMP_CWORD": "1"}
    found = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert found.stdout == "plain,rollback\n"


def test_version_is_told(empty: Run) -> None:
    import holdfast

    assert empty("--version").text == f"holdfast {holdfast.__version__}\n"
    assert empty("version", "--json").json["holdfast"] == holdfast.__version__
    assert f"holdfast {holdfast.__version__}\n" in empty("version").text


def test_the_group_is_a_click_group() -> None:
    assert isinstance(COMMANDS, click.Group)
