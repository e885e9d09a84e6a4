"""`trioreg auth`: robots, and why somebody may or may not do something."""

from __future__ import annotations

import argparse
import sys
import time

from trioreg.cli.command import Commands, add_command, fail, settings_of

_DAY_SECONDS = 86400.0


def add(commands: Commands) -> None:
    text = "make and revoke robots; explain who may do what"
    group = add_command(commands, "auth", text, _create, settings=False)
    parts = group.add_subparsers(dest="part", required=True, metavar="COMMAND")
    _add_explain(parts)
    robot = add_command(parts, "robot", "tokens for machines", _create, settings=False)
    robots = robot.add_subparsers(dest="robot", required=True, metavar="COMMAND")
    create = add_command(robots, "create", "make a robot and show its token, once", _create)
    create.add_argument("name", metavar="NAME")
    create.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="SCOPE",
        help="what it may do, as repository:team/**:pull,push; repeatable. Rules may name it as well",
    )
    create.add_argument("--days", type=float, metavar="N", help="until it ends by itself")
    add_command(robots, "list", "show the robots there are", _list)
    revoke = add_command(robots, "revoke", "end a robot; servers know within a second", _revoke)
    revoke.add_argument("name", metavar="NAME")


def _add_explain(parts: Commands) -> None:
    text = "say whether somebody may do something, and by which rule; the exit code is 1 if not"
    explain = add_command(parts, "explain", text, _explain)
    explain.add_argument(
        "user", metavar="USER", help="a name, robot+NAME, cert/NAME, ISSUER/SUBJECT; anonymous"
    )
    explain.add_argument("action", choices=("pull", "push", "delete", "admin"), metavar="ACTION")
    explain.add_argument("repository", nargs="?", metavar="REPOSITORY", help="none: the registry as a whole")
    explain.add_argument(
        "--group", action="append", default=[], help="a group that an issuer says; repeatable"
    )


def _explain(arguments: argparse.Namespace) -> int:
    from trioreg.server.access import explain

    config = settings_of(arguments)
    try:
        decision = explain(
            config, arguments.user, arguments.action, arguments.repository, frozenset(arguments.group)
        )
    except ValueError as error:
        return fail(2, str(error))
    sys.stdout.write(f"{'allowed' if decision.allowed else 'denied'}: {decision.why}\n")
    return 0 if decision.allowed else 1


def _create(arguments: argparse.Namespace) -> int:
    from trioreg.server.access import robots
    from trioreg.server.recording import do_and_record

    seconds = arguments.days * _DAY_SECONDS if arguments.days else None
    try:
        config = settings_of(arguments)
        what = f"create robot+{arguments.name} {' '.join(arguments.scope)}".rstrip()
        token = do_and_record(
            config, what, lambda: robots(config).create(arguments.name, arguments.scope, seconds)
        )
    except FileExistsError:
        return fail(1, f"there is a robot {arguments.name}; revoke it first")
    except ValueError as error:
        return fail(2, str(error))
    sys.stdout.write(f"user      robot+{arguments.name}\npassword  {token}\n")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from trioreg.server.access import robots

    now = time.time()
    for robot in robots(settings_of(arguments)).all():
        until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(robot.expires)) if robot.expires else "revoked"
        state = "ended" if robot.is_over(now) else f"until {until}"
        sys.stdout.write(f"{robot.name:<24}  {state:<22}  {' '.join(robot.scopes)}".rstrip() + "\n")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from trioreg.server.access import robots
    from trioreg.server.recording import do_and_record

    config = settings_of(arguments)

    def revoke() -> None:
        if not robots(config).revoke(arguments.name):
            raise LookupError(arguments.name)

    try:
        do_and_record(config, f"revoke robot+{arguments.name}", revoke)
    except LookupError:
        return fail(1, f"there is no robot {arguments.name}")
    return 0
