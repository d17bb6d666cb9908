"""Of a repository's files, those are offered that can run, and a sensible one first."""

import pytest

from endpoints.sources import SourceFile, SourceProblem
from endpoints.sources.choices import chosen, default_choice, model_choices, nothing_to_run


def files(*paths: str) -> list[SourceFile]:
    return [SourceFile(path, 100 + number) for number, path in enumerate(paths)]


def test_projectors_matrices_and_vocabularies_are_no_models() -> None:
    listed = files(
        "mmproj-F16.gguf", "x/mmproj.gguf", "model.imatrix.gguf", "ggml-vocab-bert.gguf", "m.gguf", "a.txt"
    )
    assert [choice.path for choice in model_choices(listed)] == ["m.gguf"]


def test_shards_are_joined_and_their_sizes_added() -> None:
    (choice,) = model_choices(files("q/m-00002-of-00002.gguf", "q/m-00001-of-00002.gguf"))
    assert choice.path == "q/m-00001-of-00002.gguf"
    assert choice.files == ("q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf")
    assert choice.size == 201


def test_an_incomplete_set_of_shards_is_not_offered_and_said() -> None:
    listed = files("m-00002-of-00003.gguf", "m-00001-of-00003.gguf")
    assert model_choices(listed) == ()
    assert "only a part" in nothing_to_run(listed, "lab/m").message


@pytest.mark.parametrize(
    ("names", "preferred"),
    [
        (["m-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q2_K.gguf"], "m-Q4_K_M.gguf"),
        (["m.f16.gguf", "m.q8_0.gguf"], "m.q8_0.gguf"),
        (["m.BF16.gguf", "m.F16.gguf"], "m.F16.gguf"),
        (["zeta.gguf", "alpha.gguf"], "zeta.gguf"),
    ],
)
def test_the_preferred_quantization_comes_first_else_the_smallest(names: list[str], preferred: str) -> None:
    assert default_choice(model_choices(files(*names))).path == preferred


def test_any_shard_names_its_model() -> None:
    choices = model_choices(files("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"))
    assert chosen(choices, "m-00002-of-00002.gguf") == choices[0]


def test_an_unknown_file_names_the_known_ones() -> None:
    with pytest.raises(SourceProblem, match=r"There is: m\.gguf"):
        chosen(model_choices(files("m.gguf")), "n.gguf")


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        ([], "empty"),
        (["README.md"], "README.md"),
        (["a.safetensors"], "“-GGUF”"),
        (["1", "2", "3", "4", "5", "6", "7", "8"], "2 more"),
    ],
)
def test_a_repository_without_models_says_what_it_holds(listed: list[str], named: str) -> None:
    assert named in nothing_to_run(files(*listed), "lab/m").message
