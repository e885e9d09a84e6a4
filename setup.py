"""The compiled digest engine, optional: without a compiler the package installs all the same.

All else is in pyproject.toml. No `-march`: the vector code names its own targets and is chosen when
it runs, so one wheel serves every x86-64.
"""

from glob import glob

from setuptools import Extension, setup

SOURCES = "trioreg/pipeline/native"

setup(
    ext_modules=[
        Extension(
            "trioreg.pipeline._engine",
            sources=sorted(glob(f"{SOURCES}/*.c")),
            depends=sorted(glob(f"{SOURCES}/*.h")),
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
    ]
)
