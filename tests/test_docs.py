"""What docs/security.md promises to be shown is shown: the tests and fuzz targets that it names are there."""

import re

from conftest import ROOT

SOURCES = [path for folder in ("crates", "functions", "tests") for path in (ROOT / folder).rglob("*") if path.suffix in (".rs", ".py")]


def test_every_test_that_the_security_page_names_is_there():
    text = (ROOT / "docs/security.md").read_text()
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`", text))
    assert len(named) > 50
    written = set()
    for path in SOURCES:
        written.update(re.findall(r"^\s*(?:pub )?(?:async )?(?:fn|def) (\w+)\(", path.read_text(), re.MULTILINE))
    assert not named - written


def test_every_fuzz_target_that_it_names_has_a_corpus():
    text = (ROOT / "docs/security.md").read_text()
    named = {name for names in re.findall(r"fuzz targets? ((?:`\w+`(?:, )?)+)", text) for name in re.findall(r"`(\w+)`", names)}
    assert len(named) > 8
    assert not named - {path.name for path in (ROOT / "crates/fuzz/corpus").iterdir()}
