"""A stand-in for docker-py: a container is a process on this machine.

It has what ministack's ECS asks of docker-py, and nothing else. `CONTAINERS` names the folder in which each container
has one of its own (its disk: its temporary files, its log, its pid); `CONTAINER_IMAGES` is a JSON object of images
and the commands that they are, `CONTAINER_ENVIRONMENT` one of what each container's environment has besides.

A folder of the host that a container mounts is one in `CONTAINERS`/host, and where the environment names it, it names
that: there is no root of its own here that could have it under its name. (Sockets are not mounted.)

As in a container, nothing outlives the first process: whatever is left of its session is killed.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import uuid

from sessions import kill_session

from . import errors

CONTAINERS = {}


class Container:
    def __init__(self, image, environment, labels, name, volumes):
        commands = json.loads(os.environ["CONTAINER_IMAGES"])
        if image not in commands:
            raise errors.ImageNotFound(f"failed to resolve ref {image}: not found")
        self.id, self.name, self.image, self.labels = uuid.uuid4().hex * 2, name, image, labels or {}
        self.attrs = {"Id": self.id, "NetworkSettings": {"Networks": {}}, "State": {}, "Config": {"Labels": self.labels}}
        self.folder = pathlib.Path(os.environ["CONTAINERS"]) / self.id[:12]
        (self.folder / "tmp").mkdir(parents=True)
        self.log = self.folder / "log"
        # Nothing of ministack's own environment but the way to programs.
        inside = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp")}
        mounted = self.mounted(volumes or [])
        inside |= {name: mounted.get(str(value), str(value)) for name, value in (environment or {}).items()}
        inside |= json.loads(os.environ.get("CONTAINER_ENVIRONMENT", "{}"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                commands[image], env=inside, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )
        # By which whoever started us ends what we leave behind.
        (self.folder / "pid").write_text(str(self.process.pid))
        self.ended = threading.Event()
        threading.Thread(target=self._end, daemon=True).start()
        CONTAINERS[self.id] = self

    @staticmethod
    def mounted(volumes):
        """Where each mounted folder is, by its path in the container."""
        found = {}
        for volume in volumes:
            source, target, _mode = volume.split(":")
            if not source.endswith(".sock"):
                found[target] = str(pathlib.Path(os.environ["CONTAINERS"]) / "host" / source.lstrip("/"))
                os.makedirs(found[target], exist_ok=True)
        return found

    def _end(self):
        self.process.wait()
        kill_session(self.process.pid)
        (self.folder / "pid").unlink()
        self.ended.set()

    short_id = property(lambda self: self.id[:12])
    status = property(lambda self: "exited" if self.ended.is_set() else "running")

    def reload(self):
        pass

    def wait(self, **_):
        self.ended.wait()
        code = self.process.returncode
        return {"StatusCode": code if code >= 0 else 128 - code}

    def stop(self, timeout=10, **_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if not self.ended.wait(timeout):
            self.kill()

    def kill(self, **_):
        kill_session(self.process.pid)
        self.ended.wait()

    def remove(self, force=False, **_):
        if force:
            self.kill()
        CONTAINERS.pop(self.id, None)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def logs(self, stream=False, tail=None, **_):
        return self._lines() if stream else self.log.read_bytes()

    def _lines(self):
        with self.log.open("rb") as log:
            while True:
                over = self.ended.is_set()
                if line := log.readline():
                    yield line
                elif over:
                    return
                else:
                    self.ended.wait(0.1)


class Containers:
    def run(self, image, environment=None, labels=None, name=None, volumes=None, **_):
        return Container(image, environment, labels, name, volumes)

    def get(self, name):
        if name not in CONTAINERS:
            raise errors.NotFound(f"no container {name}")
        return CONTAINERS[name]

    def list(self, **_):
        return list(CONTAINERS.values())


class Client:
    containers = Containers()

    def ping(self):
        return True

    def close(self):
        pass


def from_env(**_):
    return Client()


DockerClient = Client
