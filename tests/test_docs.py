"""The documents are in step with the code: the page of commands, the index, and each file, test and target they name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import REPO
from quotes import is_in, phrases, texts

README = REPO / "README.md"
GUIDES = sorted((REPO / "docs").glob("*.md"))
PAGES = [README, REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", REPO / "bench" / "README.md", *GUIDES]
#: A page names a file from one of these folders on.
FOLDERS = [REPO, REPO / "gfwtools", REPO / "tests", REPO / "tests" / "e2e", REPO / "bench"]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))


def _quoted(page: Path) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))


def _tests() -> set[str]:
    return {
        name
        for path in (REPO / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }


def test_the_page_of_commands_is_the_one_that_make_docs_commands_writes(tmp_path: Path) -> None:
    made = tmp_path / "commands.md"
    subprocess.run([sys.executable, REPO / "scripts" / "commands", made], cwd=REPO, check=True)
    assert (REPO / "docs" / "commands.md").read_text("utf-8") == made.read_text("utf-8"), "run: make docs-commands"


def test_the_index_in_the_readme_links_every_page_of_docs() -> None:
    links = re.findall(r"\]\((docs/[\w-]+\.md)\)", README.read_text("utf-8"))
    assert sorted(set(links)) == sorted(f"docs/{page.name}" for page in GUIDES)


def test_the_messages_that_troubleshooting_quotes_are_those_of_the_code() -> None:
    known = list(texts(REPO / "gfwtools"))
    quoted = list(phrases(REPO / "docs" / "troubleshooting.md"))
    assert len(quoted) > 20
    assert [words for words in quoted if not is_in(words, known)] == []


@EVERY_PAGE
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@EVERY_PAGE
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = {word for quoted in _quoted(page) for word in re.findall(r"\btest_\w+\b(?!\.py)", quoted)}
    assert named - _tests() == set()


@EVERY_PAGE
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = {quoted for quoted in _quoted(page) if re.fullmatch(r"\w[\w./-]*(\.(py|sh|lock)|/)", quoted)}
    assert [name for name in sorted(named) if not any((folder / name).exists() for folder in FOLDERS)] == []


@EVERY_PAGE
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^|sudo |&& )make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
    assert named - targets == set()
