"""What every notebook keeps to (notebooks/README.md says how they are made)."""

import ast
import re
import textwrap

import nbformat
import pytest
from project import ROOT, tracked_files

from tools.course import contents, parameters, runner, sources, stamping, translations

NOTEBOOKS = contents.notebooks()
TEXTS = (".md", ".py", ".ipynb", ".yaml", ".yml", ".toml", ".cff", ".txt", ".html", ".js", ".json", "Makefile")
each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)


def cells(notebook: contents.Notebook, tag: str | None = None):
    found = nbformat.read(notebook.path, as_version=4).cells
    return [cell for cell in found if tag is None or tag in sources.tags(cell)]


def test_notebooks_are_what_their_sources_make() -> None:
    assert stamping.stale() == []


@each
def test_order_of_the_head(notebook: contents.Notebook) -> None:
    first = [tag for cell in cells(notebook)[:6] for tag in sources.tags(cell)[:1]]
    kept = ["kept"] if cells(notebook, "kept") else []
    assert first[: 5 + len(kept)] == ["title", "facts", "setup", "versions", *kept, "parameters"]
    assert bool(kept) == ("runs_dir" in {p.name for p in runner.parameters_of(sources.build(notebook))})
    title = cells(notebook)[0].source
    badge = contents.repository().badge(notebook)
    assert title.startswith(f"# {notebook.number} · {notebook.title}\n\n" + (f"{badge}\n\n" if badge else ""))
    assert 3 <= len(notebook.learn) <= 5
    assert len(cells(notebook, "parameters")) == len(cells(notebook, "imports")) == 1


def test_nothing_names_an_address_of_this_project_that_its_owner_did_not_state() -> None:
    """Whoever owned it could run code in students' sessions. Only course.yaml states one, and it may be empty."""
    home, found = contents.repository().address, []
    for name in tracked_files():
        if name.endswith(TEXTS):
            text = (ROOT / name).read_text(encoding="utf-8")
            hosts = r"(?:github\.com|githubusercontent\.com|/github)/([\w.-]+/[\w.-]*manas[\w.-]*)"
            hubs = r"(?:huggingface\.co|hf\.co|kaggle\.com|mybinder\.org)/\S*manas\S*"
            foreign = [each for each in re.findall(hosts, text, re.IGNORECASE) if not home or not each.startswith(home)]
            found += [f"{name}: {each}" for each in foreign + re.findall(hubs, text, re.IGNORECASE)]
    assert found == []


@each
def test_parameters_are_commented_literals_and_presets_fit_them(notebook: contents.Notebook) -> None:
    built = sources.build(notebook)
    known = runner.parameters_of(built)
    for preset in contents.presets():
        parameters.cast(known, contents.preset(preset, notebook))
    teach = parameters.cast(known, contents.preset("teach", notebook))
    assert {p.name: p.default for p in known if p.name in teach} == teach  # what a reader runs is `teach`


@each
def test_a_notebook_that_trains_asks_colab_for_a_graphics_card(notebook: contents.Notebook) -> None:
    assert (nbformat.read(notebook.path, as_version=4).metadata.get("accelerator") == "GPU") == notebook.trains


@each
def test_what_a_notebook_costs_is_one_line_and_the_rest_is_folded(notebook: contents.Notebook) -> None:
    (facts,) = cells(notebook, "facts")
    seen = facts.source.partition("<details>")[0].strip().splitlines()
    assert seen[-1].startswith("**Minutes of computing**: `smoke` ")
    assert not any(line.startswith("|") for line in seen)
    for preset in contents.presets():
        assert f"\n* `{preset}`: " in facts.source.partition("<details>")[2]


@each
def test_every_solution_is_one_click_away_and_not_nearer(notebook: contents.Notebook) -> None:
    folds = [cell.source for cell in cells(notebook, "answer")]
    assert len(folds) == len(notebook.exercises)
    asked = [cell.source for cell in cells(notebook, "exercise")]
    solved = [c.source for c in sources.build(notebook, "solution").cells if "exercise" in sources.tags(c)]
    for fold, blank, whole in zip(folds, asked, solved, strict=True):
        assert fold.startswith("<details><summary>")
        code = fold.partition("```python\n")[2].partition("\n```")[0]
        head = blank.partition('raise NotImplementedError("your turn")')[0].rstrip(" ")
        assert ast.unparse(ast.parse(whole)) == ast.unparse(ast.parse(head + textwrap.indent(code, "    ")))
    assert not any("answer" in sources.tags(cell) for cell in sources.build(notebook, "solution").cells)


def test_a_hand_out_holds_no_solution(tmp_path) -> None:
    from tools.course.__main__ import main

    for notebook in NOTEBOOKS:
        copy = tmp_path / notebook.path.name
        copy.write_text(notebook.path.read_text(encoding="utf-8"), encoding="utf-8")
        assert main(["strip", "--no-answers", str(copy)]) == 0
        left = nbformat.read(copy, as_version=4).cells
        assert [cell.source for cell in left] == [c.source for c in cells(notebook) if "answer" not in sources.tags(c)]


def test_presets_name_existing_notebooks() -> None:
    import yaml

    numbers = {notebook.number for notebook in NOTEBOOKS}
    for name in contents.presets():
        table = yaml.safe_load((contents.folder() / "params" / f"{name}.yaml").read_text()) or {}
        assert set(table) <= numbers


@each
def test_cells_are_short_and_prose_surrounds_them(notebook: contents.Notebook) -> None:
    for cell in cells(notebook):
        if cell.cell_type == "code" and not {"exercise", "parameters", "imports", "setup"} & set(sources.tags(cell)):
            assert len(cell.source.splitlines()) <= 17, cell.source
        if set(sources.FOLDED) & set(sources.tags(cell)):  # no idea of the notebook's: on Colab and in JupyterLab
            assert cell.source.startswith("# @title ")
            assert (cell.metadata["cellView"], cell.metadata["jupyter"]) == ("form", {"source_hidden": True})
    definitions = [
        node
        for cell in cells(notebook)
        if cell.cell_type == "code" and "exercise" not in sources.tags(cell)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert len(definitions) <= 6, [node.name for node in definitions]


@each
def test_exercises_come_with_their_checks(notebook: contents.Notebook) -> None:
    exercises = [cell for cell in cells(notebook) if {"exercise", "check"} & set(sources.tags(cell))]
    names = [tag for cell in exercises for tag in sources.tags(cell) if ":" in tag]
    expected = [f"{kind}:{name}" for name in notebook.exercises for kind in ("exercise", "check")]
    assert names == expected
    assert 3 <= len(notebook.exercises) <= 4
    for cell in exercises[::2]:
        assert 'raise NotImplementedError("your turn")' in cell.source
        assert "SOLUTION" not in cell.source


@each
def test_what_a_reader_needs_stands_there(notebook: contents.Notebook) -> None:
    text = "\n".join(cell.source for cell in cells(notebook) if cell.cell_type == "markdown").lower()
    for phrase in ("what you should see", "predict", "what this shows, and what it does not", "summary", "arxiv"):
        assert phrase in text, f"{notebook.stem} lacks {phrase!r}"
    assert "course.record_results(" in cells(notebook)[-1].source
    assert any(sources.compared(cell) for cell in cells(notebook)), "no compared output"


@each
def test_the_answer_to_each_prediction_is_folded_below_it(notebook: contents.Notebook) -> None:
    asked = 0
    for cell in cells(notebook):
        if cell.cell_type == "markdown":
            for part in cell.source.split("> **Predict.**")[1:]:
                asked += 1
                quoted = re.match(r".*(?:\n> .*)*\n\n", part)
                rest = part[quoted.end() :] if quoted else ""
                assert rest.startswith("<details><summary>"), part
                fold = rest.partition("</details>")[0]
                assert len(fold.split()) > 10
    assert asked


@each
def test_every_exercise_says_why_it_matters(notebook: contents.Notebook) -> None:
    """In the text above its blank."""
    shown = cells(notebook)
    above = [shown[k - 1].source for k, cell in enumerate(shown) if "exercise" in sources.tags(cell)]
    texts = [text.rpartition("\n**")[2] for text in above]
    assert [text for text in texts if "*Why it matters.* " not in text] == []
    assert 3 <= len(notebook.exercises) <= 4


@each
def test_compared_cells_have_their_outputs_and_others_none(notebook: contents.Notebook) -> None:
    for cell in cells(notebook):
        if cell.cell_type == "code":
            assert bool(cell.outputs) == sources.compared(cell), cell.source
            assert cell.execution_count == (1 if cell.outputs else None)


@each
def test_nothing_of_one_machine_and_nothing_heavy_is_in_git(notebook: contents.Notebook) -> None:
    text = notebook.path.read_text(encoding="utf-8")
    assert len(text.encode()) < 200_000
    assert not re.search(r"(?<![\w.])/(home|tmp|work|root|Users)/", text)
    for cell in cells(notebook):
        folded = {"cellView", "jupyter"} if set(sources.FOLDED) & set(sources.tags(cell)) else set()
        assert set(cell.metadata) <= {"tags"} | folded
    assert set(nbformat.read(notebook.path, as_version=4).metadata) <= set(sources.LASTING)


@each
def test_links_lead_somewhere(notebook: contents.Notebook) -> None:
    prose = [c for c in cells(notebook) if c.cell_type == "markdown" and "answer" not in sources.tags(c)]  # no code
    text = "\n".join(cell.source for cell in prose)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            assert (contents.folder() / target).exists(), f"{notebook.stem} links {target}"
    assert notebook.next == "–" or contents.find(notebook.next)


@each
def test_data_may_be_a_web_address_wherever_it_is_a_parameter(notebook: contents.Notebook) -> None:
    known = {parameter.name: parameter for parameter in runner.parameters_of(sources.build(notebook))}
    if "data" in known:
        assert known["data"].default == "photos"
        assert "web address" in known["data"].comment
        assert "course.local(data)" in notebook.source


def test_a_cost_table_tells_what_was_measured_and_what_was_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"preset": "smoke", "device": "Some CPU, 2 cores", "seconds": 90, "cpu_seconds": 30, "bytes": 2**30},
        {"preset": "paper", "device": "Some CPU, 2 cores", "seconds": 3_600_000, "bytes": 2**34, "extrapolated": True},
    ]
    monkeypatch.setattr(sources, "measured_costs", lambda notebook: rows)
    table = sources.cost_table(contents.find("03"))
    assert "| `smoke` | Some CPU, 2 cores | 1.5 | 0.5 | 1.0 GiB |" in table
    assert "| `paper` | Some CPU, 2 cores | 60,000 (1,000 h) *(extrapolated)* | – | 16.0 GiB |" in table
    assert "No GPU has been measured yet" in table
    rows[1]["extrapolated"] = False
    assert "xtrapolated" not in sources.cost_table(contents.find("03"))
    assert "| `smoke`, `teach`, `paper` |" in sources.cost_table(contents.find("10"))  # the same parameters
    rows.clear()
    assert "not measured yet" in sources.cost_table(contents.find("03"))


def test_a_cost_takes_the_place_of_an_earlier_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = NOTEBOOKS[0]
    monkeypatch.setattr(contents, "folder", lambda: tmp_path)
    monkeypatch.setattr(contents, "presets", lambda: ("smoke", "teach", "paper"))
    params = tmp_path / "params"
    params.mkdir()
    for preset, steps in (("smoke", 1), ("teach", 10), ("paper", 10)):
        (params / f"{preset}.yaml").write_text(f'"{notebook.number}": {{steps: {steps}}}\n')
    for preset, seconds in (("teach", 5.0), ("smoke", 1.0), ("smoke", 2.0)):
        stamping.record_cost(notebook, {"preset": preset, "device": "a", "seconds": seconds})
    stamping.record_cost(notebook, {"preset": "smoke", "device": "another", "seconds": 9.0})
    held = [(row["preset"], row["device"], row["seconds"]) for row in sources.measured_costs(notebook)]
    assert held == [("smoke", "a", 2.0), ("smoke", "another", 9.0), ("teach", "a", 5.0)]
    stamping.record_cost(notebook, {"preset": "paper", "device": "a", "seconds": 6.0})  # sets what `teach` sets
    held = [(row["preset"], row["device"], row["seconds"]) for row in sources.measured_costs(notebook)]
    assert held == [("smoke", "a", 2.0), ("smoke", "another", 9.0), ("paper", "a", 6.0)]


def test_costs_name_their_device_and_were_measured() -> None:
    for notebook in NOTEBOOKS:
        for row in sources.measured_costs(notebook):
            assert row["device"]
            assert row["seconds"] > 0
            assert row["preset"] in contents.presets()


def test_stripping_removes_what_running_left(tmp_path) -> None:
    notebook = nbformat.read(NOTEBOOKS[0].path, as_version=4)
    notebook.metadata["widgets"] = {"state": {}}
    notebook.metadata["papermill"] = {"duration": 1.0}
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.metadata["papermill"] = {"duration": 1.0}
    code.execution_count = 3
    code.outputs = [nbformat.v4.new_output("stream", text="left behind")]
    nbformat.write(notebook, tmp_path / "run.ipynb")
    stamping.strip(tmp_path / "run.ipynb")
    assert (tmp_path / "run.ipynb").read_text(encoding="utf-8") == NOTEBOOKS[0].path.read_text(encoding="utf-8")


def test_notebooks_are_tracked_as_they_lie_here() -> None:
    tracked = {name for name in tracked_files() if name.startswith("notebooks/") and name.endswith(".ipynb")}
    translated = {translations.path_of(notebook, language) for notebook, language, _ in translations.files()}
    assert {f"notebooks/{path.name}" for path in {notebook.path for notebook in NOTEBOOKS} | translated} == tracked


def test_one_command_moves_every_badge_and_set_up_cell(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import hashlib
    import shutil

    from tools.course.__main__ import main

    copy, wheel = tmp_path / "notebooks", tmp_path / "manas_lite-0.1.0-py3-none-any.whl"
    shutil.copytree(contents.folder(), copy, ignore=shutil.ignore_patterns(".*", "runs"))
    (tmp_path / "docs").mkdir()
    for name in stamping.ADDRESSED:
        shutil.copy(ROOT / name, tmp_path / name)
    before = {name: (tmp_path / name).read_text(encoding="utf-8") for name in stamping.ADDRESSED}
    wheel.write_bytes(b"a wheel")
    monkeypatch.setattr(contents, "folder", lambda: copy)
    given = ["someone/else", "v1.2", str(wheel)]
    assert main(["stamp", "--repository", *given]) == 0
    assert len(capsys.readouterr().out.split()) == len(NOTEBOOKS) + len(list(translations.files())) + len(
        stamping.ADDRESSED
    )
    for notebook in contents.notebooks():
        text = notebook.path.read_text(encoding="utf-8")
        assert f"/github/someone/else/blob/v1.2/notebooks/{notebook.path.name}" in text
        release = (
            "manas_lite @ https://github.com/someone/else/releases/download/v1.2/manas_lite-0.1.0-py3-none-any.whl"
        )
        assert f"{release}#sha256={hashlib.sha256(b'a wheel').hexdigest()}" in text
    for name in stamping.ADDRESSED:
        assert "https://github.com/someone/else" in (tmp_path / name).read_text(encoding="utf-8"), name
    assert main(["stamp", "--check"]) == 0
    table = copy / contents.TABLE
    table.write_text(table.read_text(encoding="utf-8").replace("someone/else", ""), encoding="utf-8")
    assert main(["stamp"]) == 0
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in stamping.ADDRESSED} == before
    capsys.readouterr()
    for wrong in (
        ["no address", *given[1:]],
        ["someone/else", "v 1", given[2]],
        [*given[:2], str(tmp_path / "no.whl")],
    ):
        assert main(["stamp", "--repository", *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
