"""The one table of settings, and how a value is found for each.

The fields of `Config` are the table: a row carries its dotted name, kind, default, help and, where
it helps, a command-line option. TOML keys, variables, options, `trioreg config` and the table in
docs/configuration.md are all derived from it, so a setting is added in one place.

The rule: an option beats a variable, a variable beats the file, the file beats the default. Every
value that was given is checked, also one that a stronger source hides, and what cannot be
understood is refused with one line that names its source. Nothing here reads the process's
environment or touches the disk, apart from the settings file.

A leaf: imports nothing else of ours. Only `cli` and `server` import it; lower layers receive plain
values.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

CONFIG_VARIABLE = "TRIOREG_CONFIG"
STORAGE_VARIABLE = "REGISTRY_STORAGE_PATH"
PREFIX = "TRIOREG_"
TEST_PREFIX = "TRIOREG_TEST_"

KIB = 1024
MIB = 1024 * KIB
PAGE = 4096


class ConfigError(Exception):
    """A setting that cannot be used; its text is one line for the person who wrote the setting."""


class Address(NamedTuple):
    """Where to listen. `str()` gives the form that is parsed, IPv6 in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


# Kinds: how the text of a value is read and shown.


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `parse` raises ValueError whose text completes the sentence '"x" …'."""

    name: str
    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    toml: tuple[type, ...] = (str,)


_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power
_SIZE = re.compile(r"([0-9]{1,15}) ?([a-z]{0,3})", re.ASCII | re.IGNORECASE)
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("is not a size: write bytes, as 4096, 256KiB, 48MiB or 1GB")
    return int(match[1]) * _UNITS[match[2].lower()]


def show_size(size: int) -> str:
    """`size` bytes in the largest binary unit that is exact: 50331648 is `48MiB`."""
    for unit, factor in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _parse_count(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII) is None:
        raise ValueError("is not a whole number")
    return int(text)


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("is not a number of seconds, 0 or more")
    return seconds


def _parse_rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (rate == 0 or 1e-6 <= rate <= 1e9):
        raise ValueError("is not a number of 0 or more")
    return rate


def _parse_bool(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return Path(text)


def _parse_address(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise ValueError("is not HOST:PORT, as 127.0.0.1:5000 or [::1]:5000")
    if match[1]:
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError:
            raise ValueError("has no IPv6 address in its brackets") from None
    return Address(match[1] or match[2], int(match[3]))


def _parse_text(text: str) -> str:
    """Text that can stand in a quoted string of an HTTP header (RFC 9110, 5.6.4) as it is."""
    if re.search(r'[^ -~]|["\\]', text):
        raise ValueError("has characters other than printable ASCII, or a quote or backslash")
    return text


def _choice(*words: str) -> Kind:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return Kind(" or ".join(words), "|".join(words), parse)


def _parse_urls(text: str) -> tuple[str, ...]:
    urls = tuple(text.split())
    for url in urls:
        if (
            re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?(/[!-~]*)?", url, re.ASCII)
            is None
        ):
            raise ValueError("is not a list of URLs as https://host:port/path, without user or password")
    return urls


def _words(*known: str) -> Kind:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        if not words or set(words) - set(known):
            raise ValueError(f"is not a list of {', '.join(known)}")
        return words

    return Kind("list of " + ", ".join(known), "LIST", parse, ",".join)


PATH = Kind("path", "PATH", _parse_path)
PATH_OR_NONE = Kind(
    "path or empty",
    "PATH",
    lambda text: _parse_path(text) if text else None,
    lambda path: "" if path is None else str(path),
)
SIZE = Kind("size", "SIZE", _parse_size, show_size, (str, int))
COUNT = Kind("number", "N", _parse_count, str, (str, int))
RATE = Kind("number", "N", _parse_rate, lambda rate: f"{rate:.15g}", (str, int, float))
SECONDS = Kind("seconds", "SECONDS", _parse_seconds, lambda seconds: f"{seconds:.15g}", (str, int, float))


def _rules(number: Callable[[str], int], show: Callable[[int], str], *, namespaces: bool) -> Kind:
    """`pattern=number, …`: what holds for repositories whose names match; the form is `oci.patterns`'."""

    def parse(text: str) -> tuple[tuple[str, int], ...]:
        rules = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            pattern, equals, value = (each.strip() for each in part.partition("="))
            if not equals or not re.fullmatch(r"[a-z0-9._/*?-]{1,255}", pattern):
                raise ValueError("is not a list of PATTERN=NUMBER, as ml/big=10, **=5")
            if len(re.findall(r"\*+", pattern)) > 3:
                raise ValueError(f"has a pattern with more than three stars: {pattern}")
            if pattern.endswith("/") and (not namespaces or set(pattern) & {"*", "?"}):
                raise ValueError(f"has {pattern}, which is not a name or a pattern of names")
            try:
                rules.append((pattern, number(value)))
            except ValueError as error:
                raise ValueError(f"has {_quote(value)}, which {error}") from None
        return tuple(rules)

    def shown(rules: tuple[tuple[str, int], ...]) -> str:
        return ", ".join(f"{pattern}={show(value)}" for pattern, value in rules)

    return Kind("rules", "PATTERN=N, …", parse, shown)


def _parse_tags(text: str) -> tuple[tuple[str, str], ...]:
    """`names:tags, …`: patterns of repositories and of tags in them; without the second, every tag."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        names, _, tags = part.partition(":")
        pair = (names, tags or "*")
        if not re.fullmatch(r"[a-z0-9._/*?-]{1,255}:[\w.*?-]{1,128}", ":".join(pair), re.ASCII):
            raise ValueError("is not a list of NAMES:TAGS, as release/**:v*, **:stable")
        if any(len(re.findall(r"\*+", each)) > 3 for each in pair):
            raise ValueError(f"has a pattern with more than three stars: {part}")
        found.append(pair)
    return tuple(found)


# A reason to keep a tag, and what its number means.
_REASONS = ("newest", "days", "pulled")

# The newest are held in memory while a repository is looked through: about 150 bytes each.
_MOST_NEWEST = 10_000


def _parse_retention(text: str) -> tuple[tuple[str, str, int, int, int], ...]:
    """`names:tags=reason number …, …`: patterns as `_parse_tags`, then reasons, of which one is enough."""
    rules = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        patterns, _, reasons = part.partition("=")
        words = reasons.split()
        numbers = dict(zip(words[::2], words[1::2], strict=False))
        if (
            not patterns.strip()
            or not words
            or 2 * len(numbers) != len(words)
            or set(numbers) - set(_REASONS)
        ):
            raise ValueError("is not a list of NAMES:TAGS=newest N days N pulled N, as ci/**:pr-*=days 14")
        if any(_parse_count(number) < 1 for number in numbers.values()):
            raise ValueError("has a number that is less than 1")
        newest, days, pulled = (_parse_count(numbers.get(word, "0")) for word in _REASONS)
        if newest > _MOST_NEWEST:
            raise ValueError(f"keeps more than the {_MOST_NEWEST} newest")
        ((names, tags),) = _parse_tags(patterns.strip())
        rules.append((names, tags, newest, days, pulled))
    return tuple(rules)


def _show_retention(rules: tuple[tuple[str, str, int, int, int], ...]) -> str:
    shown = []
    for names, tags, *numbers in rules:
        reasons = (f"{word} {number}" for word, number in zip(_REASONS, numbers, strict=True) if number)
        shown.append(f"{names}:{tags}={' '.join(reasons)}")
    return ", ".join(shown)


RETENTION_RULES = Kind("retention rules", "NAMES:TAGS=WORD N, …", _parse_retention, _show_retention)
TAG_PATTERNS = Kind(
    "tag patterns",
    "NAMES:TAGS, …",
    _parse_tags,
    lambda pairs: ", ".join(":".join(pair) for pair in pairs),
)
BOOL = Kind("bool", "BOOL", _parse_bool, lambda value: str(value).lower(), (str, bool))
SIZE_RULES = _rules(_parse_size, show_size, namespaces=True)
COUNT_RULES = _rules(_parse_count, str, namespaces=False)
URLS = Kind("URLs or empty", "URLS", _parse_urls, " ".join)
TEXT = Kind("text", "TEXT", _parse_text)
ADDRESS = Kind("host:port", "HOST:PORT", _parse_address)
ADDRESS_OR_NONE = Kind(
    "host:port or empty",
    "HOST:PORT",
    lambda text: _parse_address(text) if text else None,
    lambda address: "" if address is None else str(address),
)


# The table.


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    default: str
    help: str
    option: str | None = None
    flag: str | None = None  # the value that `option` stands for when it takes none
    minimum: float = 0
    live: bool = False  # whether a running server takes a new value (server.reload)

    @property
    def attribute(self) -> str:
        """The field of `Config`: `memory.budget` is `memory_budget`."""
        return self.name.replace(".", "_")

    @property
    def variable(self) -> str:
        """The environment variable: `memory.budget` is `TRIOREG_MEMORY_BUDGET`."""
        return PREFIX + self.attribute.upper()

    def parse(self, text: str, source: str) -> Any:
        """The typed value of `text`; raises ConfigError that names `source`."""
        try:
            value = self.kind.parse(text)
            if self.minimum and value < self.minimum:
                raise ValueError(f"is less than {self.kind.show(self.minimum)}")
        except ValueError as error:
            raise ConfigError(f"{source}: {_quote(text)} {error}") from None
        return value


def _row(name: str, kind: Kind, default: str, help: str, **more: Any) -> Any:  # noqa: A002 - the column's name
    setting = Setting(name, kind, default, help, **more)
    return field(default=kind.parse(default), metadata={"setting": setting})


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, typed. Sizes are bytes, times are seconds."""

    # fmt: off
    # Name, kind and default of a row stay on one line.
    storage_path: Path = _row(
        "storage.path", PATH, "./data",
        "Root of the storage; made if absent. Relative to the working directory.",
        option="--storage",
    )
    storage_driver: Literal["filesystem", "memory"] = _row(
        "storage.driver", _choice("filesystem", "memory"), "filesystem",
        "Where bytes live. `memory` forgets everything at exit and is for experiments.",
    )
    storage_durability: Literal["full", "none"] = _row(
        "storage.durability", _choice("full", "none"), "full",
        "`full` syncs file and directories before a 201; `none` leaves that to the kernel.",
    )
    storage_direct: bool = _row(
        "storage.direct", BOOL, "true",
        "Uploads from 512 KiB on are written past the page cache (O_DIRECT) where the filesystem can.",
    )
    http_bind: Address = _row(
        "http.bind", ADDRESS, "127.0.0.1:5000",
        "Where to listen; port 0 takes a free one and prints it.",
        option="--bind",
    )
    http_tls_certificate: Path | None = _row(
        "http.tls_certificate", PATH_OR_NONE, "",
        "Certificate chain (PEM); with `http.tls_key` the registry speaks TLS.",
        option="--tls-certificate",
    )
    http_tls_key: Path | None = _row(
        "http.tls_key", PATH_OR_NONE, "",
        "Private key (PEM) of the certificate.",
        option="--tls-key",
    )
    http_tls_self_signed: bool = _row(
        "http.tls_self_signed", BOOL, "false",
        "Speak TLS with a certificate of our own making, for labs; its fingerprint is printed.",
        option="--tls-self-signed",
        flag="true",
    )
    http_tls_client_ca: Path | None = _row(
        "http.tls_client_ca", PATH_OR_NONE, "",
        "Authorities (PEM) whose client certificates are taken: their holder is `cert/NAME` in rules.",
    )
    http_front: Literal["direct", "quart"] = _row(
        "http.front", _choice("direct", "quart"), "direct",
        "`direct` serves OCI operations over HTTP/1.1 on the socket itself and hands everything else to "
        "Quart on Hypercorn; `quart` serves everything there.",
    )
    http_workers: int = _row(
        "http.workers", COUNT, "1",
        "Processes on one port. `memory.budget`, `memory.front` and `memory.cache` are divided among them.",
        option="--workers", minimum=1,
    )
    http_http2: bool = _row(
        "http.http2", BOOL, "false",
        "Offer HTTP/2 to clients that ask for it.",
    )
    http_stall_timeout: float = _row(
        "http.stall_timeout", SECONDS, "60",
        "A peer that moves no byte for so long is dropped; its upload stays resumable.",
        minimum=0.001, live=True,
    )
    http_idle_timeout: float = _row(
        "http.idle_timeout", SECONDS, "75",
        "A kept-alive connection with no request is closed after so long.",
        minimum=0.001, live=True,
    )
    http_shutdown_grace: float = _row(
        "http.shutdown_grace", SECONDS, "30",
        "How long running transfers may go on after SIGTERM.",
        live=True,
    )
    http_max_head_bytes: int = _row(
        "http.max_head_bytes", SIZE, "32KiB",
        "Largest head of a request (request line and headers).",
        minimum=1024, live=True,
    )
    http_max_connections: int = _row(
        "http.max_connections", COUNT, "16384",
        "Connections at once, and at most two thirds of the descriptors that a process may have; an eighth of"
        " them where Hypercorn serves. Divided among workers.",
        minimum=16, live=True,
    )
    http_backlog: int = _row(
        "http.backlog", COUNT, "1024",
        "Connections the kernel may hold before they are accepted.",
        minimum=1,
    )
    memory_budget: int = _row(
        "memory.budget", SIZE, "48MiB",
        "What the blocks of all transfers may take together: at least 4 blocks"
        " and two manifests of the largest size.",
        option="--memory-budget",
    )
    memory_block: int = _row(
        "memory.block", SIZE, "1MiB",
        "Size of one block: 64KiB to 4MiB, a multiple of 4096.",
    )
    memory_front: int = _row(
        "memory.front", SIZE, "32MiB",
        "What the fronts' own read and send buffers share.",
        minimum=MIB,
    )
    memory_cache: int = _row(
        "memory.cache", SIZE, "8MiB",
        "Manifests and descriptors kept in memory; 0 keeps none.",
    )
    admission_places: int = _row(
        "admission.places", COUNT, "0",
        "Uploads at once; 0 is one for each 32KiB of the blocks of `memory.budget`. Divided among workers.",
        live=True,
    )
    admission_queue: int = _row(
        "admission.queue", COUNT, "1024",
        "Uploads that may wait for a place; the next is answered with 429. Divided among workers.",
        live=True,
    )
    admission_wait: float = _row(
        "admission.wait", SECONDS, "10",
        "How long an upload waits for a place before 429.",
        live=True,
    )
    admission_uploads_per_client: int = _row(
        "admission.uploads_per_client", COUNT, "0",
        "Uploads at once of one identity, or of one address without; 0 sets no limit.",
        live=True,
    )
    blob_max_bytes: int = _row(
        "blob.max_bytes", SIZE, "0",
        "Largest blob; a larger one is answered with 413. 0 sets no limit.",
        live=True,
    )
    storage_reserve: int = _row(
        "storage.reserve", SIZE, "0",
        "Bytes of the disk that blobs leave free: pushes beyond are answered with 507 before they begin.",
        live=True,
    )
    quota_bytes: tuple[tuple[str, int], ...] = _row(
        "quota.bytes", SIZE_RULES, "",
        "What repositories may hold, as `ml/big=1TiB, team/=500GiB, **=50GiB`: the first pattern that matches"
        " counts for each repository by itself, a name that ends with `/` for all below it together.",
        live=True,
    )
    quota_tags: tuple[tuple[str, int], ...] = _row(
        "quota.tags", COUNT_RULES, "",
        "How many tags a repository may have, as `**=1000`; the first pattern that matches counts.",
        live=True,
    )
    rate_requests: float = _row(
        "rate.requests", RATE, "0",
        "Requests a second of one identity, or of one address without; 0 sets no limit. In each worker.",
        live=True,
    )
    rate_burst: int = _row(
        "rate.burst", COUNT, "100",
        "Requests at once of a client that was quiet, where `rate.requests` is set.",
        minimum=1, live=True,
    )
    upload_lease_wait: float = _row(
        "upload.lease_wait", SECONDS, "5",
        "How long a second writer of an upload session waits before 416.",
        live=True,
    )
    upload_checkpoint_bytes: int = _row(
        "upload.checkpoint_bytes", SIZE, "64MiB",
        "Bytes of one body between two saved digest states; at least one block.",
    )
    upload_chunk_min_length: int = _row(
        "upload.chunk_min_length", SIZE, "0",
        "Announced as `OCI-Chunk-Min-Length`; 0 announces nothing.",
        live=True,
    )
    upload_expire_after: float = _row(
        "upload.expire_after", SECONDS, "604800",
        "An upload session that nobody has used for so long is ended; 0 keeps them for ever.",
        live=True,
    )
    gc_interval: float = _row(
        "gc.interval", SECONDS, "86400",
        "Collect garbage so often while the server runs; 0 leaves it to `trioreg gc`.",
        live=True,
    )
    gc_grace: float = _row(
        "gc.grace", SECONDS, "86400",
        "What nobody needs is kept for so long after it was last relied on; a push may take half of that"
        " between its last blob and its manifest.",
        minimum=60,
    )
    tags_immutable: tuple[tuple[str, str], ...] = _row(
        "tags.immutable", TAG_PATTERNS, "",
        "Tags that cannot be moved, as `release/**:v*, **:stable`: patterns of repositories and tags.",
        live=True,
    )
    retention_rules: tuple[tuple[str, str, int, int, int], ...] = _row(
        "retention.rules", RETENTION_RULES, "",
        "Which tags stay, as `ci/**=newest 20 days 30, **:pr-*=pulled 14`: of those that a rule matches"
        " first, the newest N of a repository, and those set or pulled in the last N days. The others are"
        " removed before each collection, and by `trioreg retain`.",
        live=True,
    )
    retention_keep: tuple[tuple[str, str], ...] = _row(
        "retention.keep", TAG_PATTERNS, "",
        "Tags that no rule removes, as `**:stable, **:v*`.",
        live=True,
    )
    scrub_interval: float = _row(
        "scrub.interval", SECONDS, "0",
        "Read every blob so often while the server runs, to find what is rotten; 0 leaves it to"
        " `trioreg scrub`.",
        live=True,
    )
    scrub_rate: int = _row(
        "scrub.rate", SIZE, "32MiB",
        "Bytes that a scrub reads a second; 0 is as fast as it goes.",
        live=True,
    )
    gc_untagged: bool = _row(
        "gc.untagged", BOOL, "false",
        "Collect manifests too that have no tag and that no other manifest needs.",
        live=True,
    )
    manifest_max_bytes: int = _row(
        "manifest.max_bytes", SIZE, "4MiB",
        "Largest manifest; a larger one is answered with 413.",
        minimum=1024,
    )
    auth_htpasswd: Path | None = _row(
        "auth.htpasswd", PATH_OR_NONE, "",
        "Users and passwords as `htpasswd -B` writes them; read again when it changes.",
    )
    auth_access: Path | None = _row(
        "auth.access", PATH_OR_NONE, "",
        "Groups, rules and other issuers (TOML); read again when it changes. Without it who is signed in "
        "may pull, push and delete everywhere, and nobody else anything.",
    )
    auth_tokens: bool = _row(
        "auth.tokens", BOOL, "false",
        "Issue bearer tokens at `/auth/token` and send clients there.",
    )
    auth_token_seconds: float = _row(
        "auth.token_seconds", SECONDS, "300",
        "How long a token lives; clients expect at least 60.",
        minimum=60,
    )
    auth_token_algorithm: Literal["ES256", "EdDSA"] = _row(
        "auth.token_algorithm", _choice("ES256", "EdDSA"), "ES256",
        "Kind of key that is made when there is none to sign tokens with.",
    )
    auth_realm: str = _row(
        "auth.realm", TEXT, "",
        "URL of `/auth/token` as clients reach it; empty takes the name that they asked for.",
    )
    auth_service: str = _row(
        "auth.service", TEXT, "trioreg",
        "Name of this registry in tokens and challenges.",
    )
    auth_directory: Path | None = _row(
        "auth.directory", PATH_OR_NONE, "",
        "Where the signing key and the robots are kept; empty is `auth` in the storage.",
    )
    auth_read_only: bool = _row(
        "auth.read_only", BOOL, "false",
        "Deny every push and delete.",
        live=True,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _row(
        "log.level", _choice("debug", "info", "warning", "error"), "info",
        "The least severe records that are written.",
        option="--log-level", live=True,
    )
    log_format: Literal["text", "json"] = _row(
        "log.format", _choice("text", "json"), "text",
        "`json` writes one object a line.",
        option="--log-format", live=True,
    )
    log_access: bool = _row(
        "log.access", BOOL, "true",
        "Write a record for each request.",
        option="--no-access-log",
        flag="false", live=True,
    )
    metrics_bind: Address | None = _row(
        "metrics.bind", ADDRESS_OR_NONE, "",
        "Serve `/metrics` there and no longer on `http.bind`; to everybody who can reach it.",
    )
    metrics_census_interval: float = _row(
        "metrics.census_interval", SECONDS, "3600",
        "Between two counts of all blobs and links, with a tenth of a processor at most; 0 counts never.",
    )
    ui_enabled: bool = _row(
        "ui.enabled", BOOL, "false",
        "Serve the live page, `/ui/live`, to clients on the machine itself and to administrators.",
        option="--ui",
        flag="true",
    )
    otel_enabled: bool = _row(
        "otel.enabled", BOOL, "false",
        "Traces by OpenTelemetry (`pip install 'trioreg[otel]'`), sent where the `OTEL_…` variables say.",
    )
    debug_enabled: bool = _row(
        "debug.enabled", BOOL, "false",
        "Serve `/debug/…` (uploads, memory, tasks) to clients on the machine itself and to administrators.",
    )
    audit_path: Path | None = _row(
        "audit.path", PATH_OR_NONE, "",
        "File that gets a line of JSON for each push, delete and refusal; empty writes none.",
        live=True,
    )
    audit_pulls: bool = _row(
        "audit.pulls", BOOL, "false",
        "Write pulls of manifests to the audit log too.",
        live=True,
    )
    webhook_url: tuple[str, ...] = _row(
        "webhook.url", URLS, "",
        "Where events are posted: one URL, or several with spaces between them; empty posts none.",
        live=True,
    )
    webhook_events: tuple[str, ...] = _row(
        "webhook.events", _words("push", "pull", "delete"), "push,delete",
        "What is told to webhooks.",
        live=True,
    )
    webhook_secret_file: Path | None = _row(
        "webhook.secret_file", PATH_OR_NONE, "",
        "File with the secret that signs each delivery; empty signs none.",
        live=True,
    )
    webhook_timeout: float = _row(
        "webhook.timeout", SECONDS, "10",
        "How long one delivery may take.",
        minimum=0.001, live=True,
    )
    webhook_attempts: int = _row(
        "webhook.attempts", COUNT, "12",
        "How often an event is tried before it is given up.",
        minimum=1, live=True,
    )
    webhook_queue_bytes: int = _row(
        "webhook.queue_bytes", SIZE, "64MiB",
        "What may wait on the disk for one URL; events beyond it are lost, and counted.",
        minimum=65536, live=True,
    )
    webhook_path: Path | None = _row(
        "webhook.path", PATH_OR_NONE, "",
        "Folder of the queues; empty is `webhooks` below `storage.path`.",
    )
    debug_write_delay: float = _row(
        "debug.write_delay", SECONDS, "0",
        "Seconds added for each MiB written: makes the disk slow, for experiments.",
    )
    debug_disk_faults: Path | None = _row(
        "debug.disk_faults", PATH_OR_NONE, "",
        "File that makes calls to the disk fail, as `rename 2 EIO`, for experiments.",
    )
    # fmt: on


SETTINGS: tuple[Setting, ...] = tuple(field.metadata["setting"] for field in fields(Config))
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


class Row(NamedTuple):
    """A setting as documentation shows it; `option` is empty where there is none."""

    name: str
    variable: str
    option: str
    kind: str
    default: str
    help: str


def describe() -> list[Row]:
    """The table for people, in the order of the code."""
    rows = []
    for setting in SETTINGS:
        text = setting.help
        if setting.minimum:
            text += f" At least {setting.kind.show(setting.minimum)}."
        if setting.live:
            text += " *Live.*"
        row = Row(
            setting.name,
            setting.variable,
            setting.option or "",
            setting.kind.name,
            setting.default,
            text,
        )
        rows.append(row)
    return rows


# Finding values.


class Found(NamedTuple):
    """A value and where it came from: `default`, or the words an error would use."""

    value: Any
    source: str


def load(options: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> Config:
    """The effective settings.

    `options` maps dotted names to text. `file` is TOML; None means the one that `TRIOREG_CONFIG`
    names, if any. Raises ConfigError for anything unknown, wrong or contradictory.
    """
    found = find(options, environ, file)
    return Config(**{setting.attribute: found[setting.name].value for setting in SETTINGS})


class Source(NamedTuple):
    """Where a server's settings came from, to be read again."""

    options: Mapping[str, str]
    environ: Mapping[str, str]
    file: Path | None

    def load(self) -> Config:
        """Raises ConfigError, as `load`."""
        return load(*self)

    @property
    def path(self) -> Path | None:
        """The settings file, if there is one."""
        return self.file or _file_of(self.environ)


def check(config: Config) -> None:
    """Raise ConfigError where settings that are right by themselves do not go together."""
    _check_together(
        {setting.name: Found(getattr(config, setting.attribute), "in force") for setting in SETTINGS}
    )


def find(options: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> dict[str, Found]:
    """As `load`, each value with its source, by dotted name in the order of the table."""
    file = file or _file_of(environ)
    given: dict[str, Found] = {}
    if file is not None:
        given |= _from_file(file)
    given |= _from_environ(environ)
    given |= _from_options(options)
    found = {
        setting.name: given.get(setting.name) or Found(setting.kind.parse(setting.default), "default")
        for setting in SETTINGS
    }
    _check_together(found)
    return found


def _file_of(environ: Mapping[str, str]) -> Path | None:
    return Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None


def _from_options(options: Mapping[str, str]) -> dict[str, Found]:
    given = {}
    for name, text in options.items():
        source = f"option {_quote(name)}"
        if name not in _BY_NAME:
            raise ConfigError(f"{source}: no such setting{_nearest(name, _BY_NAME)}")
        given[name] = Found(_BY_NAME[name].parse(text, source), source)
    return given


def _from_environ(environ: Mapping[str, str]) -> dict[str, Found]:
    given = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(TEST_PREFIX):
            continue
        source = f"variable {_quote(variable)}"
        if variable in _BY_VARIABLE:
            setting = _BY_VARIABLE[variable]
            given[setting.name] = Found(setting.parse(environ[variable], source), source)
        elif variable != CONFIG_VARIABLE:
            raise ConfigError(f"{source}: no such setting{_nearest(variable, _BY_VARIABLE)}")
    if STORAGE_VARIABLE in environ:
        source = f"variable {STORAGE_VARIABLE}"
        setting = _BY_NAME["storage.path"]
        second = Found(setting.parse(environ[STORAGE_VARIABLE], source), source)
        first = given.setdefault(setting.name, second)
        if first.value != second.value:
            raise ConfigError(
                f"{first.source} ({_quote(str(first.value))}) and {source}"
                f" ({_quote(str(second.value))}) are two names of one setting and differ"
            )
    return given


def _from_file(file: Path) -> dict[str, Found]:
    import tomllib  # here, because most servers run without a file

    origin = f"file {_quote(str(file))}"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{origin}: {error.strerror or error}") from None
    except ValueError as error:  # not UTF-8, not TOML, or a NUL in the path
        raise ConfigError(f"{origin}: {error}") from None
    given = {}
    for name, value in _flatten(document):
        source = f"{origin}: {_quote(name)}"
        setting = _BY_NAME.get(name)
        if setting is None:
            raise ConfigError(f"{source}: no such setting{_nearest(name, _BY_NAME)}")
        # By exact type: in Python true is an int, here it is not a size.
        if type(value) not in setting.kind.toml:
            raise ConfigError(f"{source}: a {setting.kind.name} cannot be written as {value!r}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        given[name] = Found(setting.parse(text, source), source)
    return given


def _flatten(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`[memory] budget = 1` as `memory.budget`; what is deeper or shallower is no known name."""
    for section, table in document.items():
        if isinstance(table, dict):
            for key, value in table.items():
                yield f"{section}.{key}", value
        else:
            # A quoted "memory.budget" at the top must not pass for [memory] budget.
            yield f"{section} (outside any table)", table


def _check_together(found: Mapping[str, Found]) -> None:
    """Raise ConfigError where settings that are right by themselves do not go together."""

    def fail(name: str, why: str) -> None:
        setting, (value, source) = _BY_NAME[name], found[name]
        shown = _quote(setting.kind.show(value))
        raise ConfigError(f"{name} = {shown} ({source}) {why}")

    block = found["memory.block"].value
    if not 64 * KIB <= block <= 4 * MIB:
        fail("memory.block", "is not between 64KiB and 4MiB")
    if block % PAGE:
        fail("memory.block", f"is not a multiple of {PAGE}")
    manifest = found["manifest.max_bytes"].value
    workers = found["http.workers"].value
    least = workers * (4 * block + 2 * manifest)
    if found["memory.budget"].value < least:
        each = "" if workers == 1 else f" for each of {workers} workers"
        fail(
            "memory.budget",
            f"is less than {show_size(least)}: 4 blocks of {show_size(block)}"
            f" and two manifests of {show_size(manifest)}{each}",
        )
    if found["upload.checkpoint_bytes"].value < block:
        fail("upload.checkpoint_bytes", f"is less than one block of {show_size(block)}")
    for one, other in (
        ("http.tls_certificate", "http.tls_key"),
        ("http.tls_key", "http.tls_certificate"),
    ):
        if found[one].value is not None and found[other].value is None:
            fail(one, f"needs {other} as well")
    has_certificate = found["http.tls_certificate"].value is not None
    if found["http.tls_self_signed"].value and has_certificate:
        fail("http.tls_self_signed", "goes with no http.tls_certificate")
    if found["http.tls_client_ca"].value and not (has_certificate or found["http.tls_self_signed"].value):
        fail("http.tls_client_ca", "needs a certificate of our own: http.tls_certificate")


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib  # here, because only a mistake needs it

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _quote(text: str) -> str:
    """Names as they are; anything with other characters as a JSON string, so it stays one line."""
    return text if re.fullmatch(r"[\w./:@+-]+", text, re.ASCII) else json.dumps(text)
