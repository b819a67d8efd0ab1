"""Whatever is sent, the service answers with something that its OpenAPI document names, and never with a 5xx."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_guard import ask, guard, rows

from fedsafe.serve.limits import Limits
from fedsafe.serve.service import Service

EXAMPLES = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def service():
    return Service(guard(), limits=Limits(rate=1e9, body=100_000, queue=10_000), linger=0.0)


@pytest.fixture(scope="module")
def document(service):
    return ask(service, ("GET", "/openapi.json", {}))[0].json()


def of_schema(schema):
    """Values of a JSON Schema, of the few kinds that the document has."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = []
    for kind in kinds:
        if kind == "null":
            found.append(st.none())
        elif kind == "number":
            found += [st.floats(allow_nan=False, allow_infinity=False), st.integers()]
        elif kind == "array":
            most = min(schema.get("maxItems", 5), 5)
            found.append(
                st.lists(of_schema(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
            )
        elif kind == "object":
            inside = {name: of_schema(each) for name, each in schema["properties"].items()}
            found.append(st.fixed_dictionaries(inside))
    return st.one_of(found)


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = st.sampled_from(["/v1/predict", "/v1/explain"])


def post(service, document, path, body, **headers):
    given_headers = {"content-type": "application/json", **headers}
    [answer] = ask(service, ("POST", path, {"content": body, "headers": given_headers}))
    assert answer.status_code < 500, (body, answer.text)
    named = document["paths"][path]["post"]["responses"]
    assert str(answer.status_code) in named, (body, answer.text)
    content = answer.json()
    assert ("decisions" in content) == (answer.status_code == 200)
    assert "error" in content or answer.status_code == 200
    return answer


@EXAMPLES
@given(st.data())
def test_what_the_document_allows_is_answered(service, document, data):
    path = data.draw(PATHS)
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = data.draw(of_schema(schema))
    answer = post(service, document, path, json.dumps(body).encode())
    assert answer.status_code == 200, answer.text
    decisions = answer.json()["decisions"]
    assert len(decisions) == len(body["instances"])
    described = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    wanted = described["properties"]["decisions"]["items"]
    for decision in decisions:
        assert set(wanted["required"]) <= set(decision) <= set(wanted["properties"])


@EXAMPLES
@given(path=PATHS, content=ANYTHING)
def test_any_json_is_answered_or_refused(service, document, path, content):
    for body in (content, {"instances": content}, {"instances": [content]}):
        post(service, document, path, json.dumps(body).encode())


@EXAMPLES
@given(path=PATHS, field=st.sampled_from(["a0", "a1", "sex", "", "zz"]), value=ANYTHING)
def test_one_wrong_value_in_a_right_row_is_answered_or_refused(service, document, path, field, value):
    answer = post(service, document, path, json.dumps({"instances": [{**rows()[0], field: value}]}).encode())
    if answer.status_code == 422:
        assert answer.json()["error"]["problems"][0]["field"] == field


@EXAMPLES
@given(path=PATHS, body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/xml", ""]))
def test_any_bytes_are_refused(service, document, path, body, kind):
    assert post(service, document, path, body, **{"content-type": kind}).status_code in (400, 415, 422)


@EXAMPLES
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "POST"]),
    path=st.one_of(
        st.sampled_from(
            ["/v1/predict", "/v1/card", "/v1/health", "/metrics", "/docs", "/", "//", "/v1/predict/"]
        ),
        st.text(alphabet="/.%v1predict?#&=é", max_size=12).map(lambda text: f"/{text}"),
    ),
)
def test_any_route_and_method_is_answered_without_5xx(service, method, path):
    [answer] = ask(service, (method, path, {}))
    assert answer.status_code < 500


def test_the_document_names_the_columns_and_categories(document):
    instance = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    properties = instance["properties"]["instances"]["items"]["properties"]
    assert list(properties) == ["a0", "a1", "a2", "sex"]
    assert properties["sex"]["enum"] == ["Female", "Male", None]
    assert set(document["paths"]) == {
        "/v1/predict", "/v1/explain", "/v1/health", "/v1/ready", "/v1/card", "/metrics",
    }  # fmt: skip
