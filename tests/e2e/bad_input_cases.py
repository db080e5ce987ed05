"""Command lines that cannot work: each with its exit code and words of its one sentence.

``{tmp}``, ``{data}`` and so on stand for what ``test_bad_input.places`` makes.
"""

from collections.abc import Callable

import jobs.benchmark
import jobs.evaluate
import jobs.pretrain
import jobs.report
import jobs.score
import jobs.train
from nfbmr import cli

Main = Callable[[list[str]], int]

TRAIN = "--data {data} --layout mvtec --work-dir {tmp}/work --set calibration.false_alarm_rate=0.1"
SCORE = "{archive} --output {tmp}/out --work-dir {work}"
EVALUATE = "--output {tmp}/out --work-dir {work} --data "

CASES: list[tuple[str, Main, str | list[str], int, list[str]]] = [
    ("missing data root", jobs.train.main, "--data {tmp}/none", 3, ["none does not exist"]),
    ("empty data root", jobs.train.main, "--data {tmp}/empty", 3, ["is empty", "pictures"]),
    ("data root is a file", jobs.train.main, "--data {archive}", 3, ["is a file", "folder"]),
    ("unknown layout", jobs.train.main, "--data {data} --layout mvtek", 3, ["mvtek", "mvtec"]),
    ("wrong layout", jobs.train.main, "--data {data} --layout dagm", 3, ["dagm", "--layout"]),
    ("unknown protocol", jobs.train.main, "--data s4://x/y", 3, ["s4://x/y", "listed"]),
    (
        "no normal pictures",
        jobs.train.main,
        "--data {tmp}/only-defective --layout folder --work-dir {tmp}/work",
        3,
        ["has normal pictures to train on"],
    ),
    ("no address", jobs.train.main, ["--data", ""], 2, ["is empty", "variable"]),
    ("score nothing named", jobs.score.main, ["", "--output", "{tmp}/out"], 2, ["is empty"]),
    (
        "score an empty prefix",
        jobs.score.main,
        "{tmp}/empty --output {tmp}/out",
        3,
        ["no pictures"],
    ),
    (
        "evaluate a missing root",
        jobs.evaluate.main,
        EVALUATE + "{tmp}/none",
        3,
        ["none does not exist"],
    ),
    ("evaluate an empty root", jobs.evaluate.main, EVALUATE + "{tmp}/empty", 3, ["is empty"]),
    (
        "evaluate an unknown layout",
        jobs.evaluate.main,
        EVALUATE + "{data} --layout mvtek",
        3,
        ["mvtek", "mvtec"],
    ),
    (
        "evaluate an unknown category",
        jobs.evaluate.main,
        EVALUATE + "{data} --categories {near}",
        3,
        ["{near}", "{category}"],
    ),
    ("output is a file", jobs.score.main, "{archive} --output {archive}", 7, ["is a file"]),
    ("output below a file", jobs.score.main, "{archive} --output {archive}/x/y", 7, ["is a file"]),
    ("output of no protocol", jobs.score.main, "{archive} --output s4://x/y", 7, ["protocol"]),
    ("status of no protocol", jobs.score.main, "--status --output s4://x/y", 7, ["protocol"]),
    (
        "dry run of no protocol",
        jobs.score.main,
        "{archive} --dry-run --output s4://x/y",
        7,
        ["protocol"],
    ),
    (
        "dry run below a file",
        jobs.score.main,
        "{archive} --dry-run --output {archive}/x",
        7,
        ["is a file"],
    ),
    (
        "retry of no protocol",
        jobs.score.main,
        "--retry-failed --output s4://x/y",
        7,
        ["protocol"],
    ),
    (
        "retry below a file",
        jobs.score.main,
        "--retry-failed --output {archive}/x",
        7,
        ["is a file"],
    ),
    (
        "any depth twice",
        jobs.score.main,
        "{tmp}/**/a/**/*.jpg --output {tmp}/out --work-dir {work}",
        3,
        ["more than once"],
    ),
    (
        "evaluation into a file",
        jobs.evaluate.main,
        "--data {data} --work-dir {work} --output {archive}",
        7,
        ["is a file"],
    ),
    (
        "report into a folder",
        jobs.report.main,
        "--scores {tmp}/none --output {tmp}/empty",
        7,
        ["is a folder", "file in it"],
    ),
    (
        "report of a file",
        jobs.report.main,
        "--scores {archive} --output {tmp}/r.html",
        7,
        ["is a file"],
    ),
    (
        "no folder for the numbers",
        jobs.benchmark.main,
        "plan --json {archive}/x.json",
        7,
        ["is a file"],
    ),
    (
        "no folder for the night's table",
        jobs.train.main,
        TRAIN + " --json {archive}/x",
        7,
        ["is a file"],
    ),
    (
        "the night's table is a folder",
        jobs.train.main,
        TRAIN + " --json {tmp}/empty",
        7,
        ["is a folder"],
    ),
    (
        "weights into a folder",
        jobs.pretrain.main,
        "--output {tmp}/empty",
        7,
        ["is a folder", "file in"],
    ),
    ("TOML is a folder", jobs.train.main, TRAIN + " --config {tmp}/empty", 2, ["cannot be read"]),
    (
        "TOML of no protocol",
        jobs.train.main,
        TRAIN + " --config s4://x.toml",
        2,
        ["cannot be read"],
    ),
    (
        "preset is a list",
        jobs.train.main,
        TRAIN + " --config {tmp}/list.toml",
        2,
        ["does not exist"],
    ),
    (
        "key without its section",
        jobs.train.main,
        TRAIN + " --set image_size_px=384",
        2,
        ["did you mean 'backbone.image_size_px'"],
    ),
    (
        "weights of no network",
        jobs.train.main,
        TRAIN + " --set backbone.weights=pretrained --set backbone.name=",
        2,
        ["set backbone.name as well"],
    ),
    (
        "too few to calibrate",
        jobs.train.main,
        "--data {tmp}/few --layout folder --work-dir {tmp}/work",
        8,
        ["1 of 1 categories failed: bottle", "needs at least 19 normal pictures"],
    ),
    (
        "unknown category in training",
        jobs.train.main,
        TRAIN + " --categories {near}",
        3,
        ["{near}", "{category}"],
    ),
    (
        "unreadable weights",
        jobs.train.main,
        TRAIN + " --set backbone.weights={tmp}/broken.safetensors",
        4,
        ["not a readable safetensors file"],
    ),
    (
        "missing weights",
        jobs.train.main,
        TRAIN + " --set backbone.weights={tmp}/none.safetensors",
        4,
        ["no such file"],
    ),
    (
        "wrong image size",
        jobs.train.main,
        TRAIN + " --set backbone.name=vit_tiny_patch16_224 --set backbone.weights=random"
        " --set backbone.image_size_px=100",
        2,
        ["backbone.image_size_px = 100", "vit_tiny"],
    ),
    (
        "unknown key",
        jobs.train.main,
        TRAIN + " --set fit.epocs=3",
        2,
        ["'fit.epocs'", "did you mean 'fit."],
    ),
    (
        "no registry in an object store",
        jobs.train.main,
        "--data {data} --work-dir s3://bucket/work",
        2,
        ["--registry"],
    ),
    ("no time of day", jobs.train.main, TRAIN + " --until soon", 2, ["'soon'", "as in 06:00"]),
    ("half is dirty", jobs.train.main, TRAIN + " --set fit.trim_share=0.5", 2, ["below 0.5"]),
    ("unknown preset", jobs.train.main, TRAIN + " --preset papre", 2, ["did you mean 'paper'"]),
    ("broken TOML", jobs.train.main, TRAIN + " --config {tmp}/broken.toml", 2, ["not TOML"]),
    ("missing TOML", jobs.train.main, TRAIN + " --config {tmp}/no.toml", 2, ["does not exist"]),
    (
        "missing archive",
        jobs.score.main,
        "{tmp}/none.tar --output {tmp}/out --work-dir {work}",
        3,
        ["none.tar does not exist"],
    ),
    ("unknown alias", jobs.score.main, SCORE + " --alias chempion", 6, ["'chempion'", "champion"]),
    ("no models", jobs.score.main, SCORE + " --registry sqlite:///{tmp}/m.db", 6, ["train.py"]),
    ("unknown model", jobs.score.main, SCORE + " --category {near}", 6, ["Did you mean"]),
    ("pattern", jobs.score.main, SCORE + " --category-pattern x/", 2, ["--category-pattern"]),
    (
        "output with other files",
        jobs.score.main,
        "{archive} --output {tmp}/strange --work-dir {work}",
        7,
        ["holds files but no plan"],
    ),
    (
        "output with other folders",
        jobs.score.main,
        "{archive} --output {tmp}/above --work-dir {work}",
        7,
        ["holds files but no plan", "strange"],
    ),
    (
        "weights of another network",
        jobs.score.main,
        SCORE + " --weights {tmp}/broken.safetensors",
        4,
        ["not a readable safetensors file"],
    ),
    (
        "unknown alias in evaluation",
        jobs.evaluate.main,
        "--data {data} --output {tmp}/out --work-dir {work} --alias 99",
        6,
        ["'99'"],
    ),
    (
        "report of nothing",
        jobs.report.main,
        "--scores {tmp}/none --output {tmp}/r.html",
        7,
        ["no finished scoring run"],
    ),
    (
        "show an unknown category",
        cli.main,
        "models show {near} --work-dir {work}",
        6,
        ["Did you mean '{category}'"],
    ),
    (
        "show an unknown version",
        cli.main,
        "models show {category} 99 --work-dir {work}",
        6,
        ["no version or alias '99'"],
    ),
    (
        "registry out of reach",
        cli.main,
        "models list --registry http://127.0.0.1:9",
        6,
        ["127.0.0.1:9", "--registry"],
    ),
]
