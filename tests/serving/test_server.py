"""A model.py of one's own behind the server: what it answers, refuses, counts and finishes."""

import http.client
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from serving.config import EngineConfig, Options, Refusal
from serving.models import loading
from serving.provided.tir_secrets import get_secret
from serving.server.wire import dumps, loads
from tests.endpoints.runtimes.test_environments import wheel
from tests.serving.running import Server, at_once, refused, running
from tests.wait import until

MODEL = """
import os, pathlib, time

class Model:
    example = 1

    def load(self, path):
        self.notes = pathlib.Path(os.environ["NOTES"])
        self.sizes = []

    def predict(self, inputs):
        self.sizes.append(len(inputs))
        while (self.notes / "hold").exists() and inputs != [1]:
            time.sleep(0.01)
        if "no number" in inputs:
            raise ValueError("“no number” can't be doubled")
        return [one * 2 if one != "break" else 1 / 0 for one in inputs]

    def chat(self, messages, **params):
        if params.get("temperature") == 2:
            raise ValueError("too hot")
        return {"text": f"You said {messages[-1]['content']}", "finish_reason": "stop"}

    def stream(self, messages, max_tokens=100):
        (self.notes / "streaming").touch()
        try:
            for word in messages[-1]["content"].split()[:max_tokens]:
                if word == "break":
                    raise RuntimeError("secret inside")
                while word == "wait" and (self.notes / "hold").exists():
                    yield "."
                    time.sleep(0.01)
                yield word + " "
        finally:
            (self.notes / "closed").touch()

    def embed(self, texts):
        return [[len(text), 0.5] for text in texts]

    def count_tokens(self, text):
        return len(text.split())

    def metadata(self):
        from tir_secrets import get_secret
        return {"sizes": self.sizes, "settings": self.settings, "secret": len(get_secret("model-key"))}
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def server(notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = folder(tmp_path_factory.mktemp("model"), MODEL)
    settings: dict[str, Any] = {"parallel": 4, "workers": 2, "context_length": 200, "options": {"max_body_mb": 1}}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NOTES": str(notes), "MODEL_KEY": "12345", "TIR_SECRETS": "MODEL_KEY"}.items():
            patch.setenv(name, value)
        with running(notes, model, **settings) as started:
            yield started.until_ready()


@pytest.fixture
def hold(notes: Path) -> Iterator[Path]:
    """While this file is there, the model doesn't answer."""
    file = notes / "hold"
    for name in ("hold", "streaming", "closed"):
        (notes / name).unlink(missing_ok=True)
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def folder(path: Path, model: str) -> Path:
    (path / "model.py").write_text(model)
    return path


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def test_the_model_is_listed_with_what_it_can_do(server: Server) -> None:
    status, listed = server.ask("/v1/models")
    assert (status, listed["data"][0]["id"]) == (200, "demo")
    assert listed["data"][0]["capabilities"] == ["chat", "completions", "embeddings", "predict"]
    assert server.ask("/v1/models/demo")[1]["metadata"]["settings"]["batch_size"] == 4
    assert server.ask("/v1/models/other")[0] == 404
    assert server.ask("/metadata")[1]["secret"] == 5, "found by its name"


def test_one_input_and_many(server: Server) -> None:
    assert server.ask("/predict", {"input": 21}) == (200, {"output": 42})
    assert server.ask("/predict", {"inputs": [1, "a", [2]]}) == (200, {"outputs": [2, "aa", [2, 2]]})


def test_a_bad_input_fails_alone(server: Server) -> None:
    status, answer = server.ask("/predict", {"inputs": [1, "no number", 2, "break"]})
    assert (status, answer["outputs"]) == (207, [2, None, 4, None])
    assert [(one["index"], one["error"]["code"]) for one in answer["errors"]] == [
        (1, "invalid_input"),
        (3, "model_failed"),
    ]
    status, answer = server.ask("/predict", {"input": "no number"})
    assert (status, answer["error"]["message"]) == (422, "“no number” can't be doubled")


def test_a_fault_of_the_model_is_in_its_log_and_not_in_the_answer(server: Server) -> None:
    status, answer = server.ask("/predict", {"input": "break"})
    assert (status, answer["error"]["type"]) == (500, "server_error")
    assert answer["error"]["message"] == "the model failed with ZeroDivisionError; its log has the rest"
    assert "ZeroDivisionError: division by zero" in server.log.read_text()


def test_inputs_of_several_requests_are_worked_on_together(server: Server, hold: Path) -> None:
    before = len(server.ask("/metadata")[1]["sizes"])
    calls = {str(one): lambda one=one: server.ask("/predict", {"input": one}) for one in range(100, 112)}
    answers: dict[str, Any] = {}
    asking = threading.Thread(target=lambda: answers.update(at_once(calls)))
    asking.start()
    until(lambda: server.metric("in_flight") == 12, what="twelve requests in flight")
    hold.unlink()
    asking.join(30)
    assert answers == {str(one): (200, {"output": one * 2}) for one in range(100, 112)}
    sizes = server.ask("/metadata")[1]["sizes"][before:]
    assert sum(sizes) == 12
    assert max(sizes) > 1, sizes
    assert max(sizes) <= 4, sizes


def test_tensors_that_know_only_numpy_and_their_texts_are_json() -> None:
    class Tensor:
        def __init__(self, value: Any) -> None:
            self.value = value

        def numpy(self) -> Any:
            return self.value

    texts = np.array(["cat", "Mäuschen".encode()], dtype=object)
    found = loads(dumps([Tensor(np.float32(0.5)), Tensor(texts), Tensor(b"dog")]))
    assert found == [0.5, ["cat", "Mäuschen"], "dog"]
    with pytest.raises(TypeError, match="no JSON"):
        dumps(b"\xff")


@pytest.mark.parametrize("body", [{}, {"input": 1, "inputs": [1]}, {"inputs": []}, {"inputs": 1}, [1]])
def test_a_body_that_holds_no_input_is_422(server: Server, body: Any) -> None:
    status, answer = server.ask("/predict", body)
    assert (status, answer["error"]["type"]) == (422, "invalid_request_error")


def test_a_chat_has_the_counts_of_the_models_own_tokenizer(server: Server) -> None:
    status, answer = server.ask("/v1/chat/completions", said("one two three"))
    assert (status, answer["object"]) == (200, "chat.completion")
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["message"]["content"].split())
    assert answer["usage"]["prompt_tokens"] == 3


def test_a_stream_ends_with_its_usage_and_done(server: Server) -> None:
    body = said("one two three", max_tokens=2, stream_options={"include_usage": True})
    *chunks, done = server.events("/v1/chat/completions", body)
    assert done == "[DONE]"
    parsed = [json.loads(one) for one in chunks]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in parsed[:-1]) == "one two "
    assert parsed[-2]["choices"][0]["finish_reason"] == "length"
    assert parsed[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert len({one["id"] for one in parsed}) == 1


def test_a_stream_whose_client_asks_for_no_usage_has_none(server: Server) -> None:
    assert not [one for one in server.events("/v1/chat/completions", said("a b")) if "usage" in one]


def test_a_stream_that_breaks_says_so_and_is_not_done(server: Server) -> None:
    *_, last = server.events("/v1/chat/completions", said("one break two"))
    assert json.loads(last)["error"]["code"] == "model_failed"
    assert "secret" not in last
    status, answer = server.ask("/v1/chat/completions", said("break", stream=True))
    assert (status, answer["error"]["code"]) == (500, "model_failed"), "nothing was sent yet: a plain error"


def test_a_completion_and_embeddings(server: Server) -> None:
    _, answer = server.ask("/v1/completions", {"prompt": "one two"})
    assert answer["choices"][0]["text"] == "one two "
    _, answer = server.ask("/v1/embeddings", {"input": ["ab", "c d"]})
    assert [one["embedding"] for one in answer["data"]] == [[2.0, 0.5], [3.0, 0.5]]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages must be a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text only"),
        (said("a", temperature=3), "temperature must be"),
        (said("a", n=2), "n must be 1"),
        (said("a", temperature=2), "too hot"),
        (said("word " * 200), "the context length is 200"),
    ],
)
def test_a_chat_that_cannot_be_answered_says_why(server: Server, body: Any, words: str) -> None:
    status, answer = server.ask("/v1/chat/completions", body)
    assert status == 400
    assert words in answer["error"]["message"]


def test_errors_have_one_shape_on_every_path(server: Server) -> None:
    assert server.ask("/none")[1]["error"]["code"] == "not_found"
    assert server.ask("/predict")[1]["error"]["code"] == "method_not_allowed"
    assert server.ask("/predict", {"input": "a" * (2 << 20)})[1]["error"]["code"] == "body_too_large"


def test_a_client_that_hangs_up_stops_the_model(server: Server, notes: Path, hold: Path) -> None:
    for streamed in (True, False):
        (notes / "closed").unlink(missing_ok=True)
        (notes / "streaming").unlink(missing_ok=True)
        place = urlsplit(server.address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port)
        path = "/v1/chat/completions" if streamed else "/v1/completions"
        body = said("wait", stream=True) if streamed else {"prompt": "wait"}
        connection.request("POST", path, json.dumps(body))
        until((notes / "streaming").exists, what="a stream")
        connection.close()
        until((notes / "closed").exists, what="an end of the model's work")
    until(lambda: server.metric("in_flight") == 0, what="nothing in flight")
    assert server.metric('requests_total{path="/v1/completions",status="499"}') == 1


def test_what_was_asked_is_counted(server: Server) -> None:
    server.ask("/predict", {"input": 1})
    assert server.metric('requests_total{path="/predict",status="200"}') > 0
    assert server.metric('request_seconds_count{path="/predict"}') > 0
    assert server.metric('batch_size_count{kind="predict"}') > 0
    assert server.metric('tokens_total{kind="completion"}') > 0


SLOW = """
import os, pathlib, time
class Model:
    def load(self, path):
        while not pathlib.Path(os.environ["GATE"], "load").exists(): time.sleep(0.01)
    @property
    def example(self):
        while not pathlib.Path(os.environ["GATE"], "warm").exists(): time.sleep(0.01)
        return 1
    def predict(self, inputs):
        while pathlib.Path(os.environ["GATE"], "hold").exists(): time.sleep(0.01)
        return inputs
"""


def test_nothing_is_healthy_before_it_is_warm_and_nothing_in_flight_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    (tmp_path / "model").mkdir()
    with running(tmp_path / "run", folder(tmp_path / "model", SLOW)) as server:
        assert server.health() == (503, {"status": "loading"})
        assert server.ask("/predict", {"input": 1})[1]["error"]["code"] == "model_not_ready"
        (tmp_path / "load").touch()
        until(lambda: server.health() == (503, {"status": "warming up"}), what="a loaded model")
        (tmp_path / "warm").touch()
        server.until_ready()
        (tmp_path / "hold").touch()
        answers: dict[str, Any] = {}
        first = threading.Thread(target=lambda: answers.update(a=server.ask("/predict", {"input": 1})))
        first.start()
        until(lambda: server.metric("in_flight") == 1, what="a request in flight")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.health() == (503, {"status": "draining"}), what="a drain")
        late = threading.Thread(target=lambda: answers.update(b=server.ask("/predict", {"input": 2})))
        late.start()
        until(lambda: server.metric("in_flight") == 2, what="who came as the drain began")
        (tmp_path / "hold").unlink()
        first.join(30)
        late.join(30)
        assert answers == {"a": (200, {"output": 1}), "b": (200, {"output": 2})}
        assert server.process.wait(30) == 0


def test_a_model_that_takes_too_long_is_504_and_its_worker_stays_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    (tmp_path / "model").mkdir()
    for name in ("load", "warm"):
        (tmp_path / name).touch()
    model = folder(tmp_path / "model", SLOW)
    with running(tmp_path / "run", model, workers=1, options={"request_seconds": 1}) as server:
        server.until_ready()
        (tmp_path / "hold").touch()
        status, answer = server.ask("/predict", {"input": 1})
        assert (status, answer["error"]["code"]) == (504, "timeout")
        (tmp_path / "hold").unlink()
        # A second is all that any answer has here, and a busy machine may take it for nothing.
        until(lambda: server.ask("/predict", {"input": 2}) == (200, {"output": 2}), what="a worker that is free")


def test_a_model_that_is_told_to_end_while_it_loads_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    (tmp_path / "model").mkdir()
    with running(tmp_path / "run", folder(tmp_path / "model", SLOW)) as server:
        assert server.health()[0] == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("import nowhere", "No module named 'nowhere'; name it in the model's requirements.txt"),
        ("class Model:\n    def load(self, path): raise OSError('weights are gone')", "OSError: weights are gone"),
        ("class Model:\n    def load(self, path): pass", "none of predict, chat, stream and embed"),
        ("class Model:\n    def predict(self, inputs): pass", "no method load"),
        (
            "class Model:\n    def load(self, path): raise ValueError('no \\x1b[1mshape\\x1b[0m\\n\\nfits')",
            "cannot be loaded: ValueError: no shape fits",
        ),
        ("x = 1", "model.py has no class Model"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setitem(sys.modules, "model", sys)
    with pytest.raises(Refusal) as caught:
        loading.load(EngineConfig("python", str(folder(tmp_path, model)), "demo"))
    assert caught.value.code == 65
    assert words in str(caught.value)


def test_a_model_that_fails_its_own_example_is_65(tmp_path: Path) -> None:
    model = "class Model:\n    example = 1\n    def load(self, path): pass\n    def predict(self, i): return i[9]"
    code, last = refused(tmp_path, folder(tmp_path, model))
    assert (code, last[:55]) == (65, "serving: the model's own example failed: IndexError: li")


def test_a_folder_without_a_model_is_65_and_a_missing_one_66(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"there is no model.py in .*; see docs/model-py.md") as caught:
        loading.load(EngineConfig("python", str(tmp_path), "demo"))
    assert caught.value.code == 65
    with pytest.raises(Refusal, match="No such file or directory") as caught:
        loading.check_model(str(tmp_path / "none"))
    assert caught.value.code == 66


def test_the_tokenizer_asked_for_must_be_the_one_there(tmp_path: Path) -> None:
    (folder(tmp_path, MODEL) / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    given = EngineConfig("python", str(tmp_path), "demo", options=Options(tokenizer_type="wordpiece"))
    with pytest.raises(Refusal, match=r"asked for is wordpiece, and the one in tokenizer.json is BPE"):
        loading.load(given)


def test_a_secret_is_found_by_its_name_or_its_variable_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIR_SECRETS", "MODEL_API_KEY,HF_TOKEN")
    monkeypatch.setenv("MODEL_API_KEY", "open sesame")
    assert get_secret("model-api-key") == get_secret("MODEL_API_KEY") == "open sesame"
    for name in ("hf-token", "PATH"):
        with pytest.raises(KeyError, match="no secret"):
            get_secret(name)


OWN_PACKAGE = """
import own_part

class Model:
    def load(self, path): pass
    def predict(self, inputs): return [own_part.SAID for _ in inputs]
"""


def test_a_models_own_packages_are_installed_where_nobody_has_done_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, model = tmp_path / "index", tmp_path / "model"
    index.mkdir()
    model.mkdir()
    wheel(index, "own_part")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    folder(model, OWN_PACKAGE)
    (model / "requirements.txt").write_text("own_part\norjson  # which the engine has, and the index hasn't\n")
    with running(tmp_path / "run", model, packages=True, cache=str(tmp_path)) as server:
        assert server.until_ready().ask("/predict", {"input": 1}) == (200, {"output": "here"})
    (model / "requirements.txt").write_text("no-such-part==3\n")
    code, last = refused(tmp_path, model, packages=True, cache=str(tmp_path))
    assert code == 65
    assert "the packages in requirements.txt can't be installed" in last
    assert "no-such-part==3" in last
