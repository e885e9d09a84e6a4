"""Known vulnerabilities of what a lock names: `audit.py PIP-AUDIT LOCK`; `make audit` calls it.

pip-audit says "No known vulnerabilities found", with exit code 0, also when its service knew none of the
packages, as behind a mirror that serves no advisories. So what was looked up is counted. Exit codes: 0 all
were looked up and are good, 1 something is vulnerable, 3 some could not be looked up: that is no audit.
"""

import json
import subprocess
import sys

NOT_AUDITED = 3


def main(program: str, lock: str) -> int:
    command = [program, "--requirement", lock, "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr[-2000:], file=sys.stderr)  # noqa: T201 (why)
        return say("NOT AUDITED: pip-audit came to no result", NOT_AUDITED)
    bad = [
        (each["name"], each["version"], found["id"]) for each in packages for found in each.get("vulns", ())
    ]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    for name, version, identifier in bad:
        print(f"{name} {version}: {identifier}")  # noqa: T201 (the result)
    if bad:
        return say(f"audit: {len(bad)} known vulnerabilities", 1)
    if unknown or not packages:
        return say(
            f"NOT AUDITED: {len(unknown)} of {len(packages)} packages could not be looked up", NOT_AUDITED
        )
    return say(f"audit: {len(packages)} packages, no known vulnerability", 0)


def say(line: str, code: int) -> int:
    print(line)  # noqa: T201 (the result)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
