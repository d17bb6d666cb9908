"""TensorFlow for real, in an environment of its own: `make test-tensorflow` builds one and names its Python."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.running import Server, at_once, refused, running
from tests.serving.test_guide import answered, asked, blocks, settings
from tests.wait import until

PYTHON = os.environ.get("TENSORFLOW_PYTHON", "")
pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not PYTHON, reason="needs TensorFlow: run `make test-tensorflow`"),
]
START = 300  # seconds that TensorFlow may take on a busy machine

# What a Keras model says of some rows, and the same model as a SavedModel that names the classes.
SAVED = """
import json, keras, tensorflow as tf

class Named(tf.Module):
    def __init__(self, net):
        self.net, self.names = net, tf.constant(["cat", "dog", "Mäuschen"])

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x")])
    def __call__(self, x):
        scores = self.net(x, training=False)
        return {"label": tf.gather(self.names, tf.argmax(scores, -1)), "scores": scores}

net = keras.saving.load_model("my-keras/weights/net.keras")
rows = tf.random.stateless_normal((12, 4), (1, 2), stddev=3)
found = Named(net)(rows)
with open("said.json", "w") as file:
    labels = [one.decode() for one in found["label"].numpy()]
    json.dump([rows.numpy().tolist(), labels, found["scores"].numpy().tolist()], file)
named = Named(net)
tf.saved_model.save(named, "my-saved/weights/named", signatures=named.__call__)
"""

MODEL = """
import os, pathlib, time
import tensorflow as tf

class Model:
    example = [0.0] * 4

    def load(self, path):
        self.serve = tf.saved_model.load(path + "/weights/named").signatures["serving_default"]

    def predict(self, inputs):
        while inputs != [self.example] and pathlib.Path(os.environ["GATE"], "hold").exists():
            time.sleep(0.01)
        try:
            found = self.serve(x=tf.constant(inputs, tf.float32))
        except (TypeError, tf.errors.InvalidArgumentError) as error:
            raise ValueError("an input must be four numbers") from error
        return [{"label": one, "scores": scores} for one, scores in zip(found["label"], found["scores"])]

    def metadata(self):
        names = [pathlib.Path("/proc/self/task", one, "comm").read_text() for one in os.listdir("/proc/self/task")]
        return {"threads": sum(one.startswith("tf_Compute") for one in names)}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guide's Keras model in my-keras/, a SavedModel in my-saved/, and what they say of rows."""
    folder = tmp_path_factory.mktemp("made")
    for name, model in (("my-keras", blocks("python")[2]), ("my-saved", MODEL)):
        (folder / name / "weights").mkdir(parents=True)
        (folder / name / "model.py").write_text(model)
    script = next(text for text in blocks("bash") if "net.keras" in text)
    saving = script.partition("<<'END'\n")[2].partition("END\n")[0]
    subprocess.run([PYTHON, "-c", saving + SAVED], cwd=folder, check=True, timeout=START)
    return folder


@pytest.fixture(scope="module")
def said(made: Path) -> list[tuple[list[float], str, list[float]]]:
    """Rows, each with its class and its scores."""
    return list(zip(*json.loads((made / "said.json").read_text()), strict=True))


@pytest.fixture(scope="module")
def keras(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the guide's model, as the guide starts it."""
    given = settings('"my-keras"')
    with running(tmp_path_factory.mktemp("run"), made / "my-keras", python=PYTHON, workers=2, **given) as server:
        yield server.until_ready(START)


def test_the_guides_keras_model_answers_as_shown(keras: Server) -> None:
    [(command, answer)] = answered("8002/predict")
    assert asked(keras, command) == answer
    assert "warmed up with the model's own example" in keras.log.read_text()


def test_a_row_that_keras_refuses_fails_alone_and_in_its_words(keras: Server, said: list[Any]) -> None:
    status, answer = keras.ask("/predict", {"inputs": [said[0][0], [1, 2], said[1][0]]})
    assert status == 207
    assert answer["outputs"] == [pytest.approx(said[0][2], abs=1e-5), None, pytest.approx(said[1][2], abs=1e-5)]
    [wrong] = answer["errors"]
    assert (wrong["index"], wrong["error"]["code"]) == (1, "invalid_input")
    assert "received input with shape (1, 2)" in wrong["error"]["message"]
    assert "\x1b" not in wrong["error"]["message"], "colours are for terminals"
    assert keras.ask("/predict", {"input": "four"})[0] == 500, "what is no ValueError is the model's own fault"
    assert keras.metric('requests_total{path="/predict",status="207"}') == 1
    assert keras.metric('batch_size_bucket{kind="predict",le="+Inf"}') > keras.metric(
        'batch_size_bucket{kind="predict",le="2.0"}'
    ), "the three went to the model together"


def test_threads_of_the_server_share_a_model(keras: Server, said: list[Any]) -> None:
    calls = {str(i): lambda row=row: keras.ask("/predict", {"input": row}) for i, (row, _, _) in enumerate(said)}
    answers = at_once(calls)
    for index, (_, _, scores) in enumerate(said):
        assert answers[str(index)] == (200, {"output": pytest.approx(scores, abs=1e-5)})


def test_a_saved_model_answers_texts_in_its_threads_and_ends_with_its_last_answer(
    made: Path, said: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    model = made / "my-saved"
    with running(tmp_path, model, "tensorflow", python=PYTHON, parallel=16, threads=3) as server:
        server.until_ready(START)
        shown = [{"label": label, "scores": pytest.approx(scores, abs=1e-5)} for _, label, scores in said]
        rows = [row for row, _, _ in said]
        assert server.ask("/predict", {"inputs": rows}) == (200, {"outputs": shown})
        status, answer = server.ask("/predict", {"input": [1, 2]})
        assert (status, answer["error"]["message"]) == (422, "an input must be four numbers")
        assert server.ask("/metadata")[1]["threads"] == 3, "as many as the endpoint has, not as the machine"
        (tmp_path / "hold").touch()
        answers: dict[str, Any] = {}
        asking = threading.Thread(target=lambda: answers.update(last=server.ask("/predict", {"input": rows[0]})))
        asking.start()
        until(lambda: server.metric("in_flight") == 1, what="a request in flight")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.health() == (503, {"status": "draining"}), what="a drain")
        (tmp_path / "hold").unlink()
        asking.join(60)
        assert answers == {"last": (200, {"output": shown[0]})}
        assert server.process.wait(60) == 0


def test_what_tensorflow_cannot_serve_is_refused_and_says_why(made: Path, tmp_path: Path) -> None:
    wanted = {"quantization": "dynamic"}
    code, last = refused(tmp_path, made / "my-keras", "tensorflow", python=PYTHON, options=wanted)
    assert (code, "the tensorflow engine quantizes nothing itself" in last) == (65, True)
    code, last = refused(tmp_path, made / "my-keras" / "weights", "tensorflow", python=PYTHON)
    assert (code, "there is no model.py in" in last) == (65, True)
    cut = tmp_path / "cut"
    (cut / "weights").mkdir(parents=True)
    (cut / "model.py").write_text(blocks("python")[2])
    whole = (made / "my-keras" / "weights" / "net.keras").read_bytes()
    (cut / "weights" / "net.keras").write_bytes(whole[: len(whole) // 2])
    code, last = refused(tmp_path, cut, "tensorflow", python=PYTHON)
    assert (code, last.startswith("serving: the model cannot be loaded: ")) == (65, True)
    assert "net.keras" in last
