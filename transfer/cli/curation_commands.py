"""What the commands on data sets call and print: inspect, pick and review.

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
from pathlib import Path

from transfer.cli.messages import suggest_next
from transfer.cli.output import log_end, print_result, print_text
from transfer.cli.run_folders import NOTHING, RUNS_FOLDER, name_data_set
from transfer.config.curation import InspectConfig, PickConfig, ReviewConfig
from transfer.runtime.imports import import_quickly

MENDED_BY_REVIEW = ("label_suspects", "conflicting_labels", "near_duplicates_across_classes")  # kinds of findings


def inspect_command(config: InspectConfig, as_json: bool) -> None:
    """Inspect a data set, and print the findings and write their page."""
    from transfer.report.console.inspection_text import inspection_text
    from transfer.report.page import INSPECTION_PAGE_FILE, write_inspection

    with import_quickly():
        from transfer.curation.inspect import inspect

    folder = config.out or RUNS_FOLDER / f"{name_data_set(config.images.data)}-inspected"
    out = None if config.out == Path(NOTHING) else folder
    result = inspect(dataclasses.replace(config, out=out))
    page = write_inspection(result, out / INSPECTION_PAGE_FILE) if out else None
    print_result(as_json, result, inspection_text)
    doubted = any(finding["kind"] in MENDED_BY_REVIEW for finding in result["findings"])
    classes = {name for name in result["images"]["object"] if name}
    further = "review" if doubted else {0: "pick", 1: ""}.get(len(classes), "train")  # one class cannot be trained
    log_end(
        f"page: {page}" if page else f"nothing is saved (--out {NOTHING})",
        suggest_next([further, config.images.data]) if further else "",
    )


def review_command(config: ReviewConfig) -> None:
    """Serve the review of a data set's labels until Ctrl-C, and say how to train with the decisions."""
    from transfer.data.corrections import CorrectionFile, settle

    with import_quickly():
        from transfer.server.serve import check_server, prepare_review, serve_review

    check_server()
    file = config.out or RUNS_FOLDER / f"{name_data_set(config.images.data)}-review" / "labels.csv"
    review = prepare_review(config, file)
    log_end(f"{len(review.queue):,} of {len(review.paths):,} images to look at; decisions are appended to {file}")
    serve_review(review, config.port)
    decided = settle(CorrectionFile(file).read())
    log_end(suggest_next(["train", config.images.data, "--corrections", file]) if decided else "nothing is decided")


def pick_command(config: PickConfig) -> None:
    """Choose the images to label next, print them, and write the CSV file to fill in; or compare strategies."""
    if config.simulation.simulate:
        _simulate(config)
        return
    from transfer.report.console.picks_text import picks_text
    from transfer.report.page import write_contact_sheet

    with import_quickly():
        from transfer.curation.pick import pick

    out = config.out or Path(f"{name_data_set(config.images.data)}-picks.csv")
    result = pick(dataclasses.replace(config, out=out))
    page = write_contact_sheet(result, out.with_suffix(".html"))
    print_text("\n" + picks_text(result))
    folder = Path(config.images.data).expanduser().is_dir()
    options = ["--unlabelled", config.images.data] if folder else []
    options += ["--backbone", config.backbone.backbone] if config.backbone != type(config.backbone)() else []
    log_end(
        f"saved in {out}: fill in its column object, from the top; page: {page}; pick again to add images",
        suggest_next(["train", out, *options]),
    )


def _simulate(config: PickConfig) -> None:
    from transfer.report.console.picks_text import simulation_text
    from transfer.report.page import write_simulation

    with import_quickly():
        from transfer.curation.simulation import simulate

    out = config.out or Path(f"{name_data_set(config.images.data)}-simulated.json")
    result = simulate(dataclasses.replace(config, out=out))
    page = write_simulation(result, out.with_suffix(".html"))
    print_text("\n" + simulation_text(result))
    log_end(f"saved in {out}; page: {page}", suggest_next(["pick"], "IMAGES --n N"))
