"""A checker finds what its rule says and leaves the rest; a wrong option is one clear line."""

import re
import time

import pytest

from fedsafe.alignment import Article
from fedsafe.alignment.checkers import CHECKERS, build_checker
from fedsafe.alignment.identifiers import identifiers_in, is_luhn
from fedsafe.errors import ConfigError


def kept(setting, text, prompt=""):
    return build_checker(setting)(text, prompt)


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("He was sad.", False),
        ("SAD!", False),
        ("He was \uff53\uff41\uff44.", False),
        ("A saddle is no sadness", True),
        ("She cried.", False),
        ("A crying bird", False),
        ("He said it.", True),
        ("", True),
        ("A sad-looking man.", False),
        ("It was Sad's day.", False),
        ("s\u00adad", False),
        ("s\u200bad", False),
        ("A non-saddle", True),
        ("It was well-meant.", True),
        ("It was ill-meant-ish.", False),
    ],
)
def test_words_are_found_whole_by_stem_and_in_any_spelling_of_letters(text, keeps):
    assert kept({"name": "words", "none_of": ["sad", "cry*", "cried", "ill-meant"]}, text) is keeps


def test_a_number_of_words_may_be_allowed():
    setting = {"name": "words", "none_of": ["very"], "most": 2}
    assert kept(setting, "very very good")
    assert not kept(setting, "very very very good")


@pytest.mark.parametrize(
    ("text", "prompt", "keeps"),
    [
        ("It was good.", "", True),
        ("It was good", "", False),
        ('She said, "Yes!"', "", True),
        ('She said, "Yes!', "", False),
        ('no," she said.', 'He asked, "', True),
        ('no?" she said.', '"Will you', True),
        ("“Yes! he said.", "", False),
        ("", "", False),
    ],
)
def test_a_text_is_finished_after_its_last_sentence_and_quotation(text, prompt, keeps):
    assert kept("finished", text, prompt) is keeps


@pytest.mark.parametrize(
    ("setting", "text", "keeps"),
    [
        ({"name": "length", "least": 2, "most": 3}, "one two", True),
        ({"name": "length", "least": 2, "most": 3}, "one", False),
        ({"name": "length", "least": 2, "most": 3}, "one two three four", False),
        ("repetition", "He ran. He sat.", True),
        ({"name": "length", "least": 3}, "one 2 3.5", True),
        ({"name": "length", "least": 4}, "one 2 3.5", False),
        ("repetition", "He ran. Then HE  ran! He, ran.", False),
        ("repetition", "He ran. Then he sat. HE  ran!", False),
        ("repetition", "He, ran! He ran.", False),
        ("repetition", "Mr. Bear ate. Mr. Bear slept.", True),
        ("repetition", "J. Smith ran. J. Smith sat.", True),
        ("repetition", "Take e.g. this. Take e.g. that.", True),
        ("repetition", "It cost 3.50. It cost 3.60.", True),
        ("repetition", "He ate 5. He ate 6.", True),
        ("repetition", "He ran.He sat.He ran.", False),
        ("repetition", '"Go!" said Tom. He said, "Go!"', True),
        ("repetition", '"Go!" He went. "Go!"', False),
        ("repetition", "He ran\n\nHe ran", False),
        ("repetition", "Go!!! Now.", True),
        ("repetition", "Go!!! Now. Go!", False),
        ("shouting", "This is so good and nice and well done NOW", True),
        ("shouting", "THIS IS good", False),
        ({"name": "pattern", "pattern": "https?://"}, "see HTTP://a", False),
        ({"name": "pattern", "pattern": "the end", "found": True}, "The end.", True),
        ({"name": "pattern", "pattern": "the end", "found": True}, "No.", False),
    ],
)
def test_other_rules(setting, text, keeps):
    assert kept(setting, text) is keeps


def test_whom_the_prompt_names_is_mentioned():
    setting = {"name": "mentions", "names": ["Lily", "Tom"]}
    assert kept(setting, "Lily's hat.", "Lily and Tom ran.")
    assert not kept(setting, "He ran.", "Lily and Tom ran.")
    assert not kept({**setting, "all": True}, "Lily's hat.", "Lily and Tom ran.")
    assert kept(setting, "He ran.", "A dog ran.")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to a.b+c@mail.example.org now", {"email"}),
        ("call +44 20 7946 0958", {"telephone"}),
        ("(555) 010-4477", {"telephone"}),
        ("card 4111 1111 1111 1111", {"card"}),
        ("card 4111-1111-1111-1112", set()),
        ("DE89 3704 0044 0532 0130 00", {"iban"}),
        ("in 1999, 12 of 300", set()),
        ("3.14159265358", set()),
        ("user@home", set()),
        ("On 2026-11-30 Lily went out.", set()),
        ("30.11.2026, 30.11.2027", set()),
        ("2026-11-30 12:30", set()),
        ("2026-11-30 020 7946 0958", {"telephone"}),
    ],
)
def test_identifiers_are_found_by_their_form_and_check_digits(text, kinds):
    found = identifiers_in(text)
    assert found == kinds
    assert kept("personal_identifiers", text) is (not found)


def test_luhns_check_digit_finds_every_single_wrong_digit():
    number = "4111111111111111"
    assert is_luhn(number)
    for place in range(len(number)):
        for digit in set("0123456789") - {number[place]}:
            assert not is_luhn(number[:place] + digit + number[place + 1 :])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("wrods", "did you mean 'words'"),
        ({"name": "words", "none": ["a"]}, "did you mean 'none_of'"),
        ({"name": "words"}, "none_of"),
        ({"name": "words", "none_of": []}, "at least one"),
        ({"name": "words", "none_of": ["two words"]}, "each is one word"),
        ({"name": "words", "none_of": ["a"], "most": -1}, "whole number from 0"),
        ({"name": "length", "least": 5, "most": 2}, "5 words or more and 2 or fewer"),
        ({"name": "pattern", "pattern": "("}, "no regular expression"),
        ({"name": "shouting", "most": 2}, "a share"),
        ({"name": "personal_identifiers", "kinds": ["name"]}, "email, telephone, card, iban"),
        ({"name": "no.such.module:check"}, "cannot be imported"),
        ({"name": "test_checkers:polite", "least": 1}, "its options are letter"),
        ("test_checkers:of_one", "cannot be called as check(text, prompt)"),
        ({"least": 3}, "a name"),
        (3, "a name"),
        (["words"], "a name"),
    ],
)
def test_a_wrong_checker_is_one_clear_line(setting, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        build_checker(setting)
    assert "\n" not in str(caught.value)


def polite(text, prompt, letter="p"):
    return letter in text


def of_one(text):
    return True


def a_rule(text, prompt, letter="p"):
    return letter in text


a_rule.exact = True


def test_ones_own_rule_may_say_that_it_is_the_principle():
    for checker, exact in (("test_checkers:a_rule", True), ("test_checkers:polite", False)):
        article = Article(id="a", text="t", scope="response", checker={"name": checker, "letter": "q"})
        assert article.exact is exact


def test_a_function_of_ones_own_takes_options():
    assert kept("test_checkers:polite", "please")
    assert not kept({"name": "test_checkers:polite", "letter": "q"}, "please")


@pytest.mark.parametrize("name", sorted(set(CHECKERS) - {"words", "pattern", "mentions"}))
def test_any_text_is_checked_without_an_error(name):
    for text in ("", " ", "\x00", "\ud800", "a" * 20_000, "1" * 20_000, '"' * 999, "\u202e@@..--++", "("):
        assert isinstance(kept(name, text, text), bool)


@pytest.mark.parametrize("unit", ["a'", "b-", "!", "A. ", "a. ", "\n", ' "."', "e.g. ", "2026-11-30 "])
def test_long_texts_take_no_longer_than_their_length_asks(unit):
    text = unit * (100_000 // len(unit)) + "x"
    for name in ("repetition", "personal_identifiers", {"name": "words", "none_of": ["cry*", "a-b"]}):
        began = time.process_time()
        kept(name, text)
        assert time.process_time() - began < 5.0
