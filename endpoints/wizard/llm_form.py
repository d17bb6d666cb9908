"""The fifth step: what llama.cpp honours is checked against the file and the machine, what it can't is refused."""

from __future__ import annotations

from typing import Any

from django import forms

from endpoints.memory import Estimate, format_problem, precision_problem
from endpoints.spec import (
    DataType,
    LlmSpec,
    LoadFormat,
    Padding,
    Quantization,
    TokenizerType,
    Truncation,
)
from endpoints.wizard import guide, machines
from endpoints.wizard.fields import OneOf, decimal, whole
from endpoints.wizard.forms import StepForm


class LlmForm(StepForm):
    section = "llm"
    load_format = OneOf("Load format", LoadFormat.choices, initial=LoadFormat.AUTO)
    data_type = OneOf(
        "Data type",
        DataType.choices,
        initial=DataType.FLOAT16,
        help_text="With llama.cpp: of the key-value cache. The weights stay as the file has them.",
    )
    quantization = OneOf("Quantization", Quantization.choices, initial=Quantization.NONE)
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
        self._off("quantization", {value: guide.NO_QUANTIZING for value in Quantization.values if value != "none"})
        self._off("tokenizer_type", guide.OFF_TOKENIZERS)
        self._off("padding", guide.OFF_PADDINGS)
        self._off("data_type", {value: why for value in DataType.values if (why := self._no_data_type(value))})
        facts = self.situation.look.facts if self.situation.look else None
        if facts is not None:
            formats = {
                value: format_problem(facts, value, DataType.FLOAT16).get("load_format", "")
                for value in LoadFormat.values
            }
            self._off("load_format", {value: why for value, why in formats.items() if why})

    def _off(self, name: str, reasons: dict[str, str]) -> None:
        self.one_of(name).refuse(reasons)

    def _no_data_type(self, value: str) -> str:
        facts = self.situation.look.facts if self.situation.look else None
        machine = self.situation.machine
        by_file = format_problem(facts, LoadFormat.AUTO, value).get("data_type", "") if facts else ""
        by_card = precision_problem(machine.gpu, value) if machine and machine.has_gpu else None
        return by_card or by_file

    def clean(self) -> dict[str, Any]:
        cleaned, look, machine = self.cleaned_data, self.situation.look, self.situation.machine
        length, batch = cleaned.get("max_sequence_length"), cleaned.get("batch_size")
        if length is None or batch is None:
            return cleaned
        if look and look.facts:
            too_long = format_problem(look.facts, LoadFormat.AUTO, DataType.FLOAT16, max_length=length)
            if "max_sequence_length" in too_long:
                self.add_error("max_sequence_length", too_long["max_sequence_length"])
                return cleaned
        if machine and (problem := machines.length_problem(self.need(), machine, length, batch)):
            self.add_error("max_sequence_length", problem)
        return cleaned

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
