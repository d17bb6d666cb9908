"""PyTorch for real, in an environment of its own: `make test-torch` builds one and names its Python."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.running import Server, refused, running

PYTHON = os.environ.get("TORCH_PYTHON", "")
pytestmark = [pytest.mark.torch, pytest.mark.skipif(not PYTHON, reason="needs torch: run `make test-torch`")]

CLASSIFIER = """
import json, sys, torch
from safetensors.torch import save_file
torch.manual_seed(3)
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 4))
save_file(net.state_dict(), sys.argv[1] + "/weights/net.safetensors")
with open(sys.argv[1] + "/data.jsonl", "w") as file:
    for row in torch.randn(64, 64).tolist():
        file.write(json.dumps(row) + "\\n")
"""

MODEL = """
import torch
from safetensors.torch import load_file

class Model:
    example = [0.0] * 64
    asked = 0

    def load(self, path):
        self.module = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 4))
        self.module.load_state_dict(load_file(path + "/weights/net.safetensors"))
        self.module.eval()

    def predict(self, inputs):
        self.asked += len(inputs)
        with torch.inference_mode():
            return list(self.module(torch.tensor(inputs)).softmax(-1))

    def metadata(self):
        return {"layers": sorted({type(one).__module__ for one in self.module.modules()}), "asked": self.asked}
"""

LANGUAGE = """
import sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
folder = sys.argv[1]
words = {word: index for index, word in enumerate("<unk> <s> </s> user assistant one two three four five".split())}
raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}assistant"
tokenizer.save_pretrained(folder + "/tokenizer")
torch.manual_seed(0)
size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
size |= dict(vocab_size=len(words), max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
model = LlamaForCausalLM(LlamaConfig(**size))
model.save_pretrained(folder + "/weights")
with open(folder + "/data.jsonl", "w") as file:
    file.write('{"text": "one two three four"}\\n{"messages": [{"role": "user", "content": "one five"}]}\\n')
"""


def made(folder: Path, script: str) -> Path:
    (folder / "weights").mkdir()
    subprocess.run([PYTHON, "-W", "ignore", "-c", script, str(folder)], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(tmp_path_factory.mktemp("classifier"), CLASSIFIER)
    (folder / "model.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("language"), LANGUAGE)


def quantizing(method: str, **more: Any) -> dict[str, Any]:
    return {"options": {"quantization": method, "calibration_dataset": "data.jsonl", **more}}


def test_a_module_is_served_as_it_is(classifier: Path, tmp_path: Path) -> None:
    with running(tmp_path, classifier, "pytorch", python=PYTHON, parallel=8) as server:
        _, answer = server.until_ready(180).ask("/predict", {"inputs": [[0.0] * 64, [1.0] * 64]})
        assert [sum(one) for one in answer["outputs"]] == pytest.approx([1, 1], abs=1e-4)
        assert server.ask("/predict", {"input": [0.0]})[0] == 500, "a fault of the model's own"


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_a_module_is_quantized_and_checked(classifier: Path, tmp_path: Path, method: str) -> None:
    given = quantizing(method, accuracy_threshold=0.8)
    with running(tmp_path, classifier, "pytorch", python=PYTHON, parallel=8, **given) as server:
        shown = server.until_ready(180).ask("/metadata")[1]
        assert server.ask("/predict", {"input": [1.0] * 64})[0] == 200
    assert shown["quantization"]["bytes"] < shown["quantization"]["original_bytes"]
    assert 0.8 <= shown["quantization"]["agreement"] <= 1
    assert any("quantized" in one for one in shown["layers"])


@pytest.mark.parametrize(("method", "again"), [("dynamic", 0), ("static", 64)])
def test_what_a_module_keeps_is_measured_at_its_first_start(
    classifier: Path, tmp_path: Path, method: str, again: int
) -> None:
    given = {"cache": str(tmp_path / "cache"), "parallel": 8, **quantizing(method, accuracy_threshold=0.8)}
    shown = []
    for _ in range(2):
        (tmp_path / "address").unlink(missing_ok=True)
        with running(tmp_path, classifier, "pytorch", python=PYTHON, **given) as server:
            shown.append(server.until_ready(180).ask("/metadata")[1])
    assert shown[0]["quantization"] == shown[1]["quantization"]
    assert [one["asked"] for one in shown] == [2 * 64 + again + 1, again + 1]  # the warm-up is one


def test_qat_needs_a_model_that_was_trained_so(classifier: Path, tmp_path: Path) -> None:
    code, last = refused(tmp_path, classifier, "pytorch", python=PYTHON, **quantizing("qat"))
    assert (code, last) == (65, "serving: the module is not quantized: its training has to do that")


@pytest.fixture(scope="module")
def talking(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("run"), language, "pytorch", python=PYTHON, context_length=64) as server:
        yield server.until_ready(180)


def question(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "one two"}], "temperature": 0, **more}


def test_a_transformers_folder_chats_with_real_counts(talking: Server) -> None:
    assert talking.ask("/v1/models")[1]["data"][0]["capabilities"] == ["chat", "completions"]
    _, answer = talking.ask("/v1/chat/completions", question(max_tokens=5))
    assert answer["usage"]["prompt_tokens"] == 4  # user one two assistant
    assert 1 <= answer["usage"]["completion_tokens"] <= 5
    assert answer["choices"][0]["finish_reason"] == (
        "length" if answer["usage"]["completion_tokens"] == 5 else "stop"
    )


def test_its_stream_says_the_same(talking: Server) -> None:
    _, whole = talking.ask("/v1/chat/completions", question(max_tokens=5))
    *chunks, done = talking.events("/v1/chat/completions", question(max_tokens=5))
    assert done == "[DONE]"
    said = "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in chunks)
    assert said == whole["choices"][0]["message"]["content"]


def test_a_prompt_beyond_the_length_is_refused(talking: Server) -> None:
    status, answer = talking.ask("/v1/completions", {"prompt": "one " * 70})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_a_language_model_is_quantized_and_checked_by_its_next_words(language: Path, tmp_path: Path) -> None:
    given = quantizing("dynamic", accuracy_threshold=0.5)
    with running(tmp_path, language, "pytorch", python=PYTHON, context_length=64, **given) as server:
        shown = server.until_ready(180).ask("/metadata")[1]["quantization"]
        assert server.ask("/v1/chat/completions", question(max_tokens=3))[0] == 200
    assert (shown["examples"], shown["bytes"] < shown["original_bytes"]) == (2, True)


def test_what_its_own_weights_cannot_read_is_refused(language: Path, tmp_path: Path) -> None:
    code, last = refused(tmp_path, language, "pytorch", python=PYTHON, context_length=128)
    assert (code, "reads at most 64 tokens" in last) == (65, True)
    code, last = refused(tmp_path, language, "pytorch", python=PYTHON, context_length=64, **quantizing("static"))
    assert (code, "ask for dynamic" in last) == (65, True)
    pickled = tmp_path / "pickled"
    shutil.copytree(language, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "weights" / "pytorch_model.bin").touch()
    code, last = refused(tmp_path, pickled, "pytorch", python=PYTHON, context_length=64)
    assert (code, "the weights are pickled" in last) == (65, True)
