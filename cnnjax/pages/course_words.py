"""The words of the course that are on every page, in English and in Korean."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of one language; those in braces are replaced.

    Attributes:
      code: the language, as HTML names it: 'en' or 'ko'.
      language: its name in itself.
      course: title of the course.
      intro: what the course is, in a few sentences.
      chapters: name of a chapter -> its title.
      verdicts: verdict -> word on the page; also of `listing.NO_REPORT`.
      meanings: verdict -> what it means.
      headings: headings of pages, sections and tables, by a key.
      sentences: sentences with {placeholders}, by a key.
      expectations: sign of a comparison -> what it expects; with ' margin' at the end, beyond a {margin}.
      points: unit of differences of percentages.
      terms: pattern in a published result -> what stands for it in this language; replaced in this order.
    """

    code: str
    language: str
    course: str
    intro: str
    chapters: Mapping[str, str]
    verdicts: Mapping[str, str]
    meanings: Mapping[str, str]
    headings: Mapping[str, str]
    sentences: Mapping[str, str]
    expectations: Mapping[str, str]
    points: str
    terms: Mapping[str, str]


ENGLISH = Words(
    code="en",
    language="English",
    course="Convolutional networks: what is taught, measured",
    intro="""Lectures and papers say what makes a convolutional network good. Here each sentence is put to the test: by
    training networks that differ in one thing, several times each, or by an exact calculation. You can repeat every
    test with one command, and change one thing.""",
    chapters={
        "convolution": "Convolution",
        "padding": "Padding",
        "pooling": "Pooling",
        "activations": "Activations",
        "depth": "Depth",
        "residuals": "Residual connections",
        "inception": "Inception",
        "normalization": "Normalization",
        "regularization": "Regularization",
        "training": "Training",
        "augmentation": "Augmentation",
        "transfer": "Transfer learning",
        "evaluation": "Evaluation",
        "inside": "Inside a network",
    },
    verdicts={
        "held": "held",
        "equal": "equal",
        "contradicted": "contradicted",
        "refuted": "refuted",
        "undecided": "undecided",
        "no report yet": "not measured yet",
    },
    meanings={
        "held": "The claim is true.",
        "equal": "There is no difference that matters, as the claim says.",
        "contradicted": "The opposite is shown, or a difference where none was claimed.",
        "refuted": "The claim is false, in whole or in part.",
        "undecided": "These runs cannot tell. That does not mean that there is no difference.",
        "no report yet": "The test is written, and has not been run yet.",
    },
    headings={
        "skip": "Skip to the content",
        "nav": "Pages",
        "chapters": "Chapters",
        "chapter": "chapter",
        "claims": "claims",
        "wrong": "What is taught wrongly",
        "timeline": "From LeNet-5 to SENet",
        "verdicts": "What the verdicts mean",
        "answer": "The answer",
        "why": "Why",
        "figure": "Figure",
        "numbers": "The numbers",
        "controlled": "What was controlled",
        "try": "Try it",
        "exercises": "Exercises",
        "solution": "Answer",
        "source": "Where it is taught",
        "more": "More of this chapter",
        "next": "Next",
        "number": "number",
        "taught": "as taught",
        "computed": "as computed",
        "metric": "metric",
        "a": "network",
        "b": "compared with",
        "expected": "expected",
        "difference": "difference",
        "effect": "effect size",
        "seeds": "seeds",
        "verdict": "verdict",
        "parameters": "Parameters",
        "macs": "Multiplications for an image",
        "input": "Input: height, width, channels",
        "network": "network",
        "published": "In the paper",
        "ours": "Here",
        "new": "What was new",
        "measured": "Measured in this course",
        "sizes": "Parameters of the networks",
        "yes": "yes",
        "no": "no",
    },
    sentences={
        "count": "{count} claims",
        "one": "{count} claim",
        "wrong": "Statements in lectures, books and papers that are false, or whose opposite is true.",
        "timeline": """The families of classical networks, each with the result of its paper and what was new in it. The
        results of the papers are as printed: data and protocol differ from one to the next.""",
        "ours": "A small version, trained on CIFAR-10 for a few epochs, has a test accuracy of {}\u00a0%.",
        "evidence": "{interval}{effect}; {seeds}",
        "interval": "{level} % interval {low} to {high}",
        "both ways": "{level} % interval from {low} lower to {high} higher",
        "same": "the same in every seed",
        "unknown": "no interval",
        "effect": "; effect size {effect}",
        "seeds": "{seeds} seeds",
        "higher": "higher",
        "lower": "lower",
        "lectures": "taught so in lectures",
        "none": "This has not been measured yet.",
        "exact": "By calculation",
        "runs": "By training: {seeds} seeds, {budget} budget",
        "run": "Run it:",
        "vary": "Change one thing.",
        "vary_fact": "In {file}, change the network or a number in the function of this sentence, and run it again.",
        "alt": "The metrics of the networks that this claim compares, from the study {study}.",
        "figure": "The figure of the whole study, which may also have networks and verdicts of its other claims.",
        "names": "Names in the figure: {names}.",
        "footer": "Written by cnnjax {version}. This page is self-contained and makes no network requests.",
    },
    expectations={
        "higher": "higher",
        "higher margin": "higher by more than {margin}",
        "lower": "lower",
        "lower margin": "lower by more than {margin}",
        "equal margin": "within {margin}",
        "at_least": "not lower",
        "at_least margin": "no more than {margin} lower",
    },
    points=" points",
    terms={},
)

KOREAN = Words(
    code="ko",
    language="한국어",
    course="합성곱 신경망, 배운 내용을 실험으로 확인하기",
    intro="""강의와 논문은 합성곱 신경망이 왜 잘되는지 여러 가지로 설명합니다. 이 강의에서는 그런 설명이
    맞는지 하나씩 시험합니다. 한 가지만 다른 신경망을 여러 번 학습시키거나, 값을 정확히 계산해서 확인합니다. 모든 실험은
    명령 한 줄로 다시 해 볼 수 있고, 조건을 하나 바꿔 볼 수도 있습니다.""",
    chapters={
        "convolution": "합성곱",
        "padding": "패딩",
        "pooling": "풀링",
        "activations": "활성화 함수",
        "depth": "깊이",
        "residuals": "잔차 연결",
        "inception": "인셉션",
        "normalization": "정규화(배치 정규화, LRN)",
        "regularization": "규제(드롭아웃, 가중치 감쇠)",
        "training": "학습",
        "augmentation": "데이터 증강",
        "transfer": "전이 학습",
        "evaluation": "평가",
        "inside": "신경망 들여다보기",
    },
    verdicts={
        "held": "맞음",
        "equal": "차이 없음",
        "contradicted": "반박됨",
        "refuted": "틀림",
        "undecided": "판정 보류",
        "no report yet": "측정 전",
    },
    meanings={
        "held": "주장대로입니다.",
        "equal": "주장대로, 의미 있는 차이가 없습니다.",
        "contradicted": "주장과 반대되는 결과나, 없다던 차이가 나왔습니다.",
        "refuted": "그렇지 않거나, 일부만 맞습니다.",
        "undecided": "지금까지의 실험만으로는 알 수 없습니다. 차이가 없다는 뜻은 아닙니다.",
        "no report yet": "실험은 준비되어 있지만 아직 돌리지 않았습니다.",
    },
    headings={
        "skip": "본문으로 건너뛰기",
        "nav": "페이지 목록",
        "chapters": "차례",
        "chapter": "장",
        "claims": "주장 수",
        "wrong": "잘못 알려진 것들",
        "timeline": "LeNet-5에서 SENet까지",
        "verdicts": "판정의 뜻",
        "answer": "답",
        "why": "왜 그럴까",
        "figure": "그림",
        "numbers": "수치",
        "controlled": "실험 조건(영어)",
        "try": "직접 해 보기",
        "exercises": "연습 문제",
        "solution": "풀이",
        "source": "출처",
        "more": "이 장의 다른 주장",
        "next": "다음",
        "number": "항목",
        "taught": "배운 값",
        "computed": "계산한 값",
        "metric": "지표",
        "a": "신경망",
        "b": "비교 대상",
        "expected": "예상",
        "difference": "차이",
        "effect": "효과 크기",
        "seeds": "시드 수",
        "verdict": "판정",
        "parameters": "매개변수",
        "macs": "이미지 한 장당 곱셈 수",
        "input": "입력(높이, 너비, 채널)",
        "network": "신경망",
        "published": "논문의 성능",
        "ours": "직접 학습한 성능",
        "new": "새로운 점",
        "measured": "이 강의에서 확인한 주장",
        "sizes": "신경망별 매개변수 수",
        "yes": "예",
        "no": "아니요",
    },
    sentences={
        "count": "주장 {count}개",
        "one": "주장 {count}개",
        "wrong": "강의나 책, 논문에 나오지만 사실이 아니거나 정반대인 주장을 모았습니다.",
        "timeline": """대표적인 합성곱 신경망을 발표 순서대로 정리했습니다. 논문의 성능은 논문에 실린 값
        그대로이며, 데이터와 평가 방법은 논문마다 다릅니다.""",
        "ours": "크기를 줄인 신경망을 CIFAR-10으로 몇 에포크만 학습했을 때 테스트 정확도는 {}%입니다.",
        "evidence": "{interval}{effect}, {seeds}",
        "interval": "{level}% 신뢰구간 {low}~{high}",
        "both ways": "{level}% 신뢰구간 {low} 낮음~{high} 높음",
        "same": "모든 시드에서 같음",
        "unknown": "신뢰구간 없음",
        "effect": ", 효과 크기 {effect}",
        "seeds": "시드 {seeds}개",
        "higher": "높습니다",
        "lower": "낮습니다",
        "lectures": "강의에서 흔히 하는 설명",
        "none": "아직 측정하지 않았습니다.",
        "exact": "계산으로 확인",
        "runs": "학습으로 확인, 시드 {seeds}개, 실험 규모 {budget}",
        "run": "다음 명령을 실행해 보세요.",
        "vary": "한 가지만 바꿔 보기.",
        "vary_fact": "{file}에서 이 주장을 계산하는 함수에서 신경망이나 숫자를 바꾸고 다시 실행해 보세요.",
        "alt": "이 주장에서 비교한 신경망의 지표({study} 실험)",
        "figure": "실험 전체의 그림이므로, 다른 주장의 신경망과 판정도 있을 수 있습니다.",
        "names": "그림에 쓰인 영어: {names}.",
        "footer": "cnnjax {version} 버전으로 만들었습니다. 인터넷에 연결하지 않아도 페이지 전체를 볼 수 있습니다.",
    },
    expectations={
        "higher": "더 높음",
        "higher margin": "{margin} 넘게 높음",
        "lower": "더 낮음",
        "lower margin": "{margin} 넘게 낮음",
        "equal margin": "차이가 {margin} 미만",
        "at_least": "더 낮지 않음",
        "at_least margin": "{margin} 이상 낮지 않음",
    },
    points="%p",
    terms={
        r"error in %, top-1 / top-5:": "오류율(%, top-1 / top-5)",
        r"\bval\b": "검증",
        r"\btest\b": "테스트",
        r"\berror\b": "오류율",
        r"\baccuracy\b": "정확도",
        r"(\d+) crops?": r"크롭 \1개",
        r"(\d+) networks?": r"신경망 \1개",
        r"with distorted training images": "(왜곡한 학습 이미지 사용)",
        r"with translated and mirrored training images": "(이동하고 뒤집은 학습 이미지 사용)",
        r"whole images of short side (\d+)": r"짧은 변이 \1인 이미지 전체",
        r"without dropout": "드롭아웃 없음",
        r"released weights": "공개된 가중치",
        r" %": "%",
    },
)

LANGUAGES = (ENGLISH, KOREAN)
