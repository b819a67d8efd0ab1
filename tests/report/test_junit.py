"""JUnit XML: what the common schema asks for, in its order, whatever is in the texts."""

from datetime import UTC, datetime
from xml.etree import ElementTree as Xml

from fedsafe.report.junit import render_junit

# Of the schema that Ant, Jenkins and others share: attributes that must be there, and children in their order.
REQUIRED = {
    "testsuite": {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package", "id"},
    "testcase": {"name", "classname", "time"},
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
}
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "properties": ["property"],
    "testcase": ["skipped", "error", "failure"],
}


def result(name, outcome, **more):
    line = {
        "case": name,
        "result": outcome,
        "metric": "performance.accuracy",
        "where": {},
        "op": ">=",
        "threshold": 0.5,
        "severity": "must",
        "verdict": outcome,
        "reason": f"because of {name}",
        "because": "it must be",
    }
    return {**line, **more}


def rendered(results, **about):
    text = render_junit(
        {"mine": results}, properties=about, seconds=1.5, now=datetime(2026, 1, 2, tzinfo=UTC)
    )
    return Xml.fromstring(text.encode())


def hold_to_schema(element):
    assert REQUIRED.get(element.tag, set()) <= set(element.attrib), element.tag
    allowed = CHILDREN.get(element.tag, [])
    places = [allowed.index(child.tag) for child in element]
    assert places == sorted(places), element.tag
    for child in element:
        hold_to_schema(child)


def test_there_is_a_case_for_each_requirement_and_counts_agree():
    root = rendered(
        [result(kind, kind) for kind in ("pass", "fail", "error", "skip", "pass")], model="ab", claim="none"
    )
    hold_to_schema(root)
    suite = root[0]
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 5, "failures": 1, "errors": 1, "skipped": 1}
    assert suite.attrib["timestamp"] == "2026-01-02T00:00:00"
    assert {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")} == {
        "suite": "mine",
        "model": "ab",
        "claim": "none",
    }
    inside = [[child.tag for child in case] for case in suite.iter("testcase")]
    assert inside == [[], ["failure"], ["error"], ["skipped"], []]
    failure = next(suite.iter("failure"))
    assert failure.attrib == {"message": "because of fail", "type": "must: fail"}
    assert "required because it must be" in failure.text


def test_no_text_breaks_the_file():
    nasty = "]]> <a> & \" ' \x00 \x1b[31m \ud800 \uffff é"
    root = rendered([result(nasty, "fail", reason=nasty, because=nasty)], claim=nasty)
    hold_to_schema(root)
    assert "\x00" not in root[0][1].attrib["name"]
    assert "é" in root[0][1].attrib["name"]
