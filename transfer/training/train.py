"""`transfer train`: images, a backbone, a freeze policy and heads -> a trained model and its result.

Each seed takes four steps on a :class:`~transfer.runs.session.RunSession`: prepare, fit, evaluate, record.
"""

import copy
import logging

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import calibrate
from transfer.config.serialise import to_dict
from transfer.config.train import TrainConfig
from transfer.config.unused import find_unused_options, format_unused_options
from transfer.data.label_sets.refusals import refuse_options_of_objects
from transfer.errors import EndedEarly, TransferError
from transfer.evaluation.averages.ensemble import load_snapshots
from transfer.evaluation.predictions import Predictions, prediction_rows
from transfer.evaluation.report_data import InitialWeights, build_report_data, features_before_and_after
from transfer.evaluation.temperature import apply_temperatures
from transfer.evaluation.uncertainty.record import Uncertainty, find_uncertainty
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.heads.table_heads import head_specs
from transfer.heads.trained_classes import describe_untrained, find_untrained, note_untrained
from transfer.model import TransferModel
from transfer.runs.facts import count_split, describe_images, describe_network, list_left_out
from transfer.runs.image_list import list_images, write_image_list
from transfer.runs.inputs import RunInputs
from transfer.runs.seeds import merge_seeds
from transfer.runs.session import OnLine, RunSession
from transfer.runtime.device import pick_device
from transfer.runtime.time_limit import TimeLimit
from transfer.semi_supervised.unlabelled_images import find_unlabelled
from transfer.training import optimizers
from transfer.training.fit import FitResult
from transfer.training.fit_networks import fit_networks
from transfer.training.log_lines import collect_run_facts, note_interpolation
from transfer.training.results import PreparedRun, TrainRun, build_train_result
from transfer.training.setup import (
    Images,
    new_model,
    read_images,
    split_images,
)
from transfer.training.warm_start.start import WarmStart

Session = RunSession[TrainConfig]

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    images: Images | None = None,
    cache: TrunkCache | None = None,
    backbone: Backbone | None = None,
    warm_start: WarmStart | None = None,
    limit: TimeLimit | None = None,
    on_epoch: OnLine = lambda line: None,
) -> TrainRun:
    """Train as `config` says and write the run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        From :func:`read_images`, to read them once for several runs.
    cache : TrunkCache, optional
        Shared between runs, so that outputs of the same frozen layers are computed once.
    backbone : Backbone, optional
        Start from a copy of this network, such as another run's, instead of the one that `config` names.
    warm_start : WarmStart, optional
        Start trained networks from those of a finished run; ones that are solved need no start.
    limit : TimeLimit, optional
        Instead of ``config.learn.minutes`` from now on.
    on_epoch : callable
        Receives each epoch's line, as in metrics.jsonl.

    Raises
    ------
    TransferError
        Bad input; :class:`~transfer.errors.EndedEarly`, a loss that became NaN (after everything is saved).
    """
    FreezePolicy.parse(config.policy.policy)
    optimizers.check_optimizer(config.learn.optimizer)
    if config.learn.average == "wise_ft" and config.learn.refit:
        raise TransferError("--average wise_ft chooses on validation images, and --refit trains on them: leave one out")
    with RunSession("train", config, cache=cache, on_line=on_epoch) as session:
        images = images or read_images(config.data, session.cache.disk_cache)
        limits = (limit or TimeLimit.after(config.learn.minutes)).divide(max(len(config.run.seeds), 1))
        runs = session.run_seeds(
            lambda inner: _train_seed(inner, images, backbone, warm_start, next(limits)),
            lambda inner: _load_finished(inner, images),
        )
        result = runs[0].result
        if len(runs) > 1:
            merged = merge_seeds(config.run.seeds, [run.result for run in runs]) | {"config": to_dict(config)}
            result = session.finish_seeds(merged)
    if result["stopped"]:
        raise EndedEarly(result["stopped"] + (f" (saved in {config.run.out})" if config.run.out else ""))
    tests = [test for run in runs for test in run.tests]
    return TrainRun(result, runs[0].models, tests, uncertainty=runs[0].uncertainty)


def _train_seed(
    session: Session, images: Images, backbone: Backbone | None, warm: WarmStart | None, limit: TimeLimit
) -> TrainRun:
    prepared = _prepare(session, images, backbone, warm)
    fits = fit_networks(session, prepared, limit)
    for name, fitted in fits.items():
        prepared.notes += [*fitted.shortened, *note_interpolation(name, fitted.interpolated)]
    prepared.set_thresholds({name: fitted.held_out for name, fitted in fits.items()})
    return _record(session, prepared, fits, *_evaluate(session, prepared, fits))


def _prepare(session: Session, images: Images, start: Backbone | None, warm: WarmStart | None) -> PreparedRun:
    """Return the split images, and models with their plans; `start` is the backbone to copy, `warm` the run, if any."""
    config, seed = session.config, session.config.run.seed
    refuse_options_of_objects(config, images.table)
    splits = split_images(images, config.data, seed)
    images = images.hide(splits.rest)
    images.facts.log(describe_images(images.table, count_split(splits), config.run.out is not None))
    images.facts.log(describe_untrained(find_untrained(images.table, splits.train)))
    if config.data.unlabelled and (count := len(find_unlabelled(images.table, splits.train))):
        what = "labels are propagated to them where that predicts held-out labels better"
        images.facts.log({"no label": f"{count:,} training images: {what}"})
    levels, (reading, notes) = images.choose_levels(splits.plain_train), images.describe_levels(splits.plain_train)
    images.facts.log(reading)
    advice, notes = None, [*notes, *images.note_added_levels(splits), *note_untrained(images.table, splits)]
    if FreezePolicy.parse(config.policy.policy).advised:
        from transfer.training.auto_policy import advise_policy, apply_advice  # takes 0.6 s

        advice = advise_policy(config, images, splits, session.cache)
        config = apply_advice(config, advice.advice)
    prepared = PreparedRun(config, images, splits, advice)
    specs, prepared.notes = head_specs(prepared.learnable, splits, config.heads)
    prepared.notes += notes
    if config.data.unlabelled:
        numbers = [spec.name for heads in specs.values() for spec in heads if not spec.head_kind.has_classes]
        prepared.notes += [
            f"{name} is not trained on unlabelled images: only classes are propagated" for name in numbers
        ]
    prepared.notes += ["the backbone starts as another run left it"] if start else []
    device, policy = pick_device(config.learn.device), FreezePolicy.parse(config.policy.policy)
    for name, heads in specs.items():
        backbone = freeze.reshape_backbone(copy.deepcopy(start), policy) if start else None
        model, plan = new_model(config, heads, seed, device, backbone, levels)
        last = warm.apply(name, model, plan, config.learn, config.cache.views) if warm else None
        _calibrate(prepared, model, plan)
        if warm and last:
            plan, sha256 = last, images.inspection.sha256
            prepared.guards[name] = warm.guard(name, model, prepared.learnable, sha256, splits.val, session.cache)
        prepared.models[name] = model
        prepared.plans.append(plan)
        if config.run.out and config.run.report:
            prepared.initial[name] = InitialWeights(model, plan)
    first = next(iter(prepared.models.values()))
    _log_plan(session, prepared)
    table, digests = images.table, images.inspection.sha256
    session.begin(lambda: RunInputs(config.backbone.backbone, first, splits, table.paths, digests))
    return prepared


def _calibrate(prepared: PreparedRun, model: TransferModel, plan: FreezePlan) -> None:
    """Calibrate `model` for int8 on training images, if that is requested."""
    config, rows = prepared.config, prepared.splits.plain_train
    if any(phase.cut for phase in plan.phases):
        paths, digests = prepared.images.table.paths, prepared.images.inspection.sha256
        calibrate(model.backbone, paths[rows], digests[rows], config.learn.workers)
    elif config.backbone.engine == "int8":
        prepared.notes.append("--engine int8 has no effect: no layers stay frozen")


def _log_plan(session: Session, prepared: PreparedRun) -> None:
    """Log backbone, policy and stages, and the options that this run cannot use."""
    plan, splits, table = prepared.plans[0], prepared.splits, prepared.images.table
    backbone = next(iter(prepared.models.values())).backbone
    prepared.images.facts.log(describe_network(backbone, str(plan.policy)))
    facts = collect_run_facts(prepared.config, prepared.models, plan, table, splits)
    log.info("%s", plan.format_table(facts.solved))
    for sentence in format_unused_options(find_unused_options(session.config, facts)):
        log.info("%s", sentence)


def _evaluate(
    session: Session, prepared: PreparedRun, fits: dict[str, FitResult]
) -> tuple[Predictions, list[Predictions]]:
    """Predict the test images with the final models and with each snapshot of a cyclic schedule; save the snapshots."""
    if session.folder:
        session.folder.start()  # a run that stopped in its first epoch has no line yet
    snapshots = []
    weights = {name: fitted.snapshots for name, fitted in fits.items()}
    for number, models in enumerate(load_snapshots(prepared.models, weights), 1):
        for name, model in models.items():
            apply_temperatures(model.heads, fits[name].temperatures)
        session.save_models(models, prepared.config.heads, f"snapshot{number}.safetensors")
        snapshots.append(prepared.predict_test(models, session.cache))
    return prepared.predict_test(prepared.models, session.cache), snapshots


def _record(
    session: Session,
    prepared: PreparedRun,
    fits: dict[str, FitResult],
    predictions: Predictions,
    snapshots: list[Predictions],
) -> TrainRun:
    """Write the models, the predictions, the report data and the result."""
    config, models, test, table = prepared.config, prepared.models, prepared.test, prepared.images.table
    held_out = [fitted.held_out for fitted in fits.values()]
    uncertainty = Uncertainty.from_held_out(prepared.learnable, held_out)
    result = build_train_result(session, prepared, fits, predictions, snapshots, uncertainty)
    for sentence in result["monitor"]:
        log.info("%s", sentence)
    shown = next((name for name, model in models.items() if "object" in model.heads.specs), next(iter(models)))
    moments = []
    if prepared.initial and len(test):  # in all processes, which compute features together
        feed = prepared.feed(models[shown], session.cache)
        moments = features_before_and_after(prepared.initial[shown], models[shown], feed, table, prepared.splits.test)
    session.save_models(models, config.heads)
    if session.folder:
        session.folder.write_predictions(prediction_rows(test, predictions))
        session.folder.write_left_out(list_left_out(table))
        listed = list_images(table, prepared.splits, prepared.images.inspection.sha256)
        write_image_list(session.folder.path, listed)
        if uncertainty:
            uncertainty.save(session.folder.path)
        if moments:
            data = build_report_data(test, predictions, models[shown], moments, table.domains, config.learn.workers)
            session.folder.write_report_data(data)
        session.folder.write_result(result)
    return TrainRun(result, models, [(test, predictions)], uncertainty=uncertainty)


def _load_finished(session: Session, images: Images) -> TrainRun:
    """Return a finished run: its result, its models, and their predictions on the test images."""
    assert session.finished
    config = session.config
    splits = split_images(images, config.data, config.run.seed)
    prepared = PreparedRun(config, images.hide(splits.rest), splits, None)
    models = prepared.models = session.load_models(pick_device(config.learn.device))
    tests = [(prepared.test, prepared.predict_test(models, session.cache))]
    return TrainRun(session.finished, models, tests, uncertainty=find_uncertainty(config.run.out))
