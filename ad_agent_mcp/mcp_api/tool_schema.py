"""JSON schemas that agents can afford to read, and arguments checked by our own words.

The SDK derives schemas from signatures, with titles and nested definitions; here they come from pydantic
models and are flattened. Output schemas stay open: some clients drop an error result that misses them.
"""

from collections.abc import Collection
from typing import Annotated, Any, cast

from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import BaseModel, WithJsonSchema

from ..contract.arguments import read_arguments

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
        return {"arguments": read_arguments(self.tool_name, self.arguments, arguments_to_validate)}

    def convert_result(self, result: Any) -> CallToolResult | InputRequiredResult:
        return result


def input_schema(model: type[BaseModel]) -> Schema:
    """The schema of a tool's arguments: flat, without titles; one that may be left out may be null."""
    schema = model.model_json_schema()
    flat = _flattened(schema, schema.get("$defs", {}))
    kept = {key: flat[key] for key in ("type", "properties", "required") if key in flat}
    kept["properties"] = {name: _nullable(value) for name, value in flat["properties"].items()}
    return {**kept, "additionalProperties": False}


def output_schema(model: type[BaseModel], published: Collection[str] = ()) -> Schema:
    """The open schema of a tool's result: property types only, nothing required, always with `error`.

    Args:
        model: the result.
        published: the properties that are named; all where none are given.
    """
    schema = model.model_json_schema(mode="serialization", by_alias=True)
    flat = _flattened(schema, schema.get("$defs", {}))
    properties = {name: _type_only(flat["properties"][name]) for name in published or flat["properties"]}
    return {"type": "object", "properties": {**properties, "error": {"type": ["object", "null"]}}}


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


def _nullable(schema: Schema) -> Schema:
    """`{anyOf: [X, null], default: null}` in the shorter spelling that more clients understand."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) != 1 or len(schema["anyOf"]) != 2:
        return schema
    (option,) = options
    plain = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    if "enum" in option:
        option = {**option, "enum": [*option["enum"], None]}
    return {**plain, **option, "type": [option["type"], "null"]}


def _type_only(schema: Schema) -> Schema:
    if "anyOf" not in schema:
        return {"type": schema.get("type", "object")}
    return {"type": list(dict.fromkeys(option.get("type", "object") for option in schema["anyOf"]))}
