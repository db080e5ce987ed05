"""Fits one category twice on a cluster of several nodes: undisturbed, and with a node killed.

Run by ``test_campaign_resume.py`` in a process of its own: arguments are the data root, a folder,
where it writes ``told.json``, and in which part of a night the node is killed: ``fit``, or
``features``, where none comes in its place.
"""

import json
import logging
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from nfbmr.config import load_config
from nfbmr.data.layouts import discover
from nfbmr.train.category_fit import CategoryTask
from nfbmr.train.category_tasks import Preparation, make_tasks, pictures_of, split_categories
from nfbmr.train.feature_index import Picture
from nfbmr.train.features import compute_features
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_queue import QueueHooks, fit_categories
from nfbmr.train.ray_fit import Fitted

SETTINGS = (
    "backbone.image_size_px=128",
    "calibration.false_alarm_rate=0.1",
    "fit.min_steps=1",
    "fit.flow_epochs=5",
    "fit.mapper_epochs=400",
    "night.checkpoint_interval_s=0",
    "run.cpus_per_fit=2",
)


def main(data: str, folder: Path) -> None:
    """The driver's node has no cores, so that the worker is on the other one."""
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "300"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    node = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    task = make_task(data, folder)
    lost_after: list[object] = []

    def lose(_: str, epoch: EpochLosses) -> None:
        if not lost_after and epoch.stage == "mapper" and epoch.epoch >= 2:
            lost_after.extend([epoch.stage, epoch.epoch])
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=2)

    undisturbed = fit(replace(task, state_root=str(folder / "one")), folder, QueueHooks())
    disturbed = fit(replace(task, state_root=str(folder / "two")), folder, QueueHooks(epoch=lose))
    told = {"lost_after": lost_after, "undisturbed": undisturbed, "disturbed": disturbed}
    (folder / "told.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


def main_of_features(data: str, folder: Path) -> None:
    """Features of all pictures on two nodes of a core each, of which one is left in the end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    config = load_config(None, (*SETTINGS, "run.decode_batch_size=4"), "small")
    pictures = [Picture(sample.uri) for sample in discover(data, "mvtec")]
    lost_after: list[int] = []
    said: list[str] = []

    def lose(done: int, total: int) -> None:
        if not lost_after and done >= total // 4:
            lost_after.append(done)
            cluster.remove_node(nodes[0], allow_graceful=False)

    root = str(folder / "features")
    index = compute_features(pictures, config.backbone, root, config.run, lose, say=said.append)
    told = {
        "lost_after": lost_after,
        "pictures": sorted({picture.uri for picture in pictures}),
        "entries": sorted(picture.uri for picture in index.entries),
        "errors": sorted(index.errors.values()),
        "said": said,
    }
    (folder / "told.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


def make_task(data: str, folder: Path) -> CategoryTask:
    """Of the first category."""
    config = load_config(None, SETTINGS, "small")
    samples = discover(data, "mvtec")
    own = [sample for sample in samples if sample.category == samples[0].category]
    splits, _ = split_categories(own, config)
    pictures = [p for split in splits.values() for p in pictures_of(split)]
    root = str(folder / "features")
    index = compute_features(pictures, config.backbone, root, config.run)
    (task,), _ = make_tasks(splits, Preparation(config, root, index))
    return task


def fit(task: CategoryTask, folder: Path, hooks: QueueHooks) -> list[dict[str, object]]:
    """Losses of all epochs."""
    (outcome,) = fit_categories([task], task.config.run, str(folder / "runs"), hooks)
    assert isinstance(outcome, Fitted), outcome
    return [asdict(epoch) for epoch in outcome.report.losses]


if __name__ == "__main__":
    {"fit": main, "features": main_of_features}[sys.argv[3]](sys.argv[1], Path(sys.argv[2]))
