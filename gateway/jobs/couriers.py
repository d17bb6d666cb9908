"""Who carries webhooks: a few threads of the control worker's own, so that no model's download holds a result up,
and no receiver that hangs the controller.

They come when there is something to tell and go when there is nothing left. One that ends with its process in the
middle of a try has its turn taken by another when its lease is over.
"""

from __future__ import annotations

import logging
import threading

from django.db import close_old_connections, connections

from gateway.jobs import webhooks

log = logging.getLogger(__name__)

MOST = 8


class Couriers:
    """As many as have something to do, `MOST` at once."""

    def __init__(self) -> None:
        self._out = 0
        self._changing = threading.Lock()

    @property
    def idle(self) -> bool:
        return not self._out

    def send(self, number: int) -> None:
        """Have this many webhooks told, as far as there is anybody to go."""
        with self._changing:
            going = min(number, MOST - self._out)
            self._out += going
        for _ in range(going):
            threading.Thread(target=self._go, name="webhooks", daemon=True).start()

    def _go(self) -> None:
        try:
            close_old_connections()
            while any(webhooks.deliver(pk) for pk in webhooks.due()):
                pass
        except Exception:
            log.exception("Webhooks could not be told; they are due again soon")
        finally:
            connections.close_all()
            with self._changing:
                self._out -= 1


couriers = Couriers()
