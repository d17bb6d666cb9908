"""The fifth step: what the engine can't honour, or not with this model or machine, is refused."""

from __future__ import annotations

from typing import Any

from django import forms

from endpoints.gguf import GGUFFacts
from endpoints.memory import Estimate, format_problem, precision_problem
from endpoints.memory.fit import capability_of
from endpoints.sources.layout import Layout
from endpoints.spec import (
    DataType,
    Framework,
    LlmSpec,
    LoadFormat,
    Padding,
    Quantization,
    TokenizerType,
    Truncation,
)
from endpoints.wizard import engines, machines
from endpoints.wizard.fields import PLAIN, OneOf, decimal, whole
from endpoints.wizard.forms import StepForm

SAME_TYPE: dict[str, str] = {LoadFormat.FP32: DataType.FLOAT32, LoadFormat.FP16: DataType.FLOAT16}

CHOICES: dict[str, list[str]] = {
    "load_format": LoadFormat.values,
    "data_type": DataType.values,
    "quantization": Quantization.values,
    "tokenizer_type": TokenizerType.values,
    "padding": Padding.values,
    "truncation": Truncation.values,
}


class LlmForm(StepForm):
    section = "llm"
    load_format = OneOf("Load format", LoadFormat.choices, initial=LoadFormat.AUTO)
    data_type = OneOf("Data type", DataType.choices, initial=DataType.FLOAT16)
    quantization = OneOf("Quantization", Quantization.choices, initial=Quantization.NONE)
    calibration_dataset = forms.CharField(
        label="Calibration dataset",
        required=False,
        max_length=400,
        help_text="A file among the model's own. Static quantization needs it; accuracy is measured on it.",
        widget=forms.TextInput(attrs=PLAIN | {"list": "model-files", "placeholder": "calibration.jsonl"}),
    )
    accuracy_threshold = decimal(
        "accuracy_threshold", "Accuracy threshold", "0.01", "A quantized model that keeps less is refused."
    )
    tokenizer_type = OneOf("Tokenizer type", TokenizerType.choices, initial=TokenizerType.AUTO)
    truncation = OneOf(
        "At the length's end",
        Truncation.choices,
        initial=Truncation.REFUSE,
        help_text="For an answer that reaches the max sequence length. A prompt longer than it is always refused.",
    )
    padding = OneOf("Padding", Padding.choices, initial=Padding.NONE)
    max_sequence_length = whole(
        "max_sequence_length", "Max sequence length", "tokens", "Prompt and answer together, for each sequence."
    )
    batch_size = whole("batch_size", "Batch size", "sequences", "Requests that one instance works on together.")
    temperature = decimal("temperature", "Temperature", "0.1", "Randomness.")
    top_k = whole("top_k", "Top-k", "tokens", "Only the k likeliest tokens are considered.")
    top_p = decimal("top_p", "Top-p", "0.05", "Only the likeliest tokens with this share together.")

    def prepare(self) -> None:
        off = engines.off(self.situation.engine, self.layout)
        for name, values in CHOICES.items():
            reasons = {value: off.get(name, {}).get(value) or self._no(name, value) for value in values}
            self.one_of(name).refuse({value: why for value, why in reasons.items() if why})

    @property
    def layout(self) -> Layout | None:
        return self.situation.look.found.layout if self.situation.look else None

    @property
    def trained(self) -> int | None:
        """The longest text that the model was trained for, in tokens."""
        shape = self.situation.look.shape if self.situation.look else None
        return shape.trained_context if shape else None

    @property
    def gguf(self) -> GGUFFacts | None:
        return self.situation.look.facts if self.situation.look else None

    def _no(self, name: str, value: str) -> str:
        """Why this model or this machine can't, where the engine could."""
        gpu = self.situation.machine.gpu if self.situation.machine and self.situation.machine.has_gpu else ""
        if name == "data_type":
            by_file = format_problem(self.gguf, LoadFormat.AUTO, value).get(name, "") if self.gguf else ""
            return (precision_problem(gpu, value) if gpu else "") or by_file
        if name == "load_format" and self.gguf:
            return format_problem(self.gguf, value, DataType.FLOAT16).get(name, "")
        if name != "quantization":
            return ""
        if self.situation.engine == Framework.VLLM:
            return self._no_vllm_quantization(value, gpu)
        if gpu and self.situation.engine == Framework.PYTORCH and value == Quantization.DYNAMIC:
            return "PyTorch's dynamic quantization works on CPUs only. Choose a machine without a GPU."
        return ""

    def _no_vllm_quantization(self, value: str, gpu: str) -> str:
        weights = self.situation.look.found.weights if self.situation.look else None
        if value in (Quantization.STATIC, Quantization.QAT):
            if weights and "quantization_config" not in weights.config:
                return (
                    "vLLM takes this from the checkpoint, and this one's config.json has no quantization_config."
                )
            return ""
        capability = capability_of(gpu)
        if value == Quantization.DYNAMIC and capability and capability < (8, 0):
            return f"vLLM quantizes to 8-bit floats, which {gpu} can't: that needs compute capability 8.0."
        return ""

    def unused(self) -> dict[str, str]:
        quantization = str(self.cleaned_data.get("quantization") or "")
        return engines.unused(self.situation.engine, quantization, self.layout, list(self.fields))

    def clean(self) -> dict[str, Any]:
        self.forget(*self.unused())
        if self.situation.engine == Framework.CUSTOM:
            return self.cleaned_data
        self._clean_types()
        self._clean_calibration()
        self._clean_length()
        return self.cleaned_data

    def _clean_types(self) -> None:
        load_format, data_type = self.cleaned_data.get("load_format"), self.cleaned_data.get("data_type")
        wanted = SAME_TYPE.get(str(load_format))
        if self.situation.engine == Framework.VLLM and wanted and data_type and data_type != wanted:
            problem = (
                f"vLLM keeps weights in the type that it computes in. Choose Auto, or the data type {wanted}."
            )
            self.add_error("load_format", problem)

    def _clean_calibration(self) -> None:
        if "calibration_dataset" in self.unused():
            return
        given = str(self.cleaned_data.get("calibration_dataset") or "")
        if not given and self.cleaned_data.get("quantization") == Quantization.STATIC:
            self.add_error(
                "calibration_dataset", "Static quantization needs examples: name a file of the model's."
            )
        there = [file.path for file in self.situation.look.found.files] if self.situation.look else []
        if given and not given.endswith((".npz", ".jsonl")):
            self.add_error("calibration_dataset", f"It must be an .npz or a .jsonl file; “{given}” is neither.")
        elif given and there and given not in there:
            self.add_error("calibration_dataset", f"The model's files have no “{given}”.")

    def _clean_length(self) -> None:
        cleaned, machine = self.cleaned_data, self.situation.machine
        length, batch = cleaned.get("max_sequence_length"), cleaned.get("batch_size")
        if length is None or batch is None:
            return
        if self.gguf:
            too_long = format_problem(self.gguf, LoadFormat.AUTO, DataType.FLOAT16, max_length=length)
            if "max_sequence_length" in too_long:
                self.add_error("max_sequence_length", too_long["max_sequence_length"])
                return
        elif self.trained and length > self.trained:
            self.add_error("max_sequence_length", f"The model was trained for {self.trained:,} tokens at most.")
            return
        if machine and (problem := machines.length_problem(self.need(), machine, length, batch)):
            self.add_error("max_sequence_length", problem)

    def need(self) -> Estimate | None:
        """The memory of one instance with these settings; None where machine, model or settings aren't known."""
        machine, values = self.situation.machine, self.cleaned_data
        if machine is None or "max_sequence_length" not in values or "batch_size" not in values:
            return None
        return self.situation.estimate(
            machine,
            length=values["max_sequence_length"],
            concurrency=values["batch_size"],
            data_type=values.get("data_type") or LlmSpec.data_type,
        )

    def spec(self) -> LlmSpec:
        if self.situation.engine == Framework.CUSTOM:
            return LlmSpec()
        return LlmSpec(**self.cleaned_data)


def numbers(answers: dict[str, Any]) -> tuple[int, int, str]:
    """Length, batch size and data type of answers that may be half typed; the defaults stand in."""

    def whole_of(name: str) -> int:
        field = LlmForm.base_fields[name]
        try:
            return int(field.clean(answers.get(name)))
        except forms.ValidationError:
            return int(getattr(LlmSpec, name))

    data_type = answers.get("data_type")
    known = data_type if data_type in DataType.values else LlmSpec.data_type
    return whole_of("max_sequence_length"), whole_of("batch_size"), str(known)
