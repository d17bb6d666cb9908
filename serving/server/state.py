"""What one server process knows: its settings, its model, and how far it is."""

from __future__ import annotations

import logging
import time
from enum import StrEnum
from functools import partial
from typing import Any

from aiohttp import web

from serving.config import EngineConfig
from serving.models.base import Served
from serving.models.loading import Loaded
from serving.server import errors
from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.workers import Workers

WORKERS = 4  # where neither the config nor MAX_WORKERS says a number
log = logging.getLogger("serving")


class Phase(StrEnum):
    """loading → warming up → ok → draining. Only `ok` is healthy; `draining` still answers who comes."""

    LOADING = "loading"
    WARMING_UP = "warming up"
    OK = "ok"
    DRAINING = "draining"


class State:
    """`workers`, `predict` and `embed` are there once there is a model."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        self.phase = Phase.LOADING
        self.loaded: Loaded | None = None
        self.in_flight = 0
        self.created = int(time.time())

    def warming(self) -> None:
        """The model is loaded, and tried for the first time."""
        self.phase = Phase.WARMING_UP

    def ready(self, loaded: Loaded) -> None:
        """The model is loaded and warm: from now on it is called."""
        options, model = self.config.options, loaded.model
        count = (self.config.workers or WORKERS) if model.thread_safe else 1
        self.workers = Workers(count, options.queue, self.metrics)
        gather = partial(
            Batcher, self.workers, self.metrics, most=self.config.parallel, window=options.batch_window_ms / 1000
        )
        self.predict = gather("predict", model.predict)
        self.embed = gather("embeddings", model.embed)
        self.loaded = loaded
        self.phase = Phase.OK

    def model(self, capability: str = "") -> Served:
        """The model. Wrong 503 while there is none, 404 if it can't do this."""
        if self.loaded is None:
            raise errors.Wrong(503, f"the model is not ready: {self.phase}", code="model_not_ready")
        if capability and capability not in self.loaded.model.capabilities:
            raise errors.Wrong(404, f"this model does no {capability}", code="not_supported")
        return self.loaded.model

    def failed(self, request: web.Request, error: Exception) -> errors.Wrong:
        """What the client is told, with the fault counted, and logged with its traceback if it is the model's."""
        wrong = errors.of(error)
        self.metrics.errors.labels(path_of(request), wrong.code).inc()
        if wrong.code == "model_failed" and wrong is not error:  # else the batcher has logged it
            log.error("the model failed at %s", path_of(request), exc_info=error)
        return wrong

    def shown(self) -> dict[str, Any]:
        """The facts of /metadata."""
        model = self.model()
        return {
            "id": self.config.alias,
            "engine": self.config.engine,
            "capabilities": list(model.capabilities),
            "max_sequence_length": self.config.context_length,
            "batch_size": self.config.parallel,
            "quantization": dict(self.loaded.quantization) if self.loaded else {},
            **model.metadata(),
        }


def path_of(request: web.Request) -> str:
    """The route, never the path as sent: a metric has no label of a stranger's choice."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"
