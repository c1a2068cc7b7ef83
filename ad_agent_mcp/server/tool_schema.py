"""JSON schemas that agents can afford to read, and arguments checked by our own words.

The SDK derives schemas from signatures, with titles and nested definitions; here they come from pydantic
models and are flattened. Output schemas stay open: some clients drop an error result that misses them.
"""

import difflib
import json
from typing import Annotated, Any, cast

from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import BaseModel, ValidationError, WithJsonSchema

from ..contract.errors import Fix, invalid
from .intake import invalid_arguments

Schema = dict[str, Any]


class ToolMetadata(FuncMetadata):
    """How one tool's arguments are read: the tool function gets them as one model called `arguments`."""

    tool_name: str
    arguments: Annotated[type[BaseModel], WithJsonSchema(None)]

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments as a model.

        Raises:
            AdAgentError: `invalid_request`, naming the argument, the nearest known one, and the limits.
        """
        known = list(self.arguments.model_fields)
        for name in arguments_to_validate:
            if name not in known:
                raise _unknown_argument(self.tool_name, name, known, arguments_to_validate)
        given = {name: self._parsed(name, value) for name, value in arguments_to_validate.items()}
        try:
            return {"arguments": self.arguments.model_validate(given)}
        except ValidationError as error:
            raise invalid_arguments(error) from error

    def convert_result(self, result: Any) -> CallToolResult | InputRequiredResult:
        return result

    def _parsed(self, name: str, value: object) -> object:
        """Some hosts send lists and objects as JSON text; words stay words."""
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            annotation = str(self.arguments.model_fields[name].annotation)
            if "tuple" in annotation or "dict" in annotation or "list" in annotation:
                try:
                    return json.loads(value)
                except (ValueError, RecursionError):
                    return value
        return value


def input_schema(model: type[BaseModel]) -> Schema:
    """The schema of a tool's arguments: flat, without titles."""
    schema = model.model_json_schema()
    flat = _flattened(schema, schema.get("$defs", {}))
    kept = {key: flat[key] for key in ("type", "properties", "required") if key in flat}
    return {**kept, "additionalProperties": False}


def output_schema(model: type[BaseModel]) -> Schema:
    """The open schema of a tool's result: property types only, nothing required, always with `error`."""
    schema = model.model_json_schema(mode="serialization", by_alias=True)
    flat = _flattened(schema, schema.get("$defs", {}))
    properties = {name: _type_only(value) for name, value in flat["properties"].items()}
    return {"type": "object", "properties": {**properties, "error": {"type": ["object", "null"]}}}


def _unknown_argument(tool: str, name: str, known: list[str], given: dict[str, Any]) -> Exception:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    fix = None
    if near and near[0] not in given and len(json.dumps(given, default=str)) < 4000:
        fix = Fix(tool=tool, arguments={near[0] if key == name else key: value for key, value in given.items()})
    meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}."
    return invalid(f"{tool} has no argument {name[:80]!r}; {meant}", field=name[:80], fix=fix)


def _flattened(node: Any, definitions: Schema) -> Any:
    """Without titles and references."""
    if isinstance(node, list):
        return [_flattened(item, definitions) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    node = cast(Schema, node)
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        target = {key: value for key, value in definitions[name].items() if key != "description"}
        return _flattened({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    return {
        key: _flattened(value, definitions)
        for key, value in node.items()
        if key != "$defs" and (key != "title" or isinstance(value, dict))  # a property may be called title
    }


def _type_only(schema: Schema) -> Schema:
    if "anyOf" not in schema:
        return {"type": schema.get("type", "object")}
    return {"type": list(dict.fromkeys(option.get("type", "object") for option in schema["anyOf"]))}
