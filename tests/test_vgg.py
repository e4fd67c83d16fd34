"""The network against torchvision's, against the lecture's print-outs, and against its own error messages."""

import hashlib
import inspect
import re
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from vgg_course import vgg
from vgg_course.vgg import VGG, cfg, make_layers

NAMES = [name for name in vgg.__all__ if name != "VGG"]
# Parameters with 1000 classes and keys of the state_dict, from torchvision's documentation.
SIZES = {
    "vgg11": (132_863_336, 22),
    "vgg13": (133_047_848, 26),
    "vgg16": (138_357_544, 32),
    "vgg19": (143_667_240, 38),
    "vgg11_bn": (132_868_840, 62),
    "vgg13_bn": (133_053_736, 76),
    "vgg16_bn": (138_365_992, 97),
    "vgg19_bn": (143_678_248, 118),
}


@pytest.mark.parametrize("name", NAMES)
def test_same_parameters_and_keys_as_torchvision(name):
    with torch.device("meta"):
        ours, theirs = getattr(vgg, name)(), getattr(torchvision.models, name)()
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    assert list(shapes.items()) == [(k, v.shape) for k, v in theirs.state_dict().items()]
    assert (sum(p.numel() for p in ours.parameters()), len(shapes)) == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_same_logits_as_torchvision(name):
    theirs = getattr(torchvision.models, name)(init_weights=False).eval()
    with torch.device("meta"):  # no weights of its own
        ours = getattr(vgg, name)(init_weights=False).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    for side in (64, 224):
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(ours(images), theirs(images))


def test_the_first_print_out_of_the_lecture():
    layers = make_layers(cfg["custom"], batch_norm=True)
    expected, channels, number = ["Sequential("], 3, 0

    def line(text: str) -> None:
        nonlocal number
        expected.append(f"  ({number}): {text}")
        number += 1

    for width in (64, 128, 256):
        for _ in range(3):
            line(f"Conv2d({channels}, {width}, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))")
            line(f"BatchNorm2d({width}, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)")
            line("ReLU(inplace=True)")
            channels = width
        line("MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)")
    assert number == 30
    printed = re.sub(r"(BatchNorm2d.*), bias=True", r"\1", str(layers))  # newer PyTorch adds it by itself
    assert printed == "\n".join([*expected, ")"])


def test_the_second_print_out_of_the_lecture():
    expected = """\
VGG(
  (features): Sequential(
    (0): Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (1): ReLU(inplace=True)
    (2): Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (3): ReLU(inplace=True)
    (4): Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (5): ReLU(inplace=True)
    (6): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    (7): Conv2d(64, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (8): ReLU(inplace=True)
    (9): Conv2d(128, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (10): ReLU(inplace=True)
    (11): Conv2d(128, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (12): ReLU(inplace=True)
    (13): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    (14): Conv2d(128, 256, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (15): ReLU(inplace=True)
    (16): Conv2d(256, 256, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (17): ReLU(inplace=True)
    (18): Conv2d(256, 256, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (19): ReLU(inplace=True)
    (20): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  )
  (avgpool): AdaptiveAvgPool2d(output_size=(7, 7))
  (classifier): Sequential(
    (0): Linear(in_features=25088, out_features=4096, bias=True)
    (1): ReLU(inplace=True)
    (2): Dropout(p=0.5, inplace=False)
    (3): Linear(in_features=4096, out_features=4096, bias=True)
    (4): ReLU(inplace=True)
    (5): Dropout(p=0.5, inplace=False)
    (6): Linear(in_features=4096, out_features=10, bias=True)
  )
)"""
    assert str(VGG(make_layers(cfg["custom"]), num_classes=10, init_weights=True)) == expected


def test_initial_weights():
    torch.manual_seed(0)
    model = VGG(make_layers([64, 128], batch_norm=True), num_classes=100, global_pool=True, hidden=(512,))
    conv, norm, linear = model.features[3], model.features[4], model.classifier[0]
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)  # fan_out = 128 * 3 * 3
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert all(not m.bias.any() for m in (conv, norm, linear))
    assert torch.equal(norm.weight, torch.ones(128))


def test_without_initial_weights_those_of_torch_stay():
    """Quicker for a network that gets other weights at once. torch's biases are random, the paper's 0."""
    zero = [not VGG(make_layers([8]), 4, wanted, global_pool=True).classifier[0].bias.any() for wanted in (True, False)]
    assert zero == [True, False]


def test_head_for_small_images():
    with torch.device("meta"):
        model = VGG(make_layers(cfg["cifar10"]), num_classes=10, input_size=32)
    assert model.classifier[0].in_features == 512 * 4 * 4
    parameters = [sum(p.numel() for p in part.parameters()) for part in (model, model.classifier)]
    assert parameters[0] == 58_190_506
    assert round(parameters[1] / parameters[0], 3) == 0.866


@pytest.mark.parametrize(
    ("head", "width"),
    [
        ({"input_size": 32, "hidden": ()}, 32 * 8 * 8),
        ({"input_size": 20, "hidden": (5,)}, 32 * 5 * 5),
        ({"global_pool": True, "hidden": ()}, 32),
    ],
)
def test_heads_run(head, width):
    features = make_layers([16, "M", 32, "M"], batch_norm=True)
    model = VGG(features, num_classes=7, **head)
    assert model.classifier[0].in_features == width
    side = head.get("input_size", 40)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_dropout_is_what_was_asked_for():
    assert VGG(make_layers([8]), 2, global_pool=True, hidden=(4,), dropout=0.25).classifier[2].p == 0.25


@pytest.mark.parametrize("name", list(vgg.model_urls))
def test_pretrained_asks_for_torchvisions_file(name, monkeypatch):
    def ask(url, progress):
        raise OSError(url)

    monkeypatch.setattr(vgg, "_download", ask)
    with torch.device("meta"), pytest.raises(OSError) as asked:
        getattr(vgg, name)(pretrained=True)
    assert str(asked.value) == torchvision.models.get_model_weights(name).IMAGENET1K_V1.url


def test_sizing_the_head_leaves_batch_norm_alone():
    features = make_layers([16, "M", 32], batch_norm=True)
    features[0].bias.data.fill_(3)
    VGG(features, num_classes=7, input_size=8, init_weights=False)
    assert not features[1].running_mean.any()
    assert features[1].num_batches_tracked == 0
    assert all(m.training for m in features)
    VGG(features.requires_grad_(False).eval(), num_classes=7, input_size=8, init_weights=False)
    features[1].train()
    VGG(features, num_classes=7, input_size=8, init_weights=False)
    assert [m.training for m in features[:3]] == [False, True, False]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "no convolution"),
        (["M", "M"], "no convolution"),
        ([64, "X"], "entry 1 is 'X'"),
        ([0], "entry 0 is 0"),
        ([64, "M", -3], "entry 2 is -3"),
        ([1.5], "entry 0 is 1.5"),
        ([True], "entry 0 is True"),
        ([None], "entry 0 is None"),
        ([[64]], r"entry 0 is \[64\]"),
        ("custom", r"did you mean cfg\['custom'\]"),
        ("MMM", "takes a list"),
        (64, "takes a list"),
    ],
)
def test_make_layers_refuses(bad, words):
    with pytest.raises(ValueError, match=words):
        make_layers(bad)


def test_make_layers_takes_tuples_and_numpy_numbers():
    numpy = pytest.importorskip("numpy")
    assert str(make_layers((8, "M", numpy.int64(16)))) == str(make_layers([8, "M", 16]))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 32, 32), r"batch \(N, 3, H, W\).*unsqueeze"),
        ((32, 32), "has shape"),
        ((2, 1, 32, 32), "takes 3 channels, .* has 1"),
        ((2, 32, 32, 3), "permute"),
        ((2, 3, 4, 4), "4 pixels allow 2 halvings; this cfg has 3"),
    ],
)
def test_forward_refuses(shape, words):
    model = VGG(make_layers([4, "M", 4, "M", 4, "M"]), num_classes=2, global_pool=True, hidden=())
    with pytest.raises(ValueError, match=words):
        model(torch.zeros(shape))


def test_too_many_pools_for_the_input():
    with pytest.raises(ValueError, match="32 pixels allow 5 halvings; this cfg has 6"):
        VGG(make_layers([8, *6 * ["M"]]), input_size=32)


def test_features_that_do_not_fit_the_head():
    with torch.device("meta"):
        model = VGG(make_layers(cfg["custom"]), num_classes=10)
        with pytest.raises(ValueError, match=r"12544 numbers.* takes 25088.*input_size"):
            model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("arguments", [{"input_size": 0}, {"input_size": "32"}, {"input_size": 8, "global_pool": True}])
def test_head_arguments_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match="input_size"):
        VGG(make_layers([8]), **arguments)


@pytest.mark.parametrize("changed", [{"num_classes": 10}, {"input_size": 32}, {"hidden": ()}])
def test_pretrained_weights_fit_the_standard_head_only(changed):
    with pytest.raises(ValueError, match=r"model.classifier\[6\] = torch.nn.Linear\(4096, num_classes\)"):
        vgg.vgg11(pretrained=True, **changed)


class TestPretrained:
    """The real loading code, against a server of our own with a small file."""

    @pytest.fixture
    def served(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr(vgg, "cfg", {"A": [4, "M"]})
        monkeypatch.setattr(vgg, "VGG", partial(VGG, global_pool=True, hidden=()))
        torch.save(vgg.vgg11().state_dict(), tmp_path / "new.pth")
        digest = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
        file = (tmp_path / "new.pth").rename(tmp_path / f"vgg11-{digest[:8]}.pth")
        handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
        handler.log_message = lambda *_: None
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setitem(vgg.model_urls, "vgg11", f"http://127.0.0.1:{server.server_port}/{file.name}")
        yield file, tmp_path / "hub" / "checkpoints" / file.name
        server.shutdown()
        server.server_close()

    def test_loads_and_keeps(self, served):
        file, kept = served
        model = vgg.vgg11(pretrained=True, progress=False)
        expected = torch.load(file, weights_only=True)
        assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
        assert kept.read_bytes() == file.read_bytes()
        file.unlink()
        vgg.vgg11(pretrained=True, progress=False)  # a second time from the cache, without the server's file

    def test_a_wrong_hash_is_refused(self, served):
        file, kept = served
        file.write_bytes(file.read_bytes()[:-10])
        with pytest.raises(OSError, match="invalid hash"):
            vgg.vgg11(pretrained=True, progress=False)
        assert not kept.exists()

    def test_a_truncated_file_in_the_cache_is_refused(self, served):
        file, kept = served
        kept.parent.mkdir(parents=True)
        kept.write_bytes(file.read_bytes()[:-10])
        with pytest.raises(OSError, match="damaged or cut short"):
            vgg.vgg11(pretrained=True, progress=False)

    def test_no_network(self, served, monkeypatch):
        monkeypatch.setitem(vgg.model_urls, "vgg11", "http://127.0.0.1:9/vgg11-8a719046.pth")
        with pytest.raises(
            OSError, match=r"http://127.0.0.1:9/vgg11-8a719046.pth with a browser.*checkpoints"
        ) as error:
            vgg.vgg11(pretrained=True, progress=False)
        assert "\n" not in str(error.value)


def test_the_urls_are_those_of_the_names():
    assert sorted(vgg.model_urls) == sorted(NAMES)
    for name, url in vgg.model_urls.items():
        assert url.startswith(f"https://download.pytorch.org/models/{name}-")


def test_the_functions_take_what_torchvisions_take():
    """A bar while the weights come, no weights without being asked, and further arguments for the network."""
    for name in NAMES:
        pretrained, progress, others = inspect.signature(getattr(vgg, name)).parameters.values()
        assert (pretrained.name, pretrained.default) == ("pretrained", False)
        assert (progress.name, progress.default) == ("progress", True) and others.kind is others.VAR_KEYWORD


def test_features_of_ones_own():
    """Convolutions without bias get their initial weights all the same; no convolution at all is fine, too."""
    torch.manual_seed(0)
    model = VGG(nn.Sequential(nn.Conv2d(3, 64, 3, bias=False)), num_classes=2, global_pool=True, hidden=())
    assert model.features[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    bare = VGG(nn.Sequential(nn.MaxPool2d(2)), num_classes=2, hidden=())
    bare.classifier = nn.Linear(3 * 7 * 7, 2)
    assert bare(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    with pytest.raises(ValueError, match="1 pixels allow 0 halvings; this cfg has 1"):
        bare(torch.zeros(1, 3, 1, 1))


def test_under_autocast_bytes_are_still_refused():
    model = VGG(make_layers([4, "M"]), num_classes=2, global_pool=True, hidden=())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.zeros(1, 3, 8, 8).bfloat16()).shape == (1, 2)  # layers convert what are no bytes
        with pytest.raises(ValueError, match=r"torch.uint8.*data.train.normalize"):
            model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_only_torch_is_imported():
    source = Path(vgg.__file__).read_text(encoding="utf-8")
    packages = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert packages == {"difflib", "hashlib", "numbers", "re", "collections", "pathlib", "typing", "torch"}
    assert isinstance(make_layers([8]), nn.Sequential)
