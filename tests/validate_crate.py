"""Validates RO-Crates by roc-validator, without a network: `python tests/validate_crate.py PATH…`.

Runs in an environment made from requirements/crate.txt. PATH is a crate's folder or zip archive, all of whose files
must be there; or a metadata file (….json) whose files are on a service, of which the metadata alone is checked. Prints
what is wrong, one line each, and exits with 1 when something is.

The one JSON-LD context that our crates name from elsewhere, RO-Crate's own, is put into the validator's HTTP cache out
of the package `rocrate`, which carries it; everything else that the validator asks the network for fails.
"""

import importlib.resources
import io
import pathlib
import sys
import tempfile

import requests
import requests_cache
import urllib3
from rocrate_validator import models, services

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "workflow-run-crate"


class Shelf(requests.adapters.HTTPAdapter):
    """Answers with the context that lies in a package."""

    def send(self, request, **_):
        context = importlib.resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
        headers = {"Content-Type": "application/ld+json", "Content-Length": str(len(context))}
        raw = urllib3.HTTPResponse(io.BytesIO(context), headers, 200, preload_content=False, request_url=request.url)
        return self.build_response(request, raw)


def fill(cache):
    """Puts the context into a cache such as the validator's."""
    with requests_cache.CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount(CONTEXT, Shelf())
        assert session.get(CONTEXT).json()["@id"] == CONTEXT, "rocrate carries another context"


def validate(path, cache):
    """The issues of a crate, as text."""
    metadata_only = path.suffix == ".json"
    with tempfile.TemporaryDirectory() as folder:
        if metadata_only:
            target = pathlib.Path(folder) / "ro-crate-metadata.json"
            target.write_bytes(path.read_bytes())
            path = target.parent
        settings = services.ValidationSettings(
            rocrate_uri=models.URI(str(path)), profile_identifier=PROFILE, requirement_severity=models.Severity.REQUIRED,
            metadata_only=metadata_only, skip_availability_check=metadata_only, offline=True, cache_path=cache,
        )
        result = services.validate(settings)
    return [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()]


def main():
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder) / "cache"
        fill(cache)
        failed = False
        for path in map(pathlib.Path, sys.argv[1:]):
            for issue in validate(path, cache):
                failed = True
                print(f"{path}: {issue}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
