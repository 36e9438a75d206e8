"""The course: a folder of pages in English and Korean, one for each claim of the studies, by chapter.

FOLDER/index.html, FOLDER/CHAPTER.html and FOLDER/CHAPTER/CLAIM.html are in English, and the same names in FOLDER/ko in
Korean. Numbers are read from the reports of the studies, and texts from experiments/course (`course_text`).
"""

import dataclasses
import functools
import itertools
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cnnjax import __version__, config_files, tables
from cnnjax.pages import course_text, course_timeline, course_words, page, study
from cnnjax.pages.course_text import Exercise, Labels, Phrase, Row, Text
from cnnjax.pages.course_timeline import Family
from cnnjax.pages.course_words import Words
from cnnjax.pages.pictures import Picture
from cnnjax.shell import command_line
from cnnjax.study import facts as study_facts
from cnnjax.study import listing
from cnnjax.study.facts import Fact, FactReport
from cnnjax.study.record import VERDICTS, ClaimReport, read_report

INDEX, CHAPTER, CLAIM, TIMELINE = "course.html", "course_chapter.html", "course_claim.html", "course_timeline.html"
KOREAN_FOLDER = "ko"
TAUGHT = course_words.ENGLISH.sentences["lectures"]  # in the source of a claim that no paper makes


@dataclasses.dataclass(frozen=True)
class Frame:
    """Holds what all pages of the course have.

    Attributes:
      words: the words of the page's language.
      root: relative path of this language's index.html, without that name: '' or '../'.
      other: the words of the other language.
      other_path: relative path of the same page in the other language.
      title: title of the page.
      home: relative path of the page that the course belongs to; '' for none.
      after: relative path and title of the page to read next; None after the last.
      version: of cnnjax.
    """

    words: Words
    root: str
    other: Words
    other_path: str
    title: str
    home: str = ""
    after: tuple[str, Phrase] | None = None
    version: str = __version__


@dataclasses.dataclass(frozen=True)
class ChapterRow:
    """A chapter in the index: its path, its title, and the number of its claims by verdict."""

    path: str
    title: str
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class ClaimPage:
    """Holds what the page of a claim shows.

    Attributes:
      row: the claim as in a list.
      chapter: name of its chapter.
      source: where it is taught.
      evidence: how it was decided: 'By training: 5 seeds, standard budget'; '' without a report.
      why: the reason; no text without one.
      numbers: the numbers that decide it; None without a report.
      figure: the figure of its study; None without one.
      remarks: what was controlled in the study; no text without them.
      command: the shell command that repeats it.
      vary: one thing to change.
      exercises: questions with answers.
      more: the other claims of the chapter.
    """

    row: Row
    chapter: str
    source: str
    evidence: str
    why: Phrase
    numbers: tables.Table | None
    figure: Picture | None
    remarks: Phrase
    command: str
    vary: Phrase
    exercises: tuple[Exercise, ...]
    more: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A claim of the list of studies, with its report and what is written about it."""

    entry: listing.Entry
    report: ClaimReport | FactReport | None
    written: course_text.Entry | None
    labels: Labels

    @property
    def path(self) -> str:
        """Returns the path of its page from the index."""
        return f"{self.entry.claim.chapter}/{self.entry.claim.name}.html"

    def text(self, words: Words) -> Text:
        """Returns the text in a language. If it was written for another verdict, only the claim is kept."""
        text = self.written.texts.get(words.code, Text()) if self.written else Text()
        if self.report and self.written and self.written.verdict == self.report.verdict:
            return text
        return Text(statement=text.statement)


def build(folder: pathlib.Path, files: Sequence[pathlib.Path], home: str = "") -> list[pathlib.Path]:
    """Writes the course on the claims of `files`, which are studies and facts, into a folder. Returns the pages' paths.

    `home` is the path, from the folder, of a page that all pages of the course link to; '' for none. Raises InputError
    for a file, a report or a text that is not valid, and for a folder that cannot be written.
    """
    entries = [measured(entry) for entry in listing.read_entries(files)]
    timelines = [file.parent / "course" / "timeline.toml" for file in files]
    families = next((found for path in timelines if (found := course_timeline.read(path))), ())
    written = []
    for words in course_words.LANGUAGES:
        for name, content in pages(entries, families, words, home):
            path = folder / (KOREAN_FOLDER if words is course_words.KOREAN else "") / name
            page.write(path, content)
            written.append(path)
    return written


def pages(
    entries: Sequence[Measured], families: tuple[Family, ...], words: Words, home: str = ""
) -> Iterator[tuple[str, str]]:
    """Yields the path from the index and the HTML of each page in a language. `home` is as in `build`."""
    rows = {each.path: as_row(each, words) for each in entries}
    groups: dict[str, list[Measured]] = {}
    for each in entries:
        groups.setdefault(each.entry.claim.chapter, []).append(each)
    chapters = [
        ChapterRow(f"{name}.html", words.chapters[name], _counts([rows[each.path] for each in group]))
        for name, group in groups.items()
    ]
    frame_of = functools.partial(_frame, words, home, _following(groups, rows, words))
    wrong = [row for row in rows.values() if row.verdict in listing.STRONG]
    total = _counts(list(rows.values()))
    yield (
        "index.html",
        page.render(
            INDEX, frame=frame_of("index.html", words.course), chapters=chapters, wrong=len(wrong), total=total
        ),
    )
    lists = {name: [rows[each.path] for each in group] for name, group in groups.items()} | {"wrong": wrong}
    for name, listed in lists.items():
        path, is_chapter = f"{name}.html", name in words.chapters
        frame = frame_of(path, words.chapters[name] if is_chapter else words.headings[name])
        lead = "" if is_chapter else words.sentences[name]
        yield path, page.render(CHAPTER, frame=frame, rows=listed, lead=lead)
    networks = course_timeline.networks(families, {each.entry.claim.name: rows[each.path] for each in entries}, words)
    frame, bars = frame_of("timeline.html", words.headings["timeline"]), course_timeline.bars(networks)
    yield "timeline.html", page.render(TIMELINE, frame=frame, networks=networks, bars=bars)
    for each in entries:
        group = groups[each.entry.claim.chapter]
        shown = _claim(each, words, rows[each.path], [rows[other.path] for other in group if other is not each])
        yield each.path, page.render(CLAIM, frame=frame_of(each.path, shown.row.statement.text), page=shown)


def _following(
    groups: Mapping[str, Sequence[Measured]], rows: Mapping[str, Row], words: Words
) -> dict[str, tuple[str, Phrase]]:
    """Returns path -> path and title of the page to read next: claims in their order, and chapters in theirs."""
    chapters = [(f"{name}.html", Phrase(words.chapters[name])) for name in groups]
    chapters += [(f"{name}.html", Phrase(words.headings[name])) for name in ("wrong", "timeline")]
    following = {path: after for (path, _), after in itertools.pairwise(chapters)}
    for group, after in zip(groups.values(), chapters[1:], strict=False):
        claims = [(each.path, rows[each.path].statement) for each in group]
        following |= {path: next_claim for (path, _), next_claim in itertools.pairwise([*claims, after])}
    return {"index.html": chapters[0]} | following


def _frame(words: Words, home: str, following: Mapping[str, tuple[str, Phrase]], path: str, title: str) -> Frame:
    """Returns what all pages have, for the page at a path from the index of its language. `home` is as in `build`."""
    root = "../" * path.count("/")
    if words is course_words.ENGLISH:
        other, other_path, base = course_words.KOREAN, f"{root}{KOREAN_FOLDER}/{path}", root
    else:
        other, other_path, base = course_words.ENGLISH, f"../{root}{path}", f"../{root}"
    after = (root + following[path][0], following[path][1]) if path in following else None
    return Frame(words, root, other, other_path, title, home and base + home, after)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    """Counts claims by verdict, in the order of VERDICTS, without verdicts that no claim has."""
    counts = Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in (*VERDICTS, listing.NO_REPORT) if counts[verdict]}


def measured(entry: listing.Entry) -> Measured:
    """Returns a claim with its report and its texts."""
    chapter = course_text.read(entry.file.parent / "course" / f"{entry.claim.chapter}.toml")
    written = chapter.entries.get(entry.claim.name)
    if not entry.report:
        return Measured(entry, None, written, chapter.labels)
    path = entry.report.with_suffix(".json")
    reports = study_facts.read(path) if isinstance(entry.claim, Fact) else read_report(path).claims
    report = next(report for report in reports if report.name == entry.claim.name)
    return Measured(entry, report, written, chapter.labels)


def as_row(each: Measured, words: Words) -> Row:
    """Returns a claim as in a list."""
    entry, text, english = each.entry, each.text(words), words is course_words.ENGLISH
    statement = Phrase(listing.statement(entry), "" if english else "en")
    if text.statement:
        statement = Phrase(text.statement)
    if not each.report:
        answer = Phrase(words.sentences["none"])
    elif text.answer:
        answer = Phrase(course_text.fill(text.answer, each.report, words))
    else:
        answer = Phrase(_sentence(entry.finding), "" if english else "en")
    return Row(each.path, entry.verdict, statement, answer)


def _claim(each: Measured, words: Words, row: Row, more: Sequence[Row]) -> ClaimPage:
    """Returns what the page of a claim shows."""
    entry, report, text = each.entry, each.report, each.text(words)
    lang = "" if words is course_words.ENGLISH else "en"
    source = f"experiments/{entry.file.name}"
    why = remarks = Phrase("")
    figure = None
    if isinstance(entry.claim, Fact):
        command, vary = command_line("study", source), Phrase(words.sentences["vary_fact"].format(file=source))
        evidence = words.sentences["exact"] if report else ""
    else:
        budget = entry.budget or "standard"
        command = command_line("study", source, f"--budget={budget}")
        whole = config_files.read_study(str(entry.file), budget)
        vary, remarks = Phrase(_sentence(whole.vary.replace("`", "")), lang), Phrase(_sentence(whole.remarks), lang)
        evidence = words.sentences["runs"].format(seeds=entry.seeds, budget=budget) if report else ""
    if text.why and report:
        why = Phrase(course_text.fill(text.why, report, words))
    if entry.report and isinstance(report, ClaimReport):
        alt = words.sentences["alt"].format(study=entry.file.stem)
        labels = each.labels if words is course_words.KOREAN else {}
        caption = _caption((*whole.arms, *whole.metrics.values()), labels, words)
        figure = study.find_figure(entry.report.with_suffix(".json"), alt, caption)
    return ClaimPage(
        row=row,
        chapter=entry.claim.chapter,
        source=_sentence(entry.claim.source.replace(TAUGHT, words.sentences["lectures"])),
        evidence=evidence,
        why=why,
        numbers=_numbers(each, words) if report else None,
        figure=figure,
        remarks=remarks,
        command=command,
        vary=Phrase(text.vary) if text.vary else vary,
        exercises=tuple(_exercise(exercise, report, words) for exercise in text.exercises) if report else (),
        more=tuple(more),
    )


def _caption(names: Sequence[str], labels: Labels, words: Words) -> str:
    """Returns the caption of a study's figure, with the labels of the names in it that have another one."""
    told = "; ".join(f"{name} → {labels[name]}" for name in dict.fromkeys(names) if labels.get(name, name) != name)
    return f"{words.sentences['figure']} {words.sentences['names'].format(names=told) if told else ''}".rstrip()


def _exercise(exercise: Exercise, report: ClaimReport | FactReport, words: Words) -> Exercise:
    """Returns an exercise with the numbers of a report."""
    return Exercise(*(course_text.fill(text, report, words) for text in (exercise.question, exercise.answer)))


def _numbers(each: Measured, words: Words) -> tables.Table:
    """Builds the table of the numbers that decide a claim."""
    headings, report = words.headings, each.report
    labels = each.labels if words is course_words.KOREAN else {}
    if isinstance(report, FactReport):
        names = tuple(headings[key] for key in ("number", "taught", "computed"))
        columns = report.taught, report.computed
        cells = [
            [name, *(course_text.value_text(row.get(name, ""), words) for row in columns)] for name in report.computed
        ]
        rows = [[labels.get(cell, cell) for cell in row] for row in cells]
        return tables.Table(names, rows, frozenset(names[:1]))
    assert isinstance(report, ClaimReport)
    metrics = config_files.read_study(str(each.entry.file), each.entry.budget).metrics
    keys = ("metric", "a", "b", "expected", "difference", "effect", "seeds", "verdict")
    names, rows = tuple(headings[key] for key in keys), []
    for finding in report.findings:
        c, shown = finding.comparison, course_text.numbers(finding, words)
        margin = f"{c.sign} margin" if c.margin else c.sign
        metric = metrics.get(c.metric, c.metric)
        rows.append([
            labels.get(metric, metric), labels.get(c.a, c.a), labels.get(c.b, c.b),
            words.expectations[margin].format(margin=shown.margin),
            f"{course_text.amount(finding, finding.difference, words)} ({course_text.interval(finding, words)})",
            shown.effect or "-", str(finding.seeds),
            words.verdicts[finding.verdict],
        ])  # fmt: skip
    return tables.Table(names, rows, frozenset(names) - {headings["effect"], headings["seeds"]})


def _sentence(text: str) -> str:
    """Joins the lines of a text to one, which begins with a capital letter."""
    line = " ".join(text.split())
    return line[:1].upper() + line[1:]
