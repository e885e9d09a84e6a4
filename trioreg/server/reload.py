"""Settings that change while the server runs: on SIGHUP, and when the settings file has changed.

Rules: what cannot be read or does not go together changes nothing and is one error in the log. A setting
that is not `live` keeps its value, and one line says so; one that is live is in force when `reload` returns.
Whoever can change while running registers with `on_change` and gets all settings, his share of them where
there are several workers::

    live.on_change(lambda config: setattr(service, "chunk_min_length", config.upload_chunk_min_length))

Such a function only sets values: it does not wait, and what it has to check it checks by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import trio

from trioreg import logs
from trioreg.config import SETTINGS, Config, ConfigError, Setting, Source, check

_log = logs.Log(__name__)

# A change counts when the file has been still for so long: an editor may write it in two steps.
_STILL_SECONDS = 1.0

Apply = Callable[[Config], None]
Share = Callable[[Config], Config]


class Live:
    """The settings in force. `share` makes a worker's part of them; `on` is the signal that reloads."""

    def __init__(
        self,
        config: Config,
        source: Source | None = None,
        *,
        share: Share | None = None,
        on: signal.Signals = signal.SIGHUP,
    ):
        self.whole = config
        self._source = source
        self._share = share or (lambda whole: whole)
        self._on = on
        self._apply: list[Apply] = []
        self._loaded = _stamp(source)

    @property
    def config(self) -> Config:
        """The settings in force, or this worker's part of them."""
        return self._share(self.whole)

    def on_change(self, apply: Apply) -> None:
        """Call `apply` with the settings after each change."""
        self._apply.append(apply)

    def reload(self) -> bool:
        """Read the settings again and change what can be changed; whether they could be used.

        The file is read inline: it is smaller than a manifest, and this is rare.
        """
        if self._source is None:
            return True
        self._loaded = _stamp(self._source)
        try:
            wanted = self._source.load()
            settings, changed, kept = _merge(self.whole, wanted)
            check(settings)
        except ConfigError as error:
            _log.error("settings not reloaded, those in force stay", reason=str(error))
            return False
        before, self.whole = self.whole, settings
        if changed:
            self._tell()
        for setting in changed:
            _log.info("setting changed", setting=setting.name, value=_show(setting, settings),
                      was=_show(setting, before))  # fmt: skip
        for setting in kept:
            _log.warning("setting needs a restart, the value in force stays", setting=setting.name,
                         in_force=_show(setting, settings), wanted=_show(setting, wanted))  # fmt: skip
        return True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reload on the signal and on a change of the file, until cancelled."""
        with trio.open_signal_receiver(self._on) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {self._on})
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._on_signals, signals)
                nursery.start_soon(self._on_file)

    async def _on_signals(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            _log.info("reloading the settings")
            self.reload()

    async def _on_file(self) -> None:
        seen = self._loaded
        while self._source is not None and self._source.path is not None:
            await trio.sleep(_STILL_SECONDS)
            last, seen = seen, _stamp(self._source)
            if seen == last != self._loaded:
                _log.info("the settings file has changed")
                self.reload()

    def _tell(self) -> None:
        config = self.config
        for apply in self._apply:
            try:
                apply(config)
            except Exception as bug:  # noqa: BLE001 (the rest of the settings, and the server, go on)
                _log.error("a setting could not be changed", cause=bug)


def _merge(running: Config, wanted: Config) -> tuple[Config, list[Setting], list[Setting]]:
    """`running` with what can change of `wanted`; what changes; what differs and cannot."""
    differs = [
        setting
        for setting in SETTINGS
        if getattr(running, setting.attribute) != getattr(wanted, setting.attribute)
    ]
    changed = [setting for setting in differs if setting.live]
    values = {setting.attribute: getattr(wanted, setting.attribute) for setting in changed}
    return replace(running, **values), changed, [setting for setting in differs if not setting.live]


def _show(setting: Setting, config: Config) -> str:
    return setting.kind.show(getattr(config, setting.attribute))


def _stamp(source: Source | None) -> tuple[int, int, int] | None:
    """Changes whenever the file does; None where there is none."""
    if source is None or source.path is None:
        return None
    try:
        status = os.stat(source.path)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)
