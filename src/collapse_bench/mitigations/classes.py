"""What parts share that ask for the class of a sample."""

from collapse_bench.errors import ConfigError
from collapse_bench.now import Setting
from collapse_bench.seeding import isolated_rng


def check_classes(needs_them: str, setting: Setting, *, instead: str | None = None) -> None:
    """Raises ConfigError if samples would have no labels.

    Args:
        needs_them: what asks for the class, as errors call it.
        setting: of the chain.
        instead: another remedy than giving samples a class, if there is one.
    """
    if setting.labels is not None:
        return
    with isolated_rng(0):
        conditional = setting.generator.empty_model(setting.spec).conditional
    if not conditional:
        remedies = ["labels=classifier", "a class-conditional generator (generator.conditional=true)"]
        raise ConfigError(
            f"{needs_them} needs the class of each sample, and those of an unconditional model have none; choose "
            + ", or ".join([*remedies, *([instead] if instead else [])])
        )


def check_per_class(name: str, per_class: bool, setting: Setting) -> None:
    """Raises ConfigError as ``check_classes`` does, for a curator that goes by classes unless it is told not to.

    Where all images are of one class there is nothing to know.

    Args:
        name: of the mitigation.
        per_class: its option of that name.
        setting: of the chain.
    """
    if per_class and setting.spec.num_classes > 1:
        instead = "mitigation.curator.per_class=false (another method: classes are left out of account)"
        check_classes(f"mitigation={name}", setting, instead=instead)
