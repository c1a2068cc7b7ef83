"""A call's arguments as a model, or a refusal in our own words, with the call that was probably meant.

Callers are language models and strict clients: they send null and "" for whatever they leave unset, numbers with
their unit, and names from other tools. A `fix` is offered only where it validates and means the same.
"""

import difflib
import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .errors import AdAgentError, Fix, invalid
from .fields import AT_MOST, GENERATE, HINTS, OTHER_TOOLS, WIDE_AS
from .texts import Text, say

Arguments = dict[str, Any]
Fault = Mapping[str, Any]
"""What pydantic says of one value."""
_M = TypeVar("_M", bound=BaseModel)

MAX_FIX_CHARACTERS = 4000
"""A ready call that is longer, as one with a picture in base64, helps nobody."""
MAX_MESSAGE_CHARACTERS = 1500
_SHORT_SIDE_PX, _LONGEST_SIDE_PX = 1024, 2048
_TYPO = 0.8
"""`difflib` ratio from which a name is a misspelt one."""
_UNSET_WORDS = ("", "null", "None", "undefined")
_NUMBER = re.compile(r"(\d[\d,_ ]*?(?:\.\d+)?)\s*(px|pixels?|s|secs?|seconds?|steps?|%)?", re.IGNORECASE)
_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*(?:px)?\s*(?:x|×|\*|:|/|,|by)\s*(\d+(?:\.\d+)?)\s*(?:px)?", re.IGNORECASE)
_PICTURE_ENDING = re.compile(r"(?<=.)\.(png|jpe?g|webp)$")
_ANY = {"seed": (-1, "-1", "random"), "pause_after_step": (0, "0", "none", "no"), "status": ("all", "any")}
"""What other tools call leaving an argument out."""
_SYNONYMS = {
    "middle": "center",
    "done": "completed",
    "finished": "completed",
    "queued": "pending",
    "cancelled": "stopped",
    "canceled": "stopped",
    "result": "final",
    "redraw": "redo",
    "retry": "redo",
}
"""Other words for one of a few choices."""


def read_arguments(tool: str, model: type[_M], given: Arguments) -> _M:
    """The arguments of one call.

    Args:
        tool: its name, for the fix.
        model: what it takes; a tool that takes nothing ignores what it is sent.
        given: as it came.

    Raises:
        AdAgentError: `invalid_request`, naming the argument and what it may be.
    """
    if not model.model_fields:
        return model()
    if unknown := [name for name in given if name not in model.model_fields]:
        raise _unknown(tool, model, given, unknown)
    arguments = {
        name: _parsed(model, name, value) for name, value in given.items() if not _is_unset(model, name, value)
    }
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        raise invalid_arguments(error, fix=_ready(tool, model, arguments)) from error


def invalid_arguments(error: ValidationError, *, fix: Fix | None = None) -> AdAgentError:
    """A validation failure in words for an agent: every field, what is wrong with it, no library jargon."""
    faults: list[Text] = []
    first: str | None = None
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0])[:80] if detail["loc"] else "request"
        first = first or name
        faults.append(say("contract.fault", name=name, what=problem(detail)))
    return invalid(say("contract.faults", faults=_few(faults)), field=first, fix=fix)


def _few(told: Iterable[Text]) -> list[Text]:
    """As many of these as one message holds, each once."""
    kept: dict[str, Text] = {}
    for one in told:
        if sum(map(len, kept)) < MAX_MESSAGE_CHARACTERS:
            kept[one.en] = one
    return list(kept.values())


def problem(detail: Fault) -> Text:
    """What is wrong with one value, as the end of a sentence that begins with its name."""
    context, value = detail.get("ctx", {}), detail.get("input")
    match detail["type"]:
        case kind if detail["loc"][:1] == ("product_box",) and kind != "value_error":
            wanted = say("contract.fault_box")
        case "missing":
            return say("contract.fault_missing")
        case "extra_forbidden":
            return say("contract.fault_unknown")
        case "value_error":
            return say("contract.fault_reason", reason=context["error"])
        case "enum" | "literal_error":
            wanted = say("contract.fault_choice", choices=context["expected"].replace(" or ", ", "))
        case "greater_than_equal":
            wanted = say("contract.fault_at_least", least=context["ge"])
        case "less_than_equal":
            wanted = say("contract.fault_at_most", most=context["le"])
        case "string_too_long":
            return say("contract.fault_too_long", most=context["max_length"], count=len(str(value)))
        case "string_too_short":
            return say("contract.fault_empty")
        case kind:
            wanted = _KINDS.get(kind.partition("_")[0], say("contract.fault_kind"))
    shown = repr(value)
    return say("contract.fault_got", wanted=wanted, value=shown) if len(shown) <= 60 else wanted


_KINDS = {
    "int": say("contract.fault_whole_number"),
    "float": say("contract.fault_number"),
    "finite": say("contract.fault_number"),
    "bool": say("contract.fault_boolean"),
    "string": say("contract.fault_text"),
    "dict": say("contract.fault_object"),
}


def _is_unset(model: type[BaseModel], name: str, value: object) -> bool:
    """Whether a value only says that nothing was chosen: null, "", and their names where no prose is expected."""
    if value is None or value == "":
        return True
    is_prose = name == "text_content" or (name in GENERATE and GENERATE[name].is_prompt)
    return not is_prose and value in _UNSET_WORDS and value not in _options(model, name)


def _parsed(model: type[BaseModel], name: str, value: object) -> object:
    """Some hosts send lists and objects as JSON text; words stay words."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        annotation = str(model.model_fields[name].annotation)
        if "tuple" in annotation or "dict" in annotation or "list" in annotation:
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
    return value


def _unknown(tool: str, model: type[BaseModel], given: Arguments, unknown: list[str]) -> AdAgentError:
    """The refusal of arguments that the tool does not have."""
    renamed = {name: value for name, value in given.items() if name not in unknown}
    told: list[Text] = []
    is_understood = True
    for name in unknown:
        meant, hint = _meaning(tool, model, name, given[name])
        shown = repr(name[:80])
        told.append(say("contract.hinted", name=shown, hint=hint) if hint else say("contract.named", name=shown))
        is_understood = is_understood and bool(meant) and renamed.keys().isdisjoint(meant)
        renamed |= meant
    named = say(
        "contract.unknown_argument" if len(told) == 1 else "contract.unknown_arguments", tool=tool, told=_few(told)
    )
    faults = [named]
    if all(one.key == "contract.named" for one in told):
        faults.append(say("contract.known_arguments", known=list(model.model_fields)))
    fix = _ready(tool, model, renamed) if is_understood else None
    return invalid(say("contract.faults", faults=faults), field=unknown[0][:80], fix=fix)


def _meaning(tool: str, model: type[BaseModel], name: str, value: object) -> tuple[Arguments, Text | None]:
    """The arguments that an unknown one stands for, as far as that is certain, and what to tell of it."""
    known = model.model_fields
    spoken = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:80]).lower().replace("-", "_").replace(" ", "_")
    if {"width", "height"} <= known.keys() and spoken in WIDE_AS:
        return _wide(value), say("contract.hint_size")
    if tool == "generate":
        rows = {field: row.aliases for field, row in GENERATE.items()}
        if spoken in HINTS:
            return {}, HINTS[spoken]
    else:
        rows = OTHER_TOOLS
    meant = [field for field in known if spoken in (field, *rows.get(field, ()))]
    meant = meant or difflib.get_close_matches(spoken, known, n=1, cutoff=_TYPO)
    return ({meant[0]: value}, say("contract.did_you_mean", name=repr(meant[0]))) if meant else ({}, None)


def _wide(value: object) -> Arguments:
    """Width and height of a size or an aspect ratio, or nothing when it is neither."""
    if isinstance(value, dict):
        value = [cast(Arguments, value).get(side) for side in ("width", "height")]
    if isinstance(value, list):
        value = "x".join(str(side) for side in cast(list[object], value))
    text = str(value).strip()
    pair = _PAIR.fullmatch(text) or _PAIR.fullmatch(f"{text}x{text}")
    if pair is None or 0 in (width := float(pair[1]), height := float(pair[2])):
        return {}
    if min(width, height) < 64:  # a ratio
        scale = min(_SHORT_SIDE_PX / min(width, height), _LONGEST_SIDE_PX / max(width, height))
        width, height = width * scale, height * scale
    return {"width": round(width), "height": round(height)}


def _ready(tool: str, model: type[BaseModel], arguments: Arguments) -> Fix | None:
    """The call with its arguments mended where it is plain what they mean; None where something stays wrong."""
    for _ in range(3):  # a value with a unit may then be over the limit
        try:
            model.model_validate(arguments)
        except ValidationError as error:
            mended = _mended(model, arguments, error.errors(include_url=False))
            if mended is None:
                return None
            arguments = mended
        else:
            is_short = len(json.dumps(arguments, default=str)) < MAX_FIX_CHARACTERS
            return Fix(tool=tool, arguments=arguments) if is_short else None
    return None


def _mended(model: type[BaseModel], arguments: Arguments, faults: Iterable[Fault]) -> Arguments | None:
    mended = dict(arguments)
    for fault in faults:
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if name not in mended:
            return None
        value = mended[name]
        if (value.lower() if isinstance(value, str) else value) in _ANY.get(name, ()):
            del mended[name]
            continue
        found = next((new for mend in _MENDS if (new := mend(model, name, value, fault)) is not None), None)
        if found is None or found == value:
            return None
        mended[name] = found
    return mended


def _to_option(model: type[BaseModel], name: str, value: object, fault: Fault) -> object:
    """The one choice that a word names: in capitals, with an ending, among other words, or misspelt."""
    options = {str(option).lower(): option for option in _options(model, name)}
    text = _PICTURE_ENDING.sub("", str(value)[:80].strip().lower())
    words = [_SYNONYMS.get(word, word) for word in re.split(r"[^a-z0-9]+", text)]
    named = [option for spelt, option in options.items() if spelt == text] or [
        option for spelt, option in options.items() if spelt in words
    ]
    if sorted(words) == sorted({"center", *map(str, named)}) and len(named) == 2:  # the middle of the top
        named = [option for option in named if option != "center"]
    if not named:
        named = [options[close] for close in difflib.get_close_matches(text, options, n=1, cutoff=_TYPO)]
    return named[0] if len(named) == 1 else None


def _to_number(model: type[BaseModel], name: str, value: object, fault: Fault) -> object:
    """A number that stands in a text, with thousands or a unit."""
    if isinstance(value, float) and name in AT_MOST:
        return int(value)
    found = _NUMBER.fullmatch(value.strip()[:40]) if isinstance(value, str) else None
    if found is None or fault["type"].partition("_")[0] not in ("int", "float", "literal"):
        return None
    number = float(re.sub("[,_ ]", "", found[1])) / (100 if found[2] == "%" else 1)
    return int(number) if number.is_integer() else number


def _to_limit(model: type[BaseModel], name: str, value: object, fault: Fault) -> object:
    """As much as there may be, for what only says how much."""
    return fault.get("ctx", {}).get("le") if name in AT_MOST else None


def _to_box(model: type[BaseModel], name: str, value: object, fault: Fault) -> object:
    """A box that came as an object or as text."""
    if name != "product_box":
        return None
    if isinstance(value, dict):
        sides = {str(side): number for side, number in cast(Arguments, value).items() if isinstance(number, int)}
        for names in _BOX_NAMES:
            if sides.keys() == set(names):
                x, y, right, bottom = (sides[side] for side in names)
                is_corner = names[2] in ("x2", "right")
                return [x, y, right - x, bottom - y] if is_corner else [x, y, right, bottom]
    numbers = re.findall(r"-?\d+", value[:200]) if isinstance(value, str) and "." not in value else []
    return [int(number) for number in numbers] if len(numbers) == 4 else None


_BOX_NAMES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)


def _to_one(model: type[BaseModel], name: str, value: object, fault: Fault) -> object:
    """The only member of a list, where one value is taken."""
    if not isinstance(value, list) or name == "product_box" or len(cast(list[object], value)) != 1:
        return None
    return cast(list[object], value)[0]


_MENDS: tuple[Callable[[type[BaseModel], str, object, Fault], object], ...] = (
    _to_option,
    _to_number,
    _to_limit,
    _to_box,
    _to_one,
)


def _options(model: type[BaseModel], name: str) -> tuple[object, ...]:
    """The values of a field that has a few of them."""
    field = model.model_fields[name]
    found: list[object] = []
    for option in (field.annotation, *get_args(field.annotation)):
        if isinstance(option, type) and issubclass(option, enum.Enum):
            found += [member.value for member in option]
        elif get_origin(option) is Literal:
            found += get_args(option)
    return tuple(found)
