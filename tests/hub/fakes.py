"""Stand-ins for the Hugging Face Hub: its content, a module in place of huggingface_hub, and an HTTP server."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import re
import threading
import types
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

USERS = {"write": "ada", "read": "bob"}  # token -> its user; the second may write nowhere


class Refusal(Exception):
    """Refuses a request, as the Hub does: an HTTP status, and the code in its header."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


@dataclasses.dataclass
class Repository:
    """A repository: `commits` has the files of each commit by its digest, the oldest first."""

    is_private: bool
    commits: dict[str, dict[str, bytes]]

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


class Hub:
    """The content of a Hub. `sent` counts what changed it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.sent = 0

    def add(self, name: str, files: Mapping[str, bytes], is_private: bool = False) -> None:
        """Adds a repository, or a commit to one, without asking who does."""
        former = self.repositories.get(name)
        digest = hashlib.sha1(f"{name} {len(former.commits) if former else 0}".encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository(is_private, {}))
        repository.commits[digest] = dict(files)

    def create(self, token: str, name: str, is_private: bool) -> None:
        self._check_writes(token, name)
        self.sent += 1
        self.add(name, {".gitattributes": b""}, is_private)

    def commit(self, token: str, name: str, parent: str, added: Mapping[str, bytes], deleted: set[str]) -> str:
        self._check_writes(token, name)
        if parent != self.repositories[name].head:
            raise Refusal(412)
        files = {path: content for path, content in self.files(token, name).items() if path not in deleted}
        self.sent += 1
        self.add(name, files | dict(added))
        return self.repositories[name].head

    def find(self, token: str, name: str, revision: str = "main") -> tuple[Repository, str]:
        repository = self.repositories.get(name)
        if not repository or (repository.is_private and USERS.get(token) != name.split("/")[0]):
            raise Refusal(404 if token else 401, "RepoNotFound")
        found = repository.head if revision == "main" else next((d for d in repository.commits if d == revision), "")
        if not found:
            raise Refusal(404, "RevisionNotFound")
        return repository, found

    def files(self, token: str, name: str, revision: str = "main") -> dict[str, bytes]:
        repository, digest = self.find(token, name, revision)
        return repository.commits[digest]

    def names(self, owner: str) -> list[str]:
        """Returns the public repositories of an owner."""
        return [name for name, one in self.repositories.items() if name.startswith(f"{owner}/") and not one.is_private]

    def _check_writes(self, token: str, name: str) -> None:
        if token not in USERS:
            raise Refusal(401)
        if token != "write" or USERS[token] != name.split("/")[0]:
            raise Refusal(403)


# ------------------------------------------------------------------------------------------------- as a Python module


class HfHubHTTPError(OSError):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.status} Client Error\n\nmore of it")
        self.response = types.SimpleNamespace(status_code=refusal.status)


class RepositoryNotFoundError(HfHubHTTPError):
    pass


class RevisionNotFoundError(HfHubHTTPError):
    pass


ERRORS = {"RepoNotFound": RepositoryNotFoundError, "RevisionNotFound": RevisionNotFoundError}


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    """Raises what huggingface_hub raises for a refusal."""
    try:
        yield
    except Refusal as refusal:
        raise ERRORS.get(refusal.code, HfHubHTTPError)(refusal) from None


class Module(types.ModuleType):
    """Stands in for huggingface_hub, of a user who has `token`, with its cache in `folder`.

    `broken` is raised by every call, as without a network.
    """

    def __init__(self, hub: Hub, folder: pathlib.Path, token: str = "write") -> None:
        super().__init__("huggingface_hub")
        self.hub, self.folder, self.token = hub, folder, token
        self.broken: Exception | None = None
        self.CommitOperationAdd = lambda path_in_repo, path_or_fileobj: (path_in_repo, path_or_fileobj)
        self.CommitOperationDelete = lambda path_in_repo: (path_in_repo, None)

    def get_token(self) -> str | None:
        return self.token or None

    def HfApi(self, library_name: str, library_version: str) -> "Module":
        assert library_name == "cnnjax"
        assert library_version
        if self.broken:
            raise self.broken
        return self

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        with _raising():
            if name not in self.hub.repositories:
                self.hub.create(self.token, name, private)

    def repo_info(self, name: str, revision: str | None) -> Any:
        with _raising():
            repository, digest = self.hub.find(self.token, name, revision or "main")
            siblings = [types.SimpleNamespace(rfilename=path) for path in repository.commits[digest]]
            return types.SimpleNamespace(sha=digest, siblings=siblings, private=repository.is_private)

    def hf_hub_download(self, name: str, path: str, revision: str, force_download: bool) -> str:
        target = self.folder / hashlib.sha1(f"{name} {path} {revision}".encode()).hexdigest()
        with _raising():
            if force_download or not target.exists():
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(self.hub.files(self.token, name, revision)[path])
        return str(target)

    def create_commit(self, name: str, operations: list[Any], commit_message: str, parent_commit: str) -> Any:
        assert commit_message
        files = {path: content for path, content in operations if content is not None}
        added = {path: c if isinstance(c, bytes) else pathlib.Path(c).read_bytes() for path, c in files.items()}
        with _raising():
            deleted = {path for path, content in operations if content is None}
            return types.SimpleNamespace(oid=self.hub.commit(self.token, name, parent_commit, added, deleted))

    def list_models(self, author: str, limit: int) -> list[Any]:
        return [types.SimpleNamespace(id=name) for name in self.hub.names(author)[:limit]]

    def whoami(self) -> dict[str, Any]:
        return {"name": USERS[self.token], "orgs": [{"name": "academy"}]}


# --------------------------------------------------------------------------------------------------------- over HTTP


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of huggingface_hub as the Hub does, as far as `push` and `pull` make them."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    objects: dict[str, bytes]  # large files by their SHA-256, sent before the commit that names them
    unknown: list[str]  # requests that this does not know

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        try:
            self._route(path, body)
        except Refusal as refusal:
            self._send(b'{"error": "refused"}', refusal.status, {"X-Error-Code": refusal.code} if refusal.code else {})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _route(self, path: str, body: bytes) -> None:
        hub, token = self.hub, self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/whoami-v2":
            if token not in USERS:
                raise Refusal(401)
            self._json({"name": USERS[token], "orgs": []})
        elif path == "/api/models":
            query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
            self._json([{"id": name} for name in hub.names(query["author"][0])])
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization'] or USERS[token]}/{wanted['name']}"
            is_there = name in hub.repositories
            if not is_there:
                hub.create(token, name, wanted.get("visibility") == "private" or wanted.get("private", False))
            self._json({"url": f"{self._endpoint}/{name}", "id": name}, 409 if is_there else 200)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            repository, digest = hub.find(token, match[1], match[2] or "main")
            siblings = [{"rfilename": name} for name in repository.commits[digest]]
            facts = {"sha": digest, "private": repository.is_private, "siblings": siblings, "tags": [], "downloads": 0}
            self._json({"id": match[1], "modelId": match[1], **facts})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > 5000 else "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            links = [file | {"actions": {"upload": {"href": f"{self._endpoint}/put/{file['oid']}"}}} for file in wanted]
            self._json({"transfer": "basic", "objects": links})
        elif path.startswith("/put/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/put/")
            self.objects[path.removeprefix("/put/")] = body
            self._json({})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            digest = self._commit(token, match[1], [json.loads(line) for line in body.splitlines()])
            url = f"{self._endpoint}/{match[1]}/commit/{digest}"
            self._json({"success": True, "commitOid": digest, "commitUrl": url, "hookOutput": ""})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            _, digest = hub.find(token, match[1], match[2])
            content = hub.files(token, match[1], match[2]).get(match[3])
            if content is None:
                raise Refusal(404, "EntryNotFound")
            self._send(content, 200, {"X-Repo-Commit": digest, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
        else:
            self.unknown.append(f"{self.command} {path}")
            raise Refusal(404)

    @property
    def _endpoint(self) -> str:
        return f"http://{self.headers['Host']}"

    def _commit(self, token: str, name: str, lines: list[dict[str, Any]]) -> str:
        added, deleted = dict[str, bytes](), set[str]()
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    added[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    added[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    deleted.add(value["path"])
        return self.hub.commit(token, name, lines[0]["value"]["parentCommit"], added, deleted)

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[tuple[str, list[str]]]:
    """Context manager that serves a Hub on this machine. Gives its address, and the list of unknown requests."""

    class Mine(Handler):
        objects, unknown = dict[str, bytes](), list[str]()

    Mine.hub = hub
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Mine.unknown
        server.shutdown()
        thread.join()
