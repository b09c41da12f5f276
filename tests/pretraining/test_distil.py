"""A student learns from a teacher; what the teacher was asked is kept, not asked twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from cut_training import cut_in_training
from PIL import Image
from safetensors.torch import load_file

from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.backbone import VitShape, build_vit
from fed_ist.errors import InputError
from fed_ist.images.source import square
from fed_ist.pretraining import views as views_module
from fed_ist.pretraining.boxes import crops_of
from fed_ist.pretraining.distil import MaskedStudent, principal, ridge
from fed_ist.pretraining.lessons import Lessons
from fed_ist.pretraining.pretrain import pretrain
from fed_ist.pretraining.stages import Distilling, PretrainConfig, StageConfig
from fed_ist.pretraining.teacher import Teacher, TeacherSpec, check_teacher, teacher_of
from fed_ist.pretraining.views import Views, ViewSettings, draw_boxes, taught_views

TINY = VitShape(img_px=32, patch_px=8, embed_dim=48, depth=1, num_heads=3)
TEACHER = "test_efficientnet"  # timm's smallest


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> TeacherSpec:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "weights.pth"
    torch.save(timm.create_model(TEACHER).state_dict(), path)
    return TeacherSpec(TEACHER, str(path), 32)


def config(spec: TeacherSpec, epochs: int = 2, **changes) -> PretrainConfig:
    none = StageConfig(0, 16, 1e-3, 0.35)
    distil = StageConfig(epochs, 16, 1e-3, 0.35)
    return replace(
        PretrainConfig(shape=TINY, mae=none, contrast=none, distil=distil, teacher=spec), **changes
    )


def sources(image_folder):
    return [open_all(str(image_folder))]


def test_the_loss_falls_and_the_weights_are_an_encoder(spec, image_folder, tmp_path):
    path = pretrain(sources(image_folder), tmp_path, config(spec, 25), "cpu")
    loss = json.loads((tmp_path / "history.json").read_text())["loss"]
    assert [len(loss[name]) for name in ("mae", "contrast", "distil")] == [0, 0, 25]
    assert sum(loss["distil"][-5:]) < 0.9 * sum(loss["distil"][:5])
    assert set(build_vit(TINY).state_dict()) < set(load_file(path))


@pytest.mark.parametrize("cut_at", [1, 4])  # steps, of three in each of two epochs
def test_a_run_resumed_in_distillation_ends_where_an_unbroken_one_does(
    cut_at, spec, image_folder, tmp_path
):
    unbroken = pretrain(sources(image_folder), tmp_path / "a", config(spec), "cpu")

    with cut_in_training(cut_at):
        pretrain(sources(image_folder), tmp_path / "b", config(spec), "cpu")
    resumed = pretrain(sources(image_folder), tmp_path / "b", config(spec), "cpu")
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_a_run_cut_between_two_stages_ends_where_an_unbroken_one_does(spec, image_folder, tmp_path):
    two = config(spec, 1, mae=StageConfig(1, 16, 1e-3, 0.35))
    unbroken = pretrain(sources(image_folder), tmp_path / "a", two, "cpu")

    with cut_in_training(3):  # at the first step of distillation
        pretrain(sources(image_folder), tmp_path / "b", two, "cpu")
    resumed = pretrain(sources(image_folder), tmp_path / "b", two, "cpu")
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_a_run_that_is_done_gives_the_same_encoder_when_it_is_asked_again(
    spec, image_folder, tmp_path
):
    first = pretrain(sources(image_folder), tmp_path, config(spec, 1), "cpu").read_bytes()
    assert pretrain(sources(image_folder), tmp_path, config(spec, 1), "cpu").read_bytes() == first


def counted(monkeypatch) -> list[int]:
    """The numbers of views on which a teacher is asked from here on."""
    asked: list[int] = []
    outputs = Teacher.outputs

    def count(self, images):
        asked.append(len(images))
        return outputs(self, images)

    monkeypatch.setattr(Teacher, "outputs", count)
    return asked


def test_a_cut_while_the_teacher_is_asked_loses_one_part_at_most(
    spec, image_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(views_module, "PART", 8)
    unbroken = pretrain(sources(image_folder), tmp_path / "a", config(spec, 1), "cpu")
    parts = sorted((tmp_path / "a" / "teacher").iterdir())
    assert len(parts) > 2
    outputs, calls = Teacher.outputs, iter(range(1000))

    def cut(self, images):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return outputs(self, images)

    monkeypatch.setattr(Teacher, "outputs", cut)
    with pytest.raises(KeyboardInterrupt):
        pretrain(sources(image_folder), tmp_path / "b", config(spec, 1), "cpu")
    monkeypatch.setattr(Teacher, "outputs", outputs)
    asked = counted(monkeypatch)
    resumed = pretrain(sources(image_folder), tmp_path / "b", config(spec, 1), "cpu")
    assert len(asked) == len(parts) - 2
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_a_damaged_part_is_asked_again_and_a_view_that_is_kept_is_not(
    spec, image_folder, tmp_path, monkeypatch
):
    source, teacher = open_all(str(image_folder)), Teacher(spec, "cpu")
    settings, n = ViewSettings(2, 0, 32, 0.35, 0), len(source)
    first = taught_views(source, teacher, settings, tmp_path)
    assert len(first) == n
    asked = counted(monkeypatch)

    def again(settings: ViewSettings) -> Views:
        asked.clear()
        return taught_views(source, teacher, settings, tmp_path)

    assert np.array_equal(again(settings).outputs, first.outputs)
    assert asked == []
    part = next(tmp_path.iterdir())
    part.write_bytes(part.read_bytes()[:-7] + b"harmed!")
    assert np.array_equal(again(settings).outputs, first.outputs)
    assert asked == [n]
    # The student's side is not the teacher's affair.
    assert np.array_equal(again(replace(settings, img_px=16)).outputs, first.outputs)
    assert asked == []
    more = again(replace(settings, n_views=3))
    assert asked == [n]
    assert np.array_equal(more.outputs.reshape(n, 3, -1)[:, :2].reshape(2 * n, -1), first.outputs)
    other = again(replace(settings, seed=1))
    assert asked == [n]
    whole = first.starts[:-1]
    assert np.array_equal(other.pixels[whole], first.pixels[whole])
    assert not np.array_equal(other.pixels[whole + 1], first.pixels[whole + 1])


def test_each_data_set_has_its_own_number_of_views(spec, image_folder, tmp_path):
    settings = config(spec, n_views=(3, 1), n_blends=(0, 2))
    lessons = Lessons(sources(image_folder) * 2, tmp_path, settings, "cpu")
    n = len(open_all(str(image_folder)))
    assert lessons.sizes == [n, n]
    assert np.diff(lessons.views.starts).tolist() == [3] * n + [3] * n
    assert len(lessons.views.pixels) == len(lessons.views.outputs) == 6 * n
    assert torch.equal(lessons.whole[:n], lessons.whole[n:])


def test_an_image_is_taught_by_a_view_of_its_own(spec, image_folder, tmp_path):
    settings = config(spec, n_views=(3,), recolour=0.0, distil_ratios=(0.0,), distil_weights=(1.0,))
    lessons = Lessons(sources(image_folder), tmp_path, settings, "cpu")
    stage = Distilling(build_vit(TINY), lessons.views, settings)
    rows = torch.tensor([4, 0, 4, 7, 4])
    _, _, _, targets = stage.inputs(rows, 0, torch.Generator().manual_seed(0))
    for row, target in zip(rows.tolist(), targets, strict=True):
        own = stage._targets[3 * row : 3 * row + 3]
        assert (own == target).all(dim=1).any()


def test_the_first_view_is_the_image_as_it_is_packed_and_both_see_the_same_place():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8))
    boxes = draw_boxes(ViewSettings(5, 0, 32, 0.35, 0), 3)
    assert np.array_equal(crops_of(picture, boxes, 32)[0], square(picture, 32))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 1).all()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert ((areas > 0.25) & (areas <= 1)).all()
    slope = np.linspace(0, 255, 256).astype(np.uint8)
    slope = Image.fromarray(np.stack([np.tile(slope, (256, 1))] * 3, axis=2))
    small, large = (crops_of(slope, boxes, side).mean(axis=(1, 2, 3)) for side in (16, 64))
    assert np.abs(small - large).max() < 1


def test_the_student_sees_the_visible_patches_alone():
    torch.manual_seed(0)
    model = MaskedStudent(build_vit(TINY), 5).eval()
    view, target = torch.randn(4, 3, 32, 32), torch.randn(4, 5)
    order = torch.rand(4, 16).argsort(dim=1)
    hidden = torch.zeros(4, 16).scatter(1, order[:, 4:], 1.0).view(4, 1, 4, 4)
    hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
    loss = float(model(view, order, 4, target))
    assert loss == float(model(view + hidden, order, 4, target))
    assert loss != float(model(view + 1 - hidden, order, 4, target))


def test_principal_numbers_come_in_the_order_of_their_variance():
    rng = np.random.default_rng(0)
    outputs = (rng.normal(size=(300, 6)) * [1, 5, 2, 9, 0.5, 3] + 4).astype(np.float16)
    found = principal(outputs, 4)
    assert torch.allclose(found.directions.T @ found.directions, torch.eye(4), atol=1e-5)
    assert found.directions.abs().argmax(dim=0).tolist() == [3, 1, 5, 2]
    deviations = found.of(outputs).std(dim=0)
    assert deviations.tolist() == sorted(deviations.tolist(), reverse=True)
    assert principal(outputs[:3], 10).of(outputs).shape == (300, 3)


def test_ridge_finds_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    x, true = torch.randn(500, 4, generator=generator), torch.randn(3, 4, generator=generator)
    weight, bias = ridge(x, x @ true.T + 2, strength=1e-6)
    assert torch.allclose(weight, true, atol=1e-4)
    assert torch.allclose(bias, torch.full((3,), 2.0), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "channels", "words"),
    [
        ({"name": "efficientnet_lite9"}, 3, "'efficientnet_lite9' is no image model .* Similar"),
        ({"name": "README.md"}, 3, "is a path: give a model's name, and .* as --teacher-weights"),
        ({"img_px": 9000}, 3, "--teacher-px 9000 does not do"),
        ({"name": "vit_mae_patch8_64.aid"}, 3, "the bundled encoder, from which"),
        ({"weights": "absent.pth"}, 3, "is not a file"),
        ({"weights": "random"}, 3, "teaches nothing"),
        ({}, 4, "takes images with 3 channels, and these have 4"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(changes, channels, words, spec):
    with pytest.raises(InputError, match=words):
        check_teacher(replace(spec, **changes), channels)


def test_options_of_a_teacher_that_is_not_named_are_refused():
    assert teacher_of("", "pretrained", 0) is None
    for options in (("", "weights.pth", 0), ("", "pretrained", 64)):
        with pytest.raises(InputError, match="are of a teacher: name its model by --teacher"):
            teacher_of(*options)


def test_the_teacher_sees_fewer_large_views_at_once(spec, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(views_module, "PART_BYTES", 5 * 32 * 32 * 3)
    asked = counted(monkeypatch)
    source = open_all(str(image_folder)).subset(np.arange(12))
    taught_views(source, Teacher(spec, "cpu"), ViewSettings(2, 0, 32, 0.35, 0), tmp_path)
    assert asked == [5, 5, 5, 5, 2, 2]


def test_weights_of_another_architecture_are_no_teacher(spec):
    with pytest.raises(InputError, match="of another architecture than encoder 'resnet18'"):
        Teacher(replace(spec, name="resnet18"), "cpu")
