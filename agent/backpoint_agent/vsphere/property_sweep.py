"""Properties of many managed objects in few exchanges: the PropertyCollector, page by page.

Decides how many objects are asked for at once, and that no managed object is ever asked for its
properties one by one. Refuses to know what the properties mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyVmomi import vim, vmodl

from backpoint_agent.errors import VSphereError

PAGE: Final = 100
"""Objects in one answer: with ten disks a VM that is 2 MB of XML."""
_Collector: Any = vmodl.query.PropertyCollector

Wanted = Mapping[str, Sequence[str]]
"""By VMware's name of a type ("VirtualMachine"): the properties to read."""


@dataclass(frozen=True)
class Swept:
    """One object. properties: those that are set. refused: privilege or fault by property."""

    kind: str
    moref: str
    properties: dict[str, Any]
    refused: dict[str, str]


def sweep_below(content: Any, wanted: Wanted, page: int = PAGE) -> Iterator[Swept]:
    """All objects of these types in the inventory. To be run as one exchange: the pages are one
    session's. Raises pyvmomi's faults."""
    kinds = [getattr(vim, kind) for kind in wanted]
    view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
    walk = _Collector.TraversalSpec(
        name="all", type=vim.view.ContainerView, path="view", skip=False
    )
    start = _Collector.ObjectSpec(obj=view, skip=True, selectSet=[walk])
    yield from _pages(content, [start], wanted, page)
    # Where the sweep failed, the view is left to die with its session.
    with contextlib.suppress(vmodl.MethodFault, VSphereError):
        view.DestroyView()


def sweep_from(
    content: Any, starts: Sequence[tuple[Any, Sequence[Any]]], wanted: Wanted, page: int = PAGE
) -> Iterator[Swept]:
    """These objects, and all that the TraversalSpecs beside each lead to. Raises pyvmomi's
    faults."""
    specs = [
        _Collector.ObjectSpec(obj=first, skip=False, selectSet=list(steps))
        for first, steps in starts
    ]
    yield from _pages(content, specs, wanted, page)


def reference_of(value: Any) -> str:
    """The moref of what a property refers to, "" where it is unset; asks nobody."""
    return "" if value is None else str(value._GetMoId())


def _pages(content: Any, starts: list[Any], wanted: Wanted, page: int) -> Iterator[Swept]:
    properties = [
        _Collector.PropertySpec(type=getattr(vim, kind), all=False, pathSet=list(paths))
        for kind, paths in wanted.items()
    ]
    collector = content.propertyCollector
    asked = _Collector.FilterSpec(objectSet=starts, propSet=properties)
    options = _Collector.RetrieveOptions(maxObjects=page)
    answer = collector.RetrievePropertiesEx([asked], options)
    while answer is not None:
        yield from map(_swept, answer.objects)
        if not answer.token:
            return
        answer = collector.ContinueRetrievePropertiesEx(answer.token)


def _swept(found: Any) -> Swept:
    return Swept(
        type(found.obj)._wsdlName,
        str(found.obj._GetMoId()),
        {item.name: item.val for item in found.propSet},
        {item.path: _refusal(item.fault) for item in found.missingSet},
    )


def _refusal(fault: Any) -> str:
    kind = type(fault).__name__.rpartition(".")[2]
    privilege = getattr(fault, "privilegeId", None)
    return f"{kind} {privilege}" if privilege else kind
