"""Does a network, and the engine built from it, compute its convolutions in the type asked for?

A strongly typed network builds what it says, so it is read before the build, which needs no GPU.
The built layers are read where the engine can be deserialised, which takes the GPU it is for.

What the inspector of a built engine says is not specified and has changed over releases. What is
read here: `Weights.Type` ("Half"), else `Format/Datatype` of the inputs ("Row major linear FP16
format", "Half", "N/A due to dynamic shapes"); ONNX nodes from `Metadata` ("[ONNX Layer: conv1]",
more than one where layers were fused), else from `Name` ("conv1 + relu1 [profile 2]").
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sshr_deploy.errors import ExportError, first_line
from sshr_deploy.precision import Precision

_BITS = {Precision.INT8: 8, Precision.FP16: 16, Precision.BF16: 16, Precision.FP32: 32}
_TEXTS = {
    Precision.BF16: re.compile(r"bf16|bfloat16"),
    Precision.FP16: re.compile(r"fp16|half|float16"),
    Precision.INT8: re.compile(r"int8\b"),
    Precision.FP32: re.compile(r"fp32|float"),
}
"""The inspector's words, to be tried in this order: "float" is in "bfloat16" too."""
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PROFILE = re.compile(r"\s*\[profile (\d+)\]\s*$")


def check_network(
    trt: Any, network: Any, precision: Precision, wider: frozenset[str] = frozenset()
) -> dict[str, Precision]:
    """The type of every convolution of a parsed, strongly typed network, by ONNX node.

    A convolution has the type of its input, which the library makes the type of its weights and
    output too. It is INT8 where input and weights both come dequantised from INT8.

    Args:
        trt: the library, as of `import_tensorrt`.
        network: an `INetworkDefinition`.
        precision: what the convolutions have to be.
        wider: ONNX nodes that may have a type of more bits instead.

    Raises:
        ExportError: convolutions have another type, all of them listed; or there are none.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    types, wrong = {}, []
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            found = _network_type(trt, layer, makers)
            if found is not None and _fits(found, precision, layer.name in wider):
                types[layer.name] = found
            else:
                wrong.append(f"{layer.name} ({found or layer.get_input(0).dtype})")
    if wrong:
        raise ExportError(
            f"{len(wrong)} of {len(types) + len(wrong)} convolutions are not {precision}: "
            f"{', '.join(wrong)}; export the graph again as {precision}"
        )
    if not types:
        raise ExportError("the graph has no convolutions; export the checkpoint again")
    return types


def count_types(types: Mapping[str, Precision]) -> dict[str, int]:
    """Convolutions by type, {"fp16": 40}."""
    return {str(name): number for name, number in sorted(Counter(types.values()).items())}


def inspect_engine(trt: Any, logger: Any, plan: Any, types: Mapping[str, Precision]) -> str:
    """Compare the layers of a serialised engine with `types` of its network.

    Args:
        trt: the library, as of `import_tensorrt`.
        logger: of `error_logger`.
        plan: the engine, a buffer made by this process: code in it is allowed to run.
        types: of `check_network`.

    Returns:
        Why the types of all convolutions could not be told (no driver, another GPU, the inspector
        is silent on some or speaks in another form); empty where they were, and are as they should
        be.

    Raises:
        ExportError: convolutions were built in another type, all of them listed.
    """
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = True  # version-compatible engines bring their own runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return f"it cannot be loaded here: {logger.last_errors(3)}"
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return compare_layers(json.loads(text)["Layers"], types)
    except (ValueError, KeyError, TypeError) as error:
        kind = type(error).__name__
        return f"what the inspector says is not understood ({kind}: {first_line(error)})"


def compare_layers(layers: Iterable[Any], types: Mapping[str, Precision]) -> str:
    """`inspect_engine` from the inspector's list of layers: dictionaries, or names alone.

    Raises:
        ExportError: convolutions were built in another type, all of them listed.
    """
    built: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for layer in layers:
        if isinstance(layer, dict) and layer.get("LayerType") != "Reformat":
            for name, profile in _nodes(layer):
                if name in types:
                    built[name, profile].append(layer)
    untold = set(types) - {name for name, _ in built}
    wrong: list[str] = []
    for (name, profile), found in built.items():
        problems = _wrong_types(found, types[name])
        if problems is None:
            untold.add(name)
        for problem in problems or ():
            wrong.append(f"{name}{profile} is {problem}, not {types[name]}")
    if wrong:
        raise ExportError(
            f"the engine was not built in the precision of its graph: {'; '.join(wrong)}; "
            "use another engine or precision"
        )
    return f"its layers do not tell the type of {', '.join(sorted(untold))}" if untold else ""


def _wrong_types(layers: Iterable[Mapping[str, Any]], wanted: Precision) -> list[str] | None:
    """Other types, each with its tactic, in which one convolution is computed; None: untold."""
    computing = [layer for layer in layers if _is_convolution(layer)]
    types = {_built_type(layer): _tactic(layer) for layer in computing or layers}
    types.pop(None, None)
    if not types:
        return None
    # Where the convolution cannot be told from what was fused around it, one layer of its type
    # has to be there.
    if wanted in types and not computing:
        return []
    return [f"{kind} ({tactic})" for kind, tactic in types.items() if kind != wanted]


def _network_type(trt: Any, layer: Any, makers: Mapping[str, Any]) -> Precision | None:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)][:2]  # data, weights
    sources = [makers.get(tensor.name) for tensor in inputs]
    if len(sources) == 2 and all(
        source is not None
        and source.type == trt.LayerType.DEQUANTIZE
        and source.get_input(0).dtype == trt.DataType.INT8
        for source in sources
    ):
        return Precision.INT8
    names = {
        trt.DataType.FLOAT: Precision.FP32,
        trt.DataType.HALF: Precision.FP16,
        trt.DataType.BF16: Precision.BF16,
    }
    tensors = [*inputs, layer.get_output(0)]
    types = {names.get(tensor.dtype) for tensor in tensors}
    return types.pop() if len(types) == 1 else None


def _fits(found: Precision, wanted: Precision, may_be_wider: bool) -> bool:
    return found == wanted or (may_be_wider and _BITS[found] > _BITS[wanted])


def _nodes(layer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(ONNX node, " in profile 2" or "") of all that was fused into a layer."""
    name = str(layer.get("Name", ""))
    match = _PROFILE.search(name)
    profile = f" in profile {match[1]}" if match else ""
    nodes = _NODE.findall(str(layer.get("Metadata", ""))) or _PROFILE.sub("", name).split(" + ")
    for node in dict.fromkeys(nodes):
        yield node, profile


def _is_convolution(layer: Mapping[str, Any]) -> bool:
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    return "conv" in kind.lower() or isinstance(layer.get("Weights"), dict)


def _built_type(layer: Mapping[str, Any]) -> Precision | None:
    """The type of the weights, else the narrowest of the inputs: what is added may be wider."""
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (found := _type_of_text(weights.get("Type"))):
        return found
    inputs = [item for item in layer.get("Inputs", []) if isinstance(item, dict)]
    found_types = [_type_of_text(item.get("Format/Datatype")) for item in inputs]
    known = [found for found in found_types if found is not None]
    return min(known, key=lambda found: _BITS[found], default=None)


def _type_of_text(text: object) -> Precision | None:
    lower = str(text).lower()
    return next((kind for kind, words in _TEXTS.items() if words.search(lower)), None)


def _tactic(layer: Mapping[str, Any]) -> str:
    return str(layer.get("TacticName") or layer.get("LayerType") or "no tactic named")
