"""What goes wrong on purpose while a load runs, at the moments its scenario names.

The rule: each fault comes once and is written down as an event; while the server is down on purpose, its
silence is no failure of the run.
"""

from collections.abc import Sequence

from perf.harness.folder import RunFolder
from perf.harness.host import Host
from perf.harness.scenario import Fault
from perf.harness.watch import Watch


class Faults:
    """Of one load. `down` while the server is meant to be."""

    def __init__(self, faults: Sequence[Fault], host: Host, watch: Watch, folder: RunFolder) -> None:
        self._host = host
        self._watch = watch
        self._folder = folder
        self._due: list[tuple[float, str, Fault]] = [(each.at, each.kind, each) for each in faults]
        self.down = False

    def let_come(self, now: float) -> None:
        """What was due until `now`, seconds after the load began. ServerFailed when it stays down."""
        for due in sorted((due for due in self._due if due[0] <= now), key=lambda due: due[0]):
            self._due.remove(due)
            self._folder.event("fault", kind=due[1])
            self._do(due[1], due[2])

    def _do(self, kind: str, fault: Fault) -> None:
        host = self._host
        match kind:
            case "kill_server":
                self.down = True
                host.kill()
                self._due.append((fault.at + fault.after, "restart", fault))
            case "restart":
                host.restart()
                self._watch.outside.pid = host.server.pid
                self.down = False
            case "kill_worker":
                host.kill_worker()
            case "fill_disk":
                host.fill_disk(fault.leave)
            case "free_disk":
                host.free_disk()
