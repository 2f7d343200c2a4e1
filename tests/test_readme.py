"""What the documents tell people to type works, and what they point to is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.programs import CLIENT, ROOT, clean_environment, devnet, run

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("deploy/**/*.md"))
)
README = (ROOT / "README.md").read_text()


def blocks(text: str) -> list[str]:
    """The indented or fenced blocks of commands, in order."""
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Files, folders and headings that a document points to exist."""
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_file_that_is_named_exists(document: Path) -> None:
    """A path in backquotes, from the top of the project or from the package."""
    folders = r"(?:chatchain|contracts|deploy|docs|tests)"
    for named in re.findall(rf"`({folders}/[\w./-]*\w\.\w+)`", (ROOT / document).read_text()):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_exists(document: Path) -> None:
    """`make X` is on the menu."""
    menu = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|`)make ([a-z-]+)\b", (ROOT / document).read_text(), re.MULTILINE):
        assert target in menu, target


def test_the_two_commands_are_the_readmes() -> None:
    """`make demo` stands first and alone, `make test` beside it."""
    assert blocks(README)[0].strip() == "make demo"
    assert re.search(r"^make demo .*\nmake test ", README, re.MULTILINE)


def test_it_says_what_is_not_protected() -> None:
    """Each limit of this step is named."""
    section = README.partition("## What it does not protect")[2].partition("\n## ")[0]
    for words in (
        "stolen device",
        "public, forever",
        "one operator",
        "audited",
        "--rpc",
        "seal",
        "relay sees",
    ):
        assert words in section, words


@cache
def help_of(program: Path, *command: str) -> str:
    """What a program of ours says about its options."""
    return run([sys.executable, str(program), *command, "--help"]).stdout


def test_options_in_the_deployment_guide_exist() -> None:
    """Every option of a program of ours that docs/deploying.md shows is one that the program has."""
    guide = (ROOT / "docs" / "deploying.md").read_text().replace("\\\n", " ")
    programs = {"devnet.py": "up", "deploy.py": "", "certificates.py": "", "backup.py": "", "server.py": ""}
    seen = set()
    for line in re.sub(r"\n {10,}", " ", guide).splitlines():
        found = re.search(r"python (?:\S*/)?(\w+\.py)\b(.*)", line)
        if not found:
            continue
        program, rest = found.groups()
        seen.add(program)
        path = ROOT / ("" if program == "server.py" else "deploy") / program
        asked = [
            word
            for word in re.findall(r"\b(relay|seat|seal|status|down|up)\b", rest)
            if program != "server.py"
        ]
        command = asked[:1] if program in {"devnet.py", "deploy.py"} else []
        helps = help_of(path, *command) + help_of(path)
        for option in re.findall(r"--[a-z-]+", rest):
            assert re.search(rf"{option}\b", helps), f"{program} {option}"
    assert seen == programs.keys()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The development network of the README, which ends with the test."""
    path = tmp_path / ".devnet"
    yield path
    if path.exists():
        devnet("down", path)


def test_the_way_by_hand_works(tmp_path: Path, folder: Path) -> None:
    """Each command of "By hand", typed in this order, does what the text says.

    What the test adds: free ports, the link that `up` printed, carol's password, and the yes of bob.
    """
    section = README.partition("## By hand")[2].partition("\n## ")[0]
    lines = [line for block in blocks(section) for line in block.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == [
        *[".", "python"],
        *["chatchain"] * 2,
        *["export", "chatchain", "chatchain"],
        *["chatchain"] * 4,
    ]
    password = tmp_path / "carol.password"
    password.write_text("a password of carol's own")
    password.chmod(0o600)
    places = {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    carol = {"CHATCHAIN_PASSWORD_FILE": str(password), "CHATCHAIN_NO_INPUT": "1"}

    def type_in(line: str, **more: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", line],
            cwd=tmp_path,
            env=clean_environment() | places | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    start = lines[1].replace("deploy/", f"{shlex.quote(str(ROOT))}/deploy/")
    link = json.loads(type_in(f"{start} --port 0 --relay-port 0"))["join"]
    assert "join?rpc=…" in lines[2]
    type_in(re.sub(r"'chatchain://.*'", shlex.quote(link), lines[2]), **carol)
    type_in(lines[3], **carol)
    refused = run([*CLIENT, "--user", "carol", "send", "ada", "early"], cwd=tmp_path, settings=places | carol)
    assert refused.returncode == 7
    as_ada, as_bob = lines[4], lines[4].replace("/ada", "/bob")
    assert "admit carol" in type_in(f"{as_ada}; {lines[5]}")
    assert "open" in type_in(f"{as_ada}; {lines[6]}")
    assert "passed" in type_in(f"{as_bob}; {lines[6]}")
    assert "sent to carol" in type_in(f"{as_ada}; {lines[7]}")
    assert "Welcome!" in type_in(lines[8], **carol)
    assert "sent to ada" in type_in(lines[9], **carol)
    assert "Thank you!" in type_in(f"{as_ada}; {lines[10]}")


def test_no_document_names_a_place_of_its_making() -> None:
    """The documents stand alone: no absolute path of somebody's machine."""
    for document in DOCUMENTS:
        assert not re.search(r"(?<![\w.])/(?:home|root|Users|tmp)/", (ROOT / document).read_text()), document
