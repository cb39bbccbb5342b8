from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from partseg.cli import predict as command
from partseg.errors import LayoutError, PartsegError, SourceError
from tests.predict.conftest import NAMES, photo, write_model

app = typer.Typer()
app.command()(command.predict)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), trained=True)


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        photo(tmp_path / "shots" / name, seed)
    return tmp_path / "shots"


def run(*arguments: object) -> Result:
    options = ["--device", "cpu", "--score", "0.706"]
    result = CliRunner().invoke(app, [*map(str, arguments), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def files(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_photos_become_pictures_and_coco_results(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = run(shots, "--weights", weights, "--out", out).output
    assert "3 photos" in text
    pictures = {str(path.relative_to(out)) for path in out.glob("overlays/**/*.jpg")}
    assert pictures == {"overlays/a.jpg", "overlays/b.jpg", "overlays/sub/c.jpg"}
    assert Image.open(out / "overlays/a.jpg").size[0] == 640
    coco = COCO(str(out / "images.json"))
    found = coco.loadRes(str(out / "results.json"))
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == list(NAMES)
    per_photo = {}
    for image in coco.loadImgs(coco.getImgIds()):
        path = Path(image["file_name"])
        key = path.relative_to(shots).with_suffix(".json")
        content = json.loads((out / "detections" / key).read_text())
        rows = found.loadAnns(found.getAnnIds(imgIds=image["id"]))
        assert [row["score"] for row in rows] == [item["score"] for item in content["detections"]]
        assert [row["category_id"] for row in rows] == [item["category_id"] for item in content["detections"]]
        assert [found.annToMask(row).sum() for row in rows] == [
            item["area"] for item in content["detections"]
        ]
        for item in content["detections"]:
            if item["part_of"] is not None:
                assert content["detections"][item["part_of"]]["name"] == item["name"].partition(":")[0]
        per_photo[path.name] = len(rows)
    assert sum(per_photo.values()) > 0


def test_a_detector_without_a_mask_head_gives_boxes(shots: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    out, model = tmp_path / "out", write_model(tmp_path / "model", trained=True, masks=False)
    run(shots, "--weights", model, "--out", out, "--crops")
    assert len(list(out.glob("overlays/**/*.jpg"))) == 3
    content = [json.loads(path.read_text())["detections"] for path in out.glob("detections/**/*.json")]
    found = [item for detections in content for item in detections]
    assert len(list(out.glob("crops/**/*.png"))) == len(found) > 0
    assert all(item["segmentation"] is None for item in found)
    results = COCO(str(out / "images.json")).loadRes(str(out / "results.json"))
    assert len(results.getAnnIds()) == len(found)
    before = files(out / "detections")
    run(shots, "--weights", model, "--out", out, "--crops")
    assert files(out / "detections") == before


def test_one_photo_is_told_about(weights: Path, shots: Path, tmp_path: Path) -> None:
    text = run(shots / "a.png", "--weights", weights, "--out", tmp_path / "out").output
    assert "1 photo;" in text
    assert "head 0.7" in text or "dog" in text


def test_a_rerun_skips_what_is_done(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots, "--weights", weights, "--out", out)
    before = files(out)
    results = (out / "results.json").read_bytes()
    (out / "detections/b.json").unlink()
    photo(shots / "sub/c.png", 9)
    content = json.loads(run(shots, "--weights", weights, "--out", out, "--json").output)
    assert (content["computed"], content["skipped"], content["images"]) == (2, 1, 3)
    after = files(out)
    assert before["detections/a.json"] == after["detections/a.json"]
    assert before["overlays/a.jpg"] == after["overlays/a.jpg"]
    assert before["overlays/b.jpg"] != after["overlays/b.jpg"]
    assert before["overlays/sub/c.jpg"] != after["overlays/sub/c.jpg"]
    assert set(before) == set(after)
    assert (out / "results.json").read_bytes() != results
    again = json.loads(run(shots, "--weights", weights, "--out", out, "--json", "--overwrite").output)
    assert again["computed"] == 3


def test_results_cover_the_folder_not_only_the_last_call(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots / "a.png", "--weights", weights, "--out", out)
    run(shots / "b.jpg", "--weights", weights, "--out", out)
    images = json.loads((out / "images.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in images] == ["a.png", "b.jpg"]


def test_a_photo_named_in_two_ways_counts_once(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots, "--weights", weights, "--out", out)
    content = json.loads(run(shots / "sub", "--weights", weights, "--out", out, "--json").output)
    assert (content["computed"], content["images"]) == (1, 3)


def test_results_of_another_photo_are_not_replaced(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = photo(tmp_path / "other/a.png", 5)
    run(shots / "a.png", "--weights", weights, "--out", out)
    with pytest.raises(LayoutError, match="another photo of this name"):
        run(other, "--weights", weights, "--out", out)
    run(other, "--weights", weights, "--out", out, "--overwrite")
    assert json.loads((out / "images.json").read_text())["images"][0]["file_name"] == str(other)


def test_a_damaged_file_of_detections_is_named(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots, "--weights", weights, "--out", out)
    (out / "detections/sub/c.json").write_text("{}")
    with pytest.raises(SourceError, match=r"c\.json: not the detections"):
        run(shots / "a.png", "--weights", weights, "--out", out)
    assert json.loads(run(shots, "--weights", weights, "--out", out, "--json").output)["computed"] == 1


def test_crops_are_added_and_pictures_left_out(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots / "a.png", "--weights", weights, "--out", out, "--no-overlays")
    assert not (out / "overlays").exists()
    text = run(
        shots / "a.png", "--weights", weights, "--out", out, "--no-overlays", "--crops", "--json"
    ).output
    assert json.loads(text)["computed"] == 1
    detections = json.loads((out / "detections/a.json").read_text())["detections"]
    crops = sorted((out / "crops/a").glob("*.png"))
    assert len(crops) == len(detections) > 0
    assert Image.open(crops[0]).mode == "RGBA"
    assert crops[0].name == f"000_{detections[0]['name'].replace(':', '-')}.png"


def test_damaged_photos_are_named_and_the_others_done(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (shots / "b.jpg").write_bytes(b"no photo")
    (shots / "d.png").write_bytes((shots / "a.png").read_bytes()[:60])
    arguments = [str(shots), "--weights", str(weights), "--out", str(out), "--device", "cpu", "--batch", "2"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SourceError)
    message = str(result.exception)
    assert "2 of 4 photos could not be read" in message
    assert "b.jpg" in message
    assert "d.png" in message
    assert {path.name for path in out.glob("detections/**/*.json")} == {"a.json", "c.json"}
    assert len(json.loads((out / "images.json").read_text())["images"]) == 2
    assert "2 photos" in result.output


def test_other_settings_do_not_mix_with_earlier_results(weights: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shots, "--weights", weights, "--out", out)
    with pytest.raises(LayoutError, match=r"other settings \(classes\).*--overwrite"):
        run(shots / "a.png", "--weights", weights, "--out", out, "--vocabulary", "bird,bird:beak")
    run(shots / "a.png", "--weights", weights, "--out", out, "--vocabulary", "bird,bird:beak", "--overwrite")
    assert {path.name for path in out.glob("detections/**/*.json")} == {"a.json"}
    categories = json.loads((out / "images.json").read_text())["categories"]
    assert [item["name"] for item in categories] == ["bird", "bird:beak"]
    assert categories[1]["parent_id"] == 1


def test_a_folder_of_other_things_is_left_alone(weights: Path, shots: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("three years")
    with pytest.raises(LayoutError, match="something other than predictions"):
        run(shots, "--weights", weights, "--out", tmp_path / "mine", "--overwrite")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_killed_run_goes_on(
    weights: Path, shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from partseg.predict.prediction import Prediction

    out, drawn = tmp_path / "out", []
    draw = Prediction.draw

    def dies(self: Prediction, *, legend: bool = True) -> Image.Image:
        drawn.append(self)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(self, legend=legend)

    monkeypatch.setattr(Prediction, "draw", dies)
    CliRunner().invoke(
        app, [str(shots), "--weights", str(weights), "--out", str(out), "--device", "cpu", "--score", "0.706"]
    )
    assert not (out / "results.json").exists()
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    content = json.loads(run(shots, "--weights", weights, "--out", out, "--json").output)
    assert (content["computed"], content["skipped"], content["images"]) == (2, 1, 3)


def test_faults_of_a_person_are_one_clear_error(weights: Path, shots: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([tmp_path / "none.jpg", "--weights", weights], "no such photo"),
        ([shots, "--weights", tmp_path / "none.pth", "--vocabulary", "dog"], r"none\.pth"),
        ([shots, "--weights", weights, "--vocabulary", "dog,dog"], "twice"),
    ):
        with pytest.raises(PartsegError, match=message):
            run(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_bring_their_objects_unless_told_not_to(weights: Path, shots: Path, tmp_path: Path) -> None:
    def categories(*options: str) -> list[tuple[str, int | None]]:
        out = tmp_path / "-".join(("out", *options))
        run(shots / "a.png", "--weights", weights, "--out", out, "--vocabulary", "dog:head,dog:paw", *options)
        found = json.loads((out / "images.json").read_text())["categories"]
        return [(item["name"], item.get("parent_id")) for item in found]

    assert categories() == [("dog:head", 3), ("dog:paw", 3), ("dog", None)]
    assert categories("--no-objects") == [("dog:head", None), ("dog:paw", None)]


def test_embeddings_without_the_objects_are_noted(weights: Path, shots: Path, tmp_path: Path) -> None:
    from partseg.vocabulary import build_table

    build_table(["dog:head"], encoder="offline:128").save(tmp_path / "rows.safetensors")
    arguments = (shots / "a.png", "--weights", weights, "--embeddings", tmp_path / "rows.safetensors")
    text = run(*arguments, "--out", tmp_path / "out", "--vocabulary", "dog:head").output
    assert "note: the embeddings have no row for every object (dog)" in text
    quiet = run(*arguments, "--out", tmp_path / "out", "--vocabulary", "dog:head", "--no-objects").output
    assert "note:" not in quiet


def test_16_bits_are_computed(weights: Path, shots: Path, tmp_path: Path) -> None:
    scores = []
    for precision in ("float32", "bf16"):
        out = tmp_path / precision
        run(shots / "a.png", "--weights", weights, "--out", out, "--precision", precision)
        found = json.loads((out / "detections/a.json").read_text())["detections"]
        scores.append([item["score"] for item in found])
    assert scores[0] != scores[1]
    assert scores[1][0] == pytest.approx(scores[0][0], abs=0.02)


def test_the_network_is_translated_where_asked(
    weights: Path, shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    translated: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: translated.append(type(self).__name__))
    run(shots / "a.png", "--weights", weights, "--out", tmp_path / "a")
    assert translated == []
    run(shots / "a.png", "--weights", weights, "--out", tmp_path / "b", "--compile")
    assert translated == ["FeaturePyramid"]
