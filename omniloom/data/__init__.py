"""Room 6: sources of samples, their media, their mixture into batches, cached rows, and checks.

source = open_source({"type": "jsonl", "path": "pets/", "split": "train"}, run.base_folder)
mixture = Mixture({"pets": source}, {"pets": 1.0}, seed=0, batch=16)
batch = [load_media(source[index], {"image": "image"}, root=source.media_root) for _, index in mixture("align", 0)]
"""

from omniloom.data.cache import CacheStats, FeatureCache
from omniloom.data.checks import SourceReport, check_data, check_source, check_splits
from omniloom.data.loading import MediaLoader, load_media
from omniloom.data.mixture import Mixture
from omniloom.data.records import OPENAI_PARTS, modality_of, parse_line, parse_messages, parse_record
from omniloom.data.sources import CsvSource, FolderSource, JsonlSource, Source, open_source
from omniloom.data.splits import split_by_group

__all__ = [
    "OPENAI_PARTS",
    "CacheStats",
    "CsvSource",
    "FeatureCache",
    "FolderSource",
    "JsonlSource",
    "MediaLoader",
    "Mixture",
    "Source",
    "SourceReport",
    "check_data",
    "check_source",
    "check_splits",
    "load_media",
    "modality_of",
    "open_source",
    "parse_line",
    "parse_messages",
    "parse_record",
    "split_by_group",
]
