"""What a campaign on several nodes needs is seen by all of them, or it does not begin."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from nfbmr import storage, store_folders
from nfbmr.config import Config
from nfbmr.data.sample import Sample
from nfbmr.shared_places import check_seen_by_all_nodes, has_several_nodes, weights_in_files
from nfbmr.store_faults import store_sentences
from nfbmr.train.campaign_state import CampaignPaths


def check_places(samples: Sequence[Sample], config: Config, paths: CampaignPaths) -> None:
    """Refuse a campaign where a node does not see the pictures, the weights or the work directory.

    Otherwise detectors would be fitted without the pictures that such a node was to read, and
    fits would look for features that another node wrote on a disk of its own. Of the work
    directory a new file is asked for: a folder of this name may be there from an earlier night.

    Args:
        samples: of which one of every category is asked for.
        config: with the weights.
        paths: in the work directory.

    Raises:
        OutputError: a node does not see something.
        StoreError: nothing can be written to the work directory.
    """
    if not has_several_nodes():
        return
    pictures = {sample.category: sample.uri for sample in samples}
    folders = [folder for folder in (paths.features, paths.checkpoints) if "://" not in folder]
    name = f"seen-{uuid.uuid4().hex}.partial"  # Removed with other leftovers where it stays.
    with store_sentences("Writing to the work directory"):
        try:
            for folder in folders:
                storage.write_atomically(storage.join(folder, name), b"")
            written = [storage.join(folder, name) for folder in folders]
            weights = weights_in_files([config.backbone.weights])
            check_seen_by_all_nodes([*written, *weights, *pictures.values()])
        finally:
            for folder in folders:
                store_folders.remove_files(folder, [name])
