"""The documentation as a site: `make docs`, and what it complains of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from docs_links import find_complaints

ROOT = Path(__file__).parents[1]
WITHOUT_PICTURES = """
import sys
from pathlib import Path
from docs_site import build
sys.exit(build(Path("site"), lambda reports: {"demo": "<p>", "phonebook": "<p>"}) > 0)
"""


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow(first=True)
def test_the_site_is_built_without_a_warning_and_with_its_pictures(
    firmware: Path, tmp_path: Path
) -> None:
    words = ("--out", tmp_path / "site", "--firmware", firmware)
    done = run(ROOT / "tools" / "docs_site.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    site = tmp_path / "site"
    start = (site / "index.html").read_text(encoding="utf-8")
    groups = re.findall(r'class="caption".*?>([A-Z]\w+)<', start)
    assert groups == ["Start", "Prove", "Operate", "Reference", "Decisions"]
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "README.md"]
    for page in pages:
        path = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / path).is_file()
        if path.parent.name != "adr":
            assert f'href="{path}"' in start
    assert "<svg" in (site / "any-firmware.html").read_text(encoding="utf-8")
    assert "<svg" in (site / "campaign.html").read_text(encoding="utf-8")
    assert "Redistribution" in (site / "LICENSE.html").read_text(encoding="utf-8")
    assert "mermaid" not in (site / "architecture.html").read_text(encoding="utf-8")
    for report in (site / "reports").iterdir():  # none of the folders of this machine
        assert tempfile.gettempdir() not in report.read_text(encoding="utf-8")


@pytest.mark.slow(first=True)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    ours = shutil.ignore_patterns("build", "__pycache__")
    for folder in ("docs", "tools", "examples", "firmware"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ours)
    for page in (*ROOT.glob("*.md"), ROOT / "LICENSE"):
        shutil.copy(page, tmp_path)
    script = tmp_path / "tools" / "without_pictures.py"
    script.write_text(WITHOUT_PICTURES)
    assert run(script, cwd=tmp_path).returncode == 0
    with (tmp_path / "docs" / "ci.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](no-such-page.md) [b](campaign.md#no-such-part) [c](#nor-this)\n")
        page.write('\n<p><a href="campaign.html#no-such-anchor">d</a></p>\n')
    done = run(script, cwd=tmp_path)
    assert done.returncode == 1
    for lost in ("no-such-page.md", "no-such-part", "nor-this"):
        assert re.search(rf"ci\.md.*WARNING.*{lost}", done.stderr), done.stderr
    assert "ci.html: campaign.html#no-such-anchor leads nowhere" in done.stderr


@pytest.mark.parametrize(
    ("html", "complaint"),
    [
        ('<a href="other.html#there">', None),
        ('<a href="other.html#gone">', "page.html: other.html#gone leads nowhere"),
        ('<a href="gone.html">', "page.html: gone.html leads nowhere"),
        ('<p id="here"><a href="#here">', None),
        ('<a href="#gone">', "page.html: #gone leads nowhere"),
        ('<a href="https://example.org/">', None),
        ('<img src="https://example.org/a.png">', "loaded from elsewhere"),
        ('<script src="//example.org/a.js">', "loaded from elsewhere"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "loaded from elsewhere"),
        ('<img src="gone.png">', "page.html: gone.png is not there"),
        ('<img src="data:image/png;base64,AA==">', None),
    ],
)
def test_links_are_followed_and_nothing_is_loaded_from_elsewhere(
    html: str, complaint: str | None, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "other.html").write_text('<h1 id="there">')
    found = find_complaints(tmp_path)
    assert len(found) == (complaint is not None)
    assert all((complaint or "") in one for one in found)


def test_a_style_that_loads_from_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@import "https://example.org/font.css"; p { color: red }')
    assert find_complaints(tmp_path) == [
        "a.css: https://example.org/font.css is loaded from elsewhere"
    ]
