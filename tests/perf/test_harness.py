"""A run from end to end against the real server, and the parts that decide what is written down."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from perf.__main__ import main
from perf.harness.cgroup import Hierarchy, NoCgroup, find_hierarchy, memory_cgroup
from perf.harness.folder import FolderTaken, RunFolder
from perf.harness.host import memray_python, predicted, settings_of, words_of
from perf.harness.inside import InsideView, parse
from perf.harness.limits import Outcome, judge, kept
from perf.harness.messages import Beat, Operation, decode_said, encode
from perf.harness.outside import Outside
from perf.harness.progress import Progress
from perf.harness.reading import load_scenario, override
from perf.harness.scenario import Bytes, Limits
from perf.harness.snapshots import Snapshots, grouped, short
from perf.plan import MB
from perf.run import CaseFailed

TINY = """\
title = "two clients, one megabyte each"
idle_seconds = 0.1
after_seconds = 0.1
seconds = 30
processes = 2

[catalog]
count = 2
sizes = { fixed = 2000 }

[[group]]
name = "push"
shape = "mix"
mix = { docker = 1, containerd = 1, podman = 1, chunked = 1, image = 1 }
clients = 2
each = 5
piece = 300000
sizes = { fixed = "1MB" }

[[group]]
name = "look"
shape = "mix"
mix = { pull = 1, manifest = 1, head = 1 }
clients = 2
each = 6
zipf = 1.0

[[group]]
name = "leave"
shape = "docker"
clients = 2
each = 2
sizes = { fixed = "1MB" }
cut = { at = 200000, how = "reset", resume = true }

[limits]
peak_rss = "200MB"
"""


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    return file


def test_a_run_leaves_a_folder(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every operation ends well in every shape; samples, events and run.json say so and agree."""
    assert main(["run", str(tiny), "--out", str(tmp_path / "out"), "--hz", "50"]) == 0
    folder = tmp_path / "out" / "1"
    run = json.loads((folder / "run.json").read_text())
    outcome = run["outcome"]
    assert (run["format"], run["server"]["name"], run["scenario"]["name"]) == (1, "trioreg", "tiny")
    assert (outcome["operations"], outcome["failed"], outcome["problems"]) == (26, 0, {})
    assert outcome["bytes_in"] >= 14 * MB
    assert 10 * MB < outcome["idle_rss"] <= outcome["peak_rss"]
    assert [limit["name"] for limit in outcome["limits"]] == ["failed", "peak_rss"]
    assert run["sampler"]["hz"] == 50 and run["clients"]["cpu_seconds"] > 0
    terms = run["predicted"]
    fixed = terms["base"] + terms["budget"] + terms["front"] + terms["cache"]
    assert terms["total"] == fixed + terms["connections"] * terms["per_connection"]

    events = lines(folder / "events.jsonl")
    order = [event["event"] for event in events if event["event"] != "operation"]
    assert order == ["start", "idle", "load", "drained", "peak", "after", "end"]
    operations = [event for event in events if event["event"] == "operation"]
    assert len(operations) == 26 and all(event["ok"] for event in operations)
    assert {event["group"] for event in operations} == {"push", "look", "leave"}

    samples = lines(folder / "samples.jsonl")
    assert [sample["t"] for sample in samples] == sorted(sample["t"] for sample in samples)
    assert samples[-1]["sent"] == outcome["bytes_in"]
    assert all(sample["rss"] > 0 and sample["threads"] > 0 for sample in samples)
    assert any(sample.get("pss", 0) > 0 and sample["sockets"] > 0 for sample in samples)
    assert str(tmp_path) not in (folder / "run.json").read_text(), "paths of a machine are nobody's business"
    assert "26 operations, 0 failed" in capsys.readouterr().out


def test_a_limit_that_is_passed_fails_the_run(tiny: Path, tmp_path: Path) -> None:
    """Exit code 1, and the folder says which limit; without sampling there is still a peak."""
    out = ["--out", str(tmp_path / "out"), "--no-sampling"]
    assert main(["run", str(tiny), *out, "--set", "limits.peak_rss=1MB", "--set", "group.push.each=1"]) == 1
    run = json.loads((tmp_path / "out" / "1" / "run.json").read_text())
    assert run["sampler"] is None
    assert [limit["name"] for limit in run["outcome"]["limits"] if not limit["passed"]] == ["peak_rss"]


def test_a_server_that_does_not_start_breaks_the_run(tiny: Path, tmp_path: Path) -> None:
    """The folder is complete and says why."""
    command = "sh -c 'echo no registry here >&2; exit 3' {port} {storage}"
    assert main(["run", str(tiny), "--out", str(tmp_path / "out"), "--peer", f"it={command}"]) == 1
    run = json.loads((tmp_path / "out" / "1" / "run.json").read_text())
    assert "no registry here" in run["outcome"]["broken"]
    assert run["server"]["name"] == "it"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["nonsense"], "ready ones"),
        (["laptop", "--set", "limits.peek=3"], "peek"),
        (["laptop", "--peer", "x=no places"], "{port}"),
        (["laptop", "--server", "x {port} {storage}", "--tracemalloc"], "not into a peer"),
    ],
)
def test_what_cannot_be_run_is_said(options: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a line, before anything is started."""
    assert main(["run", *options]) == 2
    assert why in capsys.readouterr().err


def test_a_folder_is_used_once(tmp_path: Path) -> None:
    """A run never writes over another."""
    with RunFolder(tmp_path / "run") as folder:
        folder.finish({})
    with pytest.raises(FolderTaken):
        RunFolder(tmp_path / "run")


def test_a_limit_without_a_figure_is_not_kept() -> None:
    """At the limit is kept, above is not, and where nothing was seen nothing was kept."""
    outcome = Outcome(failed=0, idle_rss=10, peak_rss=50)
    assert kept(judge(Limits(peak_rss=Bytes(50), growth=Bytes(40)), outcome))
    assert not kept(judge(Limits(growth=Bytes(39)), outcome))
    assert not kept(judge(Limits(peak_cgroup=Bytes(10**9)), outcome))
    assert not kept(judge(Limits(), Outcome(failed=1)))
    assert not kept(judge(Limits(), Outcome(cgroup_kills=1)))
    assert not kept(judge(Limits(), Outcome(broken="the server died")))


def test_the_memory_hierarchy_is_found() -> None:
    """Version 1 where it has the memory controller, else version 2, else a reason."""
    first = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/m cgroup rw,memory 0 0\n"
    second = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    assert find_hierarchy(second + first) == Hierarchy(Path("/sys/m"), 1)
    assert find_hierarchy(second) == Hierarchy(Path("/sys/fs/cgroup/unified"), 2)
    with pytest.raises(NoCgroup):
        find_hierarchy("proc /proc proc rw 0 0\n")


METRICS = """\
# HELP trioreg_uploads what
# TYPE trioreg_uploads gauge
trioreg_uploads{waits_for="client"} 3
trioreg_uploads{waits_for="disk"} 0
trioreg_budget_blocks 160
trioreg_budget_held_blocks 7
trioreg_budget_waiting 2
trioreg_pipeline_blocks{stage="digest"} 5
trioreg_cache_bytes{cache="manifests"} 100
trioreg_cache_bytes{cache="files"} 20
trioreg_loop_lag_seconds_bucket{le="0.1"} 9
trioreg_loop_lag_seconds_sum 0.5
trioreg_loop_lag_seconds_count 10
python_gc_collections_total{generation="2"} 4
"""


def test_the_view_inside_is_read_from_metrics() -> None:
    """Labels become keys, caches are summed, and the lag is that since the look before."""
    view = InsideView(1)
    seen = view.read(parse(METRICS))
    assert (seen["blocks_total"], seen["blocks_held"], seen["blocks_waiting"]) == (160, 7, 2)
    assert seen["uploads"] == {"client": 3}
    assert (seen["stages"], seen["cache_bytes"], seen["gc"]) == ({"digest": 5}, 120, [0, 0, 4])
    assert seen["loop_lag"] == pytest.approx(0.05)
    assert "loop_lag" not in view.read(parse(METRICS)), "nothing new was measured"
    assert view.look() is None, "nobody listens there"


def test_this_process_is_seen_from_outside() -> None:
    """A first look is a close one; CPU time never goes back."""
    outside = Outside(os.getpid())
    first, second = outside.look(), outside.look()
    assert first["pss"] > 0 and first["descriptors"] > 0 and "pss" not in second
    assert first["anonymous"] > 0 and first["minor_faults"] > 0
    assert second["cpu_user"] >= first["cpu_user"]


def test_what_clients_say_travels_as_lines() -> None:
    for said in (Beat(1, 2, 3, 4, 5), Operation(1.0, "push", 5, 0.5, True)):
        assert encode(said).count(b"\n") == 1
        assert decode_said(encode(said)) == said


def test_progress_is_a_line() -> None:
    """Parts of what is to be done, where that is known."""
    line = Progress(load_scenario("laptop")).line(Beat(3, 10 * MB, 0, 226, 0), 50 * MB, 4.2)
    assert line.startswith("laptop [############............] 226 done, 3 in flight, 0 failed, 10 MB")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/lib/python3.11/site-packages/trio/_core/_run.py", "trio/_core/_run.py"),
        ("/home/me/trioreg/trioreg/pipeline/pump.py", "trioreg/pipeline/pump.py"),
        ("/usr/lib/python3.11/json/decoder.py", "lib/json/decoder.py"),
        ("/usr/lib/python3.11/ssl.py", "lib/ssl.py"),
        ("trioreg/pipeline/pump.py:0", "trioreg/pipeline/pump.py"),
        ("<string>:0", "<string>"),
    ],
)
def test_files_of_a_snapshot_are_named_without_the_machine(path: str, name: str) -> None:
    assert short(path) == name


def test_snapshots_are_grouped_by_file_layer_and_stage() -> None:
    """Sums are kept, the largest comes first."""
    rows = [
        ("/r/trioreg/pipeline/engine.py", 10, 1),
        ("/r/trioreg/pipeline/pump.py", 5, 2),
        ("/v/site-packages/trio/_core/_run.py", 40, 3),
        ("/usr/lib/python3.11/ssl.py", 1, 1),
    ]
    views = grouped((short(name), size, blocks) for name, size, blocks in rows)
    assert views["by_file"][0] == ("trio/_core/_run.py", 40, 3)
    assert views["by_layer"] == [("trio", 40, 3), ("trioreg/pipeline", 15, 3), ("python", 1, 1)]
    assert {name: size for name, size, _ in views["by_stage"]} == {"other": 41, "digest": 10, "pump": 5}


def test_what_is_not_there_is_said() -> None:
    """Memray is no dependency: without it the option says how to get it."""
    if find_spec("memray") is None:
        with pytest.raises(CaseFailed, match="pip install memray"):
            memray_python(Path("x"))
    else:
        assert memray_python(Path("x"))[1:3] == ["-m", "memray"]


def test_the_prediction_follows_the_settings() -> None:
    """Budget and workers move the sum; a connection adds its constant."""
    small, large = predicted({"memory.budget": "16MiB"}, 10), predicted({"memory.budget": "48MiB"}, 10)
    assert large["total"] - small["total"] == 32 << 20
    assert predicted({}, 11)["total"] - predicted({}, 10)["total"] == large["per_connection"]


FAULTS = """\
title = "two uploads, and a server that dies amid them"
idle_seconds = 0.1
after_seconds = 0.1
seconds = 30

[[group]]
name = "push"
shape = "mix"
mix = { docker = 1, containerd = 1 }
clients = 2
each = 2
sizes = { fixed = "1MB" }
rate = { bytes_per_second = "2MB" }
retries = 9

[[fault]]
at = 0.3
kind = "kill_server"
after = 0.1
"""


def test_a_server_that_is_killed_comes_back(tmp_path: Path) -> None:
    """Clients go on where it stands after its new start: nothing fails, and the events say what happened."""
    file = tmp_path / "faults.toml"
    file.write_text(FAULTS)
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "1"
    events = lines(folder / "events.jsonl")
    assert [event["kind"] for event in events if event["event"] == "fault"] == ["kill_server", "restart"]
    outcome = json.loads((folder / "run.json").read_text())["outcome"]
    assert (outcome["operations"], outcome["failed"]) == (4, 0)
    assert outcome["bytes_in"] >= 4 * MB


def test_a_run_inside_a_memory_cgroup(tiny: Path, tmp_path: Path) -> None:
    """The kernel's own peak is kept and held against the limit; the group is gone afterwards."""
    try:
        with memory_cgroup(100 * MB) as group:
            assert group.kills() == 0
    except NoCgroup as error:
        pytest.skip(f"no memory cgroup to be had here: {error}")
    assert not group.path.exists()
    assert main(["run", str(tiny), "--out", str(tmp_path / "out"), "--cgroup", "200MB"]) == 0
    outcome = json.loads((tmp_path / "out" / "1" / "run.json").read_text())["outcome"]
    assert 10 * MB < outcome["peak_cgroup"] <= 200 * MB
    assert outcome["cgroup_kills"] == 0
    samples = lines(tmp_path / "out" / "1" / "samples.jsonl")
    assert all(sample["cgroup"] > 0 for sample in samples)


class Traced(BaseHTTPRequestHandler):
    """A server that says what it holds: a kilobyte more each time."""

    held = 0

    def do_GET(self) -> None:
        assert self.path == "/debug/tracemalloc?by=filename"
        type(self).held += 1000
        rows = [["trioreg/pipeline/pump.py:0", self.held, self.held // 1000], ["<frozen abc>:0", 7, 1]]
        body = json.dumps({"tracing": True, "rows": rows}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_snapshots_are_taken_at_their_markers(tmp_path: Path) -> None:
    """Idle, peak and after, each once; the later ones with what has grown since idle."""
    with HTTPServer(("127.0.0.1", 0), Traced) as server, RunFolder(tmp_path / "run") as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        snapshots = Snapshots(folder, server.server_port, wanted=True)
        for marker in ("idle", "peak", "peak", "after"):
            snapshots.take_once(marker)
        snapshots.close()
        server.shutdown()
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "run" / "snapshots").iterdir()}
    assert set(found) == {"idle", "peak", "after"}
    assert "since_idle" not in found["idle"]
    assert found["peak"]["by_layer"] == [["trioreg/pipeline", 2000, 2], ["python", 7, 1]]
    assert found["after"]["since_idle"]["by_stage"] == [["pump", 2000, 2], ["other", 0, 0]]


def test_a_server_that_does_not_trace_breaks_the_run(tmp_path: Path) -> None:
    """Nobody asks for snapshots and gets a folder without them."""
    with RunFolder(tmp_path / "run") as folder:
        Snapshots(folder, 1, wanted=False).take("idle")
        with pytest.raises(CaseFailed, match="no snapshot at idle"):
            Snapshots(folder, 1, wanted=True).take("idle")


def test_commands_are_told_without_the_machine() -> None:
    """Folders of whoever ran it are nobody's business; options stay."""
    command = ["env", "ROOT=/tmp/x/storage", "/usr/bin/python3", "-m", "trioreg", "--bind", "127.0.0.1:0"]
    told = ["env", "ROOT=storage", "python3", "-m", "trioreg", "--bind", "127.0.0.1:0"]
    assert words_of(command) == told


@pytest.mark.parametrize(
    ("disk", "delay"),
    [({}, None), ({"latency": 0.5}, 0.5), ({"size": "1MiB"}, None)],
)
def test_a_slow_disk_is_a_setting(disk: dict[str, Any], delay: float | None, tmp_path: Path) -> None:
    """A latency as it is; a size alone makes nothing slow."""
    changes = [override(f"disk.{name}={value}") for name, value in disk.items()]
    settings = settings_of(load_scenario("laptop", changes), tmp_path)
    found = settings.get("debug.write_delay")
    assert (None if found is None else float(found)) == delay


def test_a_disk_that_is_slower_is_measured(tmp_path: Path) -> None:
    """Twice as slow takes as much more as a MiB takes now, whatever that is."""
    settings = settings_of(load_scenario("laptop", [override("disk.factor=2")]), tmp_path)
    assert float(settings["debug.write_delay"]) > 0
    assert list(tmp_path.iterdir()) == [], "the probe is gone"
