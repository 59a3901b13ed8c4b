"""`adapt`: any callable becomes one batch call.

Owns reading a user's class or function: its form, settings, hooks and timers, and the errors for objects that
can't be a processor. The loops themselves are in `forms` and `async_forms`; where the loops run (a worker
thread or the event loop) is for `pratipad_nb.calls`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from pratipad_nb.calls import TimeLimit
from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors.async_forms import AsyncBatch, AsyncGenerator, AsyncPlain
from pratipad_nb.processors.base import Processor, period_of
from pratipad_nb.processors.copying import copy_payload
from pratipad_nb.processors.forms import Batch, Generator, MessageOf, Plain
from pratipad_nb.processors.keeping import kept_async_batch, kept_async_yields, kept_batch, kept_yields
from pratipad_nb.processors.outcome import Outcome
from pratipad_nb.processors.typed import annotation_of, typed
from pratipad_nb.wording import in_words

__all__ = ["Adapted", "Run", "Timer", "adapt", "check", "makes_instances", "works_on_loop"]

#: One batch call: payloads, a function that returns a row's message, and the deadline by `time.perf_counter`.
#: At least one row is always finished; after the deadline no further row is begun.
Run = Callable[[Sequence[Any], MessageOf, float], Outcome | Awaitable[Outcome]]

_FORMS = {
    ("plain", False): Plain,
    ("generator", False): Generator,
    ("batch", False): Batch,
    ("plain", True): AsyncPlain,
    ("generator", True): AsyncGenerator,
    ("batch", True): AsyncBatch,
}
#: Wrappers by which a callable of that kind keeps its results one by one; a plain form keeps its only result.
_KEPT = {
    ("generator", False): kept_yields,
    ("batch", False): kept_batch,
    ("generator", True): kept_async_yields,
    ("batch", True): kept_async_batch,
}


class Timer(NamedTuple):
    """A method marked by `every`: its period in seconds, its name, the bound method (any ``def``)."""

    seconds: float
    name: str
    method: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A processor instance as the runtime sees it.

    Attributes
    ----------
    name
        The class's or function's name.
    instance
        The instance itself, or the function.
    on_loop
        Whether `run` is a coroutine function, for the event loop, where all other methods belong too; else
        `run` is to be called on the worker thread.
    run
        The batch call of `process` or `process_batch`; see `Run`.
    run_backward
        The batch call of `backward`, or ``None`` where orders pass unchanged. An order that `backward` fails
        on is a failure in its outcome.
    backward_on_loop
        Whether `run_backward` is a coroutine function.
    retries, concurrency, partition_by, batch_size, batch_timeout, timeout
        As in `Processor`, checked.
    limit
        Limits the calls of `process`, `backward` and the timers, which are wrapped for this limit; None
        without a `timeout`.
    timers
        The methods marked by `every`.
    setup, teardown, snapshot, restore
        The hooks as bound methods (either kind of ``def``; call them by the worker's `call`, which takes
        both), or ``None`` where the processor has none of its own.
    """

    name: str
    instance: Any
    on_loop: bool
    run: Run
    run_backward: Run | None
    backward_on_loop: bool
    retries: int
    concurrency: int
    partition_by: str
    batch_size: int
    batch_timeout: float
    timeout: float | None
    limit: TimeLimit | None
    timers: tuple[Timer, ...]
    setup: Callable[[], Any] | None
    teardown: Callable[[], Any] | None
    snapshot: Callable[[], Any] | None
    restore: Callable[[Any], Any] | None

    @property
    def has_backward(self) -> bool:
        """Whether this processor may change orders."""
        return self.run_backward is not None

    @property
    def has_snapshot(self) -> bool:
        """Whether this processor has state to carry over."""
        return self.snapshot is not None


def check(target: object, arguments: Mapping[str, Any] | None = None) -> None:
    """Raise the error that `adapt` would raise, as far as it can be told without making an instance.

    Raises
    ------
    ProcessorError
        If `target` can't be called, or doesn't take `arguments`.
    """
    name = _name(target)
    if inspect.isclass(target):
        # Not `callable(target.__call__)`: every class has one, its metaclass's.
        methods = (inspect.getattr_static(target, method, None) for method in ("process", "process_batch"))
        if not any(methods) and not inspect.isfunction(inspect.getattr_static(target, "__call__", None)):
            raise ProcessorError(
                f"class {name} can't be a processor: it has neither `process` nor `process_batch`. "
                "Add `def process(self, payload): return payload`."
            )
    elif not callable(target) and not hasattr(target, "process") and not hasattr(target, "process_batch"):
        raise ProcessorError(
            f"{target!r:.80} can't be a processor: it is a {type(target).__name__}. "
            "A processor is a class with `process`, or a function that takes a payload."
        )
    if inspect.isclass(target) or inspect.isroutine(target):
        _check_arguments(target, name, arguments or {})
    elif arguments:
        raise ProcessorError(
            f"{name} is an instance already, so it can't take {_listed(arguments)}. Name its class "
            f"{type(target).__name__} in the notation to give it arguments."
        )


def makes_instances(target: object) -> bool:
    """Return whether `target` gives another instance each time; a function does, for it has no state."""
    return inspect.isclass(target) or inspect.isroutine(target) or isinstance(target, partial)


def works_on_loop(target: Any) -> bool:
    """Return whether instances of `target` are to be made on the event loop: `process` is an ``async def``.

    The answer can be wrong where ``__init__`` sets `process` on the instance; `Adapted.on_loop` is right
    then.
    """
    call, _ = _process(target)
    return _is_async(call)


def adapt(
    target: Any, arguments: Mapping[str, Any] | None = None, *, discard: bool = False, owner: str = ""
) -> Adapted:
    """Make an instance of a processor and give it as one batch call.

    Parameters
    ----------
    target
        A class with `process` or `process_batch` (or ``__call__``), an instance of one, or a function of any
        kind.
    arguments
        Keyword arguments for the class, or for every call of the function.
    discard
        Whether the processor is a member of braces: its results are dropped, and ``None`` is allowed.
    owner
        The processor in words, for the error of a call that takes too long. Default: the processor by its
        name.

    Raises
    ------
    ProcessorError
        If `target` can't be a processor, an argument or a setting has a value that isn't allowed, or making
        the instance raised an exception (the cause of the error).
    """
    check(target, arguments)
    name = _name(target)
    instance = _instance(target, name, arguments or {})
    settings = _Settings.of(instance, name)
    if settings.concurrency > 1 and instance is target and not inspect.isroutine(target):
        raise ProcessorError(
            f"{name} is one instance and has concurrency = {settings.concurrency}, which needs as many "
            "instances. Name the class, not an instance, in the notation."
        )
    call, is_batch = _process(instance)
    limit = None if settings.timeout is None else TimeLimit(settings.timeout, owner or f"processor {name}")
    run, on_loop = _batch_call(call, name, settings, limit, is_batch=is_batch, discard=discard)
    backward = _own(instance, "backward")
    run_backward, backward_on_loop = (
        _batch_call(backward, f"{name}.backward", settings, limit, is_batch=False, discard=False)
        if backward
        else (None, False)
    )
    return Adapted(
        name=name,
        instance=instance,
        on_loop=on_loop,
        run=run,
        run_backward=run_backward,
        backward_on_loop=backward_on_loop,
        retries=settings.retries,
        concurrency=settings.concurrency,
        partition_by=settings.partition_by,
        batch_size=settings.batch_size,
        batch_timeout=settings.batch_timeout,
        timeout=settings.timeout,
        limit=limit,
        timers=_timers(instance, limit),
        setup=_own(instance, "setup"),
        teardown=_own(instance, "teardown"),
        snapshot=_own(instance, "snapshot"),
        restore=_own(instance, "restore"),
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    retries: int
    concurrency: int
    partition_by: str
    batch_size: int
    batch_timeout: float
    timeout: float | None

    @classmethod
    def of(cls, instance: object, name: str) -> _Settings:
        def number(attribute: str, least: int, kinds: tuple[type[float], ...]) -> Any:
            value: Any = getattr(instance, attribute, getattr(Processor, attribute))
            if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
                what = "a whole number" if kinds == (int,) else "a number"
                raise ProcessorError(
                    f"{name}.{attribute} is {value!r}; it must be {what} of at least {least}."
                )
            return value

        partition_by = getattr(instance, "partition_by", Processor.partition_by)
        if not isinstance(partition_by, str) or not partition_by:
            raise ProcessorError(
                f"{name}.partition_by is {partition_by!r}; it must be 'device' or the name of a key of the "
                "payload."
            )
        return cls(
            number("retries", 0, (int,)),
            number("concurrency", 1, (int,)),
            partition_by,
            number("batch_size", 1, (int,)),
            float(number("batch_timeout", 0, (int, float))),
            _timeout(getattr(instance, "timeout", Processor.timeout), name),
        )


def _timeout(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ProcessorError(
            f"{name}.timeout is {value!r}; it must be a number of seconds greater than 0 that a call may "
            "take, or None for as long as it takes."
        )
    return float(value)


def _name(target: object) -> str:
    if isinstance(target, partial):
        return _name(target.func)
    name = getattr(target, "__name__", None)
    return name if isinstance(name, str) else type(target).__name__


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())


def _check_arguments(target: Any, name: str, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):  # a built-in without a signature: the call itself will raise
        return
    given: tuple[Any, ...] = () if inspect.isclass(target) else (None,)  # a function gets the payload too
    try:
        signature.bind_partial(*given, **arguments) if given else signature.bind(**arguments)
    except TypeError as error:
        takes = f"It is defined as {name}{signature}."
        raise ProcessorError(f"{name}({_listed(arguments)}): {error}. {takes}") from None


def _instance(target: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    if inspect.isclass(target):
        try:
            return target(**arguments)
        except ProcessorError:
            raise
        except Exception as error:
            raise ProcessorError(f"{name}({_listed(arguments)}) can't be made: {in_words(error)}") from error
    return partial(target, **arguments) if arguments else target


def _process(instance: Any) -> tuple[Callable[..., Any], bool]:
    """Return the callable that takes payloads, and whether it takes many at once.

    Of a class the function is returned that its instances bind.
    """
    for method, is_batch in (("process_batch", True), ("process", False)):
        found = getattr(instance, method, None)
        if callable(found):
            return found, is_batch
    if inspect.isroutine(instance) or isinstance(instance, partial):
        return instance, False
    return instance.__call__, False


def _is_async(call: object) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _own(instance: object, hook: str) -> Callable[..., Any] | None:
    """Return the hook as a bound method; None if it is missing, or `Processor`'s, which does nothing."""
    found = getattr(instance, hook, None)
    if not callable(found) or getattr(found, "__func__", None) is getattr(Processor, hook):
        return None
    return found  # type: ignore[no-any-return]


def _timers(instance: object, limit: TimeLimit | None) -> tuple[Timer, ...]:
    timers = []
    for name in dir(type(instance)):
        seconds = period_of(inspect.getattr_static(instance, name, None))
        if seconds is not None:
            method = getattr(instance, name)
            timers.append(Timer(seconds, name, method if limit is None else limit.timed(method)))
    return tuple(timers)


def _batch_call(
    call: Callable[..., Any],
    name: str,
    settings: _Settings,
    limit: TimeLimit | None,
    *,
    is_batch: bool,
    discard: bool,
) -> tuple[Run, bool]:
    payload, with_message, by_keyword = _parameters(call, name, is_batch=is_batch)
    yields = inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)
    on_loop = _is_async(call)
    kind = "batch" if is_batch else "generator" if yields else "plain"
    annotation = annotation_of(call, payload, is_batch=is_batch) if payload else None
    if by_keyword:
        call = _with_keyword(call, by_keyword)
    if annotation is not None:
        call = typed(call, annotation, kind, name=name, on_loop=on_loop)
    if kind != "plain":
        call = _KEPT[kind, on_loop](call, discard=discard)
    if kind != "batch" and (settings.retries or discard):  # a batch is given copies in any case
        call = _on_a_copy(call, with_message=with_message)
    if limit is not None:
        call = limit.timed_coroutine(call) if on_loop else limit.timed_plain(call)
    form = _FORMS[kind, on_loop](
        call,
        name=name,
        retries=settings.retries,
        discard=discard,
        with_message=with_message,
        batch_size=settings.batch_size,
        limit=limit,
    )
    return form.run, on_loop


def _parameters(call: Callable[..., Any], name: str, *, is_batch: bool) -> tuple[str, bool, str]:
    """Return the payload parameter's name, whether the callable takes the message, and that parameter's name.

    The message parameter's name is empty unless the message has to be passed by keyword.
    """
    wanted = "messages" if is_batch else "message"
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (ValueError, TypeError):  # a built-in without a signature takes the payload
        return "", False, ""
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ProcessorError(
            f"{name} takes no payload. Define it as `def {_method(is_batch)}(self, {_payload(is_batch)})`, "
            f"or with a second parameter named `{wanted}`."
        )
    payload = positional[0].name if positional else ""
    for position, parameter in enumerate(parameters):
        if position == 0:
            continue
        if parameter.name == wanted:
            second = position == 1 and parameter.kind is not parameter.KEYWORD_ONLY
            return payload, True, "" if second else wanted
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise ProcessorError(
                f"{name} has a parameter `{parameter.name}`, for which there is no value: it gets the "
                f"payload and, in a second parameter named `{wanted}`, its metadata. Rename it, or give it a "
                "default."
            )
    return payload, False, ""


def _method(is_batch: bool) -> str:
    return "process_batch" if is_batch else "process"


def _payload(is_batch: bool) -> str:
    return "payloads" if is_batch else "payload"


def _with_keyword(call: Callable[..., Any], keyword: str) -> Callable[..., Any]:
    return lambda payload, message: call(payload, **{keyword: message})


def _on_a_copy(call: Callable[..., Any], *, with_message: bool) -> Callable[..., Any]:
    # With retries, each attempt starts from the payload as it came in, even if the attempt before has changed
    # its copy. Changes in place by a member of braces are seen by no other member. The copy is made in the
    # call, which is guarded: a payload that can't be copied is its message's failure.
    if not with_message:
        return lambda payload: call(copy_payload(payload))

    def called(payload: Any, message: Any) -> Any:
        payload = copy_payload(payload)
        return call(payload, replace(message, payload=payload))

    return called
