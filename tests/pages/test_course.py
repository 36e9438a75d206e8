"""The course: its pages in both languages, its texts, and that their numbers come from the reports."""

import dataclasses
import pathlib
import re
import string
import tomllib
from collections import Counter
from typing import Any

import pytest

from cnnjax import cli, config_files
from cnnjax.errors import InputError
from cnnjax.models import MODELS
from cnnjax.pages import course, course_text, course_timeline, course_words
from cnnjax.pages.course_words import ENGLISH, KOREAN, LANGUAGES
from cnnjax.study import CHAPTERS, facts, listing
from cnnjax.study.record import VERDICTS, read_report
from tests.pages import structure

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "experiments"
FILES = [EXPERIMENTS / f"{name}.py" for name in ("arithmetic_windows", "padding")]
TEXTS = sorted(path for path in (EXPERIMENTS / "course").glob("*.toml") if path.stem in CHAPTERS)
WITHOUT_TEXT = 11  # claims without a text of the course: this number may only fall
NAMES = re.compile(  # digits that are names, or words in the other language
    r"\d+x\d+|b?float\d+|10의|0으로|(?<!\d)(?:[2-9]|10)분의 \d"
)
MYRIADS = re.compile(r"(?:([\d,]+)억 ?)?([\d,]+)만(?!큼)|([\d,]+)억")  # 1억 2,000만 is 120 million


def all_reports() -> dict[str, Any]:
    """The report of each claim that has one, by its name; of several budgets that with the most runs."""
    reports: dict[str, Any] = {}
    for path in sorted((EXPERIMENTS / "reports").glob("arithmetic_*.json")):
        reports |= {report.name: report for report in facts.read(path)}
    for budget in ("quick", "standard", "full"):
        for path in sorted((EXPERIMENTS / "reports").glob(f"*-{budget}.json")):
            reports |= {report.name: report for report in read_report(path).claims}
    return reports


REPORTS = all_reports()
WRITTEN = [
    pytest.param(path.stem, name, entry, id=name)
    for path in TEXTS
    for name, entry in course_text.read(path).entries.items()
]


def written_out(text: str) -> str:
    """A text with 'twenty' as 20, '12.4 million' and '1,240만' as 12,400,000, '2 G' and '20억' as 2,000,000,000."""

    def product(*factors: tuple[str | None, float]) -> str:
        return f"{round(sum(float(number.replace(',', '')) * unit for number, unit in factors if number)):,}"

    def products(match: re.Match[str]) -> str:
        unit = 1e9 if match[2] == "G" else 1e6
        return re.sub(r"[\d.]+", lambda number: product((number[0], unit)), match[1])

    # '2, 3 and 4 million' has the unit once
    text = re.sub(r"(\d[\d.]*(?:(?:, | and | to )\d[\d.]*)*) (million|G\b)", products, text.replace("twenty", "20"))
    return MYRIADS.sub(lambda match: product((match[1] or match[3], 1e8), (match[2], 1e4)), text)


def digits(*texts: str, words: tuple[str, ...] = ()) -> Counter[str]:
    """The numbers of texts, without names such as 3x3, and without `words`."""
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", written_out(NAMES.sub(" ", " ".join(texts))))
    return Counter(number for number in found if number not in words)


def placeholders(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The course on two files."""
    folder = tmp_path_factory.mktemp("course")
    course.build(folder, FILES)
    return folder


def pages(folder: pathlib.Path) -> dict[str, structure.Document]:
    """The pages by path, checked."""
    return {
        (name := path.relative_to(folder).as_posix()): structure.check(
            path.read_text(encoding="utf-8"), "ko" if name.startswith("ko/") else "en"
        )
        for path in sorted(folder.rglob("*.html"))
    }


# ------------------------------------------------------------------------------------------------------------- pages


def test_every_page_is_whole_in_both_languages_and_no_link_is_dead(folder: pathlib.Path) -> None:
    found = pages(folder)
    english = {name for name in found if not name.startswith("ko/")}
    assert {f"ko/{name}" for name in english} == found.keys() - english
    assert {"index.html", "timeline.html", "wrong.html", "padding.html", "padding/half_padding.html"} <= english
    for name, document in found.items():
        targets = {(folder / name).parent / link["href"] for link in document.all("a") if link["href"][0] != "#"}
        assert all(target.resolve().is_file() for target in targets), name
        other = f"ko/{name}" if name in english else name.removeprefix("ko/")
        (alternate,) = document.all("link", rel="alternate")
        assert ((folder / name).parent / alternate["href"]).resolve() == (folder / other).resolve()


def test_a_claim_has_its_verdict_numbers_figure_command_and_exercises_in_both_languages(folder: pathlib.Path) -> None:
    found, name = pages(folder), "padding/padding_strengthens_the_border.html"
    english, korean = found[name], found[f"ko/{name}"]
    assert english.all("strong")[0].text == "held"
    assert korean.all("strong")[0].text == "맞음"
    for document in (english, korean):
        text = document.all("main")[0].text
        assert all(number in text for number in ("8.6", "7.4", "9.8", "9.5"))
        assert document.all("pre")[0].text == "cnnjax study experiments/padding.py --budget=standard"
        assert len(document.all("img")) == len(document.all("table")) == 1
        assert len(document.all("details")) == 2  # what was controlled, and the answer of the exercise
    cells = [[digits(cell.text) for cell in document.all("td")] for document in (english, korean)]
    assert cells[0] == cells[1]
    assert "copied border → 가장자리 복사" in korean.all("figcaption")[0].text
    assert "→" not in english.all("figcaption")[0].text
    assert "가장자리" in korean.all("h1")[0].text
    fact = found["ko/padding/shrinking.html"].all("table")[0].text
    assert "쌓을 수 있는 합성곱층 수" in fact
    assert "32, 28, 24" in fact


def test_every_page_but_the_last_leads_to_the_next(folder: pathlib.Path) -> None:
    found = pages(folder)
    chapters = dict.fromkeys(entry.claim.chapter for entry in listing.read_entries(FILES))
    for start in ("index.html", "ko/index.html"):
        path, read = folder / start, []
        while links := found[path.relative_to(folder).as_posix()].all("a", rel="next"):
            read.append(path.stem)
            path = (path.parent / links[0]["href"]).resolve()
        assert [*read, path.stem] == ["index", *chapters, "wrong", "timeline"]
    assert all(document.all("a", rel="next") for name, document in found.items() if "timeline" not in name)


def test_claims_are_counted_by_verdict(folder: pathlib.Path) -> None:
    found = pages(folder)
    counts = Counter(entry.verdict for entry in listing.read_entries(FILES))
    text = " ".join(found["index.html"].all("main")[0].text.split())
    parts = " ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
    assert f"{counts.total()} claims: {parts} " in text
    assert "2 claims: held 2" in text
    assert "1 claims" not in text
    assert "주장 2개" in found["ko/index.html"].all("main")[0].text


def test_a_claim_without_a_text_has_its_page_in_both_languages() -> None:
    name = "convolution/stride_three_on_seven.html"
    (entry,) = (entry for entry in listing.read_entries(FILES[:1]) if name.endswith(f"/{entry.claim.name}.html"))
    measured, report = dataclasses.replace(course.measured(entry), written=None, labels={}), REPORTS[entry.claim.name]
    found = {
        words.code: structure.check(dict(course.pages([measured], (), words))[name], words.code) for words in LANGUAGES
    }
    for document in found.values():
        assert document.all("h1")[0].text.strip() == report.statement
        assert report.why in document.all("main")[0].text
        assert not document.all("details")
    assert found["ko"].all("span", lang="en")[0].text == report.statement


def test_wrong_claims_have_a_chapter_of_their_own(folder: pathlib.Path) -> None:
    found = pages(folder)["wrong.html"]
    wrong = [entry for entry in listing.read_entries(FILES) if entry.verdict in ("refuted", "contradicted")]
    assert wrong
    shown = [link["href"] for link in found.all("a") if "/" in link["href"]]
    paths = [f"{entry.claim.chapter}/{entry.claim.name}.html" for entry in wrong]
    assert [path for path in shown if not path.startswith("ko/")] == paths


def test_a_text_that_was_written_for_another_verdict_is_not_shown() -> None:
    (entry,) = (entry for entry in listing.read_entries(FILES) if entry.claim.name == "depth_needs_padding")
    measured = course.measured(entry)
    assert measured.text(KOREAN).answer
    assert measured.written
    changed = dataclasses.replace(measured, written=dataclasses.replace(measured.written, verdict="refuted"))
    assert changed.text(KOREAN).statement
    assert not changed.text(KOREAN).answer
    assert course.as_row(changed, ENGLISH).answer.text.startswith('The test error is 2.91 points lower with "zeros"')


def test_numbers_have_their_units_in_the_language_of_the_page() -> None:
    entries = listing.read_entries([EXPERIMENTS / "arithmetic_inception.py"])
    (measured,) = (course.measured(entry) for entry in entries if entry.claim.name == "googlenet_parameters")
    for words, taught in ((ENGLISH, "6.8 M"), (KOREAN, "680만")):
        content = dict(course.pages([measured], (), words))["inception/googlenet_parameters.html"]
        assert taught in structure.check(content, words.code).all("table")[0].text
    margin = "{findings[0].margin}"
    assert course_text.fill(margin, REPORTS["three_networks_suffice"], ENGLISH) == "1 point"
    assert course_text.fill(margin, REPORTS["few_images_overfit"], ENGLISH) == "5 points"
    assert course_text.fill(margin, REPORTS["three_networks_suffice"], KOREAN) == "1%p"


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str) -> None:
    (entry,) = (entry for entry in listing.read_entries(FILES[1:]) if entry.claim.name == "depth_needs_padding")
    hostile = dataclasses.replace(entry.claim, statement=text, source=text, name="name")
    measured = course.Measured(dataclasses.replace(entry, claim=hostile, report=None), None, None, {})
    for words in LANGUAGES:
        for _, content in course.pages([measured], (), words):
            assert not structure.check(content, words.code).all("script")


# ------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(("chapter", "name", "entry"), WRITTEN)
def test_a_text_is_of_a_claim_and_for_its_verdict(chapter: str, name: str, entry: course_text.Entry) -> None:
    report = REPORTS[name]
    assert (report.chapter, report.verdict) == (chapter, entry.verdict)
    assert entry.texts.keys() == {"en", "ko"}
    english, korean = entry.texts["en"], entry.texts["ko"]
    assert not english.statement
    assert all((korean.statement, english.answer, korean.answer, english.why, korean.why, english.exercises))
    assert not re.search("[가-힣]", str(english))


@pytest.mark.parametrize(("chapter", "name", "entry"), WRITTEN)
def test_numbers_of_results_are_placeholders_and_the_same_in_both_languages(
    chapter: str, name: str, entry: course_text.Entry
) -> None:
    english, korean, report = entry.texts["en"], entry.texts["ko"], REPORTS[name]
    bare = [re.sub(r"\{[^}]*\}", "", text.answer) for text in (english, korean)]
    assert not digits(*bare), f"type no numbers of a result: {bare}"
    assert placeholders(english.answer) == placeholders(korean.answer)
    words = ("0", "1")  # which English writes as words
    assert digits(report.statement, words=words) == digits(korean.statement, words=words)
    texts = [
        (text.why, *(part for each in text.exercises for part in (each.question, each.answer)))
        for text in (english, korean)
    ]
    assert digits(*texts[0], words=words) == digits(*texts[1], words=words)
    answers = [
        digits(course_text.fill(text.answer, report, language))
        for text, language in ((english, ENGLISH), (korean, KOREAN))
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("chapter", "name", "entry"), WRITTEN)
def test_korean_is_polite_in_one_style_and_names_what_the_tables_show(
    chapter: str, name: str, entry: course_text.Entry
) -> None:
    korean, labels = entry.texts["ko"], course_text.read(EXPERIMENTS / "course" / f"{chapter}.toml").labels
    texts = (korean.statement, korean.answer, korean.why, *(each.answer for each in korean.exercises))
    for text in texts:
        ends = re.findall(r"(\S+?)(?:\s?\([^()]*\))?\.(?=\s|$)", re.sub(r"\{[^}]*direction\}", "낮습니다", text))
        assert ends
        assert all(end.endswith(("니다", "세요")) for end in ends), ends
    assert "니다," not in re.sub(r"\{[^}]*direction\}", "낮습니다", korean.answer), "a direction ends its sentence"
    report = REPORTS[name]
    if isinstance(report, facts.FactReport):
        shown = {*report.computed, *(value for value in report.taught.values() if isinstance(value, str))}
    else:
        shown = {arm for finding in report.findings for arm in (finding.comparison.a, finding.comparison.b)}
    assert {text for text in shown if re.search(r"[A-Za-z%]", NAMES.sub("", text))} <= labels.keys()


def test_few_claims_are_without_a_text() -> None:
    plans = (read_report(path).plan for path in sorted((EXPERIMENTS / "reports").glob("*-*.json")))
    claims = REPORTS.keys() | {name for plan in plans for name in plan.claims}
    without = sorted(claims - {parameters.values[1] for parameters in WRITTEN})
    assert len(without) <= WITHOUT_TEXT, f"write a text in experiments/course for a new claim; without one: {without}"


@pytest.mark.parametrize("field", ["findings[7].size", "findings[0].shoe", "computed[x]", "0", ""])
def test_a_placeholder_without_a_number_is_an_error(field: str) -> None:
    with pytest.raises(InputError, match=r"depth_needs_padding: .* has a placeholder without a number"):
        course_text.fill(f"It is {{{field}}}.", REPORTS["depth_needs_padding"], ENGLISH)


@pytest.mark.parametrize("text", ["[a", "[a]\nen = 1", "a = 1", "[a]\nverdict = 'held'\n[a.en]\nanswers = ''"])
def test_a_file_of_texts_that_is_not_valid_is_an_error(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "depth.toml").write_text(text)
    with pytest.raises(InputError, match=r"depth\.toml is not a chapter of the course"):
        course_text.read(tmp_path / "depth.toml")
    (tmp_path / "timeline.toml").write_text(text)
    with pytest.raises(InputError, match=r"timeline\.toml is not a timeline"):
        course_timeline.read(tmp_path / "timeline.toml")


def test_both_languages_have_all_words() -> None:
    for field in dataclasses.fields(course_words.Words):
        english, korean = getattr(ENGLISH, field.name), getattr(KOREAN, field.name)
        if isinstance(english, dict) and field.name != "terms":
            assert english.keys() == korean.keys()
            for key, text in english.items():
                assert placeholders(text) == placeholders(korean[key]), key
    assert tuple(ENGLISH.chapters) == CHAPTERS
    assert ENGLISH.verdicts.keys() == ENGLISH.meanings.keys() == {*VERDICTS, listing.NO_REPORT}


# ---------------------------------------------------------------------------------------------------------- timeline


def test_the_timeline_is_of_networks_of_the_package_in_order_of_their_papers() -> None:
    path = EXPERIMENTS / "course" / "timeline.toml"
    families = course_timeline.read(path)
    years = [MODELS[family.model].year for family in families]
    assert years == sorted(years)
    assert [families[0].title, families[-1].title] == ["LeNet-5", "SENet"]
    sources = "".join(file.read_text() for file in EXPERIMENTS.glob("*.py"))
    assert all(f'"{name}"' in sources for family in families for name in family.claims)
    assert all(MODELS[family.model].published for family in families)
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["networks"]
    assert len(rows) == len(families)
    assert {row["result"] for row in rows} <= config_files.read_study("table_cifar10", "standard").arms.keys()


def test_published_results_are_in_the_language_of_the_page() -> None:
    families = course_timeline.read(EXPERIMENTS / "course" / "timeline.toml")
    shown = [course_timeline.networks(families, {}, words) for words in LANGUAGES]
    for english, korean in zip(*shown, strict=True):
        assert english.published == MODELS[english.name].published
        assert set(re.findall("[a-z]+", korean.published)) <= {"top"}, korean.published
        assert Counter(re.findall(r"[\d.]+", korean.published)) == Counter(re.findall(r"[\d.]+", english.published))


def test_the_table_of_the_timeline_leads_to_its_networks(folder: pathlib.Path) -> None:
    timeline = pages(folder)["timeline.html"]
    links = [each["href"] for each in timeline.all("a") if "table" in each.path]
    assert links == [f"#{each['id']}" for each in timeline.all("h2")]
    assert links


def test_the_timeline_shows_our_own_results(tmp_path: pathlib.Path) -> None:
    entry = 'model = "alexnet"\ntitle = "AlexNet"\nclaims = []\nen = "new"\nko = "new"'
    for name in ("course", "reports"):
        (tmp_path / name).mkdir()
    path = tmp_path / "course" / "timeline.toml"
    path.write_text(f'[[networks]]\n{entry}\nresult = "A, B"\n[[networks]]\n{entry}\n')
    assert [family.accuracy for family in course_timeline.read(path)] == [None, None]
    table = tmp_path / "reports" / course_timeline.RESULTS
    table.write_text('arm,run,test_error\n"A, B",0,0.25\nC,0,0.9\n"A, B",1,0.3\n')
    families = course_timeline.read(path)
    assert [family.accuracy for family in families] == [pytest.approx(0.725), None]
    for words, sentence in ((ENGLISH, "has a test accuracy of 72.5\u00a0%"), (KOREAN, "정확도는 72.5%입니다")):
        assert sentence in dict(course.pages([], families, words))["timeline.html"]
    for damaged in ("arm,run\nC,0\n", "arm,run,test_error\nC,0,\n", "arm,run,test_error\nC\n"):
        table.write_text(damaged)
        with pytest.raises(InputError, match=rf"{course_timeline.RESULTS} is damaged: it has no test error in a row"):
            course_timeline.read(path)


# ----------------------------------------------------------------------------------------------------------- command


def test_the_command_writes_the_course(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_files, "config_files", lambda kind: FILES[1:])
    assert cli.main(["course", f"--to={tmp_path / 'course'}"]) == 0
    count = len(list((tmp_path / "course").rglob("*.html")))
    assert re.fullmatch(
        rf"the course is {re.escape(str(tmp_path))}/course/index\.html: {count} pages, \d\.\d MB\n",
        capsys.readouterr().out,
    )
    with pytest.raises(SystemExit, match="2"):
        cli.main(["course"])
    assert "--to" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["course", f"--to={tmp_path / 'file'}"]) == 1
    assert "file cannot be made" in capsys.readouterr().err
    monkeypatch.setattr(config_files, "config_files", lambda kind: [])
    assert cli.main(["course", f"--to={tmp_path}"]) == 1
    assert "no studies" in capsys.readouterr().err
