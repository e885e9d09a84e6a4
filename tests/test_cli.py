"""The command line: what it hands to the server, and one line for everything that goes wrong."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trioreg import __version__
from trioreg.cli import main
from trioreg.config import SETTINGS, Address, Config, Source


class Server:
    """A stand-in handed to `main`: keeps the settings it was started with, or fails as told."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.configs: list[Config] = []

    def __call__(self, config: Config, source: Source) -> int:
        assert source.load() == config
        self.configs.append(config)
        if self.error is not None:
            raise self.error
        return 0


def serve(*argv: str, **environ: str) -> Config:
    """The settings that `trioreg serve …` starts the server with."""
    server = Server()
    assert main(["serve", *argv], environ, server) == 0
    [config] = server.configs
    return config


def test_serve_without_anything_uses_the_defaults() -> None:
    """No option, no variable, no file: the server starts with the table's defaults."""
    assert serve() == Config()


def test_options_reach_the_settings(tmp_path: Path) -> None:
    """Every option of the table, and --set for those that have none."""
    file = tmp_path / "t.toml"
    file.write_text('[http]\nbacklog = 7\n[log]\nlevel = "error"\n')
    config = serve(
        *("--config", str(file), "--storage", "/srv", "--bind", "[::1]:0", "--no-access-log"),
        *("--tls-certificate", "c.pem", "--tls-key", "k.pem", "--memory-budget", "64MiB"),
        *("--log-level", "debug", "--log-format", "json"),
        *("--set", "memory.block=1MiB", "--set", "upload.lease_wait=0.5"),
        TRIOREG_HTTP_HTTP2="true",
    )
    assert config.storage_path == Path("/srv")
    assert config.http_bind == Address("::1", 0)
    assert config.log_access is False
    assert (config.http_tls_certificate, config.http_tls_key) == (Path("c.pem"), Path("k.pem"))
    assert (config.memory_budget, config.memory_block) == (64 << 20, 1 << 20)
    assert (config.log_level, config.log_format) == ("debug", "json")
    assert (config.upload_lease_wait, config.http_backlog, config.http_http2) == (0.5, 7, True)


def test_the_last_of_two_options_wins() -> None:
    """An option may be repeated, also once by its own name and once by --set."""
    assert serve("--storage", "/a", "--set", "storage.path=/b").storage_path == Path("/b")
    assert serve("--set", "log.access=true", "--no-access-log").log_access is False
    assert serve("--set", "storage.path=a=b").storage_path == Path("a=b")


@pytest.mark.parametrize(
    ("argv", "environ", "says"),
    [
        (["serve", "--bind", "5000"], {}, "option http.bind: 5000 is not HOST:PORT"),
        (["serve", "--set", "memory.blok=1"], {}, "did you mean memory.block?"),
        (["serve", "--set", "memory.block"], {}, "write NAME=VALUE"),
        (["serve", "--stor", "/a"], {}, "unrecognized arguments"),
        (["serve", "--storage"], {}, "expected one argument"),
        (["serve", "--config", "/no/such.toml"], {}, "file /no/such.toml: No such file"),
        (["serve"], {"TRIOREG_MEMORY_BUDGET": "lots"}, "variable TRIOREG_MEMORY_BUDGET: lots is"),
        (["serve"], {"TRIOREG_NONSENSE": "1"}, "variable TRIOREG_NONSENSE: no such setting"),
        (["config"], {"TRIOREG_LOG_LEVEL": "a\nb"}, r'"a\nb" is not one of debug, info'),
        (["sevre"], {}, "invalid choice: 'sevre'"),
        ([], {}, "required: COMMAND"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    argv: list[str], environ: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server is not started, stdout stays empty, stderr has one line."""
    server = Server()
    assert main(argv, environ, server) == 2
    out, err = capsys.readouterr()
    assert (out, server.configs) == ("", [])
    assert err.startswith("trioreg: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EADDRINUSE, "Address in use"), "cannot listen on 127.0.0.1:5000: Address"),
        (socket.gaierror(-2, "Name not known"), "cannot listen on 127.0.0.1:5000: Name not known"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "/srv/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left"), "No space left"),
        (OSError("plain words"), "plain words"),
        (ExceptionGroup("nursery", [ExceptionGroup("in", [OSError("deep")])]), "deep"),
    ],
)
def test_a_world_that_does_not_allow_it_is_one_line_and_exit_code_1(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Address taken, name unknown, storage not writable: no traceback."""
    assert main(["serve"], {}, Server(error)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"trioreg: {says}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), ExceptionGroup("two", [OSError("one"), ValueError("other")])],
)
def test_a_bug_is_not_hidden(error: Exception) -> None:
    """What is not the world's fault keeps its traceback."""
    with pytest.raises(type(error)):
        main(["serve"], {}, Server(error))


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C before the server handles it: the shell's own exit code, no traceback."""
    assert main(["serve"], {}, Server(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


def test_config_prints_every_setting_with_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a setting: name, value in force, where it came from."""
    file = tmp_path / "t.toml"
    file.write_text('[memory]\nblock = "1MiB"\n')
    argv = ["config", "--config", str(file), "--set", "http.backlog=9"]
    assert main(argv, {"TRIOREG_LOG_LEVEL": "debug"}) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == [setting.name for setting in SETTINGS]
    assert lines["memory.block"].split(maxsplit=1) == ["1MiB", f"file {file}: memory.block"]
    assert lines["http.backlog"].split(maxsplit=1) == ["9", "option http.backlog"]
    assert lines["log.level"].split(maxsplit=1) == ["debug", "variable TRIOREG_LOG_LEVEL"]
    assert lines["http.tls_key"].split(maxsplit=1) == ['""', "default"]


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`serve --help` shows all options of the table."""
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(setting.option in out for setting in SETTINGS if setting.option)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TRIOREG_", "REGISTRY_"))}
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environ, check=False)


def test_python_m_trioreg_is_the_command() -> None:
    """`python -m trioreg --version` answers and exits 0."""
    done = run("-m", "trioreg", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"trioreg {__version__}\n", "")


def test_the_command_line_does_not_load_the_server() -> None:
    """--version, --help, config and every mistake answer without trio, quart or hypercorn."""
    heavy = "{'trio', 'quart', 'hypercorn', 'asyncio', 'msgspec'}"
    program = f"import sys, trioreg.cli; print(sorted({heavy} & set(sys.modules)))"
    assert run("-c", program).stdout == "[]\n"


def test_a_taken_address_is_one_line(tmp_path: Path) -> None:
    """The real server on an address that is in use: exit code 1, one line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("-m", "trioreg", "serve", "--storage", str(tmp_path / "s"), "--bind", bind)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"trioreg: cannot listen on {bind}: ")
    assert "Traceback" not in done.stderr


def test_a_storage_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file where the root should be: exit code 1, one line that names it."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "root"
    done = run("-m", "trioreg", "serve", "--storage", str(path), "--bind", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"trioreg: {tmp_path / 'file'}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("leave_out", ["", "1"])
def test_info_says_which_engine_runs_and_why(leave_out: str) -> None:
    """The engine that was built, or what serves in its place."""
    built = importlib.util.find_spec("trioreg.pipeline._engine") is not None
    engine = "compiled" if built and not leave_out else "OpenSSL"
    environ = {**os.environ, "TRIOREG_TEST_NO_ENGINE": leave_out}
    told = subprocess.run(
        [sys.executable, "-m", "trioreg", "info"], env=environ, capture_output=True, text=True, check=True
    )
    assert f"digest engine  {engine}" in told.stdout
    built = importlib.util.find_spec("trioreg.storage.filesystem._scripts") is not None
    changes = "compiled" if built and not leave_out else "in Python"
    assert f"disk changes   {changes}" in told.stdout
