"""Where instances run. Nothing in here knows Django: settings arrive as arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoints.runtimes.base import Runtime

KINDS = ("process",)


def runtime_for(kind: str, config: Mapping[str, Any]) -> Runtime:
    """The runtime of this kind, with the region's settings.

    `process` takes `data_dir` (a folder) and `cpu_overcommit` (a factor, 1.0 unless given).
    ValueError for a kind or a setting that does not exist.
    """
    if kind != "process":
        raise ValueError(f"no runtime is called {kind!r}; there are: {', '.join(KINDS)}")
    unknown = set(config) - {"data_dir", "cpu_overcommit"}
    if unknown or "data_dir" not in config:
        raise ValueError(f"the process runtime takes data_dir and cpu_overcommit, got {sorted(config)}")
    from endpoints.runtimes.process import ProcessRuntime  # noqa: PLC0415  imported when first used

    overcommit = float(config.get("cpu_overcommit", 1.0))
    return ProcessRuntime(Path(config["data_dir"]), cpu_overcommit=overcommit)
