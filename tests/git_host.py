"""A Git server: Git's own http-backend behind a door that wants a token, Debian's sshd, and large files (LFS)."""

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.front import Answer

PLAIN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
WHO = {f"GIT_{who}_{what}": "test@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(repository: Path, *arguments: str, given: bytes = b"") -> str:
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, env=PLAIN | WHO, input=given, capture_output=True, check=True)
    return done.stdout.decode().strip()


def pointer(data: bytes) -> bytes:
    """What lies in the repository for a large file."""
    oid = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()


class GitHost:
    """`token` None: everybody may read. `url` is the server's own address, for LFS."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self.token: str | None = None
        self.large: dict[str, bytes] = {}
        self.lost: set[str] = set()
        self.filters = True

    def make(self, name: str) -> Path:
        """An empty bare repository."""
        path = self.folder / f"{name}.git"
        path.mkdir(parents=True)
        git(path, "init", "--quiet", "--bare", "--initial-branch=main")
        git(path, "config", "uploadpack.allowFilter", "true")
        git(path, "config", "http.receivepack", "false")
        return path

    def commit(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", large: bool = True) -> str:
        """A commit with these files and no others. .gguf and .safetensors files are large, unless told."""
        path, lines = self.folder / f"{name}.git", []
        for file, data in files.items():
            content = data
            if large and file.endswith((".gguf", ".safetensors")):
                content = pointer(data)
                self.large[hashlib.sha256(data).hexdigest()] = data
            blob = git(path, "hash-object", "-w", "--stdin", given=content)
            lines.append(f"100644 {blob}\t{file}")
        return self.commit_index(name, lines, branch=branch)

    def commit_index(self, name: str, lines: list[str], *, branch: str = "main") -> str:
        path = self.folder / f"{name}.git"
        environment = PLAIN | WHO | {"GIT_INDEX_FILE": str(path / "index.tmp"), "GIT_DIR": str(path)}

        def ask(*arguments: str, given: str = "") -> str:
            done = subprocess.run(
                ["git", *arguments], env=environment, input=given, capture_output=True, check=True, text=True
            )
            return done.stdout.strip()

        ask("read-tree", "--empty")
        ask("update-index", "--add", "--index-info", given="".join(f"{line}\n" for line in lines))
        made = ask("commit-tree", "-m", "A model", ask("write-tree"))
        ask("update-ref", f"refs/heads/{branch}", made)
        return made

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path.startswith("/lfs/"):
            return self._large_file(path.rpartition("/")[2], headers)
        if self.token and self._given(headers) != self.token:
            return 401, {"WWW-Authenticate": 'Basic realm="Git"'}, b"no"
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._backend(method, path, headers, body)

    def _given(self, headers: Mapping[str, str]) -> str:
        said = headers.get("Authorization", "").removeprefix("Basic ")
        return base64.b64decode(said).decode().partition(":")[2]

    def _batch(self, asked: Mapping[str, Any]) -> Answer:
        objects = []
        for one in asked["objects"]:
            oid = one["oid"]
            found: dict[str, Any] = {"oid": oid, "size": one["size"]}
            if oid in self.large and oid not in self.lost:
                # On a real host they lie elsewhere, and what opens them there is not the Git server's token.
                href = f"{self.url.replace('127.0.0.1', 'localhost')}/lfs/{oid}"
                found["actions"] = {"download": {"href": href, "header": {"X-Pass": "one-time"}}}
            else:
                found["error"] = {"code": 404, "message": "Object does not exist"}
            objects.append(found)
        answer = {"transfer": "basic", "objects": objects}
        return 200, {"Content-Type": "application/vnd.git-lfs+json"}, json.dumps(answer).encode()

    def _large_file(self, oid: str, headers: Mapping[str, str]) -> Answer:
        assert "Authorization" not in headers
        if headers.get("X-Pass") != "one-time":
            return 403, {}, b"no"
        data = self.large[oid]
        asked = re.match(r"bytes=(\d+)-(\d*)$", headers.get("Range", ""))
        if not asked:
            return 200, {}, data
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        return 206, {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1]

    def _backend(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        asked = urlsplit(path)
        environment = PLAIN | {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": asked.path,
            "QUERY_STRING": asked.query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
        )
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        said = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(said.pop("Status", "200").split()[0])
        return status, said, data
