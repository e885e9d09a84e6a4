"""Settings: one table, four sources, and one clear line for every mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.config import SETTINGS, SIZE, Address, Config, ConfigError, find, load, show_size

NOTHING: Mapping[str, str] = {}


def write(folder: Path, text: str) -> Path:
    file = folder / "trioreg.toml"
    file.write_text(text)
    return file


def test_the_default_of_load_is_the_default_of_the_class() -> None:
    """With nothing given, `load` and `Config()` agree, and the address and sizes are typed."""
    config = load({}, {}, None)
    assert config == Config()
    assert config.http_bind == Address("127.0.0.1", 5000)
    assert config.memory_budget == 48 * 1024 * 1024
    assert config.storage_path == Path("data")
    assert config.http_tls_key is None


def test_the_table_and_the_fields_are_one_thing() -> None:
    """Every field is a row of the table, and its name is the dotted name with an underscore."""
    assert [field.name for field in fields(Config)] == [s.attribute for s in SETTINGS]
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    assert all("%" not in setting.help and "|" not in setting.help for setting in SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_all_its_sources(setting: Any, tmp_path: Path) -> None:
    """Key, variable and option of a setting take its default and give the same value."""
    section, key = setting.name.split(".")
    file = write(tmp_path, f'[{section}]\n{key} = "{setting.default}"\n')
    expected = getattr(Config(), setting.attribute)
    assert getattr(load({setting.name: setting.default}, {}, None), setting.attribute) == expected
    assert getattr(load({}, {setting.variable: setting.default}, None), setting.attribute) == (expected)
    assert getattr(load({}, {}, file), setting.attribute) == expected


def test_option_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    """Taking sources away one by one uncovers the next weaker one."""
    file = write(tmp_path, '[memory]\nblock = "64KiB"\n')
    option = {"memory.block": "2MiB"}
    variable = {"TRIOREG_MEMORY_BLOCK": "512KiB"}
    steps = [(option, variable, file), ({}, variable, file), ({}, {}, file), ({}, {}, None)]
    found = [find(*step)["memory.block"] for step in steps]
    assert [value // 1024 for value, _ in found] == [2048, 512, 64, 1024]
    assert [source.split()[0] for _, source in found] == ["option", "variable", "file", "default"]


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """`TRIOREG_CONFIG` names the file unless the caller does; empty means none."""
    file = write(tmp_path, '[http]\nbind = "[::1]:0"\n')
    assert load({}, {"TRIOREG_CONFIG": str(file)}, None).http_bind == Address("::1", 0)
    assert load({}, {"TRIOREG_CONFIG": ""}, None) == Config()
    assert load({}, {"TRIOREG_CONFIG": "/nowhere"}, file).http_bind.host == "::1"


def test_the_storage_path_has_a_second_name() -> None:
    """`REGISTRY_STORAGE_PATH` counts as a variable; both names may agree."""
    second = {"REGISTRY_STORAGE_PATH": "/srv/blobs"}
    assert load({}, second, None).storage_path == Path("/srv/blobs")
    assert load({"storage.path": "/other"}, second, None).storage_path == Path("/other")
    both = {**second, "TRIOREG_STORAGE_PATH": "/srv/blobs/"}
    assert load({}, both, None).storage_path == Path("/srv/blobs")


def test_variables_of_others_and_of_the_tests_are_left_alone() -> None:
    """Only names that start with TRIOREG_ are ours, and TRIOREG_TEST_ ones belong to the tests."""
    environ = {"PATH": "/bin", "XTRIOREG_A": "1", "TRIOREG_TEST_REQUIRE_CLIENTS": "1"}
    assert load({}, environ, None) == Config()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory.cache", "4096", 4096),
        ("memory.cache", "256KiB", 256 * 1024),
        ("memory.cache", "1GB", 10**9),
        ("memory.cache", "2 gib", 2 * 1024**3),
        ("memory.cache", "0", 0),
        ("upload.lease_wait", "0", 0.0),
        ("upload.lease_wait", "2.5", 2.5),
        ("http.http2", "YES", True),
        ("http.http2", "0", False),
        ("quota.bytes", "", ()),
        (
            "quota.bytes",
            "ml/big=1TiB, team/ = 10, **=5GB,",
            (("ml/big", 2**40), ("team/", 10), ("**", 5 * 10**9)),
        ),
        ("quota.tags", "a/*=3", (("a/*", 3),)),
        ("http.bind", "localhost:80", Address("localhost", 80)),
        ("http.bind", "[::1]:5000", Address("::1", 5000)),
        ("http.bind", "0.0.0.0:65535", Address("0.0.0.0", 65535)),
        ("http.tls_key", "", None),
        ("storage.durability", "none", "none"),
        ("storage.path", "with space", Path("with space")),
    ],
)
def test_values_that_are_read(name: str, text: str, value: object) -> None:
    """Each kind reads the forms the documentation names."""
    assert getattr(load({name: text}, {}, None), name.replace(".", "_")) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.cache", "48XB"),
        ("memory.cache", "-1"),
        ("memory.cache", "1.5MiB"),
        ("memory.cache", ""),
        ("memory.cache", "٤٠٩٦"),
        ("memory.cache", "9" * 5000),
        ("quota.bytes", "10GiB"),
        ("quota.bytes", "**=lots"),
        ("quota.bytes", "**="),
        ("quota.bytes", "=5"),
        ("quota.bytes", "Team=5"),
        ("quota.bytes", "*/=5"),
        ("quota.bytes", "**a**a**a**=5"),
        ("quota.tags", "team/=5"),
        ("quota.tags", "**=5GiB"),
        ("http.backlog", "1KiB"),
        ("http.backlog", "0"),
        ("upload.lease_wait", "-0.1"),
        ("upload.lease_wait", "nan"),
        ("upload.lease_wait", "inf"),
        ("upload.lease_wait", "5s"),
        ("http.stall_timeout", "0"),
        ("http.http2", "maybe"),
        ("http.http2", ""),
        ("http.bind", "5000"),
        ("http.bind", ":5000"),
        ("http.bind", "host:65536"),
        ("http.bind", "host:-1"),
        ("http.bind", "::1:5000"),
        ("http.bind", "[host]:5000"),
        ("http.bind", "a b:5000"),
        ("http.bind", "host:5000\n"),
        ("storage.path", ""),
        ("storage.driver", "s3"),
        ("storage.durability", "FULL"),
        ("log.level", "loud\nlevel"),
        ("manifest.max_bytes", "0"),
        ("memory.front", "1000"),
    ],
)
def test_values_that_are_refused(name: str, text: str) -> None:
    """A value that cannot be used is one line that names the source and the setting."""
    with pytest.raises(ConfigError) as option:
        load({name: text}, {}, None)
    assert str(option.value).startswith(f"option {name}: ")
    variable = "TRIOREG_" + name.replace(".", "_").upper()
    with pytest.raises(ConfigError) as environ:
        load({}, {variable: text}, None)
    assert str(environ.value).startswith(f"variable {variable}: ")
    assert len(str(environ.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[memory]\nbugdet = 1", "memory.bugdet: no such setting; did you mean memory.budget?"),
        ("[nonsense]\na = 1", "nonsense.a: no such setting"),
        ('"memory.budget" = 1', "memory.budget (outside any table)"),
        ("[memory.budget]\nx = 1", "memory.budget: a size cannot be written as"),
        ("[memory]\nbudget = true", "memory.budget: a size cannot be written as True"),
        ("[memory]\nbudget = 1.5", "memory.budget: a size cannot be written as 1.5"),
        ('[memory]\nbudget = "x"', "memory.budget: x is not a size"),
        ("[memory]\nbudget = -1", "memory.budget: -1 is not a size"),
        ("[storage]\npath = 3", "storage.path: a path cannot be written as 3"),
        ('[storage]\npath = "a\\u0000b"', "is not a path"),
        ("[http]\nstall_timeout = nan", "http.stall_timeout: nan is not a number of seconds"),
        ("[http]\nbind = [1]", "http.bind: a host:port cannot be written as [1]"),
        ('["a\\nb"]\nc = 1', '"a\\nb.c": no such setting'),
        ("[memory", "trioreg.toml: "),
        ("[memory]\nblock=1\nblock=2", "trioreg.toml: "),
    ],
)
def test_files_that_are_refused(text: str, says: str, tmp_path: Path) -> None:
    """A mistake in the file is one line that names the file and the key."""
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    line = str(caught.value)
    assert line.startswith(f"file {file}: ")
    assert says in line
    assert len(line.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a directory, not UTF-8: each is a ConfigError, not a traceback."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for file in (tmp_path / "missing.toml", tmp_path, binary):
        with pytest.raises(ConfigError, match=f"file {file}: "):
            load({}, {}, file)


def test_native_toml_values_are_read(tmp_path: Path) -> None:
    """TOML's own integers, floats and booleans do where the kind allows them."""
    file = write(
        tmp_path,
        "[memory]\ncache = 4096\n[http]\nhttp2 = true\nstall_timeout = 2.5\nidle_timeout = 3\n",
    )
    config = load({}, {}, file)
    assert (config.memory_cache, config.http_http2) == (4096, True)
    assert (config.http_stall_timeout, config.http_idle_timeout) == (2.5, 3.0)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TRIOREG_MEMORY_BLOK": "1"}, "did you mean TRIOREG_MEMORY_BLOCK?"),
        ({"TRIOREG_memory_block": "64KiB"}, "variable TRIOREG_memory_block: no such setting"),
        ({"TRIOREG_": ""}, "variable TRIOREG_: no such setting"),
        (
            {"TRIOREG_STORAGE_PATH": "/a", "REGISTRY_STORAGE_PATH": "/b"},
            "variable TRIOREG_STORAGE_PATH (/a) and variable REGISTRY_STORAGE_PATH (/b)",
        ),
        ({"REGISTRY_STORAGE_PATH": ""}, "variable REGISTRY_STORAGE_PATH: "),
    ],
)
def test_environments_that_are_refused(environ: dict[str, str], says: str) -> None:
    """Unknown variables and two names that differ are refused, even under a stronger option."""
    for options in ({}, {"storage.path": "/c"}):
        with pytest.raises(ConfigError) as caught:
            load(options, environ, None)
        assert says in str(caught.value)


def test_an_unknown_option_is_refused() -> None:
    """`--set` takes only names of the table."""
    with pytest.raises(ConfigError, match=r"option memory\.blok: .*did you mean memory\.block\?"):
        load({"memory.blok": "1"}, {}, None)


def test_a_wrong_value_is_refused_though_a_stronger_source_hides_it() -> None:
    """A mistake is told when it is made, not on the day the option goes away."""
    with pytest.raises(ConfigError, match="variable TRIOREG_MEMORY_BLOCK"):
        load({"memory.block": "64KiB"}, {"TRIOREG_MEMORY_BLOCK": "x"}, None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory.block": "65537"}, "memory.block = 65537 (option memory.block) is not a multiple"),
        ({"memory.block": "60KiB"}, "is not between 64KiB and 4MiB"),
        ({"memory.block": "8MiB"}, "is not between 64KiB and 4MiB"),
        ({"memory.budget": "8MiB"}, "is less than 12MiB: 4 blocks of 1MiB and two manifests of"),
        (
            {"memory.block": "4MiB", "memory.budget": "23MiB"},
            "memory.budget = 23MiB (option memory.budget) is less than 24MiB",
        ),
        ({"upload.checkpoint_bytes": "1KiB"}, "is less than one block of 1MiB"),
        ({"http.tls_certificate": "c.pem"}, "needs http.tls_key as well"),
        ({"http.tls_key": "k.pem"}, "needs http.tls_certificate as well"),
    ],
)
def test_settings_that_do_not_go_together(options: dict[str, str], says: str) -> None:
    """Values that are right alone and wrong together are refused, with the source of the one."""
    with pytest.raises(ConfigError) as caught:
        load(options, NOTHING, None)
    assert says in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    """Smallest and largest block, and a budget of exactly what is needed."""
    small = {"memory.block": "64KiB", "manifest.max_bytes": "1MiB", "memory.budget": "2304KiB"}
    assert load(small, {}, None).memory_budget == 9 * 256 * 1024
    large = {"memory.block": "4MiB", "memory.budget": "24MiB"}
    assert load(large, {}, None).memory_block == 4 * 1024 * 1024
    tls = {"http.tls_certificate": "c.pem", "http.tls_key": "k.pem"}
    assert load(tls, {}, None).http_tls_key == Path("k.pem")


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_a_size_that_is_shown_reads_back(size: int) -> None:
    """`show_size` never rounds."""
    assert SIZE.parse(show_size(size)) == size


@given(st.text(), st.sampled_from(SETTINGS))
def test_any_text_is_a_value_or_one_line(text: str, setting: Any) -> None:
    """No text, however odd, is anything but a value or a ConfigError of one line."""
    says = "fine"
    try:
        find({setting.name: text}, {}, None)
    except ConfigError as error:
        says = str(error)
    assert len(says.splitlines()) == 1
