"""Away from the score that self-training would learn."""

import copy
from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.mitigations.self_training import SelfTraining
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.seeding import isolated_rng


class ContrastedModel(NoisyModel):
    """The prediction (1 + omega) p_r - omega p_s of two models, sampled as one.

    Args:
        fitted: p_r, which also says how often each class is asked for; both are copied.
        self_trained: p_s.
        omega: how far away from p_s.
    """

    num_networks: ClassVar[int] = 2

    def __init__(self, fitted: NoisyModel, self_trained: NoisyModel, omega: float) -> None:
        super().__init__(fitted.spec, fitted.conditional, fitted.process, fitted.condition_dropout)
        self.label_shares = fitted.label_shares.clone()
        self.fitted, self.self_trained = copy.deepcopy(fitted), copy.deepcopy(self_trained)
        self.omega = omega

    def predict(
        self, x: Float[Tensor, "n c h w"], level: Tensor, labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The prediction of the pair."""
        prediction = self.fitted.predict(x, level, labels)
        return prediction + self.omega * (prediction - self.self_trained.predict(x, level, labels))


@final
@dataclass(frozen=True, kw_only=True)
class SIMS(SelfTraining):
    """Samples with the score (1 + omega) s_r - omega s_s, where s_s is s_r fine-tuned on its own samples.

    Self-improving diffusion models with synthetic data (Alemohammad et al. 2024, arXiv:2408.16333). What a process
    predicts is an affine function of the score whose coefficients depend on the noise level alone, so predictions
    combine in the same way. A sample costs two networks. A warm start continues from the fitted network,
    never from the pair. With ``omega=0`` it equals the control bit for bit, and no copy is trained.

    Args:
        num_samples: see ``SelfTraining``.
        num_steps: see ``SelfTraining``.
        learning_rate_factor: see ``SelfTraining``.
        omega: how far, at least 0.
    """

    omega: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.omega < 0:
            raise ConfigError(f"mitigation.refiner.omega must not be negative, got {self.omega}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError for a family that does not turn noise into images step by step."""
        with isolated_rng(0):
            model = setting.generator.empty_model(setting.spec)
        if not isinstance(model, NoisyModel):
            raise ConfigError(
                f"mitigation=sims combines what two diffusion or flow models predict, and the generator makes a "
                f"{model.family}; choose generator=flow, ddpm or edm, or mitigation=neon, which goes with every family"
            )

    def refine(self, fitted: Model, train: Pool, now: Now) -> Model:
        """The pair, or the fitted model alone for ``omega=0``."""
        if self.omega == 0:
            return fitted
        self_trained = self.self_trained(fitted, now)
        assert isinstance(fitted, NoisyModel)
        assert isinstance(self_trained, NoisyModel)
        return ContrastedModel(fitted, self_trained, self.omega).eval()

    def skeleton(self, fitted: nn.Module) -> nn.Module:
        """A pair to load a stored one into."""
        assert isinstance(fitted, NoisyModel)
        return ContrastedModel(fitted, fitted, self.omega)
