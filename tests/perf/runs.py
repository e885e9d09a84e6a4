"""Run folders that were never run: the format of a run, filled by a few curves and a seed."""

import json
import random
from pathlib import Path
from typing import Any

MB = 1_000_000


def write_run(
    folder: Path,
    *,
    name: str = "uploads",
    server: str = "trioreg",
    clients: int = 20,
    peak: float = 80 * MB,
    seconds: float = 20.0,
    slowness: float = 1.0,
    noise: float = 0.01,
    seed: int = 1,
    inside: bool = True,
    repeat: int = 1,
    budget: str = "48MiB",
) -> Path:
    """One folder. `slowness` stretches latencies, `noise` is the relative spread of every figure."""
    chance = random.Random(f"{seed}/{repeat}/{name}/{server}")

    def about(value: float) -> float:
        return value * chance.gauss(1, noise)

    top, stretch = int(about(peak)), about(slowness)
    idle, size, each = 32 * MB, 10 * MB, 10
    load = (0.1 * seconds, 0.8 * seconds)
    samples: list[dict[str, Any]] = []
    count = 200
    for at in range(count):
        t = seconds * at / count
        share = min(max((t - load[0]) / (load[1] - load[0]), 0.0), 1.0)
        busy = 0 < share < 1
        rss = int(idle + (top - idle) * min(share * 6, 1.0)) if share else idle
        sample: dict[str, Any] = {
            "t": t,
            "rss": rss,
            "minor_faults": at,
            "major_faults": 0,
            "cpu_user": share * stretch,
            "cpu_system": share * stretch / 2,
            "threads": 4,
            "descriptors": 20 + clients * busy,
            "in_flight": clients * busy,
            "sent": int(share * size * clients * each),
            "received": 0,
        }
        if at % 5 == 0:
            sample |= {"pss": rss - MB, "anonymous": rss - 9 * MB, "file": 8 * MB, "cgroup": rss + 50 * MB}
        if inside:
            held = 100 * busy
            sample["inside"] = {
                "blocks_total": 160,
                "blocks_held": held,
                "blocks_waiting": 3 * busy,
                "uploads": {"active": clients * busy},
                "stages": {"receive": clients * busy, "digest": 7 * busy, "write": 2 * busy},
                "loop_lag": chance.uniform(0.0001, 0.004),
                "cache_bytes": 1000,
                "gc": [1, 2, 3],
            }
        samples.append(sample)
    events: list[dict[str, Any]] = [
        {"t": 0.0, "event": "start"},
        {"t": load[0] / 2, "event": "idle"},
        {"t": load[0], "event": "load"},
        {"t": seconds / 2, "event": "peak"},
        {"t": load[1], "event": "drained"},
        {"t": 0.95 * seconds, "event": "after"},
        {"t": seconds, "event": "end"},
    ]
    total = clients * each
    events += [
        {
            "t": load[0] + (load[1] - load[0]) * (number + 1) / total,
            "event": "operation",
            "kind": "push",
            "bytes": size,
            "seconds": stretch * chance.lognormvariate(0, 0.3),
            "ok": True,
        }
        for number in range(total)
    ]
    description: dict[str, Any] = {
        "format": 1,
        "scenario": {"name": name, "clients": clients, "size": {"fixed": size}},
        "server": {"name": server, "command": ["serve", "<&>"], "settings": {"memory.budget": budget}},
        "machine": {"cpu": "a processor & more", "cores": 2, "commit": "abc"},
        "versions": {"trioreg": "0.1", "python": "3.11"},
        "commit": "abc",
        "seed": seed,
        "repeat": repeat,
        "started": 1.7e9,
        "seconds": seconds,
        "sampler": {"hz": 10.0, "cpu_seconds": 0.4},
        "clients": {"cpu_seconds": 3.0},
        "outcome": {
            "operations": total,
            "failed": 0,
            "bytes_in": total * size,
            "bytes_out": 0,
            "peak_rss": top,
            "idle_rss": idle,
            "after_rss": idle + MB,
            "server_cpu_seconds": about(2.0) * slowness,
            "limits": [{"name": "peak_rss", "limit": 500 * MB, "value": top, "passed": True}],
        },
        "predicted": {
            "base": 32 * MB,
            "budget": 50 * MB,
            "front": 33 * MB,
            "per_connection": 63_000,
            "connections": clients,
            "total": 115 * MB + 63_000 * clients,
        },
    }
    if not inside:
        description["predicted"] = None
    (folder / "snapshots").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(description))
    for file, rows in (("samples", samples), ("events", events)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for marker, when, factor in (("idle", 1.0, 1), ("peak", 10.0, 3), ("after", 19.0, 1)):
        by_layer = [["pipeline", factor * MB, 10], ["server", 2 * factor * MB, 20], ["oci", 5000, 2]]
        snapshot = {
            "at": when,
            "marker": marker,
            "by_file": [["trioreg/pipeline/pump.py", factor * MB, 7], ["trioreg/<x>.py", 10, 1]],
            "by_layer": by_layer,
            "by_stage": [],
        }
        (folder / "snapshots" / f"{marker}.json").write_text(json.dumps(snapshot))
    return folder


def write_repeats(folder: Path, count: int, **values: Any) -> Path:
    """`folder/1` to `folder/count`."""
    for repeat in range(1, count + 1):
        write_run(folder / str(repeat), repeat=repeat, **values)
    return folder
