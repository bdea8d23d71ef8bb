"""Gradient descent on tensors that stay where they are: one Lightning ``Trainer`` per fit, then thrown away."""

import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, final

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int64
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from collapse_bench.distributed import from_main, is_shared, mean_of_all, num_processes, own_part, rank
from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.pool import LivePool, Pool
from collapse_bench.seeding import RUN_LEVEL, Stream, isolated_rng, part_of_batch
from collapse_bench.types import to_float

# Lightning says at every fit which accelerators there are.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)

Batch = tuple[Tensor, ...]
"""Images and labels, and where there is a gate the highest log signal-to-noise ratio of each image."""

Losses = tuple[tuple[int, float], ...]


def _ignore_step(step: int, num_steps: int, loss: float) -> None:
    pass


@dataclass(frozen=True)
class TrainerOptions:
    """Where networks are trained, sampled and measured, and in what arithmetic they are trained.

    Sampling and measuring are always in float32. Of several processes each has a part of every batch of a fit, of the
    samples and of the images that are measured.

    Args:
        accelerator: ``"cpu"`` or ``"cuda"``; a device that is not there is an error, never replaced by another.
        precision: Lightning's name of the arithmetic of training: ``"32-true"``, ``"bf16-mixed"``, ``"16-mixed"``.
        num_threads: CPU threads of a process. Floating-point sums depend on it, so it is part of what makes a run
            reproducible bit for bit.
        compile: compile the loss with ``torch.compile``; its noise is then another, as repeatable.
        channels_last: memory format of image networks.
        strategy: Lightning's name of how several processes train: ``"ddp"``, which adds up their gradients; or
            ``"single"``, for one process.
        num_processes: how many ``torchrun`` has started, on all nodes together; like ``num_threads`` it is part of what
            makes a run reproducible bit for bit.
    """

    accelerator: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    num_threads: int = 2
    compile: bool = False
    channels_last: bool = False
    strategy: Literal["single", "ddp"] = "single"
    num_processes: int = 1

    def __post_init__(self) -> None:
        if self.num_processes < 1 or (self.strategy == "single" and self.num_processes > 1):
            raise ConfigError(
                f"trainer.num_processes={self.num_processes} does not go with trainer.strategy={self.strategy}; choose "
                "trainer=ddp or trainer=ddp_gpu and leave the number to torchrun"
            )
        if self.num_threads < 1:
            raise ConfigError(f"trainer.num_threads must be at least 1, got {self.num_threads}")
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator=cuda, but torch sees no CUDA device; use trainer=cpu")
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise ConfigError("trainer.precision=16-mixed needs a GPU; on a CPU use 32-true or bf16-mixed")

    @property
    def exact(self) -> "TrainerOptions":
        """The same device in float32 and one process: encoders are rulers, and arms in other arithmetic share them."""
        alone = replace(self, strategy="single", num_processes=1)
        return replace(alone, precision="32-true", compile=False, channels_last=False)

    @property
    def device(self) -> torch.device:
        """Where tensors live: the process's own device."""
        return torch.device(self.accelerator)

    def apply(self) -> None:
        """Sets what holds for the whole process: its threads, and that float32 is float32 on a GPU too.

        By default convolutions on a GPU round their inputs to the 10 bits of TF32. Features, which are compared with
        those of other machines, and samples, of which grey levels are compared, would show it.
        """
        torch.set_num_threads(self.num_threads)
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Optimisation:
    """How a network's parameters are fitted: Adam with weight decay, warm-up and cosine decay.

    The schedule spans the steps of the fit at hand, so a generation with a smaller budget decays faster.

    Args:
        batch_size: images per gradient step, in all processes together.
        learning_rate: its peak.
        weight_decay: factor of the parameters, see ``optimiser``.
        num_warmup_steps: steps of linear warm-up, at most a tenth of all steps.
        decay: ``"cosine"`` to zero, or ``"none"``.
        max_grad_norm: gradients are scaled down to this Euclidean norm; ``None`` never.
        ema_width: relative width of the power-function average of the parameters (Karras et al. 2024,
            arXiv:2312.02696, eq. 4 and C.1), for example 0.1; ``None`` takes no such average.
        ema_decay: what the weights of older parameters are multiplied by at each step in the classical exponential
            average, for example 0.999; ``None`` takes no such average. Without either the last parameters are returned.
        optimiser: ``"adamw"`` takes the weight decay off the parameters, decoupled from the gradient (Loshchilov and
            Hutter 2019, arXiv:1711.05101, algorithm 2); ``"adam"`` adds it to the gradient, as an L2 penalty.
        batch_loss: ``"mean"`` or ``"sum"`` of a batch's losses. Adam hardly sees the difference but where something
            else is added to the gradient or compared with it: coupled weight decay and ``max_grad_norm``.
    """

    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    num_warmup_steps: int = 50
    decay: Literal["cosine", "none"] = "cosine"
    max_grad_norm: float | None = None
    ema_width: float | None = None
    ema_decay: float | None = None
    optimiser: Literal["adamw", "adam"] = "adamw"
    batch_loss: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.num_warmup_steps < 0:
            raise ConfigError(f"num_warmup_steps must not be negative, got {self.num_warmup_steps}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm must be above 0 (or null), got {self.max_grad_norm}")
        if self.ema_width is not None and not 0 < self.ema_width < 0.28:
            raise ConfigError(f"ema_width must lie between 0 and 0.28 (or be null), got {self.ema_width}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie between 0 and 1 (or be null), got {self.ema_decay}")
        if self.ema_width is not None and self.ema_decay is not None:
            raise ConfigError(
                f"ema_width={self.ema_width} and ema_decay={self.ema_decay} are two averages of the parameters; set "
                "one of them to null"
            )

    def rate_at(self, step: int, num_steps: int) -> float:
        """Factor of the learning rate at a step of ``num_steps``, in [0, 1]."""
        num_warmup = min(self.num_warmup_steps, num_steps // 10)
        rise = min(1.0, (step + 1) / (num_warmup + 1))
        if self.decay == "none":
            return rise
        progress = max(0, step - num_warmup) / max(1, num_steps - num_warmup)
        return rise * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class FitJob:
    """The circumstances of one fit.

    Args:
        num_steps: gradient steps.
        seed: of the first parameters, and by ``seed_of`` of all other random numbers in the fit.
        options: where and in what arithmetic.
        what: names the fit in errors, for example ``"generation 3"``.
        on_step: told (step, num_steps, loss) now and then.
        gate: highest log signal-to-noise ratio at which each image of the pool is trained on (+inf: at every level,
            -inf: at none); ``None`` is every image at every level. Only a ``NoisyModel`` can be given one.
    """

    num_steps: int
    seed: int
    options: TrainerOptions
    what: str
    on_step: Callable[[int, int, float], None] = _ignore_step
    gate: Float[Tensor, " n"] | None = None

    def seed_of(self, part: Literal["order", "noise"]) -> int:
        """The seed of the order of images, or of the noise of losses and layers: independent of the parameters' own."""
        return Stream(self.seed, RUN_LEVEL, part).seed


class Batches:
    """Batches of a pool that stays on the device; weights are sampling probabilities.

    Images of weight 0 are absent. Equal weights give shuffled epochs (every image once before any twice);
    unequal ones give independent draws in proportion to the weights. All batches have the same size: they may
    straddle two epochs.

    Args:
        pool: what to draw from.
        weights: non-negative, not all zero; need not sum to one.
        batch_size: images per batch.
        num_batches: length.
        seed: of the order.
        device: where batches are wanted.
        gate: see ``FitJob``; the third entry of every batch, where there is one.
        own: the rows of every batch that are wanted.

    Raises:
        TrainingError: if no image has a positive weight, or one is negative or not finite, or a gate is NaN, or those
            of all images that have a weight are -inf.
    """

    def __init__(
        self,
        pool: Pool,
        weights: Float[Tensor, " n"],
        batch_size: int,
        num_batches: int,
        seed: int,
        device: torch.device,
        gate: Float[Tensor, " n"] | None = None,
        own: slice = slice(None),
    ) -> None:
        if len(weights) != len(pool):
            raise TrainingError(f"{len(weights)} weights for a pool of {len(pool)} images")
        if not torch.isfinite(weights).all() or (weights < 0).any():
            raise TrainingError("weights of images must be finite and not negative; look at the weigher")
        present = (weights > 0).nonzero().flatten()
        if len(present) == 0:
            raise TrainingError(
                "every image of the training pool has weight 0: nothing is left to train on. This regime and this "
                "weigher make no sense together; keep real images (regime=augment or accumulate) or another weigher"
            )
        if gate is not None:
            gate = gate[present].float()
            if gate.isnan().any():
                raise TrainingError("gates of images must be numbers; look at the weigher")
            if (gate == -math.inf).all():
                raise TrainingError(
                    "every image of the training pool is left out at every noise level: nothing is left to train on. "
                    "Keep real images (regime=augment or accumulate), or gate less (mitigation.weigher.tolerance)"
                )
            gate = gate.to(device)
        self._images = pool.images[present].to(device)
        self._labels = pool.labels[present].to(device)
        self._gate = gate
        self._weights = weights[present].double()
        self._batch_size, self._num_batches, self._seed, self._own = batch_size, num_batches, seed, own

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        for index in self._indices():
            index = index[self._own]
            batch = to_float(self._images[index]), self._labels[index]
            yield batch if self._gate is None else (*batch, self._gate[index])

    def _indices(self) -> Iterator[Int64[Tensor, " batch"]]:
        rng = torch.Generator().manual_seed(self._seed)
        num_images, size = len(self._weights), self._batch_size
        equal = bool((self._weights == self._weights[0]).all())
        upper = self._weights.cumsum(0)
        waiting = torch.empty(0, dtype=torch.int64, device=self._images.device)
        for _ in range(self._num_batches):
            while len(waiting) < size:
                if equal:
                    more = torch.randperm(num_images, generator=rng)
                else:
                    uniform = torch.rand(max(size, num_images), generator=rng, dtype=torch.float64)
                    more = torch.searchsorted(upper, uniform * upper[-1], right=True).clamp_(max=num_images - 1)
                # A copy waits for the device: one per epoch, not one per batch.
                waiting = torch.cat([waiting, more.to(waiting.device)])
            yield waiting[:size]
            waiting = waiting[size:]


class LiveBatches:
    """Batches that a model makes when they are wanted; no image is in two of them.

    Args:
        pool: what to draw from.
        batch_size: images per batch.
        num_batches: length.
        device: where batches are wanted.
        own: the rows of every batch that are wanted; no others are made.
    """

    def __init__(
        self, pool: LivePool, batch_size: int, num_batches: int, device: torch.device, own: slice = slice(None)
    ) -> None:
        self._pool, self._batch_size, self._num_batches, self._device = pool, batch_size, num_batches, device
        self._rows = range(batch_size)[own]

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        for k in range(self._num_batches):
            images, labels = self._pool.draw(k * self._batch_size + self._rows.start, len(self._rows))
            yield to_float(images.to(self._device)), labels.to(self._device)


class TrainingModule(pl.LightningModule):
    """Minimises the mean of ``compute_loss`` over batches, of which several processes have a part each.

    Args:
        network: what is trained, in place.
        compute_loss: (images, labels) or (images, labels, gate) -> one loss per image; a method of ``network``.
        optimisation: how.
        job: steps, and who is told about them.
    """

    _CHECK_EVERY = 25
    _NUM_LOGGED = 20

    def __init__(
        self,
        network: nn.Module,
        compute_loss: Callable[..., Float[Tensor, " batch"]],
        optimisation: Optimisation,
        job: FitJob,
    ) -> None:
        super().__init__()
        self.network = network
        self.losses: list[tuple[int, float]] = []
        self._compute_loss, self._optimisation, self._job = compute_loss, optimisation, job
        self._num_processes = num_processes()
        self._num_checked = 0
        self._unchecked: list[Tensor] = []
        self._since_logged: list[float] = []
        self._average: ParameterAverage | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean (or summed) loss of one batch; what is recorded is the mean."""
        losses = self._compute_loss(*batch)
        if self._num_processes == 1:
            loss = losses.mean()
        else:  # Lightning takes the mean over processes, whose parts of a batch may differ by one image
            loss = losses.sum() * (self._num_processes / self._optimisation.batch_size)
        self._unchecked.append(loss.detach())
        return loss if self._optimisation.batch_loss == "mean" else losses.sum() * self._num_processes

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule over the fit's own budget."""
        options = self._optimisation
        kind = torch.optim.AdamW if options.optimiser == "adamw" else torch.optim.Adam
        optimiser = kind(
            self.network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            # Lightning clips no gradients of fused mixed-precision steps.
            fused=self._job.options.precision == "32-true",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: options.rate_at(k, self._job.num_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Starts the average of the parameters, on the device that they are on by now."""
        if self._optimisation.ema_width is not None:
            self._average = PowerAverage(self.network, self._optimisation.ema_width)
        elif self._optimisation.ema_decay is not None:
            self._average = ExponentialAverage(self.network, self._optimisation.ema_decay)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, the average after it, and now and then a look at the losses."""
        super().optimizer_step(*args, **kwargs)
        if self._average is not None:
            self._average.update()
        if len(self._unchecked) == self._CHECK_EVERY:
            self._check_losses()

    def on_train_end(self) -> None:
        """Looks at the last losses and puts the averaged parameters into the network."""
        self._check_losses()
        if self._since_logged:
            self._log_losses()
        if self._average is not None:
            self._average.apply()
        # A bad gradient in the very last step shows in no loss.
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.network.parameters()):
            raise TrainingError(
                f"the parameters became NaN or infinite in the last step of {self._job.what}; lower the learning "
                "rate or set max_grad_norm. Committed generations are intact"
            )

    def _check_losses(self) -> None:
        """Copies the losses of the last steps from the device, all at once, because each copy waits for it.

        They are the means over all processes, so a part of a batch whose loss is NaN stops all of them.
        """
        first = self._num_checked + 1
        values = mean_of_all(torch.stack(self._unchecked)).tolist() if self._unchecked else []
        self._unchecked.clear()
        for step, value in enumerate(values, start=first):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} at step {step} of {self._job.num_steps} of {self._job.what}; lower "
                    "generator.optimisation.learning_rate or set max_grad_norm. Committed generations are intact"
                )
            self._since_logged.append(value)
            self._num_checked = step
            if len(self._since_logged) >= self._job.num_steps / self._NUM_LOGGED:
                self._log_losses()
        if values:
            self._job.on_step(self._num_checked, self._job.num_steps, values[-1])

    def _log_losses(self) -> None:
        self.losses.append((self._num_checked, math.fsum(self._since_logged) / len(self._since_logged)))
        self._since_logged.clear()


class ParameterAverage(ABC):
    """A running average of a network's parameters after each step; those before the first have no weight.

    Args:
        network: whose parameters are averaged.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parameters: list[Tensor] = list(network.parameters())
        self._average = [p.detach().clone() for p in self._parameters]
        self._num_updates = 0

    @abstractmethod
    def new_share(self, num_updates: int) -> float:
        """What the newest parameters make up of the average of ``num_updates``; 1 at the first."""

    @final
    @torch.no_grad()
    def update(self) -> None:
        """Takes the present parameters into the average."""
        self._num_updates += 1
        new_share = self.new_share(self._num_updates)
        torch._foreach_lerp_(self._average, self._parameters, new_share)  # pyright: ignore[reportPrivateImportUsage]

    @final
    @torch.no_grad()
    def apply(self) -> None:
        """Puts the average into the network."""
        for parameter, average in zip(self._parameters, self._average, strict=True):
            parameter.copy_(average)


@final
class PowerAverage(ParameterAverage):
    """A running average of a network's parameters whose width grows with the number of steps.

    After k updates the parameters of update j have weight j^(gamma+1) - (j-1)^(gamma+1), up to a factor: the power
    function t^gamma integrated over the update (Karras et al. 2024, arXiv:2312.02696, eq. 4). So early parameters
    fade whatever the length of the fit.

    Args:
        network: whose parameters are averaged.
        width: standard deviation of the weights over the steps, relative to the number of steps.
    """

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__(network)
        self._gamma = power_exponent(width)

    def new_share(self, num_updates: int) -> float:
        """1 - (1 - 1 / k)^(gamma + 1) of k updates."""
        return 1.0 - (1.0 - 1.0 / num_updates) ** (self._gamma + 1.0)


@final
class ExponentialAverage(ParameterAverage):
    """The classical exponential average of a network's parameters, without its bias toward the first ones.

    After k updates the parameters of update j have weight decay^(k-j), divided by the sum of all weights. That division
    is the bias correction of Adam's averages (Kingma and Ba 2015, arXiv:1412.6980, section 3): an average that starts
    with the initial parameters would keep decay^k of them, most of it in a short fit.

    Args:
        network: whose parameters are averaged.
        decay: in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay

    def new_share(self, num_updates: int) -> float:
        """(1 - decay) / (1 - decay^k) of k updates."""
        return (1.0 - self._decay) / (1.0 - self._decay**num_updates)


def power_exponent(width: float) -> float:
    """The exponent gamma whose power-function average has this relative width (arXiv:2312.02696, algorithm 2)."""
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def train(
    network: nn.Module,
    compute_loss: Callable[..., Float[Tensor, " batch"]],
    pool: Pool,
    weights: Float[Tensor, " n"],
    optimisation: Optimisation,
    job: FitJob,
) -> Losses:
    """Fits a network in place on a pool and returns its losses as (step, mean since the last).

    The network ends up in eval mode on the job's device. Nothing outside depends on or changes the global random
    state: all noise comes from the job's seed.

    Args:
        network: what is trained.
        compute_loss: (images, labels) -> one loss per image, a method of ``network``; may draw noise from torch's
            global state, which is seeded here. If the job has a gate, its values for these images come third.
        pool: images to train on, which stay on the device, or a live pool that makes them.
        weights: sampling probability of each image, up to a factor.
        optimisation: how.
        job: steps, seed, device, gate.

    Raises:
        TrainingError: if the loss becomes NaN or infinite, no image has a positive weight, or the gate has left out
            every image at every noise level that was drawn.
    """
    options, batch_size = job.options, optimisation.batch_size
    if batch_size < num_processes():
        raise ConfigError(
            f"batch_size={batch_size} leaves some of {num_processes()} processes without images; raise it"
        )
    own = own_part(batch_size)
    if isinstance(pool, LivePool):
        batches = LiveBatches(pool, batch_size, job.num_steps, options.device, own)
    else:
        weights, gate = from_main(lambda: (weights, job.gate))
        batches = Batches(pool, weights, batch_size, job.num_steps, job.seed_of("order"), options.device, gate, own)
    network.to(options.device).train()
    if options.channels_last:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if options.compile:
        compute_loss = cast(Callable[..., Tensor], torch.compile(compute_loss))
    module = TrainingModule(network, compute_loss, optimisation, job)
    # What a network draws by itself, for dropout, is each process's own; what its loss draws is the batch's.
    with (
        isolated_rng(job.seed_of("noise") + rank()),
        _noise_of_the_batch(own, batch_size, job),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`broadcast_buffers` is deprecated")  # older versions know no other
        try:
            _trainer(optimisation, options).fit(module, train_dataloaders=batches)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes the one of the other
                raise stop.__context__ from None
            raise
    if job.gate is not None and not any(loss for _, loss in module.losses):
        raise TrainingError(
            f"the gate left out every image at every noise level that {job.what} drew: nothing was trained on. Keep "
            "real images (regime=augment or accumulate), or gate less (mitigation.weigher.tolerance)"
        )
    network.eval()
    # Lightning moves it back to the CPU at the end; one memory format, so that a model is the same after loading.
    network.to(options.device).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return tuple(module.losses)


@contextmanager
def _noise_of_the_batch(own: slice, batch_size: int, job: FitJob) -> Iterator[None]:
    """Within the block losses of a part of a batch draw the noise that they would draw of the whole batch."""
    if not is_shared():
        yield
        return
    with part_of_batch(own, batch_size, torch.Generator(job.options.device).manual_seed(job.seed_of("noise"))):
        yield


def _trainer(optimisation: Optimisation, options: TrainerOptions) -> pl.Trainer:
    """Lightning, for one fit."""
    trainer = pl.Trainer(
        accelerator="gpu" if options.accelerator == "cuda" else "cpu",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]) if is_shared() else 1,
        num_nodes=num_processes() // int(os.environ["LOCAL_WORLD_SIZE"]) if is_shared() else 1,
        # Buffers are equal from the start.
        strategy=DDPStrategy(broadcast_buffers=False) if is_shared() else "auto",
        plugins=TorchElasticEnvironment() if is_shared() else None,
        precision=options.precision,
        max_epochs=1,
        gradient_clip_val=optimisation.max_grad_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if is_shared():
        # Lightning asks the processes at every step whether one is to stop, which waits for the device, and answers a
        # signal with a broadcast that the others do not join. torchrun stops all of them.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer
