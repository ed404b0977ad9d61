"""What `pip install seqdistill` brings along."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_all_that_the_code_reads(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "seqdistill").rglob("*") if path.is_file()}
    wanted = {name for name in package if "__pycache__" not in name}
    prompts = (ROOT / "prompts").rglob("*.*")
    wanted |= {f"seqdistill/{path.relative_to(ROOT)}" for path in prompts if path.suffix != ".pyc"}
    assert wanted <= names
    assert {Path(name).suffix for name in wanted} >= {".py", ".toml", ".jsonl", ".jinja", ".css", ".js", ".html"}
    assert not any(name.startswith(("tests/", "runs/")) for name in names)
    for recipe in (ROOT / "prompts").glob("*/recipe.toml"):
        task = tomllib.loads(recipe.read_text())["task"]
        shared = [(recipe.parent / task[key]).resolve() for key in ("template", "prompts", "test") if key in task]
        assert {f"seqdistill/{path.relative_to(ROOT)}" for path in shared} <= names, "a recipe finds the files it shares"
