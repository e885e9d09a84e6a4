"""Reading /proc: the figures a limit is decided by."""

import os
from pathlib import Path

import pytest

from perf.machine import filesystem_of, processor
from perf.sampling import (
    TICKS,
    Sample,
    Sampler,
    descendants,
    look_at,
    parse_cpu,
    parse_fields,
    peak_of,
)

ROLLUP = """\
55d0c0a00000-7ffd5b5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               13312 kB
Pss:               10240 kB
Pss_Anon:           7168 kB
Pss_File:           3072 kB
Threads:	7
"""


def test_fields_are_in_bytes() -> None:
    """KB of the kernel are 1024 bytes; numbers without a unit stay; the range line is no field."""
    fields = parse_fields(ROLLUP)
    assert fields["Rss"] == 13312 * 1024
    assert fields["Pss_Anon"] + fields["Pss_File"] == fields["Pss"]
    assert fields["Threads"] == 7
    assert not any("rollup" in name for name in fields)


def test_cpu_counts_children_and_survives_names() -> None:
    """utime, stime, cutime and cstime are fields 14 to 17, counted behind the last bracket."""
    stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 900 0 0 0 100 20 3 4 20 0 7 0 12345 0 0"
    assert parse_cpu(stat) == pytest.approx(127 / TICKS)


def test_peak_never_forgets_the_high_water_mark() -> None:
    """A peak between two samples is in VmHWM only, and counts."""
    samples = [Sample(rss=10, high_water=10, cpu=1.0), Sample(rss=8, high_water=30, cpu=2.0)]
    peak = peak_of(samples)
    assert (peak.rss, peak.cpu) == (30, 2.0)
    assert peak_of([]) == Sample()


def test_this_process_can_be_seen() -> None:
    """A close look at a live process fills every figure; one that has ended counts nothing."""
    seen = look_at([os.getpid()], closely=True)
    assert min(seen.rss, seen.high_water, seen.pss, seen.anonymous, seen.descriptors) > 0
    assert descendants(os.getpid())[0] == os.getpid()
    assert look_at([2**22 + 1], closely=True).rss == 0


def test_the_sampler_sees_memory_that_comes_and_goes() -> None:
    """64 MiB taken and given back are in the peak; after `forget` they are not."""
    with Sampler(os.getpid()) as sampler:
        sampler.forget()
        base = sampler.now().rss
        bytearray(64 << 20)
        assert sampler.peak().rss - base > 60 << 20
        sampler.forget()
        assert sampler.peak().rss - base < 30 << 20


def test_machine_says_what_matters() -> None:
    """The model and the flags of a digest's speed; the mount that is deepest."""
    text = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 sha_ni\n"
    assert processor(text) == ("Some CPU", ["avx2", "sha_ni"])
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /run/data xfs rw 0 0\n"
    assert filesystem_of(Path("/run/data/x"), mounts) == "xfs (/dev/b)"
    assert filesystem_of(Path("/runway"), mounts) == "ext4 (/dev/a)"
