"""Latents: data of any scale and number of channels, which are no pictures until an autoencoder makes them such."""

import json
import sys

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image

import cmcore as cm
from cmcore.data_facts import DataFacts
from cmcore.interchange import decoder as decoders
from cmcore.networks import ResidualMLP
from cmcore.run import cli

RNG = np.random.default_rng(0)
SCALINGS = {
    "scaled": {"scaling_factor": 0.13},
    "shifted": {"scaling_factor": 0.36, "shift_factor": 0.7},
    "by channel": {"scaling_factor": 0.5, "latents_mean": [1.0, -2.0, 0.5], "latents_std": [2.0, 3.0, 0.25]},
}


def model_of_latents(shape=(3, 4, 6)):
    architecture = ResidualMLP(shape, width=8, blocks=1)
    weights = {k: w + RNG.normal(0, 0.2, w.shape).astype(np.float32) for k, w in architecture.init(0).items()}
    facts = DataFacts("toy", shape, False, center=(1.0,) * shape[0], scale=(2.0,) * shape[0])
    return cm.Model(cm.recipes.get("ct"), architecture, weights, facts)


def written(folder, **settings):
    """A tiny AutoencoderKL with random weights, as diffusers writes it."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=3,
            norm_num_groups=2,
            **settings,
        ).eval()
    network.save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("autoencoder")
    written(place, **SCALINGS["shifted"])
    return place


@pytest.fixture
def run(tmp_path):
    model_of_latents().save(tmp_path / "run")
    return tmp_path / "run"


def sample(run, out, *more):
    return cli.main(["sample", str(run), "--n", "5", "--batch", "2", "--backend", "numpy", "--out", str(out), *more])


@pytest.mark.parametrize("option", [["--kind", "latents"], ["--kind=latents"], ["--latents"]])
def test_kinds_are_said(option):
    arguments = ["train", "--data", "a.npz", "--out", "b"]
    assert cli._parser().parse_args([*arguments, *option]).latents is True
    assert cli._parser().parse_args([*arguments, "--kind", "images"]).latents is False
    assert not hasattr(cli._parser().parse_args(arguments), "latents")


@pytest.mark.parametrize("wrong", [["--kind", "sounds"], ["--kind", "images", "--latents"]])
def test_other_kinds_are_a_sentence(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--data", "a.npz", "--out", "b", *wrong])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("cmcore: Argument --")


def test_latents_from_file_to_file(tmp_path, capsys):
    """Trained, sampled in their own units, and evaluated; of three channels too they are no pictures."""
    scales, means = np.array([0.1, 7.0, 90.0]), np.array([5.0, -300.0, 0.0])
    x = RNG.normal(size=(40, 4, 4, 3)) * scales + means
    np.savez(tmp_path / "latents.npz", np.moveaxis(x, 3, 1))
    run, backend = tmp_path / "run", TRAINABLE[0]
    options = ["--kind", "latents", "--width", "8", "--blocks", "1", "--steps", "2", "--batch", "8", "--recipe", "ect"]
    data = ["--data", str(tmp_path / "latents.npz"), "--backend", backend]
    assert cli.main(["train", *data, *options, "--out", str(run)]) == 0
    model = cm.load_model(run)
    assert not model.data.images
    np.testing.assert_allclose(model.data.center, x.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(model.data.scale, 2 * x.std(axis=(0, 1, 2)), rtol=1e-6)
    assert model._repr_png_() is None
    assert not list(run.rglob("*.png"))
    assert sample(run, tmp_path / "a.npz") == 0
    made = np.load(tmp_path / "a.npz")["x"]
    assert made.shape == (5, 3, 4, 4)
    np.testing.assert_array_equal(made, model.sample(5, backend="numpy"))
    assert np.abs(made[:, 1]).min() > 100
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--n", "20", "--steps", "1", "--backend", "numpy"]) == 0
    assert "The distances are between latents" in capsys.readouterr().out


@pytest.mark.parametrize("scaling", SCALINGS)
def test_decoded_as_diffusers_pipelines_do(tmp_path, scaling):
    network = written(tmp_path, **SCALINGS[scaling])
    torch = pytest.importorskip("torch")
    from diffusers.image_processor import VaeImageProcessor

    z = RNG.normal(0, 2, (3, 3, 4, 6)).astype(np.float32)
    config, latents = network.config, torch.asarray(z)
    if config.latents_mean:
        # As StableDiffusionXLPipeline has it.
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
        latents = latents * std / config.scaling_factor + mean
    else:
        # As StableDiffusion3Pipeline has it.
        latents = latents / config.scaling_factor + (config.shift_factor or 0)
    with torch.no_grad():
        own, raw = (network.decode(v).sample for v in (latents, torch.asarray(z)))
    process = VaeImageProcessor().postprocess
    for made, expected in ((decoders.Decoder(tmp_path), own), (decoders.Decoder(tmp_path, raw=True), raw)):
        theirs = np.moveaxis(process(expected, output_type="np"), 3, 1)
        np.testing.assert_allclose((made(z) + 1) / 2, theirs, atol=1e-6)
    assert float((own - raw).abs().max()) > 1e-3


def test_few_are_decoded_at_once(folder, monkeypatch):
    decode = decoders.Decoder(folder)
    sizes, plain = [], decode._decode
    monkeypatch.setattr(decode, "_decode", lambda z: sizes.append(len(z)) or plain(z))
    z = RNG.normal(size=(5, 3, 4, 6)).astype(np.float32)
    whole = decode(z)
    monkeypatch.setattr(decoders, "PIXELS", 2 * 8 * 12)
    np.testing.assert_allclose(decode(z), whole, atol=1e-6)
    monkeypatch.setattr(decoders, "PIXELS", 1)
    decode(z)
    assert sizes == [5, 2, 2, 1, 1, 1, 1, 1, 1]


def test_the_command_makes_the_same_images_as_the_object(run, folder, tmp_path):
    model = cm.load_model(run)
    images = [np.asarray(i) for i in model.images(5, decoder=folder, batch=2, backend="numpy")]
    assert images[0].shape == (8, 12, 3)
    assert sample(run, tmp_path / "pictures/", "--decoder", str(folder)) == 0
    shown = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "pictures").glob("*.png"))]
    np.testing.assert_array_equal(shown, images)
    assert sample(run, tmp_path / "x.npz", "--decoder", str(folder), "--dtype", "uint8") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], images)
    assert sample(run, tmp_path / "grid.png", "--decoder", str(folder)) == 0
    assert Image.open(tmp_path / "grid.png").mode == "RGB"
    raw = model.images(5, decoder=folder, raw_latents=True, batch=2, backend="numpy")
    assert np.abs(np.asarray(raw[0], int) - images[0]).max() > 1


def test_another_decoder_does_not_go_on_with_the_images_of_one(run, folder, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert sample(run, out, "--decoder", str(folder)) == 0
    assert sample(run, out, "--decoder", str(folder), "--raw-latents", "--n", "7") == 2
    assert "another command" in capsys.readouterr().err
    assert sample(run, out, "--decoder", str(folder), "--n", "7") == 0
    assert len(list(out.glob("*.png"))) == 7


def test_the_autoencoder_of_a_pipeline_is_found(folder, tmp_path):
    (tmp_path / "vae").symlink_to(folder)
    z = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(decoders.Decoder(tmp_path)(z), decoders.Decoder(folder)(z))


@pytest.mark.parametrize("out", ["a.png", "pictures/"])
def test_without_a_decoder_latents_are_no_pictures(run, tmp_path, out, capsys):
    assert sample(run, tmp_path / out) == 2
    assert "are not images: give --out NAME.npz, with --dtype float32, or --decoder" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"use sample\(\), or give a decoder"):
        cm.load_model(run).images(1, backend="numpy")


def test_what_is_no_autoencoder_is_a_sentence(run, tmp_path, capsys):
    place = tmp_path / "it"
    for content, said in (
        (None, "has no config.json"),
        ("{", "is damaged"),
        ("[1]", "is damaged"),
        (json.dumps({"_class_name": "UNet2DModel"}), "holds UNet2DModel; give the folder of a diffusers AutoencoderKL"),
        (json.dumps({"_class_name": "AutoencoderKL", "scaling_factor": 0}), "its scaling_factor is 0"),
        (json.dumps({"_class_name": "AutoencoderKL", "latent_channels": "x"}), "cannot be used"),
        ('{"_class_name": "AutoencoderKL"}' + " " * decoders.LARGEST_CONFIG, "is damaged"),
    ):
        place.mkdir(exist_ok=True)
        if content is not None:
            (place / "config.json").write_text(content)
        assert sample(run, tmp_path / "a.png", "--decoder", str(place)) == 2
        assert said in capsys.readouterr().err


def test_decoders_of_other_latents_are_sentences(run, folder, tmp_path, capsys):
    assert sample(run, tmp_path / "a.png", "--raw-latents") == 2
    assert "give --decoder too" in capsys.readouterr().err
    with pytest.raises(ValueError, match="give the decoder too"):
        cm.load_model(run).images(1, raw_latents=True, backend="numpy")
    with pytest.raises(ValueError, match=r"decodes latents of 3 channels.*\(4, 4, 4\)"):
        model_of_latents((4, 4, 4)).images(1, decoder=folder, backend="numpy")
    with pytest.raises(ValueError, match="images already"):
        decoders.Decoder(folder).facts(DataFacts("toy", (3, 4, 4), True))


def test_weights_that_lack_are_not_drawn_and_pickles_are_not_read(tmp_path):
    network = written(tmp_path, **SCALINGS["scaled"])
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({k: w for k, w in weights.items() if k != "decoder.conv_in.bias"}, path, {"format": "pt"})
    with pytest.raises(cm.Error, match=r"lacks 1 of its decoder's weights, decoder\.conv_in\.bias"):
        decoders.Decoder(tmp_path)
    save_file({**weights, "decoder.conv_in.bias": np.zeros(3, np.float32)}, path, {"format": "pt"})
    with pytest.raises(cm.Error, match="cannot be read"):
        decoders.Decoder(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(cm.Error, match="cannot be read"):
        decoders.Decoder(tmp_path)
    path.unlink()
    network.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(cm.Error, match="cannot be read"):
        decoders.Decoder(tmp_path)


def test_a_decoder_alone_is_enough(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    name = "diffusion_pytorch_model.safetensors"
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    kept = {k: w for k, w in load_file(folder / name).items() if not k.startswith(("encoder.", "quant_conv."))}
    save_file(kept, tmp_path / name, {"format": "pt"})
    z = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(decoders.Decoder(tmp_path)(z), decoders.Decoder(folder)(z))


def test_a_backend_that_knows_autoencoders_decodes_on_its_own_device(folder):
    class Elsewhere:
        def image_decoder(self, folder):
            return lambda z: 0 * z + 0.25

    assert (decoders.Decoder(folder, backend=Elsewhere())(np.ones((1, 3, 2, 2))) == 0.25).all()


def test_what_is_missing_is_said(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(cm.Error, match=r'needs diffusers: pip install "cmcore\[latents\]"'):
            decoders.Decoder(folder)
    monkeypatch.setattr(decoders, "available", lambda: ("numpy",))
    with pytest.raises(cm.Error, match=r'decodes latents: pip install "cmcore\[latents\]"'):
        decoders.Decoder(folder, backend=cm.load("numpy"))
