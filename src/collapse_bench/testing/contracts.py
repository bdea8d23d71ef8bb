"""What one option of a user's promises: a base class per group, which a user's test file fills in; pytest collects it.

class TestMyThing(MitigationContract):
    config_dir = "my_conf"
    name = "my_thing"
"""

from pathlib import Path
from typing import ClassVar

from collapse_bench.datasets.base import Dataset
from collapse_bench.errors import CombinationError
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.testing import promises
from collapse_bench.testing.chains import TINY, TINY_FLOW
from collapse_bench.testing.promises import Option, Trial


class OptionContract:
    """What an option of any group promises. Subclasses of its subclasses name the option."""

    group: ClassVar[str]
    """Of the option."""

    name: ClassVar[str]
    """Of the option: that of its file without ``.yaml``."""

    config_dir: ClassVar[str | Path | None]
    """The folder that ``--config-dir`` names; ``None`` for an option of ours."""

    overrides: ClassVar[tuple[str, ...]] = ()
    """What the option cannot do without in the tiny chains of the tests, or what makes it cheap."""

    @property
    def option(self) -> Option:
        """The option."""
        return Option(self.group, self.name, self.config_dir, self.overrides)

    def test_it_says_what_it_is(self) -> None:
        """See ``promises``."""
        promises.says_what_it_is(self.option)

    def test_it_shows_every_argument(self) -> None:
        """See ``promises``."""
        promises.shows_every_argument(self.option)

    def test_it_can_be_hashed(self) -> None:
        """See ``promises``."""
        promises.can_be_hashed(self.option)

    def _keeps_the_contract(self, folder: Path, *overrides: str) -> None:
        records = promises.run_tiny(folder, *overrides, config_dir=self.config_dir)
        promises.keeps_the_books(folder, records)

    def _tiny(self, *overrides: str) -> tuple[str, ...]:
        return (*TINY, *TINY_FLOW, *overrides, f"{self.group}={self.name}", *self.overrides)


class MitigationContract(OptionContract):
    """What a mitigation promises."""

    group = "mitigation"

    regimes: ClassVar[tuple[str, ...]] = ("replace", "augment", "contaminate")
    """Those under which it is tried: only samples, real images too, and both with their origin hidden."""

    hiding: ClassVar[tuple[str, ...]] = ("regime=contaminate", "regime.num_trusted=32", "budget.num_generations=1")
    """The regime that hides the origin of images, leaves half of the real ones known, and a generation to decide in."""

    def test_it_keeps_the_contract_or_is_refused_before_training(self) -> None:
        """A chain under each regime keeps its books; one that makes no sense is refused, and not all are."""
        for trial in self._trials():
            promises.keeps_the_books(trial.folder, trial.records)

    def test_kept_images_are_what_their_seeds_give(self) -> None:
        """See ``promises``."""
        for trial in self._trials():
            promises.kept_images_are_what_their_seeds_give(trial)

    def test_it_gives_the_same_again_whatever_is_held_out(self) -> None:
        """See ``promises``; under the first of the regimes that it goes with."""
        promises.gives_the_same_whatever_is_held_out(self._trials()[0])

    def test_it_looks_at_nothing_that_is_hidden(self) -> None:
        """See ``promises``; a mitigation that is refused where the origin is hidden looks at nothing of it."""
        trial = self._trial(*self.hiding, measured=False)
        if not isinstance(trial, str):
            promises.looks_at_no_hidden_column(trial)
            promises.looks_at_no_untrusted_real_image(trial)

    def _trials(self) -> list[Trial]:
        """The chains under all regimes that it goes with, which are some."""
        tried = {regime: self._trial(f"regime={regime}") for regime in self.regimes}
        trials = [trial for trial in tried.values() if not isinstance(trial, str)]
        assert trials, f"it is refused under all of these regimes: {tried}"
        return trials

    def _trial(self, *overrides: str, measured: bool = True) -> Trial | str:
        """The chain with these overrides, or why it is refused."""
        try:
            return promises.tried(self.option, *TINY, *TINY_FLOW, *overrides, measured=measured)
        except CombinationError as error:
            return str(error)


class RegimeContract(OptionContract):
    """What a regime promises."""

    group = "regime"

    def test_it_keeps_the_contract(self, tmp_path: Path) -> None:
        """A chain without a mitigation keeps its books."""
        self._keeps_the_contract(tmp_path, *self._tiny())

    def test_it_gives_the_same_again(self, tmp_path: Path) -> None:
        """See ``promises``; a regime that looks at more pools than ``num_pools_needed`` says fails here."""
        promises.gives_the_same_again(tmp_path, *self._tiny("budget.num_generations=4"), config_dir=self.config_dir)


class DatasetContract(OptionContract):
    """What a data set promises."""

    group = "dataset"

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.option.built()

    def test_it_is_split_in_three(self) -> None:
        """See ``promises``."""
        promises.is_split_in_three(self.dataset)

    def test_it_loads_the_same_again(self) -> None:
        """See ``promises``."""
        promises.loads_the_same_again(self.dataset)

    def test_a_chain_on_it_keeps_the_contract(self, tmp_path: Path) -> None:
        """A chain on a part of it keeps its books."""
        sizes = ("dataset.num_real=64", "dataset.num_reference=60", "dataset.num_control=60")
        self._keeps_the_contract(tmp_path, *self._tiny(*sizes))


class MetricContract(OptionContract):
    """What a panel of metrics promises."""

    group = "metrics"

    @property
    def metrics(self) -> list[GenerativeMetric]:
        """The metrics of the panel that compare images."""
        return [metric for metric in self.option.built().values() if isinstance(metric, GenerativeMetric)]

    def test_its_numbers_are_well_formed(self) -> None:
        """See ``promises``."""
        for metric in self.metrics:
            promises.numbers_are_well_formed(metric, promises.images_of_all_sides())

    def test_the_order_of_images_does_not_matter(self) -> None:
        """See ``promises``."""
        for metric in self.metrics:
            promises.order_does_not_matter(metric, promises.images_of_all_sides())

    def test_reset_forgets_generated_images_alone(self) -> None:
        """See ``promises``."""
        for metric in self.metrics:
            promises.reset_forgets_generated_images_alone(metric, promises.images_of_all_sides())

    def test_computing_changes_nothing(self) -> None:
        """See ``promises``."""
        for metric in self.metrics:
            promises.computing_changes_nothing(metric, promises.images_of_all_sides())

    def test_a_chain_is_measured_with_it(self, tmp_path: Path) -> None:
        """A chain that is measured with it alone keeps its books."""
        self._keeps_the_contract(tmp_path, *self._tiny())
