"""Options that go by the object of each image, refused where images have labels instead."""

from transfer.config.train import TrainConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError


def refuse_options_of_objects(config: TrainConfig, table: ImageTable) -> None:
    """Raise a TransferError that names the options of `config` that have no meaning without objects in `table`."""
    if table.has_objects:
        return
    learn = config.learn
    used = {
        f"--balance {learn.balance}": learn.balance != "none",
        "--co-tuning": learn.regularise.co_tuning > 0,
        "--heads joint": config.heads.heads == "joint",
        "--unlabelled": config.data.unlabelled is not None,
    }
    if named := [option for option, given in used.items() if given]:
        raise needs_objects(table, ", ".join(named))


def needs_objects(table: ImageTable, what: str) -> TransferError:
    """Return the error that `what` needs one object an image, which `table` does not have."""
    return TransferError(
        f"{what} goes by the object of each image, and the images of {table.name} have only labels, any number an "
        "image: leave it out, or give each image an object"
    )
