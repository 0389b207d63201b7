"""scripts/engine-image by a builder that only takes down what it is told."""

import os
import subprocess

import pytest
from conftest import ROOT

DIGEST = "sha256:" + "0123456789abcdef" * 4
# Of docker, podman and buildah: `push` tells the digest in a file, or docker is asked for it.
BUILDER = f"""#!/bin/sh
printf '%s ' "${{0##*/}}" "$@" >>"$SAID"
echo >>"$SAID"
case $1 in
    info) exit "$INFO" ;;
    push) while [ $# -gt 1 ]; do [ "$1" = --digestfile ] && printf %s {DIGEST} >"$2"; shift; done ;;
    image) echo "registry.example.org/engine@{DIGEST}" ;;
esac
"""


@pytest.fixture
def script(tmp_path):
    def run(*arguments, builders=("buildah",), docker_runs=False, builder=None):
        bin, said = tmp_path / "bin", tmp_path / "said"
        bin.mkdir(exist_ok=True)
        for name in builders:
            (bin / name).write_text(BUILDER)
            (bin / name).chmod(0o755)
        # The tools that the script itself uses, and none that may be on this machine besides.
        for name in ("bash", "cat", "dirname", "git", "mktemp", "rm", "sed", "sh"):
            found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
            if not (bin / name).exists():
                (bin / name).symlink_to(found)
        environment = {"PATH": str(bin), "SAID": str(said), "INFO": "0" if docker_runs else "1", "HOME": os.environ.get("HOME", "/")}
        environment |= {"BUILDER": builder} if builder else {}
        done = subprocess.run([ROOT / "scripts/engine-image", *arguments], env=environment, capture_output=True, text=True, timeout=60)
        return done, [line.strip() for line in said.read_text().splitlines()] if said.exists() else []

    return run


def test_it_builds_and_pushes_nothing_that_it_was_not_told_to(script):
    done, said = script("registry.example.org:5000/engine:1", "--build-arg", "BASE_IMAGE=debian@sha256:1")
    assert done.returncode == 0, done.stderr
    build, = said
    assert build.startswith("buildah build --pull --file infra/engine/Dockerfile --tag registry.example.org:5000/engine:1 ")
    assert "--build-arg VERSION=0.1.0 --build-arg REVISION=" in build and build.endswith("--build-arg BASE_IMAGE=debian@sha256:1 .")


@pytest.mark.parametrize(("image", "name"), [
    ("registry.example.org:5000/engine:1", "registry.example.org:5000/engine"),
    ("registry.example.org:5000/engine", "registry.example.org:5000/engine"),
])
def test_what_it_pushed_is_named_by_its_digest(script, image, name):
    done, said = script("--push", "--arch", "arm64", image)
    assert done.returncode == 0, done.stderr
    assert " --platform linux/arm64 " in said[0] and said[1].startswith("buildah push --digestfile ")
    assert done.stdout.splitlines()[-1] == f"EngineImage={name}@{DIGEST}"


def test_docker_is_taken_where_it_runs(script):
    done, said = script("--push", "registry.example.org/engine:1", builders=("docker", "buildah"), docker_runs=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in said] == [["docker", "info"], ["docker", "build"], ["docker", "push"], ["docker", "image"]]
    assert done.stdout.splitlines()[-1] == f"EngineImage=registry.example.org/engine@{DIGEST}"
    done, said = script("engine", builders=("docker", "buildah"))
    assert said[-2:][0].startswith("docker info") and said[-1].startswith("buildah build")


@pytest.mark.parametrize(("arguments", "options", "says"), [
    ([], {}, "IMAGE is missing"),
    (["--arch", "sparc", "engine"], {}, "neither x86_64 nor arm64"),
    (["--no-cache", "engine"], {}, "options of the builder come after IMAGE"),
    (["engine"], {"builders": ()}, "install one"),
    (["engine"], {"builder": "podman"}, "BUILDER=podman does not work here"),
])
def test_what_is_wrong_is_said(script, arguments, options, says):
    done, said = script(*arguments, **options)
    assert done.returncode != 0 and says in done.stderr and not said, done
