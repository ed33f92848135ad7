"""Whether what Ollama runs is the exported file: by digest, or rewritten by a server that does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.check import identity
from pipeline.check.gates import Probe, judge
from pipeline.check.subject import Subject
from tests.check.fakes import FORMAT, FakeServer, subject
from tests.support.tiny_gguf import write_tiny_gguf


def served_run(tmp_path: Path, blob: Path, digest: str, **fields: Any) -> Subject:
    """A run of one exported file, registered as `model`, that the server holds as `blob`."""
    from pipeline.run import describe
    from tests.support.exported import demo, exported_run

    file = write_tiny_gguf(tmp_path / "export.gguf", FORMAT.jinja)
    run = exported_run(tmp_path / "run", demo(), {"F16": file})
    with run.publish("serve") as draft:
        from pipeline.run import Manifest

        facts = {"models": [{"name": "model", "type": "F16"}]}
        draft.manifest = Manifest(
            stage="serve", section={}, inputs=run.input_entry("export"), facts=facts
        )
    digest = digest or describe(file).sha256
    server = FakeServer(modelfile=f"# x\nFROM {blob.parent}/sha256-{digest}\n", **fields)
    asked = subject(tmp_path, server=server)
    asked.run.run = run  # type: ignore[misc]
    asked.files = {"F16": run.folder("export") / "demo-F16.gguf"}
    return asked


def named(tmp_path: Path, digest: str) -> Path:
    return tmp_path / f"sha256-{digest}"


def test_the_same_file_passes_by_its_digest(tmp_path: Path) -> None:
    compared, wrong = identity.served_file(served_run(tmp_path, named(tmp_path, ""), ""))
    assert (compared, wrong) == ("model is demo-F16.gguf by sha256", [])


def test_a_rewritten_file_passes_where_every_tensor_is_the_same(tmp_path: Path) -> None:
    blob = write_tiny_gguf(named(tmp_path, "a" * 64), FORMAT.jinja)
    asked = served_run(tmp_path, blob, "a" * 64, number="0.31.2")
    compared, wrong = identity.served_file(asked)
    assert wrong == [] and "rewritten with every tensor" in compared


def test_a_rewritten_file_with_another_template_fails(tmp_path: Path) -> None:
    blob = write_tiny_gguf(named(tmp_path, "a" * 64), "another template")
    _, wrong = identity.served_file(served_run(tmp_path, blob, "a" * 64, number="0.31.2"))
    assert wrong[0].endswith("the metadata differ: tokenizer.chat_template")


def test_the_same_tensors_are_another_file_to_a_server_that_never_rewrites(tmp_path: Path) -> None:
    blob = write_tiny_gguf(named(tmp_path, "a" * 64), FORMAT.jinja)
    asked = served_run(tmp_path, blob, "a" * 64)
    assert identity.served_file(asked)[1][0].endswith("it is another file")


def test_one_that_was_rewritten_before_an_update_of_the_server_passes(tmp_path: Path) -> None:
    blob = write_tiny_gguf(named(tmp_path, "a" * 64), FORMAT.jinja)
    asked = served_run(tmp_path, blob, "a" * 64)
    serve = asked.run.run.require("serve")
    models = [
        {**serve.facts["models"][0], "weights": "rewritten by the server, every tensor equal"}
    ]
    replace(serve, facts={"models": models}).write(asked.run.run.folder("serve"))
    assert identity.served_file(asked)[1] == []


def test_other_weights_under_the_name_fail(tmp_path: Path) -> None:
    blob = write_tiny_gguf(named(tmp_path, "b" * 64), FORMAT.jinja, seed=1)
    _, wrong = identity.served_file(served_run(tmp_path, blob, "b" * 64, number="0.31.2"))
    assert wrong[0].startswith("model is bbbbbbbbbbbb..., demo-F16.gguf is ")
    assert "15 tensors differ, blk.0.attn_k.weight first" in wrong[0]


def test_another_digest_that_cannot_be_read_is_a_fault_unless_the_server_rewrites(
    tmp_path: Path,
) -> None:
    probe = Probe("file", "identity", ("run",), "register", identity.served_file)
    blob = named(tmp_path, "c" * 64)
    now = judge(probe, served_run(tmp_path / "1", blob, "c" * 64))
    assert now.status == "failed" and now.reason.endswith("it is another file")
    then = judge(probe, served_run(tmp_path / "2", blob, "c" * 64, number="0.31.2"))
    assert then.status == "not_run" and "rewrote demo-F16.gguf" in then.reason
