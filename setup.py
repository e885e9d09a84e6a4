"""The compiled parts, optional: without a compiler the package installs all the same.

All else is in pyproject.toml. No `-march`: the vector code names its own targets and is chosen when
it runs, so one wheel serves every x86-64.
"""

from glob import glob

from setuptools import Extension, setup


def extension(name: str, sources: str) -> Extension:
    return Extension(
        name,
        sources=sorted(glob(f"{sources}/*.c")),
        depends=sorted(glob(f"{sources}/*.h")),
        extra_compile_args=[
            "-O3",
            "-std=gnu11",
            "-pthread",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
        ],
        extra_link_args=["-pthread"],
        optional=True,
    )


setup(
    ext_modules=[
        extension("trioreg.pipeline._engine", "trioreg/pipeline/native"),
        extension("trioreg.storage.filesystem._scripts", "trioreg/storage/filesystem/native"),
    ]
)
