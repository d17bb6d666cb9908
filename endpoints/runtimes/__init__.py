"""Where instances run. Nothing in here knows Django: settings arrive as arguments."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from endpoints.runtimes.base import Runtime

Config = Mapping[str, Any]


def runtime_for(kind: str, config: Config) -> Runtime:
    """The runtime of this kind, with the region's settings, `data_dir` (a folder) and `cpu_overcommit` (a factor,
    1.0 unless given) among them.

    ValueError, in words, for a kind or a setting that does not exist. Nothing is reached.
    """
    if kind not in KINDS:
        raise ValueError(f"no runtime is called {kind!r}; there are: {', '.join(KINDS)}")
    return KINDS[kind](config)


def _process(config: Config) -> Runtime:
    unknown = set(config) - {"data_dir", "cpu_overcommit"}
    if unknown or "data_dir" not in config:
        raise ValueError(f"the process runtime takes data_dir and cpu_overcommit, got {sorted(config)}")
    from endpoints.runtimes.process import ProcessRuntime  # noqa: PLC0415  imported when first used

    overcommit = float(config.get("cpu_overcommit", 1.0))
    return ProcessRuntime(Path(config["data_dir"]), cpu_overcommit=overcommit)


def _docker(config: Config) -> Runtime:
    from endpoints.runtimes.docker.runtime import region  # noqa: PLC0415  imported when first used

    return region(config)


def _kubernetes(config: Config) -> Runtime:
    from endpoints.runtimes.kubernetes import runtime, settings  # noqa: PLC0415  imported when first used

    return runtime.KubernetesRuntime(settings.read(config))


KINDS: Mapping[str, Callable[[Config], Runtime]] = {
    "process": _process,
    "docker": _docker,
    "kubernetes": _kubernetes,
}
