"""Images that only have a label → a dataset with pseudo-labels for their parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from partseg.layout import DatasetWriter
from partseg.parsing.config import ParserConfig
from partseg.store.trees import canonical_json
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.base_index import load_reading
from pipelines.inputs import Group, chosen, open_dataset
from pipelines.params import Ref, StageParams
from pipelines.pretrained import load_describer
from pipelines.train import load_detector
from pipelines.vocabulary import load_table

VERSION = "1"


class Params(StageParams):
    """What to parse, and with what.

    Attributes:
        detector: the train stage of the base part model.
        vocabulary: embeddings of the part names it looks for.
        descriptors: the vision transformer that the index was built with.
        index: the base images.
        base: the dataset they come from; its categories are the vocabulary that is written.
        base_split: the split they come from.
        base_group: parts the detector was taught. Images of objects of this group go to the detector,
            all others to correspondence transfer.
        images: a dataset with image-level labels.
        split: the split to parse; the result has a split of the same name.
        parser: thresholds; see :class:`partseg.parsing.config.ParserConfig`.
    """

    detector: Ref
    vocabulary: Ref
    descriptors: Ref
    index: Ref
    base: Ref
    base_split: str = "train"
    base_group: Group = "base"
    images: Ref
    split: str = "train"
    parser: ParserConfig = ParserConfig()


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Parse every image of the split."""
    import torch

    from partseg.parsing.detector import ModelDetector
    from partseg.parsing.index import BaseImages, BaseIndex
    from partseg.parsing.parser import parse
    from partseg.parsing.parts import Base

    base, images = open_dataset(inputs[params.base]), open_dataset(inputs[params.images])
    taught = chosen(base.categories, kind="part", group=params.base_group)
    names = [category.name for category in taught]
    part_ids = {category.category_id for category in taught}
    index = BaseIndex.load(inputs[params.index].path)
    describer = load_describer(inputs[params.descriptors], load_reading(inputs[params.index]))
    detector = load_detector(inputs[params.detector])
    run_id = "parse-" + _fingerprint(params, inputs)
    with DatasetWriter(
        out,
        name=f"{images.manifest.name}_parsed",
        categories=base.categories,
        converter={"name": "partseg.parsing.parser", "settings": params.parser.model_dump(mode="json")},
        image_source=images.manifest.image_source,
        parents=[inputs[ref].digest for ref in (params.images, params.base, params.detector)],
        origin="parse",
        run_id=run_id,
    ) as writer:
        return parse(
            params.parser,
            images.split(params.split),
            detector=ModelDetector(
                detector, names, torch.from_numpy(load_table(inputs[params.vocabulary]).rows(names))
            ),
            base=Base(
                index=index,
                images=BaseImages(base.split(params.base_split), index, describer, part_ids=part_ids),
                describer=describer,
                part_names={category.category_id: category.name for category in taught},
            ),
            base_objects={c.name for c in chosen(base.categories, kind="object", group=params.base_group)},
            labels={c.category_id: c.name for c in images.categories},
            writer=writer,
            split=params.split,
            categories=base.categories,
            report=report,
        )


def _fingerprint(params: Params, inputs: Mapping[str, Artifact]) -> str:
    """Names this parse in every annotation it writes, the same wherever it runs."""
    made_from = {"params": params.model_dump(mode="json"), "inputs": [a.digest for a in inputs.values()]}
    return hashlib.sha256(canonical_json(made_from)).hexdigest()[:12]
