"""A shipped model's card: Markdown written from its card.json, and its best and worst picture."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from manas_lite import DerainNet, derain, evaluate, open_split

GAP, WIDTH = 8, 960  # white pixels between the pictures, and across the sheet


def pictures(net: DerainNet, path: Path) -> None:
    """The bundled test photographs of largest and smallest gain, rainy | derained | clean, one above the other."""
    scenes = open_split("photos").test
    rows = evaluate(net, scenes, measures=("psnr",)).rows
    by_gain = sorted(rows, key=lambda row: row["psnr_rgb"] - row["rainy_psnr_rgb"])
    strips = []
    for row in (by_gain[-1], by_gain[0]):
        (scene,) = (scene for scene in scenes if scene.name == row["scene"])
        rainy, clean = scene.read()
        image = rainy[scene.labels.index(row["label"])]
        strip = np.concatenate([image, derain(image, net), clean], axis=1)
        strips.append(Image.fromarray(strip).resize((WIDTH, round(WIDTH * strip.shape[0] / strip.shape[1]))))
    sheet = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips) + GAP), "white")
    sheet.paste(strips[0], (0, 0))
    sheet.paste(strips[1], (0, strips[0].height + GAP))
    sheet.save(path, quality=70)


def card_text(card: dict[str, Any]) -> str:
    """The model card as Markdown: everything in it is a field of card.json."""
    name, settings = card["name"], card["retrain"]["settings"]
    rows = [
        "| test pictures | | PSNR Y | SSIM Y | PSNR RGB | SSIM RGB |",
        "|---|---|---|---|---|---|",
    ]
    known = symmetries(card)
    for test, kinds in card["tests"].items():
        several = f"{name}, self-ensemble of {known}"
        cells = {"rainy input": ("rainy_", "single"), name: ("", "single"), several: ("", "ensemble")}
        for label, (prefix, kind) in cells.items():
            m = kinds[kind]
            values = [f"{m[f'{prefix}psnr_y']:.2f}", f"{m[f'{prefix}ssim_y']:.4f}"]
            values += [f"{m[f'{prefix}psnr_rgb']:.2f}", f"{m[f'{prefix}ssim_rgb']:.4f}"]
            rows.append(f"| {test} | {label} | " + " | ".join(values) + " |")
    device = ", ".join(card["machine"]["gpus"]) or f"{card['machine']['cpu']['name']}, CPU"
    speed = card["speed"]
    made = (
        f"{started(card)}On the clock, beside other work: search {card['search']['seconds'] / 60:.0f} minutes; "
        f"retraining {stage(card['retrain'])}{tuned(card)}; {device}, {card['machine']['date']}, torch "
        f"{card['machine']['versions']['torch']}, seed {settings['seed']}. All settings are in card.json; the losses "
        f"of the first 100 steps are in `results/models/{name}/first_steps.json`."
    )
    upright = "" if known > 2 else "It knows rain that falls down: turn a picture upright before you derain it."
    seen = f"\n\n{filled(card['seen'])}\n\n" if card.get("seen") else ""
    return f"""{header(card)}# {name}

{card["about"]}

`manas_lite.load("{name}")`: {card["parameters"] / 1e6:.3f} M parameters, {card["flops_256"] / 1e9:.2f} GFLOPs on
256 x 256 pixels (a multiply-add counted as two). Genotype {card["genotype"]}, found by this kit's search
within {card["search"]["settings"]["budget"] / 1e9:g} GFLOPs.

{chr(10).join(rows)}

Outputs clamped, not rounded; Y as MATLAB's `rgb2ycbcr`, SSIM with the 11 x 11 Gaussian on the valid area; means over
pictures. Every picture's values: `results/models/{name}/`. Everything was chosen on validation scenes.
{opened(card["openings"], next(iter(card["tests"])))}

{on_photographs(card["photographs"])}

A picture of 481 x 321 pixels takes {speed["seconds"]:.2f} s on one thread of this machine's CPU, a network of PReNet's
shape {speed["prenet_seconds"]:.2f} s (0.169 M parameters; its authors report 66.6 G multiply-adds on 256 x 256).

## How it was made

```
python scripts/train_models.py {name} --data FOLDER --threads {card["threads"]} --precision {card["precision"]} --ship
```

{filled(made)}

## Limits

{filled(f"One seed. {card['data_note']} {upright}")}
It removes streaks; drops on a lens, haze and wet roads are not what it was trained on, and on real photographs it may
do little.{seen or " "}Below: the bundled test photographs on which it gains most (upper row) and least,
rainy | derained | clean, under this kit's synthetic rain (photographs: see LICENCES.md of manas_lite/assets/photos).

![rainy, derained, clean](pictures.jpg)

The weights may be used like the package (MIT); the training pictures are not redistributed, and their sets ask for
research use.
"""


def on_photographs(found: dict[str, dict[str, float]]) -> str:
    """What the model does to the bundled photographs under this kit's rain, its failures included."""
    rains = [name for name in found if name != "dry"]
    gains = "; ".join(
        f"{level} {found[level]['mean']:+.1f} (worst {found[level]['worst']:+.1f}; {found[level]['worse']} of "
        f"{found[level]['n']} end worse than they came)"
        for level in rains
    )
    dry = found["dry"]
    text = (
        f"On the {dry['n']} bundled photographs under this kit's rain, dB of PSNR (RGB) gained: {gains}. A dry "
        f"photograph comes back at {dry['mean']:.1f} dB to itself on average, {dry['below_42']} of {dry['n']} below 42 "
        f"dB, {dry['worst']:.1f} dB at worst: what looks like a streak and is none, such as a thin bright pole, "
        "may be smeared."
    )
    return filled(text)


def filled(text: str) -> str:
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


def started(card: dict[str, Any]) -> str:
    return f"The training went on from the weights of {card['start']}. " if card["start"] else ""


def header(card: dict[str, Any]) -> str:
    """The card's metadata as the Hugging Face hub reads it: licence, tags, and every score as a result of its set."""
    import yaml

    results = [
        {
            "task": {"type": "image-to-image", "name": "image deraining"},
            "dataset": {"type": test.lower(), "name": f"{test}, pictures at hand"},
            "metrics": [
                {"type": kind, "name": f"{kind.upper()} (Y)", "value": round(kinds["single"][f"{kind}_y"], 4)}
                for kind in ("psnr", "ssim")
            ],
        }
        for test, kinds in card["tests"].items()
    ]
    facts = {
        "license": "mit",
        "library_name": "manas_lite",
        "pipeline_tag": "image-to-image",
        "tags": ["image-deraining", "image-restoration", "neural-architecture-search", "pytorch"],
        "model-index": [{"name": card["name"], "results": results}],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n"


def stage(training: dict[str, Any]) -> str:
    """One training in words."""
    settings = training["settings"]
    return (
        f"{training['steps']:,} steps of {settings['batch']} scenes, patches of {settings['patch']} pixels, "
        f"{training['seconds'] / 60:.0f} minutes"
    )


def tuned(card: dict[str, Any]) -> str:
    """What came after the retraining, with the best validation after each."""
    texts, before = [], card["retrain"]
    for tune in card["tunes"]:
        score, loss = best(tune), tune["settings"]["loss"]["external"]
        alike = before["settings"]["fresh_rain"] == tune["settings"]["fresh_rain"]
        known = (
            f"validation {best(before):.2f} dB, then {score:.2f} dB RGB" if alike else f"validation {score:.2f} dB RGB"
        )
        upright = "" if symmetries_of(tune) == 8 else ", no quarter turns"
        texts.append(f"; then tuned by `{loss}` alone, {stage(tune)}{upright} ({known})")
        before = tune
    return "".join(texts)


def symmetries(card: dict[str, Any]) -> int:
    """In how many symmetries the last training of a card, or of what becomes one, showed its patches."""
    return symmetries_of((card["retrain"], *card["tunes"])[-1])


def symmetries_of(training: dict[str, Any]) -> int:
    return int(training["settings"].get("symmetries", 8))


def best(training: dict[str, Any]) -> float:
    return float(max(score for _, score in training["validation"]))


def opened(openings: list[dict[str, str]], test: str) -> str:
    """How often the test pictures were looked at, and what each model scored on them."""
    if len(openings) == 1:
        return "The test pictures were opened once."
    each = [f"{float(row[test]):.2f} dB on {row['date']} after {int(row['steps']):,} steps" for row in openings]
    return filled(f"The test pictures were opened {len(openings)} times (Y, {test}): {', '.join(each)}.")
