"""JUnit XML, the form in which other people's pipelines read tests: a case for each requirement of a suite."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as Xml

# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROBLEMS = {"fail": "failure", "error": "error"}


def render_junit(
    suites: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    properties: Mapping[str, object],
    seconds: float = 0.0,
    now: datetime | None = None,
) -> str:
    """The XML of suites, as Jenkins, GitLab and GitHub's actions read it.

    A case that failed, or is undecided, is a ``failure``, one that could not be measured an ``error``, one of which
    nothing applies ``skipped``; its type says whether it is a `must` or a `should`.

    Args:
        suites: Name to the results of its cases, each as `fedsafe.assess.suites.CaseResult.to_json` has it.
        properties: Of every suite: what was judged, the digest of the model, the claim.
        seconds: That all took.
        now: When; this moment by default.
    """
    when = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    root = Xml.Element("testsuites")
    for number, (name, results) in enumerate(suites.items()):
        kinds = [str(result["result"]) for result in results]
        suite = Xml.SubElement(
            root,
            "testsuite",
            {
                "name": _plain(name),
                "package": "fedsafe",
                "id": str(number),
                "timestamp": when,
                "hostname": "localhost",
                "tests": str(len(results)),
                "failures": str(kinds.count("fail")),
                "errors": str(kinds.count("error")),
                "skipped": str(kinds.count("skip")),
                "time": f"{seconds if number == 0 else 0.0:.3f}",
            },
        )
        listed = Xml.SubElement(suite, "properties")
        for key, value in {"suite": name, **properties}.items():
            Xml.SubElement(listed, "property", {"name": _plain(key), "value": _plain(value)})
        for result in results:
            _add_case(suite, name, result)
        Xml.SubElement(suite, "system-out").text = _plain("".join(map(_line, results)))
        Xml.SubElement(suite, "system-err")
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _add_case(suite: Xml.Element, name: str, result: Mapping[str, Any]) -> None:
    attributes = {"name": _plain(result["case"]), "classname": f"fedsafe.{_plain(name)}", "time": "0.000"}
    case = Xml.SubElement(suite, "testcase", attributes)
    if result["result"] == "skip":
        Xml.SubElement(case, "skipped", {"message": _plain(result["reason"])})
    elif result["result"] in _PROBLEMS:
        kind = f"{result['severity']}: {result['verdict']}"
        about = {"message": _plain(result["reason"]), "type": _plain(kind)}
        problem = Xml.SubElement(case, _PROBLEMS[result["result"]], about)
        problem.text = _plain(f"{_line(result)}required because {result['because'] or 'it was asked for'}\n")


def _line(result: Mapping[str, Any]) -> str:
    where = ", ".join(f"{key} {value}" for key, value in result["where"].items())
    about = f" ({where})" if where else ""
    rule = f"{result['metric']}{about} {result['op']} {result['threshold']:g}"
    return f"{result['severity']} {rule}: {result['verdict']}, {result['reason']}\n"


def _plain(value: object) -> str:
    return _FORBIDDEN.sub("\ufffd", str(value))
