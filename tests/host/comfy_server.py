"""A ComfyUI process with this pack in its custom_nodes, and its HTTP interface as plain methods."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACK = "comfyui-concept-erasure"


class PromptError(Exception):
    """ComfyUI refused a prompt (`node_errors`) or failed while it ran (`messages`, as in its history)."""

    def __init__(self, text: str, node_errors: dict[str, Any] | None = None, messages: list | None = None):
        super().__init__(text)
        self.node_errors = node_errors or {}
        self.messages = messages or []


class ComfyServer:
    """`with ComfyServer(comfy_path, directory) as server:` runs ComfyUI on the CPU.

    `directory` becomes its base: models, output, custom_nodes and the log, `server.log`, are below it.
    `arguments` are further options of main.py, such as "--use-split-cross-attention".
    """

    def __init__(self, comfy_path: Path, directory: Path, *arguments: str, start_timeout: float = 300):
        self.comfy_path = Path(comfy_path).resolve()
        self.directory = Path(directory).resolve()
        self.arguments = arguments
        self.start_timeout = start_timeout
        self.log_path = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._url = ""

    def __enter__(self) -> ComfyServer:
        copy_pack(self.directory / "custom_nodes" / PACK)
        (self.directory / "models" / "loras").mkdir(parents=True, exist_ok=True)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "main.py", "--cpu", "--port", str(port), "--disable-auto-launch"),
            *("--base-directory", str(self.directory), "--database-url", "sqlite:///:memory:"),
            *self.arguments,
        ]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.comfy_path, env=server_environment(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for_start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, by force if it does not go within ten seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        """Where its page is."""
        return self._url

    def object_info(self) -> dict[str, Any]:
        """Every node by its id."""
        return self._json("/object_info", timeout=120)

    def submit(self, prompt: dict[str, Any]) -> str:
        """Queue an API-format prompt and return its id; a prompt with any invalid node is a PromptError.

        Only with a client_id does its history list the pictures of nodes whose results were cached.
        """
        try:
            answer = self._json("/prompt", {"prompt": prompt, "client_id": "tests"})
        except urllib.error.HTTPError as refusal:
            if refusal.code != 400:
                raise
            answer = json.load(refusal)
        if answer.get("error") or answer.get("node_errors"):
            raise PromptError(refusal_text(answer), node_errors=answer.get("node_errors"))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 600) -> dict[str, Any]:
        """The history entry of a prompt once it is finished, failed or interrupted."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if entry := self._json(f"/history/{prompt_id}").get(prompt_id):
                return entry
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} took more than {timeout} s; {self.log_tail()}")

    def queue(self, prompt: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
        """Run an API-format prompt to its end and return its history entry; a failure is a PromptError."""
        entry = self.wait(self.submit(prompt), timeout)
        status = entry["status"]
        if status["status_str"] != "success":
            raise PromptError(failure_text(status["messages"]), messages=status["messages"])
        return entry

    def wait_until_running(self, prompt_id: str, timeout: float = 60) -> None:
        """Return when a submitted prompt is being executed: only from then on can it be interrupted."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if any(item[1] == prompt_id for item in self._json("/queue")["queue_running"]):
                return
            time.sleep(0.02)
        raise TimeoutError(f"prompt {prompt_id} was not seen running within {timeout} s; {self.log_tail()}")

    def cancel_all(self, timeout: float = 120) -> None:
        """Cancel what is executed, until nothing is; a prompt that is about to begin does not hear the first call."""
        deadline = time.monotonic() + timeout
        while any(self._json("/queue").values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the queue was not empty within {timeout} s; {self.log_tail()}")
            self.interrupt()
            time.sleep(0.2)

    def wait_for_log(self, text: str, since: int, timeout: float = 300) -> None:
        """Return when ComfyUI has printed a text, behind the first ``since`` characters of its log."""
        deadline = time.monotonic() + timeout
        while text not in self.log()[since:]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"'{text}' was not printed within {timeout} s; {self.log_tail()}")
            time.sleep(0.2)

    def interrupt(self) -> None:
        """Cancel the prompt that is being executed."""
        self.request("/interrupt", {})

    def free(self) -> None:
        """Unload all models and forget all cached results."""
        self.request("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1)  # ComfyUI does it in another thread, tells nobody, and runs a waiting prompt first

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> Image.Image:
        """A picture that a prompt wrote."""
        query = urllib.parse.urlencode({"filename": filename, "subfolder": subfolder, "type": type})
        image = Image.open(io.BytesIO(self.request(f"/view?{query}")))
        image.load()
        return image

    def images(self, entry: dict[str, Any], node: str) -> list[Image.Image]:
        """The pictures that one node of a finished prompt wrote."""
        return [self.view(**where) for where in entry["outputs"][node]["images"]]

    def peak_megabytes(self) -> float:
        """The most memory that ComfyUI has had at a time (10^6 bytes). Linux only."""
        return self._megabytes("VmHWM:")

    def megabytes(self) -> float:
        """The memory that ComfyUI has now (10^6 bytes). Linux only."""
        return self._megabytes("VmRSS:")

    def _megabytes(self, what: str) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(what)]
        return int(line.split()[1]) * 1024 / 1e6

    def log(self) -> str:
        """All that ComfyUI has printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log, with its name."""
        return "\n".join([f"the end of {self.log_path}:", *self.log().splitlines()[-lines:]])

    def _wait_for_start(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.object_info()
                return
            time.sleep(0.5)
        raise TimeoutError(f"ComfyUI did not answer within {self.start_timeout} s; {self.log_tail()}")

    def _json(self, path: str, body: Any = None, timeout: float = 60) -> Any:
        return json.loads(self.request(path, body, timeout))

    def request(self, path: str, body: Any = None, timeout: float = 60) -> bytes:
        """What GET answers, or POST of `body` as JSON."""
        if self._process is None or self._process.poll() is not None:
            code = self._process and self._process.returncode
            raise RuntimeError(f"ComfyUI is not running (exit code {code}); {self.log_tail()}")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with self._open(request, timeout=timeout) as answer:
            return answer.read()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_environment() -> dict[str, str]:
    """This process's environment, made to look like a user's: no pack outside custom_nodes, a torchaudio."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    inherited = [path for path in paths if path and Path(path).resolve() != ROOT]
    stubs = [] if importlib.util.find_spec("torchaudio") else [str(HERE / "stubs")]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE / "boot"), *stubs, *inherited])}


def copy_pack(target: Path) -> None:
    """Copy what a clone of this checkout would hold: files that git tracks, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def refusal_text(answer: dict[str, Any]) -> str:
    """What /prompt found wrong, one line a fault."""
    summary = (answer.get("error") or {}).get("message", "some nodes are invalid")
    lines = [f"ComfyUI refused the prompt: {summary}"]
    for node, found in (answer.get("node_errors") or {}).items():
        for error in found["errors"]:
            lines.append(f"node {node} ({found['class_type']}): {error['message']}: {error['details']}")
    return "\n".join(lines)


def failure_text(messages: list) -> str:
    """What stopped a prompt while it ran, with the node's traceback."""
    for event, detail in messages:
        if event == "execution_error":
            where = f"node {detail['node_id']} ({detail['node_type']})"
            what = f"{detail['exception_type']}: {detail['exception_message']}"
            return f"{where} failed: {what}\n" + "".join(detail["traceback"])
        if event == "execution_interrupted":
            return f"interrupted at node {detail['node_id']} ({detail['node_type']})"
    return f"failed without saying why: {messages}"
