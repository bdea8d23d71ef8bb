"""Two models with equal state dictionaries have different fingerprints if anything else tells them apart."""

import copy

import pytest
import torch
from chains import composed
from torch import Tensor, nn

from collapse_bench.cli.config import build
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.generators.population import PopulationModel
from collapse_bench.mitigations.sims import ContrastedModel
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 8, 8, ("a", "b"))
CLASSES = ("generator.conditional=true",)


def model(generator: str, *overrides: str) -> Model:
    config = composed(f"generator={generator}", "generator.network.width=16", *overrides)["generator"]
    with isolated_rng(0):
        return build(config, "generator").empty_model(SPEC)


def contrasted(omega: float) -> Model:
    return ContrastedModel(model("flow"), model("flow"), omega)  # type: ignore[arg-type]


def mixture(*names: str) -> Model:
    return PopulationModel(SPEC, {name: model("flow") for name in names})


class WithNetwork(Model):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(SPEC, conditional=False)
        self.network = network

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


class Scale(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)


PAIRS = {  # made where they are compared
    "omega of SIMS": lambda: (contrasted(0.5), contrasted(5.0)),
    "process": lambda: (model("flow"), model("ddpm")),
    "schedule of the process": lambda: (model("ddpm"), model("ddpm", "generator.process.schedule=linear")),
    "scale of the process": lambda: (model("edm"), model("edm", "generator.process.sigma_data=0.7")),
    "condition dropout": lambda: (model("flow", *CLASSES), model("flow", *CLASSES, "generator.condition_dropout=0.1")),
    "likelihood": lambda: (
        model("vae", "generator.likelihood=gaussian"),
        model("vae", "generator.likelihood=discretised_logistic"),
    ),
    "order of a population": lambda: (mixture("one", "other"), mixture("other", "one")),
    "activation": lambda: (WithNetwork(nn.ReLU()), WithNetwork(nn.Tanh())),
    "argument of a layer": lambda: (WithNetwork(nn.LeakyReLU(0.1)), WithNetwork(nn.LeakyReLU(0.2))),
    "buffer that is not stored": lambda: (WithNetwork(Scale(1.0)), WithNetwork(Scale(2.0))),
    "function": lambda: (
        WithNetwork(nn.TransformerEncoderLayer(4, 2, activation=nn.functional.relu)),
        WithNetwork(nn.TransformerEncoderLayer(4, 2, activation=nn.functional.gelu)),
    ),
}


@pytest.mark.parametrize("what", PAIRS)
def test_fingerprints_differ_by(what: str) -> None:
    first, second = PAIRS[what]()
    if what != "order of a population":  # whose names tell parameters apart
        second.load_state_dict(first.state_dict())
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize("scale", [0.5, None])
def test_the_scale_of_a_likelihood_is_in_the_state_dictionary(scale: float | None) -> None:
    stated = "null" if scale is None else scale
    one = model("vae", "generator.likelihood=gaussian", f"generator.decoder_scale={stated}")
    other = model("vae", "generator.likelihood=gaussian", "generator.decoder_scale=0.1")
    assert fingerprint(one) != fingerprint(other)


def test_a_copy_has_the_same_fingerprint_also_in_training() -> None:
    one = contrasted(0.5)
    other = copy.deepcopy(one)
    assert fingerprint(one.eval()) == fingerprint(other.train())


def test_an_attribute_that_has_no_hash_is_named() -> None:
    odd = WithNetwork(nn.ReLU())
    odd.cache = object()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="WithNetwork, attribute cache: cannot fingerprint a object"):
        fingerprint(odd)
