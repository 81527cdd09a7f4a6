"""LimeText and ShapleyText: pieces of any script, known answers, classifiers of every kind, pages and files."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
import torch

import xai_fast as xf
from xai_fast.results.text_pieces import Pieces

GOOD = {"good": 2.0, "great": 1.0, "😀": 0.5}
BAD = {"bad": -2.0, "not": -1.0}
TEXT = "Not bad, I'd say: the plot is good, the cast is great 😀 and the end is not."


def counts(texts):
    """Two scores per text, linear in which words it has."""
    found = []
    for text in texts:
        names = {name.lower() for name in Pieces.of(text, "word").names}
        score = sum(weight for word, weight in {**GOOD, **BAD}.items() if word in names)
        found.append([-score, score])
    return np.array(found)


WORDS = {
    "Don't stop, it's 'it'!": ["Don't", "stop", "it's", "it"],
    "שלום עולם, טוב מאוד": ["שלום", "עולם", "טוב", "מאוד"],
    "مُمتاز جدًا": ["مُمتاز", "جدًا"],
    "अच्छी फिल्म": ["अच्छी", "फिल्म"],
    "我喜欢 films": ["我", "喜", "欢", "films"],
    "fine😀😀👍🏽 👩‍👩‍👧 🇩🇪": ["fine", "😀", "👍🏽", "👩‍👩‍👧", "🇩🇪"],
    "e\u0301te\u0301 x_1 3.14": ["e\u0301te\u0301", "x_1", "3", "14"],
    "rock'n'roll '": ["rock'n'roll"],
    " \t\n": [],
    "!?.": [],
    "": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_words_of_many_scripts(text):
    pieces = Pieces.of(text, "word")
    assert list(pieces.names) == WORDS[text]
    assert pieces.showing([True] * len(pieces)) == text
    for name, spans in zip(pieces.names, pieces.spans, strict=True):
        assert all(text[start:end] == name for start, end in spans)


def test_a_word_goes_with_all_its_occurrences_and_characters_one_by_one():
    pieces = Pieces.of("the cat and the dog", "word")
    assert pieces.showing([False, True, True, False]) == " cat and  "
    assert Pieces.of("aba 👍🏽", "character").names == ("a", "b", "a", "👍🏽")
    assert Pieces.of("aba", "character").showing([True, False, False]) == "a"


@pytest.mark.parametrize("method", [xf.LimeText, xf.ShapleyText])
def test_weights_of_words_that_add_up(method):
    """Of a score that is linear in the words, a word's weight is its coefficient."""
    found = method(counts).explain(TEXT, target=1)
    for word, weight in found.as_list():
        expected = {**GOOD, **BAD}.get(word.lower(), 0.0)
        if word.lower() not in ("not", "bad", "good", "great", "😀"):
            assert abs(weight) < 0.02
        elif word.lower() != "not":  # either of two spellings is enough for it
            assert abs(weight - expected) < 0.02
    assert found.as_list()[0][0] in ("bad", "good")
    assert found.score == pytest.approx(counts([TEXT])[0, 1])
    assert found.target_name == "class 1"
    other = method(counts).explain(TEXT, target=0)
    torch.testing.assert_close(other.weights, -found.weights, rtol=1e-6, atol=1e-9)


def test_shapley_values_sum_up_and_few_words_are_exact():
    few = xf.ShapleyText(counts).explain("good but not great")
    assert few.evaluations == 16
    assert few.standard_error.abs().max() < 1e-12
    torch.testing.assert_close(few.weights, torch.tensor([2.0, 0.0, -1.0, 1.0], dtype=torch.float64))
    many = xf.ShapleyText(lambda texts: np.tanh(counts(texts)), n_samples=200).explain(TEXT, 1)
    assert abs(many.completeness_gap) < 1e-9
    assert many.weights.sum().item() == pytest.approx(np.tanh(counts([TEXT]))[0, 1])
    assert many.standard_error.max() > 0


def test_lime_selects_and_reports_its_fit():
    found = xf.LimeText(counts, top_k=2, n_samples=800).explain(TEXT, 1)
    assert {word for word, _ in found.as_list()} == {"bad", "good"}
    assert (found.weights != 0).sum() == 2
    assert 0.5 < found.fit < 1
    assert xf.LimeText(counts, top_k=100).explain(TEXT, 1).fit > found.fit


def test_the_same_seed_is_the_same_answer_and_texts_that_repeat_are_asked_about_once():
    asked = []

    def classify(texts):
        asked.extend(texts)
        return counts(texts)

    one = xf.LimeText(classify, n_samples=300).explain("good or bad")
    assert len(asked) == len(set(asked)) == one.evaluations == 8
    again = xf.LimeText(counts, n_samples=300).explain("good or bad")
    assert again.weights.equal(one.weights)
    assert not xf.LimeText(counts, n_samples=300, seed=1).explain("good or bad").weights.equal(one.weights)


@pytest.mark.parametrize("method", [xf.LimeText, xf.ShapleyText])
def test_characters(method):
    found = method(lambda texts: [[t.count("a") - t.count("b")] for t in texts], unit="character").explain("abcab")
    names, weights = found.pieces.names, found.weights.tolist()
    for name, weight in zip(names, weights, strict=True):
        assert abs(weight - {"a": 1.0, "b": -1.0, "c": 0.0}[name]) < 0.02


def test_five_thousand_words():
    words = " ".join(f"w{i}" for i in range(5000))

    def first(texts):
        return np.array([[text.startswith("w0 ")] for text in texts], dtype=float)

    found = xf.LimeText(first, n_samples=300, batch_size=300).explain(words)
    assert found.as_list(1)[0][0] == "w0"
    needed = "`n_samples` came as 5000, and 5000 words need at least 10000; .* or use LimeText"
    with pytest.raises(ValueError, match=r"`text` has 8193 words; .* takes at most 8192: give a shorter text"):
        xf.ShapleyText(first, n_samples=20_000).explain(" ".join(f"w{i}" for i in range(8193)))
    with pytest.raises(ValueError, match=needed):
        xf.ShapleyText(first).explain(words)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, np.ndarray.tolist, lambda s: torch.tensor(s).half()])
def test_scores_of_every_kind(kind):
    found = xf.ShapleyText(lambda texts: kind(counts(texts))).explain("good but not great", 1)
    torch.testing.assert_close(found.weights, torch.tensor([2.0, 0.0, -1.0, 1.0], dtype=torch.float64))


def test_five_thousand_words_as_lime_is_called():
    words = " ".join(f"w{i}" for i in range(5000))
    found = xf.LimeText(lambda texts: np.array([[" w7 " in text] for text in texts], dtype=float)).explain(words)
    assert found.as_list()[0][0] == "w7"


def test_a_model_without_its_tokenizer_is_refused():
    with pytest.raises(TypeError, match=r"`classifier` came as Model.* without its tokenizer.*transformers\.pipeline"):
        xf.LimeText(pipeline().model)


def test_flags_of_parts_come_back():
    given = pipeline()
    given.model.train()
    given.model.part = torch.nn.Dropout().eval()
    xf.LimeText(given, n_samples=20).explain("a good text")
    assert given.model.training
    assert not given.model.part.training


def pipeline(several=False):
    """What a Hugging Face pipeline has of its own: a model and a tokenizer."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [1.5, -1.5]]))
            kind = "multi_label_classification" if several else None
            self.config = types.SimpleNamespace(id2label={0: "NEG", 1: "POS"}, problem_type=kind, num_labels=2)

        def forward(self, input_ids, attention_mask):
            assert not self.training
            seen = ((input_ids == 1) * attention_mask).sum(1, keepdim=True).float()
            return types.SimpleNamespace(logits=torch.cat([-seen, seen], dim=1) @ self.weight)

    class Tokens(dict):
        def to(self, device):
            return self

    def tokenize(texts, padding, truncation, return_tensors):
        assert padding
        assert truncation
        assert return_tensors == "pt"
        rows = [[int(word == "good") for word in text.split()] or [0] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return Tokens(input_ids=ids, attention_mask=mask)

    return types.SimpleNamespace(model=Model(), tokenizer=tokenize)


@pytest.mark.parametrize("several", [False, True])
def test_a_hugging_face_pipeline(several):
    pipe = pipeline(several)
    pipe.model.train()
    found = xf.ShapleyText(pipe).explain("a good film")
    assert pipe.model.training
    assert pipe.model.weight.grad is None
    assert found.classes == ("NEG", "POS")
    with torch.no_grad():
        logits = torch.tensor([[-1.0, 1.0]]) @ pipe.model.weight
    sure = logits.sigmoid() if several else logits.softmax(1)
    best = int(sure.argmax())
    assert found.target_name == ("NEG", "POS")[best]
    assert found.score == pytest.approx(sure[0, best].item())
    torch.testing.assert_close(found.weights, torch.tensor([0.0, found.score - 0.5, 0.0], dtype=torch.float64))


def test_a_callable_target():
    margin = xf.ShapleyText(counts).explain("good but not great", lambda scores: scores[:, 1] - scores[:, 0])
    torch.testing.assert_close(margin.weights, torch.tensor([4.0, 0.0, -2.0, 2.0], dtype=torch.float64))
    assert "lambda" in margin.target_name


def test_pages_are_escaped_and_coloured_by_sign():
    text = "<script>alert('good')</script> & bad\nשלום"
    found = xf.ShapleyText(counts, classes=["<neg>", "pos&co"]).explain(text, 1)
    page = found.as_html()
    assert "<script" not in page
    assert "&lt;script&gt;" not in page.split("<h1>")[0]
    assert "pos&amp;co" in page
    assert 'dir="auto"' in page
    marks = {word: colour for colour, word in re.findall(r'background:(#\w{6})" title="[^"]*">([^<]+)</mark>', page)}
    assert marks["good"] != marks["bad"]
    assert "http" not in page


def test_save_and_load(tmp_path):
    found = xf.ShapleyText(counts, n_samples=200, classes=["no", "yes"]).explain(TEXT, 1)
    path = found.save(tmp_path / "deep")
    assert path.with_suffix(".html").read_text(encoding="utf-8") == found.as_html()
    loaded = xf.TextExplanation.load(tmp_path / "deep")
    assert loaded.pieces == found.pieces
    assert loaded.as_list() == found.as_list()
    assert loaded.as_html() == found.as_html()
    assert loaded.weights.equal(found.weights)
    assert loaded.standard_error.equal(found.standard_error)
    assert (loaded.target, loaded.score, loaded.classes) == (1, found.score, ("no", "yes"))


def test_progress_counts_texts():
    seen = []
    xf.LimeText(counts, n_samples=100, batch_size=16, progress=lambda done, total: seen.append((done, total))).explain(
        TEXT
    )
    assert seen[-1][0] == seen[-1][1] > 50


REFUSED = {
    "no classifier": (lambda: xf.LimeText(None), TypeError, "`classifier` came as NoneType"),
    "a unit": (lambda: xf.LimeText(counts, unit="sentence"), ValueError, "`unit` came as 'sentence'"),
    "samples": (lambda: xf.ShapleyText(counts, n_samples=0), ValueError, "`n_samples`"),
    "a width": (lambda: xf.LimeText(counts, kernel_width=0), ValueError, "`kernel_width`"),
    "top": (lambda: xf.LimeText(counts, top_k=0), ValueError, "`top_k`"),
    "a seed": (lambda: xf.LimeText(counts, seed=0.5), TypeError, "`seed`"),
    "no text": (lambda: xf.LimeText(counts).explain(["a"]), TypeError, "`text` came as list"),
    "no words": (lambda: xf.LimeText(counts).explain(" ... "), ValueError, "`text` has no words"),
    "a class": (lambda: xf.LimeText(counts).explain("good", 2), ValueError, "`target`"),
    "ten thousand characters": (
        lambda: xf.LimeText(counts, unit="character", n_samples=20).explain("ab " * 5000),
        ValueError,
        "`segments` are 10000",
    ),
    "two classes": (
        lambda: xf.LimeText(counts).explain("good", torch.tensor([[0, 1]])),
        TypeError,
        "`target` came as Tensor",
    ),
    "classes": (lambda: xf.LimeText(counts, classes=["a"]).explain("good", 1), ValueError, "`target`"),
    "one number": (lambda: xf.LimeText(lambda t: 1.0).explain("good"), ValueError, r"`classifier` returned \(\)"),
    "words": (lambda: xf.LimeText(lambda t: ["a"]).explain("good"), ValueError, "`classifier` returned list"),
    "rows": (lambda: xf.LimeText(lambda t: [[1.0]] * 7).explain("good"), ValueError, r"must return scores \(1, K\)"),
    "not a number": (lambda: xf.LimeText(lambda t: [[float("nan")]] * len(t)).explain("a"), ArithmeticError, "NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
